"""What each half reports to the engine's metrics: what was added to its plain
counters since its last report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats

from larder.stats import ClientStats
from larder.vllm.metric_table import BY_NAME
from larder.vllm.stats import SchedulerStats, WorkerStats

Totals = dict[str, float]

# Where nothing else changed, the time spent in hooks is reported so often.
_INTERVAL_S = 1.0
# Single values kept between two lines of the engine's log.
_MOST_VALUES = 4096
# What a request's reason for not being cached begins with, and its label.
_REASONS = {
    "adapter": "adapter",
    "prompt embeddings": "embeddings",
    "streaming": "streaming",
    "pooling": "pooling",
    "a salt": "salt",
    "kv_transfer_params": "parameters",
    "multimodal": "multimodal",
}


class EngineStats(KVConnectorStats):
    """data: counts, to be added, and seen, single values, both by the keys of
    metric_table. All of it is plain, since it crosses processes."""

    def __getitem__(self, name: str) -> Any:
        """MultiConnector reads these as it would their serialized form, also where
        engine and front end share a process."""
        return getattr(self, name)

    @property
    def counts(self) -> Totals:
        """By key."""
        counts: Totals = self.data.get("counts", {})
        return counts

    @property
    def seen(self) -> dict[str, list[float]]:
        """By name of a histogram."""
        seen: dict[str, list[float]] = self.data.get("seen", {})
        return seen

    def reset(self) -> None:
        """Empties it."""
        self.data: dict[str, Any] = {}

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        """Returns the sum with another rank's, or with a later report."""
        counts = dict(self.counts)
        seen = dict(self.seen)
        for key, count in other.counts.items():
            counts[key] = counts.get(key, 0) + count
        for name, values in other.seen.items():
            seen[name] = (seen.get(name, []) + values)[-_MOST_VALUES:]
        return EngineStats({"counts": counts, "seen": seen})

    def reduce(self) -> dict[str, int | float]:
        """For the engine's log: what was counted, and means in milliseconds."""
        line: dict[str, int | float] = {
            key: round(count) for key, count in self.counts.items() if not key.startswith("hook_seconds")
        }
        for name, values in self.seen.items():
            if values:
                line[f"{name.removesuffix('_seconds')}_ms"] = round(1000 * sum(values) / len(values), 2)
        return line

    def is_empty(self) -> bool:
        """Whether there is nothing to say."""
        return not self.counts and not self.seen


class Reporter:
    """Reports what changed since the last time; cheap where nothing did, since it
    is asked in every step."""

    def __init__(
        self,
        stats: SchedulerStats | WorkerStats,
        client: Callable[[], ClientStats | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stats = stats
        self._client = client
        self._clock = clock
        self._seen: list[int] = []
        self._next = 0.0
        self._last: Totals = {}

    def take(self) -> EngineStats | None:
        """Returns the report, None where nothing is to be said now."""
        stats = self._stats
        # Whatever else is counted changes with one of these, or can wait.
        numbers = [v for v in vars(stats).values() if v.__class__ is int]
        now = self._clock()
        if numbers == self._seen and now < self._next:
            return None
        self._seen = numbers
        self._next = now + _INTERVAL_S
        observed: dict[str, list[float]] = {}
        if isinstance(stats, SchedulerStats):
            totals = _of_scheduler(stats)
            observed, stats.observed = stats.observed, {}
        else:
            totals = _of_worker(stats)
        client = self._client()
        if client is not None:
            _add_client(totals, client)
        last, self._last = self._last, totals
        # What is less than before began anew, with another connection.
        began = {key: n - last[key] if n >= last.get(key, n + 1) else n for key, n in totals.items()}
        counts = {key: n for key, n in began.items() if n}
        seen = {f"{name}_seconds": values for name, values in observed.items() if values}
        return EngineStats({"counts": counts, "seen": seen}) if counts or seen else None


def _of_scheduler(stats: SchedulerStats) -> Totals:
    totals: Totals = {
        "requests": stats.requests,
        "matches/answered": stats.matches_answered,
        "matches/timeout": stats.match_timeouts,
        "matches/failed": stats.match_failures,
        "tokens_asked": stats.tokens_asked,
        "tokens_matched": stats.tokens_matched,
        "tokens_claimed": stats.tokens_claimed,
        "tokens_loaded": stats.tokens_loaded,
        "loads": stats.loads,
        "loads_in_step": stats.loads_in_step,
        "waits/match": stats.waits_for_match,
        "waits/load": stats.waits_for_load,
        "requests_begun_anew": stats.restarts,
        "requests_computed": stats.skips,
        "chunks_not_stored/window": stats.stores_behind_window,
        "resets": stats.resets,
        "chunks_pinned/pinned": stats.chunks_pinned,
        "chunks_pinned/absent": stats.pins_absent,
        "chunks_pinned/full": stats.pins_full,
        "pins_refused": stats.pins_refused + stats.pins_dropped,
        "kv_events/stored": stats.events_stored,
        "kv_events/removed": stats.events_removed,
        "kv_events/dropped": stats.events_dropped,
    }
    for reason, count in stats.uncached.items():
        label = next((label for begin, label in _REASONS.items() if reason.startswith(begin)), "")
        _add(totals, "requests_uncached", label, count)
    _add_all(totals, "chunks_computed", stats.chunks_skipped)
    _add_all(totals, "hook_seconds", {f"scheduler_{name}": s for name, s in stats.hook_s.items()})
    return totals


def _of_worker(stats: WorkerStats) -> Totals:
    totals: Totals = {
        "loaded_bytes": stats.bytes_loaded,
        "blocks_recomputed": stats.blocks_invalid,
        "stored_bytes": stats.bytes_stored,
        "chunks_stored": stats.chunks_published,
        "chunks_not_stored/no_credit": stats.dropped_no_credit,
        "chunks_not_stored/rejected": stats.dropped_rejected,
        "chunks_not_stored/failed": stats.dropped_failed,
        "chunks_not_stored/duplicate": stats.chunks_duplicate,
        "chunks_not_stored/conflict": stats.chunks_conflict,
    }
    _add_all(totals, "load_failures", stats.load_failures)
    _add_all(totals, "hook_seconds", {f"worker_{name}": s for name, s in stats.hook_s.items()})
    return totals


def _add_client(totals: Totals, stats: ClientStats) -> None:
    totals["connections"] = stats.connects
    totals["late_replies"] = stats.late_replies
    totals["breaker_opens"] = stats.breaker_opens
    _add_all(totals, "call_failures", {kind.lower(): count for kind, count in stats.failures.items()})


def _add_all(totals: Totals, name: str, by_label: Mapping[str, float]) -> None:
    # A copy: other threads add kinds.
    for label, count in list(by_label.items()):
        _add(totals, name, label, count)


def _add(totals: Totals, name: str, label: str, count: float) -> None:
    key = BY_NAME[name].key(label)
    totals[key] = totals.get(key, 0) + count
