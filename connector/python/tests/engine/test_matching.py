"""Contract, lines 1 and 2: what the scheduler is told, and how long it waits for it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine, expected_output
from step_engine import AheadEngine
from stub_daemon import StubDaemon
from vllm.v1.request import RequestStatus

from larder.vllm.matching import Match
from larder.vllm.scheduler import _KNOWN_S

# A power of two, and clocks begin at whole seconds: no sum is rounded.
STEP_S = 1 / 32


class Clock:
    """Time that moves when a test says so, from the present second on."""

    def __init__(self) -> None:
        self.now = float(int(time.monotonic()))

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def warm(engine: MakeEngine, prompt: MakePrompt) -> list[int]:
    """A prompt of 300 tokens, 256 of which are stored."""
    first = engine()
    first.generate("stored", prompt(300))
    return prompt(300)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every wait for an answer, in seconds, without waiting."""
    seen = []
    monkeypatch.setattr(Match, "wait", lambda _, seconds: seen.append(seconds))
    return seen


def ask(engine: SimulatedEngine, request: Any, local: int = 0) -> tuple[int | None, bool]:
    claim: tuple[int | None, bool] = engine.connector.get_num_new_matched_tokens(request, local)
    return claim


def test_the_match_begins_with_the_request(engine: MakeEngine, daemon: StubDaemon, warm: list[int]) -> None:
    e = engine()
    before = len(daemon.matches)
    e.add("r", warm)
    assert len(daemon.matches) == before + 1


def test_an_answer_in_time_is_claimed_for_an_asynchronous_load(engine: MakeEngine, warm: list[int]) -> None:
    e = engine()
    request = e.add("r", warm)
    assert ask(e, request) == (256, True)


def test_asking_again_changes_nothing(engine: MakeEngine, daemon: StubDaemon, warm: list[int]) -> None:
    e = engine()
    request = e.add("r", warm)
    holds, matches = dict(daemon.holds), len(daemon.matches)
    assert {ask(e, request) for _ in range(5)} == {(256, True)}
    assert daemon.holds == holds
    assert len(daemon.matches) == matches
    e.run()
    assert e.external["r"] == 256
    assert e.outputs["r"] == expected_output(warm, 4)


def test_none_until_the_deadline_then_zero(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int], waits: list[float]
) -> None:
    e = engine()
    clock = e.connector.scheduler_half._clock = Clock()
    daemon.silent = True
    request = e.add("r", warm)
    assert ask(e, request) == (None, False)
    clock.now += 0.099
    assert ask(e, request) == (None, False)
    clock.now += 0.002
    assert ask(e, request) == (0, False)
    # One wait for the request, the first time, and no longer than allowed.
    assert waits == [300e-6]
    # An answer that comes all the same is used.
    daemon.answer()
    assert ask(e, request) == (256, True)


def test_a_step_waits_a_millisecond_for_all_requests(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = []

    def wait(_: Any, seconds: float) -> None:
        # Takes all the time it may.
        spent.append(seconds)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    monkeypatch.setattr(Match, "wait", wait)
    daemon.silent = True
    e = engine()
    for i in range(8):
        e.add(f"r{i}", prompt(100, seed=i))
    e.step()
    assert 0 < sum(spent) <= 0.0012
    assert all(seconds <= 300e-6 for seconds in spent)
    first = len(spent)
    e.step()
    # The rest of the requests wait in the next step, the first ones not again.
    assert len(spent) - first <= 8 - first + 1


def test_others_run_while_one_waits(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, warm: list[int]
) -> None:
    e = engine()
    e.connector.scheduler_half._clock = Clock()
    daemon.silent = True
    e.add("slow", warm)
    daemon.silent = False
    assert e.generate_beside("quick", prompt(100, seed=9)) == expected_output(prompt(100, seed=9), 4)
    assert not e.outputs["slow"]
    daemon.answer()
    e.run()
    assert e.external["slow"] == 256


def steps_of(e: SimulatedEngine, clock: Clock, requests: Any, until: float) -> list[dict[str, int]]:
    """Runs requests beside what waits; how many tokens of which of them each step computes."""
    for name, tokens, count in requests:
        e.add(name, tokens, max_tokens=count)
    scheduled = []
    while clock.now < until:
        scheduled.append(e.step().scheduled)
        clock.now += STEP_S
    return scheduled


@pytest.mark.parametrize("patient", [True, False])
def test_a_daemon_that_answers_after_five_seconds(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, warm: list[int], waits: list[float], patient: bool
) -> None:
    """Nobody else's step is another, or later; who asked waits, or after the deadline computes."""
    others = [(f"r{i}", prompt(90 * (i + 1), seed=20 + i), 4 + 5 * i) for i in range(7)]
    runs, stored = [], dict(daemon.chunks)
    for slow in (False, True):
        # The others store, and have nothing to load: how many steps a load takes is up to its thread.
        daemon.chunks = dict(stored)
        e = engine(extra={"match_deadline_ms": 10_000} if patient else {})
        clock = e.connector.scheduler_half._clock = Clock()
        until = clock.now + 5
        if slow:
            daemon.silent = True
            e.add("slow", warm)
            daemon.silent = False
        runs.append(steps_of(e, clock, others, until))
        for name, tokens, count in others:
            assert e.outputs[name] == expected_output(tokens, count)
        if slow:
            # Once, in its first step, and no longer than allowed.
            assert waits == [300e-6]
            assert bool(e.outputs["slow"]) != patient
    daemon.answer()
    e.run()
    assert e.external["slow"] == (256 if patient else 0)
    assert e.outputs["slow"] == expected_output(warm, 4)
    assert waits == [300e-6]
    assert not daemon.holds
    if patient:
        assert runs[0] == runs[1]


def test_without_a_daemon_nobody_waits(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int], waits: list[float]
) -> None:
    daemon.up = False
    e = engine()
    assert e.generate("r", warm) == expected_output(warm, 4)
    assert not waits
    assert e.connector.stats.waits_for_match == 0


def test_a_daemon_that_comes_later_is_used(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    daemon.up = False
    e = engine()
    e.generate("before", prompt(300))
    assert not daemon.chunks
    daemon.up = True
    # The engine has the prompt in its own cache; Larder lacks it, and gets it.
    e.generate("after", prompt(300))
    assert len(daemon.chunks) == 4
    other = engine()
    other.generate("r", prompt(300))
    assert other.external["r"] == 256


def test_the_hold_ends_with_the_load(engine: MakeEngine, daemon: StubDaemon, warm: list[int]) -> None:
    e = engine()
    e.generate("r", warm)
    assert e.external["r"] == 256
    assert not daemon.holds


@pytest.mark.parametrize("silent", [False, True])
def test_the_hold_ends_with_an_abort_before_scheduling(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int], silent: bool
) -> None:
    e = engine()
    daemon.silent = silent
    e.add("r", warm)
    e.abort("r")
    daemon.answer()
    assert not daemon.holds
    assert not e.connector.scheduler_half._states


def test_the_hold_ends_where_the_engine_has_it_all(engine: MakeEngine, daemon: StubDaemon, warm: list[int]) -> None:
    e = engine()
    e.generate("first", warm)
    e.generate("second", warm)
    assert e.external["second"] == 0
    assert not daemon.holds


def test_a_prompt_that_the_engine_has_takes_no_hold(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.generate("stored", prompt(300))
    matches, daemon.silent = len(daemon.matches), True
    e.add("again", prompt(300))
    daemon.answer()
    # What it stored, but was never told of, is asked for.
    assert daemon.matches[matches:][0][1] == 4
    assert not daemon.holds
    e.run()
    assert e.outputs["again"] == expected_output(prompt(300), 4)


def test_a_prompt_that_both_are_known_to_have_is_not_asked_for_again_soon(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int]
) -> None:
    e = engine()
    clock = e.connector.scheduler_half._clock = Clock()
    assert e.generate("loaded", warm) == expected_output(warm, 4)
    assert e.external["loaded"] == 256
    matches = len(daemon.matches)
    assert e.generate("again", warm) == expected_output(warm, 4)
    assert len(daemon.matches) == matches
    clock.now += _KNOWN_S + 1
    # Also the answer for a request of one step counts.
    for name in ("later", "soon after"):
        assert e.generate(name, warm, max_tokens=1) == expected_output(warm, 1)
    assert len(daemon.matches) == matches + 1
    # What the daemon lost meanwhile is noticed, and stored again.
    clock.now += _KNOWN_S + 1
    daemon.evict(next(key for key, _, ordinal, _ in daemon.commits if ordinal == 3))
    commits = len(daemon.commits)
    e.generate("and later", warm, max_tokens=2)
    assert [ordinal for *_, ordinal, _ in daemon.commits[commits:]] == [3]


def test_a_prompt_that_the_engine_lost_before_its_turn_is_loaded(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int]
) -> None:
    e = engine()
    e.generate("loaded", warm)
    for name in ("not asked for", "asked for without a hold"):
        if name != "not asked for":
            e.connector.scheduler_half._present.clear()
        e.add(name, warm)
        assert (e.connector.scheduler_half._states[name].match is None) == (name == "not asked for")
        assert not daemon.holds
        e.drop_own_cache()
        e.run()
        assert e.external[name] == 256
        assert e.outputs[name] == expected_output(warm, 4)


def test_a_prompt_that_the_engine_lost_before_the_answer_is_loaded(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    e = engine()
    e.generate("loaded", warm)
    e.connector.scheduler_half._present.clear()
    daemon.silent = True
    monkeypatch.setattr(Match, "wait", lambda *_: daemon.answer())
    e.add("again", warm)
    # Its question is under way, and wants no hold.
    e.drop_own_cache()
    e.run()
    assert e.external["again"] == 256
    assert e.connector.stats.loads_failed == 0
    assert e.outputs["again"] == expected_output(warm, 4)
    assert not daemon.holds


def test_an_answer_that_has_less_makes_an_earlier_one_void(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int], prompt: MakePrompt
) -> None:
    e = engine()
    e.generate("loaded", warm)
    daemon.evict(next(key for key, _, ordinal, _ in daemon.commits if ordinal == 2))
    # Asked for since it is longer than what the engine has.
    e.generate("longer", warm[:256] + prompt(100, seed=1), params={"larder": {"skip_store": True}})
    matches = len(daemon.matches)
    e.generate("again", warm)
    assert len(daemon.matches) == matches + 1


def test_a_waiting_request_keeps_its_hold(engine: MakeEngine, daemon: StubDaemon, warm: list[int]) -> None:
    e = engine(extra={"hold_ms": 400})
    # Somebody else has all the pages.
    pool = e.scheduler.kv_cache_manager.block_pool
    taken = pool.get_new_blocks(pool.get_num_free_blocks())
    request = e.add("r", warm)
    while daemon.renewed < 2:
        e.step()
    assert ask(e, request) == (256, True)
    pool.free_blocks(taken)
    e.run()
    assert e.external["r"] == 256


def test_a_lapsed_hold_is_asked_for_again(engine: MakeEngine, daemon: StubDaemon, warm: list[int]) -> None:
    e = engine()
    request = e.add("r", warm)
    (hold,) = daemon.holds
    e.connector.scheduler_half._states["r"].match.reply.hold_deadline_ns = 1
    matches = len(daemon.matches)
    assert ask(e, request) == (256, True)
    assert len(daemon.matches) == matches + 1
    assert hold not in daemon.holds
    e.run()
    assert e.external["r"] == 256


def test_holds_that_never_last_are_not_asked_for_without_end(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int]
) -> None:
    daemon.hold_ms = 0
    e = engine()
    request = e.add("r", warm)
    for _ in range(100):
        ask(e, request)
    assert len(daemon.matches) < 25
    assert e.generate("again", warm) == expected_output(warm, 4)


def test_another_daemon_is_asked_anew(engine: MakeEngine, daemon: StubDaemon, warm: list[int]) -> None:
    e = engine()
    request = e.add("r", warm)
    assert ask(e, request) == (256, True)
    daemon.restart()
    assert ask(e, request) == (0, False)
    e.run()
    assert e.outputs["r"] == expected_output(warm, 4)
    assert len(daemon.chunks) == 4


@pytest.mark.parametrize("block", [16, 32, 64])
def test_amounts_are_whole_blocks_beyond_the_local_hit(engine: MakeEngine, prompt: MakePrompt, block: int) -> None:
    first = engine(block=block)
    first.generate("stored", prompt(300))
    e = engine(block=block)
    request = e.add("r", prompt(300))
    for local in range(0, 300, block):
        amount, asynchronous = ask(e, request, local)
        assert amount == max(0, 256 - local)
        assert amount % block == 0
        assert asynchronous == (amount > 0)


def test_a_load_may_cover_the_prompt(engine: MakeEngine, prompt: MakePrompt) -> None:
    engine().generate("stored", prompt(257), max_tokens=1)
    e = engine()
    request = e.add("r", prompt(256))
    assert ask(e, request) == (256, True)
    e.run()
    assert e.external["r"] == 256
    assert e.outputs["r"] == expected_output(prompt(256), 4)


def test_short_prompts_are_not_asked_for(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.generate("r", prompt(63), max_tokens=1)
    assert not daemon.matches
    assert not daemon.chunks


def test_requests_beyond_the_early_ones_ask_when_their_turn_comes(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int]
) -> None:
    e = engine(extra={"early_matches": 2})
    before = len(daemon.matches)
    for i in range(5):
        e.add(f"r{i}", warm[: 64 * (i + 1)] if i < 4 else warm)
    assert len(daemon.matches) == before + 2
    e.run()
    assert len(daemon.matches) == before + 5
    for i in range(4):
        assert e.outputs[f"r{i}"] == expected_output(warm[: 64 * (i + 1)], 4)
    assert not daemon.holds


def test_requests_that_must_not_read_the_cache_match_nothing_but_store(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int], prompt: MakePrompt
) -> None:
    e = engine()
    request = e.add("r", warm, skip_reading=True)
    assert ask(e, request) == (0, False)
    e.run()
    assert e.external["r"] == 0
    e.generate("new", prompt(300, seed=7), skip_reading=True)
    assert len(daemon.chunks) == 8
    assert not daemon.holds


def test_states_are_gone_when_all_is_done(
    engine: MakeEngine, daemon: StubDaemon, warm: list[int], prompt: MakePrompt
) -> None:
    e = engine()
    for i in range(6):
        e.add(f"r{i}", warm if i % 2 else prompt(200, seed=i))
    e.step()
    e.abort("r1")
    e.run()
    half = e.connector.scheduler_half
    assert not half._states
    assert not half._holds
    assert not half._inflight
    assert not half._inflight._by_key
    assert not daemon.holds
    assert all(s != RequestStatus.WAITING_FOR_REMOTE_KVS for s in (r.status for r in e.scheduler.requests.values()))


@pytest.mark.parametrize("kind", [SimulatedEngine, AheadEngine])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_what_the_daemon_lost_while_the_engine_was_idle_is_stored_again(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, kind: type[SimulatedEngine], count: int
) -> None:
    e = engine(kind=kind)
    for name in ("first", "second", "third"):
        e.generate(name, prompt(300), count)
        assert len(daemon.chunks) == 4, name
        for key in list(daemon.chunks):
            daemon.evict(key)
