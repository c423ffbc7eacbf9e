"""Pages across tensor- or pipeline-parallel sizes, or versions, on real GPUs: byte for byte.

    make build && python3 bench/gpu/two.py --out FOLDER [--pipeline | --ranks 1 --site FOLDER]

An engine of --ranks GPUs, tensor-parallel or with --pipeline in stages of layers,
and one of a single GPU, with --site of that folder's vLLM, serve the same
checkpoint (models.small, 4 layers, 8 KV heads) over one larderd. One computes a prompt and stores it; the other, whose
pages were overwritten, loads it. Digests of each layer, KV head and block, taken
by plain indexing in either engine, must be equal; then the same the other way
round. What both generate is said, not judged: with bf16 each number of tensor
ranks rounds its sums in another way. That a recompute would have made other pages
is said too (.differ): equal digests can then come from a load only. Stages compute
what one GPU computes, so there only the counts and the overwritten pages say so.
Ends with an error unless all pages were loaded and are equal.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import models
from rig import Engine, await_that, daemon, make_folders, with_larder

CHUNK = 256
Digests = dict[tuple[int, int], list[str]]
"""Of each layer and KV head of the model, by block."""


def digests(engine: Engine, prompt: list[int], tokens: int) -> Digests:
    """Of the whole model, over all ranks."""
    ranks = engine.call("pages", prompt=prompt, tokens=tokens)
    return {(layer, head): blocks for rank in ranks for layer, head, blocks in rank}


def count(digests: Digests) -> int:
    """Pages of all layers and heads."""
    return sum(map(len, digests.values()))


def equal(a: Digests, b: Digests) -> int:
    """How many pages are equal."""
    assert a.keys() == b.keys()
    return sum(x == y for key in a for x, y in zip(a[key], b[key], strict=True))


def stored(engine: Engine, chunks: int) -> None:
    """Waits until every rank stored so many chunks in all."""

    def done() -> bool:
        engine.call("settle", steps=5)
        return all(w["chunks_stored"] >= chunks for w in engine.call("counts")["workers"])

    await_that(f"{chunks} chunks stored by every rank of {engine.name}", done, 20)


def loaded(engine: Engine) -> list[int]:
    """Chunks that each rank has loaded."""
    return [w["chunks_loaded"] for w in engine.call("counts")["workers"]]


def across(writer: Engine, reader: Engine, seed: int, length: int, had: int) -> dict[str, Any]:
    """writer stores, reader loads. had: chunks that writer has stored before."""
    prompt, chunks = [seed, length], length // CHUNK
    tokens = chunks * CHUNK
    await_that(f"{writer.name} is connected", lambda: bool(writer.call("ready")))
    first = writer.call("ask", prompt=prompt, tokens=8)
    stored(writer, had + chunks)
    written = digests(writer, prompt, tokens)

    # The reader's own computation, for comparison, before it may load: of the first
    # chunk less than a whole one, which nobody stores or loads.
    reader.call("reset")
    reader.call("overwrite", value=3.0)
    before = loaded(reader)
    got = reader.call("ask", prompt=prompt, tokens=8)
    each = [b - a for a, b in zip(before, loaded(reader), strict=True)]
    read = digests(reader, prompt, tokens)
    same = equal(written, read)
    return {
        "name": f"across.{writer.name}.{reader.name}",
        "cached": got["cached"],
        "chunks": chunks,
        "loaded_by_rank": each,
        "pages_equal": same,
        "pages": count(written),
        "layers_and_heads": len(written),
        "ttft_ms": round(1000 * got["ttft_s"], 2),
        "tokens_equal": got["token_ids"] == first["token_ids"],
        "ok": same == count(written) and got["cached"] >= tokens and min(each) >= chunks,
    }


def differ(a: Engine, b: Engine, seed: int) -> dict[str, Any]:
    """How many pages differ where both compute a prompt of less than a chunk."""
    prompt = [seed, CHUNK - 1]
    tokens = CHUNK - 16
    for engine in (a, b):
        engine.call("reset")
        engine.call("ask", prompt=prompt)
    x, y = digests(a, prompt, tokens), digests(b, prompt, tokens)
    return {"name": "differ", "pages_that_differ": count(x) - equal(x, y), "pages": count(x)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/larder-two"), help="scratch folder, emptied")  # noqa: S108
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--pipeline", action="store_true", help="ranks are stages of layers")
    parser.add_argument("--site", type=Path, default=None, help="whose vLLM the second engine is")
    parser.add_argument("--length", type=int, default=4000)
    parser.add_argument("--pages", type=int, default=1 << 30)
    args = parser.parse_args()
    make_folders(args.work, args.out)
    began = time.monotonic()
    model = models.small(args.work / "model")
    larderd = daemon(args.work / "larder", "4GiB")
    options = {
        "max_model_len": args.length + 256,
        "max_num_batched_tokens": args.length + 256,
        "max_num_seqs": 8,
        "kv_cache_memory_bytes": args.pages,
        "disable_custom_all_reduce": True,
        # Engines of several stages share with those that cut their parts as they do.
        "kv_transfer_config": with_larder(
            larderd.socket, credit_mib=1024, layer_spans=args.ranks if args.pipeline else 0
        ),
    }
    engines: list[Engine] = []
    rows: list[dict[str, Any]] = []

    def say(row: dict[str, Any]) -> None:
        rows.append(row)
        print(f"{time.monotonic() - began:6.1f} {json.dumps(row)}", flush=True)

    try:
        size = "pipeline_parallel_size" if args.pipeline else "tensor_parallel_size"
        for ranks, site in ((args.ranks, None), (1, args.site)):
            name = f"{'pp' if args.pipeline else 'tp'}{ranks}" + (".site" if site else "")
            engines.append(Engine(name, model, args.out / f"{name}.log", site=site, **(options | {size: ranks})))
        many, one = engines
        for engine in engines:
            say({"name": f"{engine.name}.start", "value": engine.ready().start_s, "unit": "s"})
            say({"name": f"{engine.name}.pages", "form": engine.call("form"), **engine.call("versions")})
        say(across(many, one, 11, args.length, 0))
        say(across(one, many, 12, args.length, 0))
        say(differ(many, one, 13))
    finally:
        for engine in engines:
            engine.kill()
        larderd.stop()
        (args.out / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    if not all(row.get("ok", True) for row in rows):
        raise SystemExit("pages are not equal, or were not loaded")


if __name__ == "__main__":
    main()
