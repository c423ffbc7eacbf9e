"""How much of a match is loaded, with vLLM's scheduler deciding what runs when.

The time that the engine takes is the test's: a step moves the scheduler half's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simulated_config import HEADS
from simulated_engine import MakeEngine, MakePrompt, expected_output
from stub_daemon import StubDaemon
from timed_engine import FIXED, Timed, seconds

from larder.v1 import engine_pb2, part_pb2

CHUNK = 64
PROMPT = 1000
CHUNKS = PROMPT // CHUNK
MakeTimed = Callable[..., Timed]


def run(tier: part_pb2.Tier, chunks: int, cost_s: float = 0.0, wait_s: float = 0.0) -> engine_pb2.TierRun:
    return engine_pb2.TierRun(tier=tier, chunks=chunks, cost_ns=round(cost_s * 1e9), wait_ns=round(wait_s * 1e9))


@pytest.fixture
def timed(engine: MakeEngine, prompt: MakePrompt) -> MakeTimed:
    """Makes an engine with the choice on."""

    def make(blocks: int = 128, **extra: Any) -> Timed:
        return Timed(engine(extra={"load_or_recompute": True} | extra, blocks=blocks), prompt)

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


def test_what_another_request_loads_is_waited_for(timed: MakeTimed, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = timed(blocks=1024)
    prompts = [prompt(PROMPT, seed=1), prompt(PROMPT, seed=2)]
    for i, tokens in enumerate(prompts):
        e.answer(f"stored {i}", tokens)
    # Two loads, one after the other, are quicker than one computation; a third is not.
    cost_s = 0.4 * seconds(0, CHUNKS * CHUNK) / CHUNKS
    daemon.tiers = lambda keys: [run(part_pb2.TIER_NVME, len(keys), cost_s)]
    e.engine.drop_own_cache()
    daemon.stuck = True
    for i in range(8):
        e.engine.add(f"again {i}", [*prompts[i % 2], i])
    for _ in range(3):
        assert e.engine.step().scheduled == {}
    daemon.stuck = False
    steps = e.engine.run()
    assert len(daemon.loaded) == len(set(daemon.loaded)) == 2 * CHUNKS * HEADS
    for i in range(8):
        name = f"again {i}"
        assert e.engine.outputs[name] == expected_output([*prompts[i % 2], i], 4)
        # Three of its four new tokens are computed, too.
        assert sum(step.scheduled.get(name, 0) for step in steps) <= PROMPT + 1 - CHUNKS * CHUNK + 3
    assert daemon.skips == []
    assert daemon.holds == {}


def test_a_short_prompt_does_not_wait_for_a_long_load(timed: MakeTimed, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = timed()
    tokens = prompt(PROMPT)
    e.answer("stored", tokens)
    cost_s = 0.8 * seconds(0, CHUNKS * CHUNK) / CHUNKS
    daemon.tiers = lambda keys: [run(part_pb2.TIER_NVME, len(keys), cost_s)]
    e.engine.drop_own_cache()
    daemon.stuck = True
    e.engine.add("long", tokens)
    e.engine.step()
    e.engine.add("short", tokens[: CHUNK + 8])
    assert e.engine.step().scheduled == {"short": CHUNK + 8}
    daemon.stuck = False
    e.engine.run()
    assert e.engine.external == {**e.engine.external, "long": CHUNKS * CHUNK, "short": 0}
    assert e.engine.outputs["short"] == expected_output(tokens[: CHUNK + 8], 4)
    assert e.engine.outputs["long"] == expected_output(tokens, 4)


def test_asking_again_makes_no_copy_cheaper(timed: MakeTimed, prompt: MakePrompt) -> None:
    e = timed()
    tokens = prompt(PROMPT)
    e.answer("stored", tokens)
    for _ in range(4):
        e.half._choosing._costs.copied(CHUNKS, 60.0)
    e.engine.drop_own_cache()
    # As a request is asked for that finds no pages, in each step.
    request = e.engine.add("again", tokens)
    for _ in range(500):
        assert e.engine.connector.get_num_new_matched_tokens(request, 0) == (0, False)


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


def test_what_the_engine_has_meanwhile_is_not_said_to_be_computed(
    timed: MakeTimed, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = timed()
    tokens = prompt(PROMPT)
    e.answer("stored", tokens)
    e.engine.drop_own_cache()
    daemon.tiers = lambda keys: [run(part_pb2.TIER_NVME, len(keys), 1.0)]
    request = e.engine.add("again", tokens)
    connector = e.engine.connector
    assert connector.get_num_new_matched_tokens(request, 0) == (0, False)
    # It got no pages then; another request has computed the prompt since.
    assert connector.get_num_new_matched_tokens(request, CHUNKS * CHUNK) == (0, False)
    connector.update_state_after_alloc(request, None, 0)
    assert daemon.skips == []


def test_a_tier_of_a_newer_daemon_is_one_more(timed: MakeTimed, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = timed()
    tokens = prompt(PROMPT)
    e.answer("stored", tokens)
    daemon.tiers = lambda keys: [engine_pb2.TierRun(tier=77, chunks=len(keys), cost_ns=10**9)]  # type: ignore[arg-type]
    assert e.answer("again", tokens) == 0
    assert e.half.stats.chunks_skipped == {"tier 77": CHUNKS}


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
