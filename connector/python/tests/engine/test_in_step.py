"""Loads inside of the step that computes on top of them: only for a request that is alone, and what fails leaves
nothing wrong behind."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from fake_device import FakeDevice
from gpu_engine import MakeGpuEngine
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine, check_chunk, expected_output, prefix_hashes
from step_engine import AheadEngine, AheadRanks, AheadV2Engine, StepEngine, StepRanks
from stub_daemon import StubDaemon, StubLoad

from larder.errors import UnavailableError
from larder.vllm import compat, in_step

MakeStep = Callable[..., Any]
PATIENT = {"load_in_step_ms": 120_000}


@pytest.fixture(params=[StepEngine, AheadEngine, AheadV2Engine])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def engines(engine: MakeEngine, kind: type[StepEngine]) -> MakeStep:
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


def test_one_step_loads_and_computes(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    engine().generate("cold", prompt(300))
    e = engines()
    request = e.add("r", prompt(300))
    for _ in range(2):
        assert e.connector.get_num_new_matched_tokens(request, 0) == (256, False)
        assert e.connector.get_num_new_matched_tokens(request, 48) == (208, False)
    step = e.step()
    assert [(op.chunks, op.in_step_s) for op in step.metadata.loads] == [(4, 120.0)]
    assert step.scheduled == {"r": 44}
    assert not step.output.finished_recving
    assert not step.output.invalid_block_ids
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert e.external["r"] == e.worker.stats.chunks_loaded * 64 == 256
    s = stats(e)
    assert (s.loads, s.loads_in_step, s.tokens_loaded, s.loads_failed) == (1, 1, 256, 0)
    assert e.in_vain == 0
    assert e.preemptions == 0
    nothing_left(e, daemon, [whole(e, prompt(300))])


def test_a_whole_prompt_leaves_a_block_to_compute(engine: MakeEngine, engines: MakeStep, prompt: MakePrompt) -> None:
    engine().generate("cold", prompt(256))
    e = engines()
    request = e.add("r", prompt(256))
    assert e.connector.get_num_new_matched_tokens(request, 0) == (240, False)
    # With a local hit that leaves only a block there is nothing for a step to load.
    assert e.connector.get_num_new_matched_tokens(request, 240) == (16, True)
    e.run()
    assert e.outputs["r"] == expected_output(prompt(256), 4)
    assert e.external["r"] == 240
    assert e.worker.stats.chunks_loaded == 4


def test_after_a_local_hit(engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt) -> None:
    engine().generate("cold", prompt(300))
    e = engines()
    e.generate("head", prompt(300)[:170], 1)
    e.generate("r", prompt(300))
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert e.external["r"] == 256 - 160
    assert stats(e).loads_in_step == 2
    nothing_left(e, daemon, [whole(e, prompt(300))])


def test_the_rest_takes_several_steps(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    engine().generate("cold", prompt(300))
    e = engines(budget=20)
    e.add("r", prompt(300))
    assert e.step().scheduled == {"r": 20}
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert e.external["r"] == 256
    nothing_left(e, daemon, [whole(e, prompt(300))])


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


def test_where_it_might_harm_loads_are_asynchronous(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = prompt(400)
    engine().generate("cold", tokens[:300])
    e = engines()
    matched = e.connector.get_num_new_matched_tokens
    half = e.connector.scheduler_half

    def claim(request: Any, local: int = 0) -> Any:
        return matched(request, local)

    request = e.add("r", tokens[:300])
    assert claim(request) == (256, False)
    other = e.add("other", prompt(40, seed=2))
    assert claim(request) == (256, True), "another one waits"
    e.abort("other")
    assert claim(request) == (256, False)
    e.abort("r")
    longer = e.add("longer", tokens[:330])
    assert claim(longer) == (256, True), "the fifth chunk would be stored late"
    e.abort("longer")
    request = e.add("again", tokens[:300])
    inside = half._in_step
    for name, value in {"_on": False, "wait_s": 0.0, "_not_before": 1e12, "_costs": None, "_known": False}.items():
        with monkeypatch.context() as m:
            m.setattr(inside, name, value)
            assert claim(request) == (256, True), name
    for name, value in {"num_preemptions": 1, "resumable": True}.items():
        with monkeypatch.context() as m:
            m.setattr(request, name, value)
            half._loadable, loadable = (lambda *_: 4), half._loadable
            assert claim(request) == (256, True), name
            half._loadable = loadable
    pool = e.scheduler.kv_cache_manager.block_pool
    with monkeypatch.context() as m:
        m.setattr(pool, "get_num_free_blocks", lambda: 19 + 3)
        assert claim(request) == (256, True)
        m.setattr(pool, "get_num_free_blocks", lambda: 19 + 4)
        assert claim(request) == (256, False)
    with monkeypatch.context() as m:
        m.setattr(inside, "wait_s", 2 * inside._costs.expected(half._states["again"].match.runs(0, 4, 0), 0) - 1e-9)
        assert claim(request) == (256, True), "it takes long"
    e.abort("again")
    e.run()
    del other


def test_what_a_disk_has_is_loaded_beside_steps(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    from larder.v1 import engine_pb2, part_pb2

    engine().generate("cold", prompt(300))
    e = engines()
    daemon.tiers = lambda keys: [
        engine_pb2.TierRun(tier=part_pb2.TIER_HOST, chunks=3),
        engine_pb2.TierRun(tier=part_pb2.TIER_NVME, chunks=len(keys) - 3, cost_ns=1000),
    ]
    e.generate("r", prompt(300))
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert (e.external["r"], stats(e).loads_in_step) == (256, 0)


def test_the_first_loads_show_what_they_take(engine: MakeEngine, kind: Any, prompt: MakePrompt) -> None:
    engine().generate("cold", prompt(300))
    e = engine(kind=kind, extra=PATIENT)
    for i in range(100):
        assert e.generate(f"r{i}", prompt(300)) == expected_output(prompt(300), 4)
        assert e.external[f"r{i}"] == 256
        assert i > 2 or not stats(e).loads_in_step
        # One that was much faster than those before makes them void.
        if stats(e).loads_in_step:
            return
        e.drop_own_cache()
    pytest.fail("no load took part in its step")


def test_off_by_the_option(engine: MakeEngine, kind: Any, prompt: MakePrompt) -> None:
    engine().generate("cold", prompt(300))
    e: Any = engine(kind=kind, extra={"load_in_step_ms": 0})
    e.know_costs()
    e.generate("r", prompt(300))
    assert (e.external["r"], stats(e).loads_in_step) == (256, 0)


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


def on_device(gpu: MakeGpuEngine, device: FakeDevice, tokens: list[int], ms: float) -> Any:
    """An engine on a device that stands still, and that knows what loads cost."""
    gpu(FakeDevice())().generate("stored", tokens)
    e = gpu(device)(extra={"load_in_step_ms": ms})
    e.generate("other", [5] * 40)
    for _ in range(3):
        e.connector.scheduler_half._in_step._costs.copied(4, 1e-3)
    device.hold()
    return e


@pytest.mark.parametrize("layers", ["off", "auto"])
def test_a_step_waits_on_the_device(gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, layers: str) -> None:
    tokens = prompt(300)
    device = FakeDevice(8)
    e = on_device(gpu, device, tokens, 120_000)
    path = e.worker.worker_half._path
    path.by_layer = layers == "auto"
    e.add("r", tokens)
    assert e.step().scheduled == {"r": 44}
    device.run(1000)
    assert device.compute.work, "the computation waits for the copies"
    e.run()
    assert e.outputs["r"] == expected_output(tokens, 4)
    assert e.external["r"] == e.worker.stats.chunks_loaded * 64 == 256
    assert stats(e).loads_in_step == 1
    assert e.worker.stats.loads_failed == 0
    assert not daemon.holds
    # A thread gives the slots up.
    until = time.monotonic() + 60
    while e.worker.worker_half._loader.busy:
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("launched", [False, True])
def test_no_copy_touches_the_pages_of_a_load_that_was_given_up(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch, launched: bool
) -> None:
    tokens = prompt(300)
    device = FakeDevice(9)
    e = on_device(gpu, device, tokens, 60)
    if launched:
        # Two chunks come at once, and the others late.
        batches, half_way = StubLoad.batches, threading.Event()

        def late(load: StubLoad, deadline_s: float) -> Any:
            for i, batch in enumerate(batches(load, deadline_s)):
                if i == 2:
                    assert half_way.wait(60)
                yield batch

        monkeypatch.setattr(StubLoad, "batches", late)
    else:
        daemon.stuck = True
    e.add("r", tokens, 8)
    e._judge = lambda: None
    step = e.step()
    assert len(step.output.invalid_block_ids) == 16
    assert len(device.compute.work) > 0
    # What comes after is what the engine itself computes.
    daemon.stuck = False
    if launched:
        half_way.set()
    device.release()
    while device.run(1000):
        pass
    assert e.wrong, "it computed on what had not come"
    e.wrong.clear()
    del e._judge
    e.holds = True
    for name, seed in (("x", 4), ("y", 5)):
        e.add(name, prompt(300, seed=seed), 8)
    e.run()
    assert e.outputs["r"] == expected_output(tokens, 8)
    assert e.outputs["x"] == expected_output(prompt(300, seed=4), 8)
    assert stats(e).loads_failed == 1
    assert e.generate("again", tokens) == expected_output(tokens, 4)


def test_no_late_copy_on_processors(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine().generate("cold", prompt(300))
    e = engines()
    loader = e.worker.worker_half._loader
    begun, go = threading.Event(), threading.Event()
    copies: list[str] = []
    scatter = next(iter(e.worker.worker_half._adapters.values())).scatter

    def slow(*args: Any) -> None:
        begun.set()
        with loader._changed:
            loader._changed.notify_all()
        assert go.wait(60)
        copies.append("copied")
        scatter(*args)

    monkeypatch.setattr(next(iter(e.worker.worker_half._adapters.values())), "scatter", slow)
    outlast, wait_for = loader._outlast, loader._changed.wait_for

    def until_begun(done: Any, timeout: float | None = None) -> Any:
        if threading.current_thread() is threading.main_thread():
            done, timeout = begun.is_set, 60
        return wait_for(done, timeout)

    def outlasts(started: Any) -> None:
        # A copy is under way; it goes on only now that the load is given up.
        assert begun.is_set()
        go.set()
        outlast(started)
        copies.append("over")

    loader._outlast = outlasts
    monkeypatch.setattr(loader._changed, "wait_for", until_begun)
    e.add("r", prompt(300), 8)
    e.step()
    monkeypatch.setattr(loader._changed, "wait_for", wait_for)
    assert copies[-1] == "over"
    count = len(copies)
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 8)
    assert len(copies) == count, "no copy comes after the step went on"
    assert stats(e).loads_failed == 1
    nothing_left(e, daemon, [whole(e, prompt(300))])


@pytest.mark.parametrize("way", ["names", "drops"])
def test_what_a_scheduler_must_have(way: str) -> None:
    def preempt(request: Any, timestamp: float) -> None: ...

    def drops(request: Any, timestamp: float, drop_stale_output: bool = False) -> None: ...

    has = {
        "_preempt_request": drops if way == "drops" else preempt,
        "running": [],
        "prev_step_scheduled_req_ids": set(),
    }
    scheduler = SimpleNamespace(**has, kv_cache_manager=SimpleNamespace(evict_blocks=None))
    assert compat.can_take_back(scheduler, SimpleNamespace(async_tokens_to_discard=0))
    assert compat.can_take_back(scheduler, SimpleNamespace()) is (way == "drops")
    for name in has:
        lacks = SimpleNamespace(**{k: v for k, v in vars(scheduler).items() if k != name})
        assert not compat.can_take_back(lacks, SimpleNamespace(async_tokens_to_discard=0))
    assert not compat.can_take_back(None, SimpleNamespace(async_tokens_to_discard=0))


def test_engines_whose_steps_may_not_load(engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    e: SimulatedEngine = engine()
    assert in_step.possible(e.config, e.cache_config)
    with monkeypatch.context() as other:
        other.setattr(compat, "untested", lambda: "another version")
        assert not in_step.possible(e.config, e.cache_config)
    for where, name, value in (
        ("parallel_config", "pipeline_parallel_size", 2),
        ("parallel_config", "data_parallel_size", 2),
        ("kv_transfer_config", "kv_connector", "MultiConnector"),
    ):
        part = getattr(e.config, where)
        before = getattr(part, name)
        setattr(part, name, value)
        assert not in_step.possible(e.config, e.cache_config), name
        setattr(part, name, before)
