"""One thread for every deadline of a client."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable


class Timers:
    """Runs callbacks at their times on one thread. Callbacks must not block.

    There is no cancelling: a callback finds out for itself that it came too
    late, and entries hold nothing large. Most deadlines lie one constant
    ahead of now, so a new one is seldom the earliest, and adding it seldom
    wakes the thread.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wake = threading.Condition(threading.Lock())
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Runs callback at `when` (time.monotonic() seconds); never after close."""
        with self._wake:
            if self._closed:
                return
            self._count += 1
            earliest = not self._heap or when < self._heap[0][0]
            heapq.heappush(self._heap, (when, self._count, callback))
            if earliest:
                self._wake.notify()

    def close(self, timeout: float) -> None:
        """Ends the thread; what has not run yet never will."""
        with self._wake:
            self._closed = True
            self._heap.clear()
            self._wake.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._closed and not self._heap:
                    self._wake.wait()
                if self._closed:
                    return
                left = self._heap[0][0] - self._clock()
                if left > 0:
                    self._wake.wait(min(left, threading.TIMEOUT_MAX))
                    continue
                callback = heapq.heappop(self._heap)[2]
            callback()
