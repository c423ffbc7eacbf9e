"""The circuit breaker: a daemon in trouble is left alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Breaker:
    """Closed until `failures` calls in a row failed; then open for `open_s`;
    then half-open: one call goes through as a probe, whose outcome closes or
    opens it again.

    Only what the daemon is to blame for counts: timeouts and UNAVAILABLE.
    A MISS, FULL, BUSY, DENIED, INVALID or CORRUPT is an answer.
    """

    def __init__(
        self,
        failures: int,
        open_s: float,
        on_open: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._open_s = open_s
        self._on_open = on_open
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        # None = closed; else the time from which a probe may go.
        self._until: float | None = None
        self._probing = False

    @property
    def closed(self) -> bool:
        """Whether a call would be let through now."""
        until = self._until
        return until is None or (not self._probing and self._clock() >= until)

    def admit(self) -> bool:
        """Whether this call may go. After True, exactly one of success,
        failure or forget must follow."""
        if self._until is None:
            return True
        with self._lock:
            if self._until is None:
                return True
            if self._probing or self._clock() < self._until:
                return False
            self._probing = True
            return True

    def success(self) -> None:
        """The daemon answered."""
        if self._failures == 0 and self._until is None:
            return
        with self._lock:
            self._failures = 0
            self._until = None
            self._probing = False

    def failure(self) -> None:
        """The daemon did not answer, or is not there."""
        with self._lock:
            self._failures += 1
            opens = self._failures >= self._limit or self._probing
            opened = opens and self._until is None
            if opens:
                self._until = self._clock() + self._open_s
                self._probing = False
        if opened:
            self._on_open()

    def forget(self) -> None:
        """An admitted call never reached the daemon: no verdict."""
        with self._lock:
            self._probing = False

    def hasten(self) -> None:
        """A new connection stands: an open breaker may probe at once."""
        with self._lock:
            if self._until is not None and not self._probing:
                self._until = min(self._until, self._clock())
