"""The result of a call that has been started."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from larder.errors import LarderError, UnavailableError

_LOG = logging.getLogger("larder")

T = TypeVar("T")

# How long after the call's own deadline a waiter gives up by itself. Only a
# process whose threads are gone (a fork's child) ever waits that long.
_SLACK_S = 1.0


class Pending(Generic[T]):
    """A value to come. Resolved exactly once, by a value or a LarderError, at
    its deadline at the latest.

    The wait is on a bare lock: it is the cheapest wake-up Python has, and
    every call pays for one.
    """

    __slots__ = ("_callbacks", "_done", "_error", "_gate", "_lock", "_read", "_until", "_value")

    def __init__(self, timeout_s: float, read: Callable[[Callable[[], bool], float], None] | None = None) -> None:
        # Reads answers on the waiting thread (Session.wait); may return early.
        self._read = read
        self._lock = threading.Lock()
        self._gate = threading.Lock()
        self._gate.acquire()
        self._done = False
        self._value: T | None = None
        self._error: LarderError | None = None
        self._callbacks: list[Callable[[Pending[T]], None]] = []
        self._until = time.monotonic() + timeout_s

    @classmethod
    def failed(cls, error: LarderError) -> Pending[T]:
        """One that has failed already."""
        pending = cls(0.0)
        pending.fail(error)
        return pending

    @classmethod
    def of(cls, value: T) -> Pending[T]:
        """One that has its value already."""
        pending = cls(0.0)
        pending.resolve(value)
        return pending

    @property
    def deadline(self) -> float:
        """time.monotonic() seconds at which it fails if nothing came."""
        return self._until

    @property
    def done(self) -> bool:
        """Whether poll answers or raises."""
        return self._done

    def _is_done(self) -> bool:
        return self._done

    @property
    def error(self) -> LarderError | None:
        """Why it failed, or None."""
        return self._error

    def poll(self) -> T | None:
        """The value, None if there is none yet; raises the call's LarderError."""
        if not self._done:
            return None
        if self._error is not None:
            raise self._error
        return self._value

    def result(self, timeout: float | None = None) -> T:
        """Waits for the value, at most `timeout` seconds and never past the
        call's deadline. Raises the call's LarderError; UNAVAILABLE where this
        wait ended first (the call goes on)."""
        if not self._done:
            left = min(max(0.0, self._until + _SLACK_S - time.monotonic()), threading.TIMEOUT_MAX)
            wait = left if timeout is None else min(max(timeout, 0.0), left)
            if self._read is not None:
                until = time.monotonic() + wait
                self._read(self._is_done, min(until, self._until))
                wait = max(0.0, until - time.monotonic())
            if self._gate.acquire(timeout=wait):
                self._gate.release()
            elif not self._done:
                raise UnavailableError("no answer in time", "timeout", limit=f"{wait:.3f} s")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def add_callback(self, callback: Callable[[Pending[T]], None]) -> None:
        """Calls callback(self) once done: at once, else on a thread that receives
        for the client (its own, its timer's, or one that waits for another
        result), where it must not block."""
        with self._lock:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback(self)

    def resolve(self, value: T) -> None:
        """Sets the value, unless it was done before."""
        self._settle(value, None)

    def fail(self, error: LarderError) -> None:
        """Sets the error, unless it was done before."""
        self._settle(None, error)

    def _settle(self, value: T | None, error: LarderError | None) -> None:
        with self._lock:
            if self._done:
                return
            self._value = value
            self._error = error
            self._done = True
            callbacks = self._callbacks
            self._callbacks = []
        self._gate.release()
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: Callable[[Pending[T]], None]) -> None:
        try:
            callback(self)
        except Exception:  # noqa: BLE001
            # The thread is the client's, the code is not: it must not take
            # the connection down.
            _LOG.exception("a callback raised")
