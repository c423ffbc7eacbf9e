"""Loads out of the arena."""

from __future__ import annotations

import copy
import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from larder.arena import Arena
from larder.errors import InvalidError, Kind, LarderError, MissError, UnavailableError
from larder.load import FailedPart, LeasedPart, Load
from larder.pending import Pending
from larder.rpcerror import from_proto
from larder.session import Session
from larder.stats import Counters
from larder.v1 import engine_pb2


class _State(enum.Enum):
    ASKED = "asked for"
    # Between the first batch and release: its owner may touch slots.
    OPEN = "open"
    RELEASED = "released"


class ArenaLoad(Load):
    """A load whose parts are read where they lie. Replies come in on the
    session's receiving thread and wait in a queue, which the daemon's own limit
    on parts in one load bounds."""

    def __init__(self, session: Session, arena: Arena, counters: Counters, silent: Callable[[], None]) -> None:
        self.failed: list[FailedPart] = []
        self._session = session
        self._arena = arena
        self._counters = counters
        # Called where the daemon left the load without any answer.
        self._silent = silent
        self._news = threading.Condition(threading.Lock())
        self._replies: deque[engine_pb2.LoadReply] = deque()
        self._state = _State.ASKED
        self._done = False
        self._answered = False
        self._revoked = False
        self._error: LarderError | None = None
        self._deadline_ns = 0
        self._id = 0
        self._parts = 0
        self._bytes = 0
        self._released: Pending[bool] | None = None

    def start(self, request: engine_pb2.Load) -> None:
        """Sends the request; a failure shows in batches."""
        try:
            self._id = self._session.start_load(request, self.take, self.lose)
        except LarderError as error:
            self._counters.failure(error.kind)
            self.lose(error)
            return
        self._session.leases.add_load(self._id, self)

    # -- the engine's thread -------------------------------------------------

    def batches(self, deadline_s: float) -> Iterator[list[LeasedPart]]:
        until = time.monotonic() + deadline_s
        self._open()
        while True:
            replies, done = self._wait(until, deadline_s)
            parts = [part for reply in replies for part in self._leased(reply)]
            if parts:
                yield parts
            if done:
                return

    def _open(self) -> None:
        # Lock order: the leases' before the load's own.
        leases = self._session.leases
        with leases.lock, self._news:
            if self._state is _State.RELEASED:
                raise InvalidError("the load was released before")
            if self._error is not None:
                raise self._again()
            if self._revoked:
                raise MissError("the load was revoked before it was read")
            if self._state is _State.ASKED:
                self._state = _State.OPEN
                leases.enter()

    def _wait(self, until: float, deadline_s: float) -> tuple[list[engine_pb2.LoadReply], bool]:
        self._session.wait(self._has_news, until)
        with self._news:
            while not self._replies and not self._done:
                if self._error is not None:
                    raise self._again()
                if self._revoked:
                    raise UnavailableError("the load was revoked before it was complete")
                left = until - time.monotonic()
                if left > 0:
                    self._news.wait(left)
                    continue
                self._counters.failure(Kind.UNAVAILABLE)
                if not self._answered and deadline_s >= self._session.timeout_s:
                    self._silent()
                raise UnavailableError("the load was not ready in time", "deadline_s", limit=f"{deadline_s:.3f} s")
            replies = list(self._replies)
            self._replies.clear()
            return replies, self._done

    def _again(self) -> LarderError:
        """The load's error, to be raised: a copy, since one that is kept keeps the
        frames that it went through, and with them views of the arena."""
        again: LarderError = copy.copy(self._error)  # type: ignore[assignment]
        return again

    def _has_news(self) -> bool:
        return bool(self._replies) or self._done or self._error is not None or self._revoked

    def _leased(self, reply: engine_pb2.LoadReply) -> list[LeasedPart]:
        if reply.deadline_ns:
            self._deadline_ns = reply.deadline_ns
        for failed in reply.failed:
            self.failed.append(FailedPart(failed.chunk, failed.part, from_proto(failed.error)))
        reading = self._arena.reading
        parts: list[LeasedPart] = []
        try:
            for ready in reply.ready:
                length = ready.length
                parts.append(LeasedPart(ready.chunk, ready.part, reading(ready.slot, length)))
                self._bytes += length
        except InvalidError as error:
            # The connection ends later: a release before that must not count.
            self.lose(error)
            self._session.abort(error)
            raise
        self._parts += len(parts)
        return parts

    def release_nowait(self) -> Pending[bool]:
        late = bool(self._deadline_ns) and time.monotonic_ns() > self._deadline_ns
        leases = self._session.leases
        with leases.lock:
            with self._news:
                if self._released is not None:
                    return self._released
                was_open = self._state is _State.OPEN
                self._state = _State.RELEASED
                answer: Pending[bool] = Pending(self._session.timeout_s, self._session.wait)
                self._released = answer
                gone = self._error is not None
                revoked = self._revoked
            leases.drop_load(self._id)
            if was_open:
                leases.leave()
        if gone or revoked:
            if revoked:
                # The revoke was answered when it came, unless slots were in use.
                if was_open:
                    leases.answer_load(self._id)
            elif self._answered and self._session.alive:
                # It failed half-way: what it had leased goes back.
                self._session.release(self._id)
            answer.resolve(False)
            return answer
        self._session.release(self._id).add_callback(lambda asked: self._confirmed(answer, asked, late=late))
        return answer

    def _confirmed(self, answer: Pending[bool], asked: Pending[bool], *, late: bool) -> None:
        confirmed = asked.error is None and bool(asked.poll()) and not late
        if confirmed:
            self._counters.add(loads_confirmed=1, parts_loaded=self._parts, bytes_loaded=self._bytes)
        if self.failed:
            self._counters.add(parts_failed=len(self.failed))
        answer.resolve(confirmed)

    # -- the receiving thread -------------------------------------------------

    def take(self, reply: engine_pb2.LoadReply) -> None:
        """One more answer."""
        with self._news:
            self._answered = True
            self._done = self._done or reply.done
            self._replies.append(reply)
            self._news.notify_all()

    def lose(self, error: LarderError) -> None:
        """The load failed as a whole, or its connection is gone."""
        with self._news:
            if self._error is None:
                self._error = error
            self._news.notify_all()

    def revoke(self) -> bool:
        """The daemon wants the slots back."""
        with self._news:
            self._revoked = True
            self._news.notify_all()
            return self._state is not _State.OPEN
