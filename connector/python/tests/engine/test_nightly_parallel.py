"""Further engines of several ranks, by the night: LARDER_NIGHTLY=1. As test_parallel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from parallel_engines import ALONE, CHUNK, NOTHING, TOKENS, chunks_of, layers_and_heads, load, pages, started, store
from real_engine import RealEngine

from harness.daemon import Daemon

MakeEngine = Callable[..., contextlib.AbstractContextManager[RealEngine]]


@pytest.fixture
def work(short_folder: Path, request: pytest.FixtureRequest) -> Path:
    folder: Path = short_folder / request.node.name[:40]
    folder.mkdir()
    return folder


@pytest.fixture
def larderd(binaries: Path, work: Path) -> Iterator[Daemon]:
    # Each rank of each engine is to store what a step fills at once.
    daemon = Daemon(binaries, work, host_bytes="1GiB", flags={"host.granted_percent": "100"})
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def engine(test_model: Path, work: Path, larderd: Daemon) -> MakeEngine:
    """Makes engines: engine(tensor, pipeline, layer_spans)."""

    @contextlib.contextmanager
    def make(tensor: int, pipeline: int, spans: int = 0) -> Iterator[RealEngine]:
        options: dict[str, Any] = {"distributed_executor_backend": "mp"} if tensor * pipeline > 1 else {}
        yield from started(
            test_model, work / f"{tensor}-{pipeline}.log", larderd, extra={"layer_spans": spans},
            tensor_parallel_size=tensor, pipeline_parallel_size=pipeline,
            # Steps of one request overlap in the stages.
            max_num_batched_tokens=512, **options,
        )  # fmt: skip

    return make


def exchange(one: RealEngine, other: RealEngine, larderd: Daemon, ids: list[int], parts: int, model: Path) -> None:
    """Each reads what the other wrote, byte for byte."""
    for writer, reader, prompt in ((one, other, ids[:1500]), (other, one, ids[2000:3300])):
        store(writer, larderd, prompt, parts)
        stored = pages(writer, prompt)
        assert set(stored) == layers_and_heads(model)
        load(reader, larderd, prompt, parts)
        assert pages(reader, prompt, loaded=True) == stored


def answers_from_larder(engine: RealEngine, larderd: Daemon, prompt: list[int], parts: int) -> None:
    """What is loaded answers as the engine's own pages do."""
    store(engine, larderd, prompt, parts)
    own = engine.generate(prompt, TOKENS, larder=ALONE)
    assert own["cached"] == chunks_of(prompt) * CHUNK
    assert engine.ask("reset")
    assert load(engine, larderd, prompt, parts) == own
    assert engine.ask("leftovers") == NOTHING


def test_two_stages_and_one(
    engine: MakeEngine, larderd: Daemon, test_model: Path, words: Callable[[Path], list[int]]
) -> None:
    ids = words(test_model)
    with engine(1, 2) as two, engine(1, 1, 2) as one:
        layers = 1 + max(layer for layer, _ in layers_and_heads(test_model))
        assert [rank["layers"] for rank in two.ask("ranks")] == [layers // 2, layers // 2]
        exchange(two, one, larderd, ids, 4, test_model)
        answers_from_larder(two, larderd, ids[4000:5400], 4)


def test_two_stages_of_two_ranks_and_one(
    engine: MakeEngine, larderd: Daemon, test_model: Path, words: Callable[[Path], list[int]]
) -> None:
    ids = words(test_model)
    with engine(2, 2) as four, engine(1, 1, 2) as one:
        exchange(four, one, larderd, ids, 4, test_model)
        answers_from_larder(four, larderd, ids[4000:5400], 4)


def test_four_ranks_of_two_heads_and_one(
    engine: MakeEngine, larderd: Daemon, test_model: Path, words: Callable[[Path], list[int]]
) -> None:
    ids = words(test_model)
    with engine(4, 1) as four, engine(1, 1) as one:
        # Two ranks have the same head: the lower writes it, both load it.
        store(four, larderd, ids[:1500], 2, writers=[1, 0, 1, 0])
        stored = pages(four, ids[:1500])
        load(one, larderd, ids[:1500], 2)
        assert pages(one, ids[:1500], loaded=True) == stored
        store(one, larderd, ids[2000:3300], 2)
        load(four, larderd, ids[2000:3300], 4)
        # And then it is what one of them wrote, on all.
        assert pages(four, ids[2000:3300], loaded=True) == pages(one, ids[2000:3300])
