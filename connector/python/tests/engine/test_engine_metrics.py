"""What the engine's /metrics and log say: through vLLM's own front end, after what crosses processes has crossed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from simulated_config import make_config
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine
from simulated_ranks import RankedEngine
from stub_daemon import StubDaemon
from vllm.config.kv_events import KVEventsConfig
from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator
from vllm.v1.metrics.loggers import LoggingStatLogger, PrometheusStatLogger
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from larder.stats import ClientStats
from larder.vllm import engine_stats
from larder.vllm.engine_stats import EngineStats, Reporter
from larder.vllm.metric_table import METRICS, OTHER, PREFIX
from larder.vllm.stats import SchedulerStats as OurSchedulerStats
from larder.vllm.stats import WorkerStats


class FrontEnd:
    """vLLM's loggers, as `vllm serve` has them, for some engines."""

    def __init__(self, config: Any, engines: int = 1) -> None:
        self.prometheus = PrometheusStatLogger(config, list(range(engines)))
        self.log = LoggingStatLogger(config, 0)
        self._model = str(config.model_config.served_model_name)

    def watch(self, engine: SimulatedEngine, index: int = 0) -> None:
        """Takes what an engine's core says."""

        def take(stats: Any) -> None:
            if stats is not None:
                crossed = MsgpackDecoder(SchedulerStats).decode(MsgpackEncoder().encode(stats))
                self.prometheus.record(crossed, None, engine_idx=index)
                self.log.record(crossed, None, engine_idx=index)

        engine.front_end = take

    def value(self, name: str, engine: int = 0, suffix: str = "_total", **labels: str) -> float:
        """What a scrape shows."""
        full = {"model_name": self._model, "engine": str(engine), **labels}
        value: float | None = REGISTRY.get_sample_value(f"{PREFIX}{name}{suffix}", full)
        assert value is not None, f"no {name} {labels}"
        return value


@pytest.fixture
def front_end() -> Callable[..., FrontEnd]:
    return FrontEnd


def cold_and_warm(engine: MakeEngine, tokens: list[int], **options: Any) -> tuple[SimulatedEngine, SimulatedEngine]:
    """An engine that stored tokens, and another one."""
    first = engine(**options)
    first.generate("cold", tokens)
    return first, engine(**options)


def test_a_hit_shows_in_the_engines_metrics(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, front_end: Callable[..., FrontEnd]
) -> None:
    cold = engine()
    front = front_end(cold.config)
    front.watch(cold)
    cold.generate("cold", prompt(300))
    size = sum(len(part) for parts in daemon.chunks.values() for part in parts.values())
    assert front.value("requests") == 1
    assert front.value("tokens_asked") == 256
    assert front.value("tokens_matched") == 0
    assert front.value("chunks_stored") == 4
    assert front.value("stored_bytes") == size
    assert front.value("loads") == 0

    warm = engine()
    front.watch(warm)
    warm.generate("warm", prompt(300))
    assert warm.external["warm"] == 256
    assert front.value("requests") == 2
    assert front.value("matches", outcome="answered") == 2
    for name in ("tokens_matched", "tokens_claimed", "tokens_loaded"):
        assert front.value(name) == 256, name
    assert front.value("loads") == 1
    assert front.value("loaded_bytes") == size
    assert front.value("match_seconds", suffix="_count") == 2
    for name in ("load_seconds", "load_wait_seconds"):
        assert front.value(name, suffix="_count") == 1
        assert front.value(name, suffix="_sum") > 0
    assert front.value("connections") > 0
    assert front.value("hook_seconds", hook="scheduler_build") > 0
    assert front.value("hook_seconds", hook="worker_settle") > 0


def test_the_engines_log_has_a_line(engine: MakeEngine, prompt: MakePrompt, front_end: Callable[..., FrontEnd]) -> None:
    _, warm = cold_and_warm(engine, prompt(300))
    front = front_end(warm.config)
    front.watch(warm)
    warm.generate("warm", prompt(300))
    lines: list[str] = []
    front.log.kv_connector_logging.log(lambda text, *more: lines.append(text % more))
    assert len(lines) == 1
    for part in ("tokens_loaded=256", "loads=1", "match_ms=", "load_ms="):
        assert part in lines[0]
    assert "hook" not in lines[0]
    front.log.kv_connector_logging.log(lambda text, *more: lines.append(text % more))
    assert len(lines) == 1


@pytest.mark.parametrize("kind", ["corrupt", "miss", "unavailable", "cancelled"])
def test_failures_by_kind(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, front_end: Callable[..., FrontEnd], kind: str
) -> None:
    _, warm = cold_and_warm(engine, prompt(300))
    front = front_end(warm.config)
    front.watch(warm)
    second = daemon.commits[1][0]
    daemon.stuck = True
    warm.add("warm", prompt(300))
    warm.step()
    if kind == "corrupt":
        daemon.corrupt.add(second)
    elif kind == "miss":
        daemon.evict(second)
    elif kind == "unavailable":
        daemon.unconfirmed = 1
    else:
        warm.abort("warm")
        warm.step()
    daemon.stuck = False
    warm.run()
    warm.generate("next", prompt(40))
    assert front.value("load_failures", kind=kind) == 1
    assert sum(front.value("load_failures", kind=k) for k in ("corrupt", "miss", "unavailable", "cancelled")) == 1
    # What comes before damage and losses counts.
    one = kind in ("corrupt", "miss")
    assert front.value("tokens_claimed") == 256
    assert front.value("tokens_loaded") == (64 if one else 0)
    assert front.value("blocks_recomputed") == (12 if one else 16)


def test_what_is_not_cached_and_not_stored(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, front_end: Callable[..., FrontEnd]
) -> None:
    e = engine()
    front = front_end(e.config)
    front.watch(e)
    e.generate("r", prompt(100), params={"larder": 1})
    assert front.value("requests_uncached", reason="parameters") == 1
    daemon.credits = 0
    e.generate("dropped", prompt(200, seed=1))
    # Each of three chunks is tried thrice while the request runs.
    assert front.value("chunks_not_stored", reason="no_credit") >= 3
    assert front.value("chunks_stored") == 0
    daemon.credits = None
    other = engine()
    other.generate("first", prompt(200, seed=2))
    daemon.silent = True
    e.generate("second", prompt(200, seed=2))
    assert front.value("chunks_not_stored", reason="duplicate") == 3
    assert front.value("matches", outcome="timeout") == 1


def test_engines_have_series_of_their_own(
    engine: MakeEngine, prompt: MakePrompt, front_end: Callable[..., FrontEnd]
) -> None:
    cold, warm = engine(), engine()
    front = front_end(cold.config, engines=2)
    front.watch(cold, 0)
    front.watch(warm, 1)
    cold.generate("cold", prompt(300))
    warm.generate("warm", prompt(300))
    assert [front.value("tokens_loaded", engine=i) for i in (0, 1)] == [0, 256]
    assert [front.value("chunks_stored", engine=i) for i in (0, 1)] == [4, 0]


def test_ranks_move_bytes_of_their_own_and_a_chunk_counts_once(
    model_folder: Path, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    size = 0
    for name in ("cold", "warm"):
        events = KVEventsConfig(enable_kv_cache_events=True, publisher="null")
        e = RankedEngine(make_config(model_folder, tensor_parallel_size=2, kv_events_config=events), daemon.connect)
        front = FrontEnd(e.config)
        front.watch(e)
        with closing(e):
            e.generate(name, prompt(300))
        size = sum(len(part) for parts in daemon.chunks.values() for part in parts.values())
        if name == "cold":
            assert front.value("chunks_stored") == 4
            assert front.value("stored_bytes") == size
        assert front.value("kv_events", what="stored") == 4
    assert front.value("loads") == 1
    assert front.value("tokens_loaded") == 256
    assert front.value("loaded_bytes") == size
    assert front.value("load_seconds", suffix="_count") == 1


def test_ranks_are_added() -> None:
    def rank(**counts: float) -> ModelRunnerOutput:
        report = KVConnectorOutput(kv_connector_stats=EngineStats({"counts": counts, "seen": {}}) if counts else None)
        return ModelRunnerOutput([], {}, kv_connector_output=report)

    together = KVOutputAggregator(4).aggregate([rank(), rank(loaded_bytes=3), rank(loaded_bytes=4, loads=1), rank()])
    assert together is not None
    assert together.kv_connector_output is not None
    stats = together.kv_connector_output.kv_connector_stats
    assert stats.counts == {"loaded_bytes": 7, "loads": 1}
    later = stats.aggregate(EngineStats({"counts": {"loads": 1}, "seen": {"load_seconds": [0.5] * 5000}}))
    assert later.counts["loads"] == 2
    assert len(later.seen["load_seconds"]) == 4096
    assert stats.counts["loads"] == 1


def test_a_step_without_news_says_nothing() -> None:
    now = 0.0
    stats = OurSchedulerStats(requests=1)
    reporter = Reporter(stats, lambda: None, clock=lambda: now)
    first = reporter.take()
    assert first is not None
    assert first.counts == {"requests": 1}
    stats.hook_s["build"] = 0.25
    assert reporter.take() is None
    now = 1.0
    later = reporter.take()
    assert later is not None
    assert later.counts == {"hook_seconds/scheduler_build": 0.25}
    now = 2.0
    assert reporter.take() is None


def test_a_step_with_a_match_says_how_long_it_took() -> None:
    stats = OurSchedulerStats()
    reporter = Reporter(stats, lambda: None)
    for _ in range(3000):
        stats.answered(64, 0, 0.001)
    report = reporter.take()
    assert report is not None
    assert len(report.seen["match_seconds"]) == 1024
    assert report.counts["tokens_asked"] == 3000 * 64
    assert not stats.observed


def test_another_connection_counts_from_nothing() -> None:
    client = ClientStats(connects=3, late_replies=2)
    reporter = Reporter(OurSchedulerStats(), lambda: client, clock=iter(range(10)).__next__)
    reporter.take()
    client = ClientStats(connects=1, late_replies=2)
    report = reporter.take()
    assert report is not None
    assert report.counts == {"connections": 1}


def test_labels_are_bounded() -> None:
    stats = OurSchedulerStats()
    stats.chunks_skipped = {"host": 1, "tier 9": 2, "tier 10": 3}
    stats.uncached = {"something new": 1, "a salt too long": 1, "kv_transfer_params.larder.x is no boolean": 1}
    stats.hook_s = {"something_new": 1.0}
    client = ClientStats(failures={"UNAVAILABLE": 1, "NEWER": 2})
    report = Reporter(stats, lambda: client).take()
    assert report is not None
    assert report.counts == {
        "chunks_computed/host": 1, f"chunks_computed/{OTHER}": 5,
        f"requests_uncached/{OTHER}": 1, "requests_uncached/salt": 1, "requests_uncached/parameters": 1,
        f"hook_seconds/{OTHER}": 1.0, "call_failures/unavailable": 1, f"call_failures/{OTHER}": 2,
    }  # fmt: skip


def test_what_is_not_in_the_table_is_left_out(engine: MakeEngine, front_end: Callable[..., FrontEnd]) -> None:
    front = front_end(engine().config)
    report = {"counts": {"of_another_version": 1, "loads": 2}, "seen": {"neither": [1.0], "load_seconds": [0.5]}}
    front.prometheus.kv_connector_prom.observe(report, 0)
    assert front.value("loads") == 2
    assert front.value("load_seconds", suffix="_count") == 1


def test_every_counter_is_in_the_table() -> None:
    known = {key for metric in METRICS for key in metric.series()}
    scheduler, worker = OurSchedulerStats(), WorkerStats()
    for stats in (scheduler, worker):
        for f in fields(stats):
            if f.type == "int":
                setattr(stats, f.name, 1)
    totals = engine_stats._of_scheduler(scheduler) | engine_stats._of_worker(worker)
    engine_stats._add_client(totals, ClientStats())
    assert set(totals) <= known
    # And every series can be counted up by something.
    never = {m.name for m in METRICS if not m.buckets} - {key.split("/")[0] for key in totals}
    assert never == {"requests_uncached", "chunks_computed", "load_failures", "call_failures", "hook_seconds"}
    assert all(m.help.endswith(".") for m in METRICS)


def test_front_ends_follow_each_other_in_a_process(engine: MakeEngine, front_end: Callable[..., FrontEnd]) -> None:
    config = engine().config
    front_end(config).prometheus.kv_connector_prom.observe({"counts": {"loads": 5}}, 0)
    assert front_end(config).value("loads") == 0
