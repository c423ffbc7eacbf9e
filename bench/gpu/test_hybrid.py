"""Models of full attention and sliding windows in real engines on a GPU.

    make build && python3 -m pytest bench/gpu/test_hybrid.py

Needs a GPU and vLLM, and fails without them: it is no part of CI.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import models
from checks import CHUNK, LENGTH, WHOLE, answers_as, load, pages, store
from rig import Engine, daemon, with_larder

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one block size": (models.GEMMA3, {}),
    # FlashAttention 3 has no heads so wide together with others.
    "two block sizes": (models.GEMMA4, {"hf_overrides": models.GEMMA4_OVERRIDES, "attention_backend": "TRITON_ATTN"}),
}
"""Of models, with an engine's options."""
WINDOWS = [i for i, kind in enumerate(models.GEMMA3["layer_types"]) if kind == "sliding_attention"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Engine]]]:
    """Of each kind of model, one that stores, one that loads, and one without Larder."""
    work = tmp_path_factory.mktemp("windows")
    larderd = daemon(work / "larder", "4GiB")
    made: dict[str, dict[str, Engine]] = {}
    for kind, (config, its) in KINDS.items():
        model = models.shape(work / kind.replace(" ", "-"), config)
        made[kind] = {}
        for name in ("writer", "reader", "plain"):
            larder = with_larder(larderd.socket, credit_mib=512, weights_id="drawn")
            options: dict[str, Any] = {} if name == "plain" else {"kv_transfer_config": larder}
            made[kind][name] = Engine(
                name, model, model / f"{name}.log", load_format="dummy", max_model_len=4096,
                max_num_batched_tokens=4096, max_num_seqs=8, kv_cache_memory_bytes=1 << 30, **its, **options,
            )  # fmt: skip
    yield made
    for some in made.values():
        for engine in some.values():
            engine.kill()
    larderd.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_stored_killed_and_loaded(engines: dict[str, dict[str, Engine]], kind: str) -> None:
    writer, reader, plain = (engines[kind][name].ready() for name in ("writer", "reader", "plain"))
    print(kind, writer.call("form"), writer.call("versions"))
    prompt = [10, LENGTH]
    store(writer, prompt)
    written = pages(writer, prompt)
    writer.kill()

    got = load(reader, prompt)
    read = pages(reader, prompt)
    assert {layer for layer, _ in written} == set(range(len(models.GEMMA3["layer_types"])))
    assert read.keys() == written.keys()
    assert len({len(digests) for digests in written.values()}) == 1 + (kind == "two block sizes")
    compared = 0
    for (layer, head), digests in written.items():
        mine = read[layer, head]
        have = [i for i, (a, b) in enumerate(zip(mine, digests, strict=True)) if a and b]
        assert [mine[i] for i in have] == [digests[i] for i in have], f"layer {layer}, head {head}"
        assert len({mine[i] for i in have}) == len(have)
        block = WHOLE // len(digests)
        # Of a window what attention reads at the end of the last chunk, of the others all.
        least = models.WINDOW - block if layer in WINDOWS else WHOLE
        assert least <= len(have) * block <= WHOLE
        compared += len(have)
    print(f"{kind}: {compared} pages of layer, head and block are equal")
    answers_as(plain, prompt, got)
    # Another beginning, after which the same is asked: what was loaded counts.
    other = plain.call("ask", prompt=prompt, tokens=8, logprobs=1, other_head=CHUNK)
    assert other["scores"] != got["scores"]
