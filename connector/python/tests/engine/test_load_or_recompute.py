"""How much of a match is loaded, with vLLM's scheduler deciding what runs when.

The time that the engine takes is the test's: a step moves the scheduler half's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine, expected_output
from stub_daemon import StubDaemon

from larder.v1 import engine_pb2, part_pb2

CHUNK = 64
# Seconds of a step, of each of its tokens, and for each token before those.
FIXED, EACH, PAIR = 0.002, 1e-4, 1e-6
PROMPT = 1000
CHUNKS = PROMPT // CHUNK
MakeTimed = Callable[..., "Timed"]


class Timed:
    """An engine whose steps take as long as said, and know it after some prompts."""

    def __init__(self, engine: SimulatedEngine, prompt: MakePrompt) -> None:
        self.engine = engine
        self.half = engine.connector.scheduler_half
        self.now = time.monotonic()
        self.half._clock = lambda: self.now
        compute = engine._compute

        def timed(output: Any) -> list[list[int]]:
            self.now += FIXED
            before = {n.req_id: n.num_computed_tokens for n in output.scheduled_new_reqs}
            cached = output.scheduled_cached_reqs
            before |= dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
            for request_id, count in output.num_scheduled_tokens.items():
                self.now += count * (EACH + PAIR * (before[request_id] + count / 2))
            return compute(output)

        engine._compute = timed  # type: ignore[method-assign]
        for i in range(4):
            engine.generate(f"warm{i}", prompt(1000, seed=100 + i))

    def answer(self, name: str, tokens: Sequence[int]) -> int:
        """Answers a prompt as an engine that computed nothing yet; returns the tokens loaded."""
        self.engine.drop_own_cache()
        assert self.engine.generate(name, tokens) == expected_output(tokens, 4)
        return self.engine.external[name]


def seconds(begin: int, end: int) -> float:
    """What computing tokens [begin, end) takes, but for the fixed part of steps."""
    return (end - begin) * EACH + PAIR * (end**2 - begin**2) / 2


def run(tier: part_pb2.Tier, chunks: int, cost_s: float = 0.0, wait_s: float = 0.0) -> engine_pb2.TierRun:
    return engine_pb2.TierRun(tier=tier, chunks=chunks, cost_ns=round(cost_s * 1e9), wait_ns=round(wait_s * 1e9))


@pytest.fixture
def timed(engine: MakeEngine, prompt: MakePrompt) -> MakeTimed:
    """Makes an engine with the choice on."""

    def make(**extra: Any) -> Timed:
        return Timed(engine(extra={"load_or_recompute": True} | extra, blocks=128), prompt)

    return make


def test_nothing_is_loaded_from_a_slow_device(timed: MakeTimed, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = timed()
    tokens = prompt(PROMPT)
    assert e.answer("stored", tokens) == 0
    commits = len(daemon.commits)
    daemon.tiers = lambda keys: [run(part_pb2.TIER_NVME, len(keys), 0.1, 0.1)]
    assert e.answer("again", tokens) == 0
    assert daemon.loaded == []
    # The daemon heard why, its hold is over, and what it has is not stored again.
    [(_, first, key, load_s, compute_s)] = daemon.skips
    assert (first, key) == (0, daemon.commits[-CHUNKS][0])
    assert load_s == pytest.approx(0.1 + CHUNKS * 0.1, rel=0.1)
    assert compute_s == pytest.approx(seconds(0, CHUNKS * CHUNK), rel=0.3)
    assert daemon.holds == {}
    assert len(daemon.commits) == commits
    assert (e.half.stats.skips, e.half.stats.chunks_skipped) == (1, {"nvme": CHUNKS})


def test_a_whole_prompt_is_loaded_though_its_first_chunk_is_cheaper_to_compute(
    timed: MakeTimed, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = timed()
    tokens = prompt(PROMPT)
    e.answer("stored", tokens)
    cost_s = 0.020
    assert seconds(0, CHUNK) + FIXED < cost_s / 1.5
    assert seconds(0, CHUNKS * CHUNK) > 1.2 * CHUNKS * cost_s
    daemon.tiers = lambda keys: [run(part_pb2.TIER_NVME, len(keys), cost_s)]
    assert e.answer("again", tokens) == CHUNKS * CHUNK
    assert daemon.skips == []
    # Its first chunk alone is computed.
    assert e.answer("short", tokens[: CHUNK + 8]) == 0
    assert len(daemon.skips) == 1


def test_a_prompt_half_in_the_host_ends_in_the_middle(timed: MakeTimed, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = timed()
    tokens = prompt(PROMPT)
    e.answer("stored", tokens)
    commits = len(daemon.commits)
    half = CHUNKS // 2
    daemon.tiers = lambda keys: [
        run(part_pb2.TIER_HOST, half),
        run(part_pb2.TIER_NVME, len(keys) - half, 0.1, 0.1),
    ]
    stored = [key for key, *_ in daemon.commits[-CHUNKS:]]
    e.engine.drop_own_cache()
    e.engine.add("again", tokens)
    daemon.stuck = True
    e.engine.step()
    # Held is what is loaded, and nothing else is asked for.
    assert [hold.keys for hold in daemon.holds.values()] == [stored[:half]]
    daemon.stuck = False
    e.engine.run()
    assert e.engine.outputs["again"] == expected_output(tokens, 4)
    assert e.engine.external["again"] == half * CHUNK
    assert {key for key, _ in daemon.loaded} == set(stored[:half])
    [(_, first, key, _, _)] = daemon.skips
    assert (first, key) == (half, stored[half])
    assert len(daemon.commits) == commits
    assert e.half.stats.chunks_skipped == {"nvme": CHUNKS - half}


def test_the_daemon_is_told_once(timed: MakeTimed, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = timed()
    tokens = prompt(PROMPT)
    e.answer("stored", tokens)
    e.engine.drop_own_cache()
    daemon.tiers = lambda keys: [run(part_pb2.TIER_NVME, len(keys), 1.0)]
    request = e.engine.add("again", tokens)
    for _ in range(5):
        assert e.engine.connector.get_num_new_matched_tokens(request, 0) == (0, False)
    assert daemon.skips == []
    e.engine.run()
    assert len(daemon.skips) == 1


def test_the_option_turns_it_off(timed: MakeTimed, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = timed(load_or_recompute=False)
    tokens = prompt(PROMPT)
    e.answer("stored", tokens)
    daemon.tiers = lambda keys: [run(part_pb2.TIER_NVME, len(keys), 10.0, 100.0)]
    assert e.answer("again", tokens) == CHUNKS * CHUNK
    assert daemon.skips == []


def test_before_anything_was_measured_what_comes_in_time_is_loaded(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    tokens = prompt(PROMPT)
    engine(blocks=128).generate("stored", tokens)
    daemon.tiers = lambda keys: [run(part_pb2.TIER_NVME, len(keys), 9.0, 10.0)]
    e = engine(blocks=128, extra={"load_or_recompute": True})
    assert e.generate("first", tokens) == expected_output(tokens, 4)
    # Five chunks fit into the minute that loads have in these tests.
    assert e.external["first"] == 5 * CHUNK
    assert daemon.skips[0][4] == 0
