"""Pins that requests ask for, made beside the engine."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from vllm.logger import init_logger

from larder.errors import LarderError
from larder.vllm.matching import MatchClient
from larder.vllm.request_state import RequestState
from larder.vllm.stats import SchedulerStats

logger = init_logger("vllm.larder.pins")

# Requests that wait, at most.
_MOST = 64
# Seconds before each try: the last chunks may be on their way to the daemon.
_TRIES = (0.02, 0.5, 3.0)
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class _Pin:
    client: MatchClient
    request_id: str
    keys: bytes


class Pins:
    """Asks the daemon, prompt by prompt, once its request is over. The daemon
    answers when its disk has the chunks, so that takes as long as the disk does,
    on a thread of its own. Nothing here makes the engine wait, or fails a
    request: what is not pinned is counted, and the log says why."""

    def __init__(self, stats: SchedulerStats) -> None:
        self._stats = stats
        self._changed = threading.Condition()
        self._queue: deque[_Pin] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._said: set[str] = set()

    def ask(self, client: MatchClient | None, state: RequestState, chunk_tokens: int) -> None:
        """A request is over."""
        if not state.policy.pin or client is None:
            return
        keys = state.all_keys(state.request.num_prompt_tokens // chunk_tokens)
        if not keys:
            return
        with self._changed:
            if self._closed or len(self._queue) >= _MOST:
                self._stats.pins_dropped += 1
                return
            self._queue.append(_Pin(client, state.request_id, keys))
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="larder-pins", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Ends the thread, after the call under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                one = self._queue.popleft()
            self._pin(one)

    def _pin(self, one: _Pin) -> None:
        stats = self._stats
        try:
            for pause in _TRIES:
                with self._changed:
                    if self._changed.wait_for(lambda: self._closed, pause):
                        return
                reply = one.client.pin(one.keys, _TIMEOUT_S)
                if not reply.absent:
                    break
        except LarderError as error:
            stats.pins_refused += 1
            self._say(str(error.kind), f"{one.request_id} is not pinned: {error}")
            return
        stats.chunks_pinned += reply.chunks
        stats.pins_absent += reply.absent
        stats.pins_full += reply.full
        if reply.full:
            self._say("full", f"{one.request_id}: {reply.full} chunks are not pinned: {reply.text}")

    def _say(self, what: str, text: str) -> None:
        """Once for each kind of trouble: who asks for one pin asks for many."""
        if what not in self._said:
            self._said.add(what)
            logger.warning("Larder: %s", text)
