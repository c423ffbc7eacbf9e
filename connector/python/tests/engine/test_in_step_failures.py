"""What a load inside of a step does not bring leaves nothing wrong behind."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from simulated_engine import MakeEngine, MakePrompt, expected_output
from step_cases import (
    FAILURES,
    PATIENT,
    MakeStep,
    before_update,
    damaged,
    no_session,
    nothing_left,
    stats,
    stuck,
    whole,
)
from step_engine import AheadEngine, AheadRanks, AheadV2Engine, StepRanks
from stub_daemon import StubDaemon

from larder.errors import UnavailableError


@pytest.mark.parametrize("budget", [256, 20])
@pytest.mark.parametrize("fails", FAILURES)
def test_however_it_fails_the_answer_is_right(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt, fails: Any, budget: int
) -> None:
    engine().generate("cold", prompt(300))
    e = engines(30 if fails is stuck else 120_000, budget=budget)
    e.meanwhile = partial(fails, e, daemon)
    e.add("r", prompt(300), 40)
    e.step()
    e.step()
    daemon.stuck, daemon.up = False, True
    daemon.corrupt.clear()
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 40)
    s = stats(e)
    assert (s.loads_in_step, s.loads_failed) == (1, 1)
    good = 128 if fails is damaged else 0
    assert s.tokens_loaded == good
    assert e.in_vain == (2 if isinstance(e, AheadEngine) else 1), "nothing was computed on what had not come"
    e.meanwhile = lambda: None
    # What the engine kept of it is right, and it loads again, asynchronously at first.
    e.generate("again", prompt(300))
    assert e.outputs["again"] == expected_output(prompt(300), 4)
    e.drop_own_cache()
    half = e.connector.scheduler_half
    half._resting.clear()
    request = e.add("later", prompt(300))
    assert e.connector.get_num_new_matched_tokens(request, 0) == (256, True)
    e.run()
    assert e.outputs["later"] == expected_output(prompt(300), 4)
    assert e.external["later"] == 256
    nothing_left(e, daemon, [whole(e, prompt(300))])


@pytest.mark.parametrize("next_is_made", [False, True])
def test_an_abort_leaves_no_wrong_page(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt, next_is_made: bool
) -> None:
    engine().generate("cold", prompt(300))
    e = engines(30)
    e.meanwhile = partial(stuck, e, daemon)
    if next_is_made or not isinstance(e, AheadEngine):
        before_update(e, partial(e.abort, "r"))
    e.add("r", prompt(300), 40)
    e.step()
    if not next_is_made:
        e.abort("r")
    e.add("second", prompt(300))
    e.run()
    assert e.outputs["second"] == expected_output(prompt(300), 4)
    assert stats(e).loads_failed == 1
    daemon.stuck = False
    nothing_left(e, daemon, [whole(e, prompt(300), "second")])


@pytest.mark.parametrize("fails", [False, True])
def test_who_arrives_meanwhile_waits_until_all_is_well(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt, fails: bool
) -> None:
    engine().generate("cold", prompt(300))
    e = engines(30 if fails else 120_000)
    tokens = {"same": prompt(300), "longer": prompt(300) + [7] * 60, "shorter": prompt(300)[:90], "other": prompt(99)}
    tokens["other"] = prompt(99, seed=5)

    def meanwhile() -> None:
        daemon.stuck = fails
        for name, some in tokens.items():
            e.add(name, some, 8)

    e.meanwhile = meanwhile
    e.add("r", prompt(300), 8)
    first = e.step()
    assert first.scheduled == {"r": 44}
    e.meanwhile = lambda: None
    if isinstance(e, AheadEngine):
        assert e.step().scheduled == {"r": 1}, "it is not known yet what became of the load"
    daemon.stuck = False
    e.run()
    for name, some in {**tokens, "r": prompt(300)}.items():
        assert e.outputs[name] == expected_output(some, 8), name
    assert stats(e).loads_in_step == 1
    assert stats(e).waits_for_load >= (4 if isinstance(e, AheadEngine) else 0)
    nothing_left(e, daemon, [whole(e, some, name) for name, some in {**tokens, "r": prompt(300)}.items()])


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", [AheadEngine, AheadV2Engine], indirect=True)
def test_a_reset_while_it_is_under_way(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt, fails: bool
) -> None:
    engine().generate("cold", prompt(300))
    e = engines(30 if fails else 120_000)
    if fails:
        e.meanwhile = partial(stuck, e, daemon)
    e.add("r", prompt(300), 8)
    assert e.step().scheduled == {"r": 44}
    # vLLM's scheduler preempts all, and may then say that pages of steps under way are in use.
    with suppress(RuntimeError):
        e.reset(running=True)
    e.meanwhile = lambda: None
    daemon.stuck = False
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 8)
    assert not e.connector.scheduler_half._in_step.under_way


def test_a_worker_without_a_session_computes(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    engine().generate("cold", prompt(300))
    e = engines()
    loader = e.worker.worker_half._loader
    e.meanwhile = partial(no_session, e, daemon)
    e.add("r", prompt(300))
    e.step()
    e.worker.worker_half._loader = loader
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert stats(e).loads_failed == 1


def test_another_request_of_the_same_name(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    engine().generate("cold", prompt(300))
    e = engines(30, extra={"failed_pause_s": 0.0})
    loader, go = e.worker.worker_half._loader, threading.Event()
    report = loader._report

    def late(*args: Any) -> None:
        assert go.wait(60)
        report(*args)

    loader._report = late
    e.meanwhile = partial(stuck, e, daemon)
    e.add("r", prompt(300))
    e.step()
    e.abort("r")
    e.run()
    e.meanwhile, daemon.stuck = (lambda: None), False
    # The load that was given up ends when the next one waits for its turn.
    e.connector.scheduler_half._in_step._not_before = 1e12
    e.add("r", prompt(300))
    while not e.connector.scheduler_half._inflight:
        e.step()
    go.set()
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert e.external["r"] == e.worker.stats.chunks_loaded * 64 == 256
    assert stats(e).loads_failed == 1
    nothing_left(e, daemon, [whole(e, prompt(300))])


@pytest.mark.parametrize("seed", range(3))
def test_random_runs(engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    e = engines(20, extra={"failed_pause_s": 0.0}, blocks=40, budget=chance.choice([20, 64, 256]))
    e.connector.scheduler_half._in_step._costs.expected = lambda *_: 0.0
    asked: dict[str, tuple[list[int], int]] = {}

    def arrive() -> None:
        tokens = prompt(300)[: chance.randrange(60, 300)] + prompt(60, seed=chance.randrange(3))[: chance.randrange(60)]
        name = f"r{len(asked)}"
        asked[name] = tokens, chance.randrange(1, 9)
        e.add(name, *asked[name])

    def meanwhile() -> None:
        if chance.random() < 0.4:
            chance.choice(FAILURES)(e, daemon)
        if chance.random() < 0.4:
            arrive()

    e.meanwhile = meanwhile
    aborted: set[str] = set()
    for _ in range(25):
        arrive()
        for _ in range(chance.choice([1, 2, 3, 30])):
            if e.scheduler.has_requests():
                e.step()
            daemon.stuck, daemon.up = False, True
            daemon.corrupt.clear()
        if chance.random() < 0.2 and (left := asked.keys() - e.ended - aborted):
            aborted.add(min(left))
            e.abort(min(left))
        if chance.random() < 0.5:
            e.run()
            assert e.scheduler.kv_cache_manager.reset_prefix_cache()
    e.meanwhile = lambda: None
    e.run()
    for name, (tokens, count) in asked.items():
        if name not in aborted:
            assert e.outputs[name] == expected_output(tokens, count), name
    s = stats(e)
    assert s.loads_in_step > 1
    assert s.loads_failed > 0
    assert e.worker.stats.chunks_loaded > 0
    nothing_left(e, daemon, [tokens + list(e.outputs[name]) for name, (tokens, _) in asked.items()])


@pytest.mark.parametrize("kind", [StepRanks, AheadRanks], indirect=True)
@pytest.mark.parametrize("fails", [(), (0,), (1,), (0, 1)])
def test_ranks_wait_each_for_itself(
    engine: MakeEngine, kind: Any, daemon: StubDaemon, prompt: MakePrompt, fails: tuple[int, ...]
) -> None:
    engine(kind=kind, tensor_parallel_size=2).generate("cold", prompt(300))
    e: Any = engine(kind=kind, tensor_parallel_size=2, extra=PATIENT)
    e.know_costs()

    def meanwhile() -> None:
        for rank in fails:
            e.workers[0, rank].worker_half._loader._client.load = refused

    e.meanwhile = meanwhile
    e.add("r", prompt(300), 8)
    step = e.step()
    e.meanwhile = lambda: None
    assert not step.output.finished_recving
    assert len(step.output.invalid_block_ids) == (16 if fails else 0)
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 8)
    assert [w.worker_half.stats.chunks_loaded for w in e.workers.values()] == [0 if r in fails else 4 for r in (0, 1)]
    assert stats(e).loads_in_step == 1
    assert stats(e).tokens_loaded == (0 if fails else 256)
    assert e.generate("again", prompt(300)) == expected_output(prompt(300), 4)
    nothing_left(e, daemon, [whole(e, prompt(300))])


def refused(*_: Any) -> Any:
    raise UnavailableError("refused")
