"""How long the scheduler's thread waits for answers to matches."""

from __future__ import annotations

import time

from larder.vllm.matching import Match
from larder.vllm.request_state import RequestState
from larder.vllm.settings import Settings


class AnswerWaits:
    """Waits once for each match, and within a step for all of them no longer than
    Settings.step_wait_us."""

    def __init__(self, settings: Settings) -> None:
        self._each_s = settings.match_wait_us / 1e6
        self._step_s = self._left_s = settings.step_wait_us / 1e6
        # A request goes on waiting for its answer.
        self.awaited = False

    def begin_step(self) -> None:
        """What follows belongs to the next step."""
        self._left_s = self._step_s
        self.awaited = False

    def wait(self, state: RequestState, match: Match) -> None:
        """Waits once for a request, within what the step has left."""
        seconds = min(self._each_s, self._left_s)
        if match.done or state.waited or seconds <= 0:
            return
        state.waited = True
        start = time.perf_counter()
        match.wait(seconds)
        self._left_s -= time.perf_counter() - start
