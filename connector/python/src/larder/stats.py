"""Plain counters of one client."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from larder.errors import Kind


@dataclass
class ClientStats:
    """What a client did since it was made. Read through Client.stats, which
    hands out a copy; bytes and parts are counted once they count (a confirmed
    release, an answered commit)."""

    matches: int = 0
    chunks_asked: int = 0
    chunks_matched: int = 0
    loads: int = 0
    loads_confirmed: int = 0
    parts_loaded: int = 0
    bytes_loaded: int = 0
    parts_failed: int = 0
    commits: int = 0
    bytes_stored: int = 0
    # By outcome: KEPT, PUBLISHED, DUPLICATE, CONFLICT, REJECTED.
    outcomes: dict[str, int] = field(default_factory=dict)
    credits_granted: int = 0
    credits_refused: int = 0
    # Bytes of credits that the daemon allows, as it said last; 0: no bound, or it
    # has not said yet.
    credit_limit: int = 0
    revokes: int = 0
    connects: int = 0
    reconnects: int = 0
    breaker_opens: int = 0
    # Replies that came after their request's deadline.
    late_replies: int = 0
    # Failed calls by kind.
    failures: dict[str, int] = field(default_factory=dict)


class Counters:
    """The lock around a ClientStats."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stats = ClientStats()

    def add(self, **by: int) -> None:
        """Adds to the named plain counters."""
        with self._lock:
            for name, n in by.items():
                setattr(self._stats, name, getattr(self._stats, name) + n)

    def outcomes(self, by: Mapping[str, int]) -> None:
        """Counts outcomes of commits."""
        with self._lock:
            for name, n in by.items():
                self._stats.outcomes[name] = self._stats.outcomes.get(name, 0) + n

    def credit_limit(self, limit: int) -> None:
        """The daemon said how many bytes of credits it allows."""
        with self._lock:
            self._stats.credit_limit = limit

    def failure(self, kind: Kind) -> None:
        """Counts a failed call."""
        with self._lock:
            name = kind.name
            self._stats.failures[name] = self._stats.failures.get(name, 0) + 1

    def snapshot(self) -> ClientStats:
        """A consistent copy."""
        with self._lock:
            stats = replace(self._stats)
            stats.outcomes = dict(stats.outcomes)
            stats.failures = dict(stats.failures)
            return stats
