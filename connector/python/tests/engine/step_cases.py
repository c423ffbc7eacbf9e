"""What tests of loads inside of a step share: engines, ways in which loads fail, and what must hold after all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from simulated_engine import MakeEngine, check_chunk, prefix_hashes
from step_engine import AheadEngine, AheadV2Engine, StepEngine
from stub_daemon import StubDaemon

MakeStep = Callable[..., Any]


PATIENT = {"load_in_step_ms": 120_000}


@pytest.fixture(name="kind", params=[StepEngine, AheadEngine, AheadV2Engine])
def step_kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(name="engines")
def step_engines(engine: MakeEngine, kind: type[StepEngine]) -> MakeStep:
    """Makes engines that know what loads cost; a load may take as long as it wants unless ms says otherwise."""

    def make(ms: float = 120_000, extra: dict[str, Any] | None = None, **more: Any) -> Any:
        made: Any = engine(kind=kind, extra={"load_in_step_ms": ms} | (extra or {}), **more)
        made.know_costs()
        return made

    return make


def stats(e: Any) -> Any:
    return e.connector.scheduler_half.stats


def nothing_left(e: Any, daemon: StubDaemon, prompts: list[list[int]]) -> None:
    """No request, hold, page or load is left, and all that is stored is right."""
    e.step()
    half = e.connector.scheduler_half
    assert not half._states
    assert not half._inflight
    assert not half._in_step.under_way
    assert not daemon.holds
    assert e.free_blocks() == e.cache_config.num_blocks - 1
    loader = e.worker.worker_half._loader
    assert not loader._copies
    # By ordinal, and by what tells one chunk from all others.
    known: dict[int, dict[int, Any]] = {}
    for tokens in prompts:
        hashes = prefix_hashes(tokens)
        for ordinal in range(len(tokens) // 64):
            known.setdefault(ordinal, {})[int(hashes[ordinal * 64 + 63])] = hashes
    ordinals = {key: ordinal for key, _, ordinal, _ in daemon.commits}
    for key, parts in daemon.chunks.items():
        assert any(holds(parts, hashes, ordinals[key]) for hashes in known[ordinals[key]].values()), "a wrong chunk"


def holds(parts: dict[int, bytes], hashes: Any, ordinal: int) -> bool:
    with suppress(AssertionError):
        check_chunk(parts, hashes, ordinal)
        return True
    return False


def before_update(e: Any, happens: Callable[[], Any]) -> None:
    """Something happens once, just before the scheduler hears of a step's end."""
    update = e._update

    def once(*args: Any) -> Any:
        e._update = update
        happens()
        return update(*args)

    e._update = once


def whole(e: Any, tokens: list[int], request_id: str = "r") -> list[int]:
    """A prompt and what followed."""
    return tokens + list(e.outputs[request_id])


def stuck(e: Any, daemon: StubDaemon) -> None:
    daemon.stuck = True


def gone(e: Any, daemon: StubDaemon) -> None:
    daemon.up = False


def lapsed(e: Any, daemon: StubDaemon) -> None:
    daemon.holds.clear()


def damaged(e: Any, daemon: StubDaemon) -> None:
    daemon.corrupt.add(next(key for key, _, ordinal, _ in daemon.commits if ordinal == 2))


def evicted(e: Any, daemon: StubDaemon) -> None:
    daemon.evict(next(key for key, _, ordinal, _ in daemon.commits if ordinal == 0))


def unconfirmed(e: Any, daemon: StubDaemon) -> None:
    daemon.unconfirmed = 1


def no_session(e: Any, daemon: StubDaemon) -> None:
    e.worker.worker_half._loader = None


FAILURES: list[Callable[[Any, StubDaemon], None]] = [stuck, gone, lapsed, damaged, evicted, unconfirmed]
