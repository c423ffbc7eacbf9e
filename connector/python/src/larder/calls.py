"""The unanswered requests of one session."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from larder.errors import BusyError, LarderError
from larder.v1 import engine_pb2

# Kept free for what must always get through: releases, ended holds, returned
# credits, answers to revokes.
_RESERVE = 16


@dataclass(slots=True)
class Call:
    """One request and what becomes of it. The functions run on the receiving or
    the timer thread, outside of every lock."""

    # Takes a reply; True once no further one will come.
    take: Callable[[engine_pb2.SessionResponse], bool]
    # The call failed: deadline or lost connection.
    fail: Callable[[LarderError], None]
    # Takes a reply that comes after the deadline.
    late: Callable[[engine_pb2.SessionResponse], None] | None = None
    # time.monotonic() seconds.
    deadline: float = math.inf
    expired: bool = False


class Calls:
    """Ids and calls. An expired call keeps its place until its reply comes,
    since the daemon still counts it; so the table never holds more than the
    limit, and neither does the queue of messages to send."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._open: dict[int, Call] = {}
        self._expired = 0
        self._limit = limit
        self._lost: LarderError | None = None

    def limit(self, most: int) -> None:
        """Bounds the unanswered requests, once the daemon's limit is known."""
        self._limit = most

    def add(self, call: Call, *, reserved: bool = False) -> int:
        """An id for the call. Raises LarderError BUSY at the limit, or the
        reason of the loss once the connection is lost."""
        with self._lock:
            if self._lost is not None:
                raise self._lost
            limit = self._limit if reserved else self._common
            if len(self._open) >= limit:
                raise BusyError("too many requests are unanswered", "max_in_flight", str(len(self._open)), str(limit))
            call_id = next(self._ids)
            self._open[call_id] = call
            return call_id

    def find(self, call_id: int) -> Call | None:
        """The call that a reply belongs to."""
        return self._open.get(call_id)

    def end(self, call_id: int) -> None:
        """No further reply comes for it."""
        with self._lock:
            call = self._open.pop(call_id, None)
            if call is not None and call.expired:
                self._expired -= 1

    def sweep(self, now: float) -> tuple[list[Call], float]:
        """Marks the calls expired whose deadline has passed. Those calls, and
        the earliest deadline of the others.

        A call of its own to the timer for each request would wake a thread for
        each, mostly long after its answer; the few that are open when it
        matters are looked through instead."""
        over: list[Call] = []
        earliest = math.inf
        with self._lock:
            for call in self._open.values():
                if call.expired:
                    continue
                if call.deadline <= now:
                    call.expired = True
                    over.append(call)
                elif call.deadline < earliest:
                    earliest = call.deadline
            self._expired += len(over)
        return over, earliest

    @property
    def clogged(self) -> bool:
        """Whether so many calls expired that little can be asked any more."""
        return self._expired * 2 > self._common

    @property
    def _common(self) -> int:
        return max(1, self._limit - _RESERVE)

    def __len__(self) -> int:
        return len(self._open)

    def lose(self, error: LarderError) -> list[Call]:
        """The connection is lost: no call can be added any more. The calls
        that have not failed yet."""
        with self._lock:
            self._lost = error
            calls = [call for call in self._open.values() if not call.expired]
            self._open.clear()
            self._expired = 0
            return calls
