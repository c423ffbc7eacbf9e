"""The holds of waiting requests: renewed while they wait, ended once."""

from __future__ import annotations

import time
from collections.abc import Mapping

from larder.vllm.matching import Match
from larder.vllm.request_state import RequestState
from larder.vllm.settings import Settings
from larder.vllm.stats import SchedulerStats


class Holds:
    """The requests whose match may have a hold. Everything runs on the
    scheduler's thread."""

    def __init__(self, settings: Settings, states: Mapping[str, RequestState], stats: SchedulerStats) -> None:
        self._most = settings.early_matches
        self._interval_s = settings.hold_ms / 16000
        self._states = states
        self._stats = stats
        self._asked: dict[str, Match] = {}
        self._next_keep = 0.0

    def __len__(self) -> int:
        return len(self._asked)

    def add(self, request_id: str, match: Match) -> None:
        """A request has asked."""
        self._asked[request_id] = match

    def has_room(self, state: RequestState) -> bool:
        """Whether a request that just arrived may ask already. Where as many as
        may hold do, the least urgent of those that wait makes room for one that
        is more urgent, and asks again when its turn comes."""
        if len(self._asked) < self._most:
            return True
        waiting = [s for s in map(self._states.get, self._asked) if s is not None and not s.loading]
        last = max(waiting, key=lambda s: s.policy.priority, default=None)
        if last is None or last.policy.priority <= state.policy.priority:
            return False
        self.end_of(last)
        last.match = None
        return True

    def end_of(self, state: RequestState) -> None:
        """A request needs its hold no more."""
        if state.match is not None:
            self.end(state.request_id, state.match)

    def end(self, request_id: str, match: Match | None) -> None:
        """Ends a match and its hold."""
        if match is None:
            return
        if match.end():
            self._stats.holds_ended += 1
        if self._asked.get(request_id) is match:
            del self._asked[request_id]

    def end_all(self) -> None:
        """Ends every match and its hold."""
        for request_id, match in list(self._asked.items()):
            self.end(request_id, match)

    def keep(self, now: float) -> None:
        """Renews what is due; to be called in every step."""
        if now >= self._next_keep:
            self._next_keep = now + self._interval_s
            now_ns = time.monotonic_ns()
            for match in self._asked.values():
                match.keep(now_ns)
