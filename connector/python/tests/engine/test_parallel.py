"""Engines of one and of two tensor-parallel ranks share chunks, through a real larderd.

Ranks add up in another order than one rank does, so what two engines compute differs in the
last bits: pages are compared, byte for byte, and outputs only within one engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from real_engine import EngineError, RealEngine

from harness.daemon import Daemon
from larder.client import Client, Options
from larder.keys import chunk_keys, root_key
from larder.namespace import NamespaceDescriptor

CHUNK, TOKENS = 256, 12
NOTHING = dict.fromkeys(["blocks", "requests", "states", "matches", "loads"], 0)
ALONE = {"skip_load": True, "skip_store": True}
Pages = dict[tuple[int, int], list[str]]


@pytest.fixture(scope="module")
def work(short_folder: Path) -> Path:
    folder = short_folder / "parallel"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def larderd(binaries: Path, work: Path) -> Iterator[Daemon]:
    daemon = Daemon(binaries, work, host_bytes="1GiB")
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def ids(test_model: Path, words: Callable[[Path], list[int]]) -> list[int]:
    return words(test_model)


@pytest.fixture(scope="module")
def one(test_model: Path, work: Path, larderd: Daemon) -> Iterator[RealEngine]:
    """An engine of one rank."""
    yield from started(test_model, work / "one.log", larderd)


@pytest.fixture(scope="module")
def two(test_model: Path, work: Path, larderd: Daemon) -> Iterator[RealEngine]:
    """An engine of two ranks, each of which has one of the model's two KV heads."""
    yield from started(test_model, work / "two.log", larderd, tensor_parallel_size=2, distributed_executor_backend="mp")


def started(model: Path, log: Path, larderd: Daemon, **options: Any) -> Iterator[RealEngine]:
    engine = RealEngine(
        model, log, socket=larderd.socket, script="parallel_process.py", num_gpu_blocks_override=40, **options
    )
    try:
        engine.await_ready()
        yield engine
    finally:
        engine.kill()


def chunks_of(prompt: list[int]) -> int:
    return len(prompt) // CHUNK


def pages(engine: RealEngine, prompt: list[int]) -> Pages:
    """By layer and head of the model, the hashes of the prompt's chunks in an engine's pages."""
    found = engine.ask("model_pages", prompt=prompt, chunks=chunks_of(prompt))
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


def await_gain(engine: RealEngine, name: str, before: list[int], gain: int) -> None:
    """Returns once a counter has grown by so much on every rank, which may hear late of what it did."""
    until = time.monotonic() + 60
    while by_rank(engine, name) != [count + gain for count in before]:
        assert time.monotonic() < until, f"{name}: {by_rank(engine, name)}, {before} before, {gain} more expected"
        time.sleep(0.05)


def store(engine: RealEngine, larderd: Daemon, prompt: list[int]) -> dict[str, Any]:
    """Computes a prompt; every rank stores its heads of every chunk. Returns the answer."""
    before, chunks, size = larderd.counters(), by_rank(engine, "chunks_stored"), by_rank(engine, "bytes_stored")
    answer = engine.generate(prompt, TOKENS)
    assert answer["cached"] == 0
    whole = (len(prompt) + TOKENS - 1) // CHUNK
    after = larderd.await_published(before["published_chunks"] + whole, 60)
    assert after["stored_parts"] - before["stored_parts"] == 2 * whole
    await_gain(engine, "chunks_stored", chunks, whole)
    await_gain(engine, "bytes_stored", size, (after["stored_bytes"] - before["stored_bytes"]) // len(size))
    return answer


def load(engine: RealEngine, larderd: Daemon, prompt: list[int]) -> dict[str, Any]:
    """Has all of a prompt's chunks loaded, by every rank; returns the answer."""
    before, chunks, loads = larderd.counters(), by_rank(engine, "chunks_loaded"), by_rank(engine, "loads")
    answer = engine.generate(prompt, TOKENS)
    whole = chunks_of(prompt)
    assert answer["cached"] == whole * CHUNK
    assert by_rank(engine, "chunks_loaded") == [count + whole for count in chunks]
    assert by_rank(engine, "loads") == [count + 1 for count in loads]
    assert larderd.counters()["loaded_parts"] - before["loaded_parts"] == 2 * whole
    return answer


def test_ranks_share_one_namespace_with_an_engine_of_one(one: RealEngine, two: RealEngine) -> None:
    ranks = two.ask("ranks")
    assert [rank["place"] for rank in ranks] == [[0, 0], [0, 1]]
    assert {rank["namespace"] for rank in ranks} == {one.ask("ranks")[0]["namespace"]}


def test_two_ranks_write_and_one_reads(one: RealEngine, two: RealEngine, larderd: Daemon, ids: list[int]) -> None:
    prompt = ids[:1500]
    store(two, larderd, prompt)
    stored = pages(two, prompt)
    assert len(stored) == 24
    assert held_by_larderd(one, larderd, prompt) == stored
    load(one, larderd, prompt)
    assert pages(one, prompt) == stored


def test_one_rank_writes_and_two_read(one: RealEngine, two: RealEngine, larderd: Daemon, ids: list[int]) -> None:
    prompt = ids[2000:3300]
    store(one, larderd, prompt)
    stored = pages(one, prompt)
    load(two, larderd, prompt)
    assert pages(two, prompt) == stored


def test_two_ranks_answer_from_what_they_stored_as_from_their_own_pages(
    two: RealEngine, larderd: Daemon, ids: list[int]
) -> None:
    prompt = ids[4000:5400]
    store(two, larderd, prompt)
    own = two.generate(prompt, TOKENS, larder=ALONE)
    # Whole blocks of 128, which end where the chunks do.
    assert own["cached"] == chunks_of(prompt) * CHUNK
    stored = pages(two, prompt)
    assert two.ask("reset")
    assert load(two, larderd, prompt) == own
    assert pages(two, prompt) == stored
    assert two.ask("leftovers") == NOTHING


def test_a_rank_that_dies_leaves_nothing_half_stored(
    one: RealEngine, two: RealEngine, larderd: Daemon, ids: list[int]
) -> None:
    prompt = ids[6000:7500]
    before = larderd.counters()
    two.ask("die_at_commit", rank=1)
    with pytest.raises(EngineError):
        two.generate(prompt, 200)
    two.kill()
    # One half of each chunk is there at most, and that is no hit.
    assert larderd.counters()["published_chunks"] == before["published_chunks"]
    answer = one.generate(prompt, TOKENS)
    assert answer["cached"] == 0
    larderd.await_published(before["published_chunks"] + chunks_of(prompt), 60)
    assert one.ask("reset")
    load(one, larderd, prompt)
    assert one.ask("leftovers") == NOTHING
