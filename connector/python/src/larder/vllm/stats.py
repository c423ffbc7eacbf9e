"""Plain counters of each half, for tests, benches and the log."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

# Values kept of one kind between two steps.
_MOST_OBSERVED = 1024

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class SchedulerStats:
    """What the scheduler half did. Token counts are of whole requests."""

    requests: int = 0
    # Requests that are not cached, by reason.
    uncached: dict[str, int] = field(default_factory=dict)
    matches: int = 0
    # Answers that did not come in time; the request went on without.
    match_timeouts: int = 0
    match_failures: int = 0
    # Of matches that were answered, and looked at.
    matches_answered: int = 0
    tokens_asked: int = 0
    tokens_matched: int = 0
    # Calls that ended with (None, False): for the answer, or for another
    # request that loads the same chunks.
    waits_for_match: int = 0
    waits_for_load: int = 0
    loads: int = 0
    # Of those, inside of the step that computed the rest.
    loads_in_step: int = 0
    tokens_claimed: int = 0
    tokens_loaded: int = 0
    # Loads of which a part or all was recomputed.
    loads_failed: int = 0
    # Requests that gave their pages back after that, and began anew.
    restarts: int = 0
    # Steps that showed what computing takes.
    steps_measured: int = 0
    # Requests that computed what they could have loaded, since that takes less
    # time, and the chunks by tier.
    skips: int = 0
    chunks_skipped: dict[str, int] = field(default_factory=dict)
    holds_ended: int = 0
    # Requests that lost their pages and came back.
    preempted: int = 0
    # Chunks of prompts that were to be pinned: those that are, those that the
    # daemon does not have, and those for which its disk has no room.
    chunks_pinned: int = 0
    pins_absent: int = 0
    pins_full: int = 0
    # Requests whose pins the daemon refused, or that came while too many waited.
    pins_refused: int = 0
    pins_dropped: int = 0
    # The engine's cache was dropped.
    resets: int = 0
    stores_planned: int = 0
    stores_dropped: int = 0
    # Chunks not stored, since pages of a sliding window were given to others.
    stores_behind_window: int = 0
    # Chunks that KV cache events announced, withdrew, or had no room for.
    events_stored: int = 0
    events_removed: int = 0
    events_dropped: int = 0
    # Seconds inside each hook.
    hook_s: dict[str, float] = field(default_factory=dict)
    # Seconds of single matches, loads, and waits for loads, until they are taken.
    observed: dict[str, list[float]] = field(default_factory=dict)

    def count_request(self, uncached: str) -> None:
        """A request came; uncached: why it is not cached, or nothing."""
        self.requests += 1
        if uncached:
            self.uncached[uncached] = self.uncached.get(uncached, 0) + 1

    def answered(self, asked: int, matched: int, seconds: float) -> None:
        """A match for asked tokens was answered."""
        self.matches_answered += 1
        self.tokens_asked += asked
        self.tokens_matched += matched
        self._observe("match", seconds)

    def load_ended(self, tokens: int, took_s: float, waited_s: float) -> None:
        """A load brought tokens; how long it took by itself, and for its request."""
        self.tokens_loaded += tokens
        self._observe("load", took_s)
        self._observe("load_wait", waited_s)

    def _observe(self, name: str, seconds: float) -> None:
        """Keeps a single value, unless there are too many."""
        kept = self.observed.setdefault(name, [])
        if len(kept) < _MOST_OBSERVED:
            kept.append(seconds)


@dataclass
class WorkerStats:
    """What the worker half of one rank did. Bytes and chunks of loads count
    once the daemon confirmed them."""

    loads: int = 0
    # Not all chunks came; those that were cancelled, because their request was
    # over, among them.
    loads_failed: int = 0
    loads_cancelled: int = 0
    chunks_loaded: int = 0
    bytes_loaded: int = 0
    blocks_invalid: int = 0
    # Loads that ended early, by what came in their way.
    load_failures: dict[str, int] = field(default_factory=dict)
    load_s: float = 0.0
    chunks_stored: int = 0
    # Of those, chunks that this rank's parts made complete.
    chunks_published: int = 0
    bytes_stored: int = 0
    # Other bytes, or the same, were there before.
    chunks_duplicate: int = 0
    chunks_conflict: int = 0
    # Chunks not stored: no credit at hand, or the daemon said no.
    dropped_no_credit: int = 0
    dropped_rejected: int = 0
    dropped_failed: int = 0
    hook_s: dict[str, float] = field(default_factory=dict)

    def load_failure(self, kind: str) -> None:
        """A load ended early."""
        self.load_failures[kind] = self.load_failures.get(kind, 0) + 1


class Summary:
    """Says now and then what was done, and nothing while nothing is."""

    def __init__(self, interval_s: float = 60.0) -> None:
        self._interval_s = interval_s
        self._next = 0.0
        self._last: tuple[int, ...] = ()

    def due(self, now: float, numbers: tuple[int, ...]) -> bool:
        """Whether to log these numbers; now: time.monotonic() seconds."""
        if now < self._next or numbers == self._last or not any(numbers):
            return False
        self._next = now + self._interval_s
        self._last = numbers
        return True


def timed(method: F) -> F:
    """Adds a method's wall time to self.stats.hook_s, under its name."""
    name = method.__name__

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(self, *args, **kwargs)
        finally:
            hooks = self.stats.hook_s
            hooks[name] = hooks.get(name, 0.0) + time.perf_counter() - start

    return cast("F", wrapper)
