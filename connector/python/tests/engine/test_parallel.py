"""Engines of one and of two tensor-parallel ranks share chunks, through a real larderd.

Ranks add up in another order than one rank does, so what two engines compute differs in the
last bits: pages are compared, byte for byte, and outputs only within one engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parallel_engines import (
    ALONE,
    CHUNK,
    NOTHING,
    TOKENS,
    by_rank,
    chunks_of,
    held_by_larderd,
    layers_and_heads,
    load,
    pages,
    started,
    store,
)
from real_engine import EngineError, RealEngine

from harness.daemon import Daemon


@pytest.fixture(scope="module")
def work(short_folder: Path) -> Path:
    folder = short_folder / "parallel"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def larderd(binaries: Path, work: Path) -> Iterator[Daemon]:
    # Each rank of each engine is to store what a step fills at once.
    daemon = Daemon(binaries, work, host_bytes="1GiB", flags={"host.granted_percent": "100"})
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


def test_ranks_share_one_namespace_with_an_engine_of_one(one: RealEngine, two: RealEngine) -> None:
    ranks = two.ask("ranks")
    assert [rank["place"] for rank in ranks] == [[0, 0], [0, 1]]
    assert {rank["namespace"] for rank in ranks} == {one.ask("ranks")[0]["namespace"]}


def test_two_ranks_write_and_one_reads(
    one: RealEngine, two: RealEngine, larderd: Daemon, ids: list[int], test_model: Path
) -> None:
    prompt = ids[:1500]
    store(two, larderd, prompt)
    stored = pages(two, prompt)
    assert set(stored) == layers_and_heads(test_model)
    assert held_by_larderd(one, larderd, prompt) == stored
    load(one, larderd, prompt)
    assert pages(one, prompt, loaded=True) == stored


def test_one_rank_writes_and_two_read(one: RealEngine, two: RealEngine, larderd: Daemon, ids: list[int]) -> None:
    prompt = ids[2000:3300]
    store(one, larderd, prompt)
    stored = pages(one, prompt)
    load(two, larderd, prompt)
    assert pages(two, prompt, loaded=True) == stored


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
    assert pages(two, prompt, loaded=True) == stored
    assert two.ask("leftovers") == NOTHING


def test_larderd_dies_when_one_rank_begins_to_load(
    one: RealEngine, two: RealEngine, larderd: Daemon, ids: list[int]
) -> None:
    prompt = ids[7500:8500]
    cold = store(two, larderd, prompt)
    assert two.ask("reset")
    failed = by_rank(two, "loads_failed")
    two.ask("kill_before", rank=1, call="load", pid=larderd.pid)
    assert two.generate(prompt, TOKENS)["token_ids"] == cold["token_ids"]
    assert larderd.ended(60)
    # The other may have been quicker.
    assert by_rank(two, "loads_failed")[1] == failed[1] + 1
    assert two.ask("leftovers") == NOTHING
    larderd.kill()
    larderd.start()
    for engine in (one, two):
        engine.await_ready()
        assert engine.ask("reset")
    assert store(two, larderd, prompt) == cold
    load(one, larderd, prompt)


def test_a_rank_that_dies_leaves_nothing_half_stored(
    one: RealEngine, two: RealEngine, larderd: Daemon, ids: list[int]
) -> None:
    prompt = ids[6000:7500]
    before = larderd.counters()
    two.ask("kill_before", rank=1, call="commit")
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
