"""Small notices, gathered into few messages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Batcher(Generic[T]):
    """Keeps at most one message of its kind unanswered; what is added in the
    meantime goes out together in the next. A message costs Python's gRPC
    more than 100 us, an entry in a list nearly nothing."""

    def __init__(self, send: Callable[[list[T]], bool], most: int, hold: int) -> None:
        # Sends a list; False where that is not possible any more.
        self._send = send
        # Entries in one message, and entries kept waiting: further ones are
        # dropped, since every notice has a deadline on the daemon's side that
        # does the same.
        self._most = most
        self._hold = hold
        self._lock = threading.Lock()
        self._waiting: list[T] = []
        self._under_way = False

    def add(self, items: list[T]) -> None:
        """Sends the items now or with the next message."""
        with self._lock:
            self._waiting.extend(items[: max(0, self._hold - len(self._waiting))])
            batch = self._next()
        self._go(batch)

    def answered(self) -> None:
        """The message under way got its answer, or will get none."""
        with self._lock:
            self._under_way = False
            batch = self._next()
        self._go(batch)

    def again(self, batch: list[T]) -> None:
        """A message could not be sent after all: its items go first."""
        with self._lock:
            self._waiting[:0] = batch
        self.answered()

    def flush(self) -> None:
        """Sends everything without waiting for answers."""
        while True:
            with self._lock:
                self._under_way = False
                batch = self._next()
            if not batch:
                return
            self._go(batch)

    def _next(self) -> list[T]:
        if self._under_way or not self._waiting:
            return []
        batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        self._under_way = True
        return batch

    def _go(self, batch: list[T]) -> None:
        if batch and not self._send(batch):
            with self._lock:
                self._waiting.clear()
                self._under_way = False
