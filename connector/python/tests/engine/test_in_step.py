"""Loads inside of the step that computes on top of them: only for a request that is alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine, expected_output
from step_cases import PATIENT, MakeStep, nothing_left, stats, whole
from stub_daemon import StubDaemon

from larder.vllm import compat, in_step


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
    with monkeypatch.context() as m:
        m.setattr(request.sampling_params, "seed", 1)
        assert claim(request) == (256, True), "the engine does not draw again what it drops"
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
