"""Real engines of several ranks beside a daemon: what they store, load, and have in their pages."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from real_engine import RealEngine

from harness.daemon import Daemon
from larder.client import Client, Options
from larder.keys import chunk_keys, root_key
from larder.namespace import NamespaceDescriptor

CHUNK, TOKENS = 256, 12
NOTHING = dict.fromkeys(["blocks", "requests", "states", "matches", "loads"], 0)
ALONE = {"skip_load": True, "skip_store": True}
Pages = dict[tuple[int, int], list[str]]


def started(model: Path, log: Path, larderd: Daemon, **options: Any) -> Iterator[RealEngine]:
    """An engine, until the generator is closed."""
    engine = RealEngine(
        model, log, socket=larderd.socket, script="parallel_process.py", num_gpu_blocks_override=40, **options
    )
    try:
        engine.await_ready()
        yield engine
    finally:
        engine.kill()


def chunks_of(prompt: list[int]) -> int:
    """Whole chunks of a prompt."""
    return len(prompt) // CHUNK


def layers_and_heads(model: Path) -> set[tuple[int, int]]:
    """All layers and KV heads of a model."""
    config = json.loads((model / "config.json").read_text())
    return {(i, head) for i in range(config["num_hidden_layers"]) for head in range(config["num_key_value_heads"])}


def pages(engine: RealEngine, prompt: list[int], *, loaded: bool = False) -> Pages:
    """By layer and head of the model, the hashes of the prompt's chunks in an engine's pages. loaded: all of them
    were, so that ranks which hold the same heads hold the same bytes."""
    found = engine.ask("model_pages", prompt=prompt, chunks=chunks_of(prompt), loaded=loaded)
    return {(layer, head): hashes for layer, head, hashes in found}


def held_by_larderd(engine: RealEngine, larderd: Daemon, prompt: list[int]) -> Pages:
    """The same of what the daemon has, loaded by the Python client, without an engine."""
    (encoded,) = {rank["namespace"] for rank in engine.ask("ranks")}
    namespace = NamespaceDescriptor.decode(bytes.fromhex(encoded))
    found: Pages = {}
    with contextlib.closing(Client(Options(str(larderd.socket), namespace=namespace))) as client:
        assert client.wait_ready(60)
        assert client.hello is not None
        root = root_key(namespace.fingerprint(), client.hello.tenant_key)
        match = client.match(root, chunk_keys(root, prompt, CHUNK)).result(60)
        assert match.chunks == chunks_of(prompt)
        with client.load(match.hold_id, 0, match.chunks) as load:
            for part in (part for batch in load.batches(60) for part in batch):
                spec = namespace.parts()[part.part]
                assert spec.heads == 1
                for i, layer in enumerate(spec.layers):
                    data = part.view[i * spec.layer_bytes : (i + 1) * spec.layer_bytes].tobytes()
                    found.setdefault((layer, spec.first_head), []).append(hashlib.sha256(data).hexdigest())
            assert load.release()
    return found


def by_rank(engine: RealEngine, name: str) -> list[int]:
    """A counter of each rank."""
    return [rank["stats"][name] for rank in engine.ask("ranks")]


def await_gain(engine: RealEngine, name: str, before: list[int], gains: list[int]) -> None:
    """Returns once each rank's counter has grown by so much: ranks may hear late of what they did."""
    want = [count + gain for count, gain in zip(before, gains, strict=True)]
    until = time.monotonic() + 60
    while (now := by_rank(engine, name)) != want:
        assert time.monotonic() < until, f"{name} by rank: {now}, expected {want}"
        time.sleep(0.05)


def store(
    engine: RealEngine, larderd: Daemon, prompt: list[int], parts: int = 2, writers: list[int] | None = None
) -> dict[str, Any]:
    """Computes a prompt, all of which is stored: chunks of so many parts. writers: 1 for each rank that writes its
    share of every chunk, 0 for each that writes none; None: all write. Returns the answer."""
    before, chunks, size = larderd.counters(), by_rank(engine, "chunks_stored"), by_rank(engine, "bytes_stored")
    answer = engine.generate(prompt, TOKENS)
    assert answer["cached"] == 0
    whole = (len(prompt) + TOKENS - 1) // CHUNK
    after = larderd.await_published(before["published_chunks"] + whole, 60)
    assert after["stored_parts"] - before["stored_parts"] == parts * whole
    writers = writers or [1] * len(size)
    await_gain(engine, "chunks_stored", chunks, [whole * w for w in writers])
    each = (after["stored_bytes"] - before["stored_bytes"]) // sum(writers)
    await_gain(engine, "bytes_stored", size, [each * w for w in writers])
    return answer


def load(engine: RealEngine, larderd: Daemon, prompt: list[int], parts: int = 2) -> dict[str, Any]:
    """Has all of a prompt's chunks loaded, by every rank, so many parts of each together; returns the answer."""
    before, chunks, loads = larderd.counters(), by_rank(engine, "chunks_loaded"), by_rank(engine, "loads")
    answer = engine.generate(prompt, TOKENS)
    whole = chunks_of(prompt)
    assert answer["cached"] == whole * CHUNK
    assert by_rank(engine, "chunks_loaded") == [count + whole for count in chunks]
    assert by_rank(engine, "loads") == [count + 1 for count in loads]
    assert larderd.counters()["loaded_parts"] - before["loaded_parts"] == parts * whole
    return answer
