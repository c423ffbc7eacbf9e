"""One connection to the daemon: a bidirectional stream, from hello to its end."""

from __future__ import annotations

import functools
import math
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from larder.batcher import Batcher
from larder.breaker import Breaker
from larder.calls import Call, Calls
from larder.credits import Credit
from larder.errors import InvalidError, Kind, LarderError, UnavailableError
from larder.lane import Lane
from larder.leases import Leases
from larder.pending import Pending
from larder.rpcerror import from_proto, from_rpc_error
from larder.stats import Counters
from larder.timers import Timers
from larder.v1 import engine_pb2, error_pb2, part_pb2

METHOD = "/larder.v1.Engine/Session"
# After this a notice is tried again that found no place among the calls.
_AGAIN_S = 0.01
# How long the stream may outlive its lane.
_STREAM_END_S = 1.0

T = TypeVar("T")
Reply = engine_pb2.SessionResponse
Request = engine_pb2.SessionRequest


@dataclass(frozen=True)
class Events:
    """What the owner of a session hears, on the session's receiving thread."""

    # Credits that a revoke took.
    revoked: Callable[[list[Credit]], None]
    # The daemon takes no new work.
    draining: Callable[[], None]
    # The namespace was cleared: credits granted before will be rejected.
    epoch: Callable[[int], None]


class Session:
    """A session sends on gRPC's thread, which pulls the queue of messages,
    and reads on its owner's thread in `run`. Requests may come from any
    thread; their results are set by the receiver, or by the timer at their
    deadline.

    Requests cross gRPC as bytes, encoded by whoever asks, where their size is
    checked. Replies are decoded and handled in the function that gRPC calls as
    their deserializer, on its own thread: waking a reader of ours first, which
    then wakes the caller, made a match a third slower.

    Once there is a lane (larder.lane) all messages go over it, the stream only
    tells how the session ends, and replies are handled on the thread of whoever
    waits for one.

    So what handles replies, callbacks included, must not block."""

    def __init__(
        self,
        channel: grpc.Channel,
        timers: Timers,
        breaker: Breaker,
        counters: Counters,
        events: Events,
        max_in_flight: int,
        call_timeout_s: float,
    ) -> None:
        self._timers = timers
        self._breaker = breaker
        self._counters = counters
        self._events = events
        self._max_in_flight = max_in_flight
        self.timeout_s = call_timeout_s
        self._calls = Calls(max_in_flight)
        self._max_message = 1 << 20
        # SimpleQueue has no bound of its own: every message in it is one of
        # the calls, whose number is bounded.
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._reason: LarderError | None = None
        self.hello = engine_pb2.HelloReply()
        self._greeted = False
        # When the timer looks for calls past their deadline.
        self._sweep_at = math.inf
        # Set once anything but the hello was answered.
        self.proven = False
        self.draining = False
        self._finished = False
        self.leases = Leases(self.answer_revoke)
        self._answers: Batcher[part_pb2.Slot | int] = Batcher(self._send_answers, 1024, 1 << 16)
        self._holds: Batcher[int] = Batcher(self._send_holds, 1024, 1 << 12)
        self._returns: Batcher[part_pb2.Slot] = Batcher(self._send_returns, 1024, 1 << 16)
        self._lane: Lane | None = None
        self._stream: Any = channel.stream_stream(METHOD, None, self._receive)(iter(self._out.get, None))

    # -- the stream ----------------------------------------------------------

    def greet(self, hello: engine_pb2.Hello, timeout_s: float) -> engine_pb2.HelloReply:
        """Opens the session; blocks. Raises LarderError: the daemon's own where
        it refuses, UNAVAILABLE where it is not there."""
        answer: Pending[engine_pb2.HelloReply] = Pending(timeout_s)
        call = Call(functools.partial(self._take, answer, lambda reply: reply.hello, "hello"), answer.fail)
        call_id = self._calls.add(call)
        self._out.put(Request(id=call_id, hello=hello).SerializeToString())
        self._timers.at(answer.deadline, functools.partial(self._no_greeting, answer))
        while not answer.done and self._step():
            pass
        if not answer.done:
            raise self._reason or UnavailableError("the daemon ended the stream without an answer to hello")
        self.hello = answer.result()
        self._greeted = True
        limits = self.hello.limits
        if limits.max_in_flight:
            self._calls.limit(min(self._max_in_flight, limits.max_in_flight))
        if limits.max_message_bytes:
            self._max_message = limits.max_message_bytes
        return self.hello

    def _no_greeting(self, answer: Pending[engine_pb2.HelloReply]) -> None:
        if not answer.done:
            self.abort(UnavailableError("the daemon did not answer hello in time"))

    def run(self) -> LarderError:
        """Reads until the stream ends; returns why it did."""
        while self._step():
            pass
        return self._reason or UnavailableError("the daemon closed the session")

    def _step(self) -> bool:
        try:
            next(self._stream)
        except StopIteration:
            self._lose(UnavailableError("the daemon closed the session"))
            return False
        except grpc.RpcError as error:
            self._lose(from_rpc_error(error))
            return False
        return True

    def _receive(self, data: bytes) -> bool:
        """Handles one message; gRPC takes what this returns for the message."""
        try:
            self._dispatch(Reply.FromString(data))
        except (DecodeError, LarderError) as error:
            self.abort(UnavailableError(f"the daemon sent garbage: {error}"))
        if self.draining and not self._finished and len(self._calls) == 0 and self.leases.quiet:
            # The daemon waits for its sessions to leave.
            self.finish()
        return True

    def abort(self, reason: LarderError) -> None:
        """Gives the connection up: the reader ends soon."""
        if self._reason is None:
            self._reason = reason
        self._stream.cancel()

    def discard(self) -> None:
        """Ends a session that nobody reads any more."""
        self._lose(UnavailableError("the session was given up"))
        self._stream.cancel()

    def finish(self) -> None:
        """Says what is left to say and closes this side: the daemon ends the
        session, and with it the reader."""
        self._finished = True
        for batcher in (self._answers, self._holds, self._returns):
            batcher.flush()
        if self._lane is not None:
            self._lane.finish()
        else:
            self._out.put(None)

    def _lose(self, error: LarderError) -> None:
        self._reason = error = self._reason or error
        self._out.put(None)
        if self._lane is not None:
            self._lane.close()
        for call in self._calls.lose(error):
            call.fail(error)
        self.leases.lose(error)
        self._ended.set()

    @property
    def alive(self) -> bool:
        """Whether the stream stands."""
        return self._reason is None

    # -- the lane ------------------------------------------------------------

    def take_lane(self, sock: socket.socket) -> None:
        """Sends and receives over a lane from now on; before the first request."""
        self._lane = Lane(sock, self._receive, self._lane_ended)
        self._lane.start()

    def wait(self, done: Callable[[], bool], until: float) -> None:
        """Reads on the calling thread until done or `until` (time.monotonic()
        seconds), where there is a lane that no other thread reads; else returns
        at once."""
        if self._lane is not None:
            self._lane.wait(done, until)

    def _lane_ended(self) -> None:
        # The end of the stream follows and says why.
        self._timers.at(time.monotonic() + _STREAM_END_S, self._without_lane)

    def _without_lane(self) -> None:
        if self.alive:
            self.abort(UnavailableError("the session's lane has ended"))

    def join(self, timeout_s: float) -> None:
        """Waits for the threads of a session that was lost."""
        if self._lane is not None:
            self._lane.join(timeout_s)

    # -- requests ------------------------------------------------------------

    def ask(
        self,
        body: dict[str, Any],
        pick: Callable[[Reply], T],
        name: str,
        timeout_s: float | None = None,
        late: Callable[[Reply], None] | None = None,
        *,
        reserved: bool = False,
    ) -> Pending[T]:
        """Starts a request with one answer. body: the one field of
        SessionRequest to set; name: that field of SessionResponse, read by pick
        on the receiving thread. late: takes an answer after the deadline.
        reserved: may use the places kept free at the limit."""
        try:
            return self.ask_or_raise(body, pick, name, timeout_s, late, reserved=reserved)
        except LarderError as error:
            self._counters.failure(error.kind)
            return Pending.failed(error)

    def ask_or_raise(
        self,
        body: dict[str, Any],
        pick: Callable[[Reply], T],
        name: str,
        timeout_s: float | None = None,
        late: Callable[[Reply], None] | None = None,
        *,
        reserved: bool = False,
    ) -> Pending[T]:
        """Like ask, but raises where the request could not be sent."""
        pending: Pending[T] = Pending(self.timeout_s if timeout_s is None else timeout_s, self.wait)
        take = functools.partial(self._take, pending, pick, name)
        call = Call(take, functools.partial(self._fail, pending), late, pending.deadline)
        self._send(body, call, reserved=reserved)
        return pending

    def _send(self, body: dict[str, Any], call: Call, *, reserved: bool = False) -> int:
        call_id = self._calls.add(call, reserved=reserved)
        data = Request(id=call_id, **body).SerializeToString()
        if len(data) > self._max_message:
            self._calls.end(call_id)
            raise InvalidError(
                "the message is too long", next(iter(body)), f"{len(data)} bytes", f"{self._max_message} bytes"
            )
        if call.deadline < self._sweep_at:
            self._sweep_at = call.deadline
            self._timers.at(call.deadline, self._sweep)
        if self._lane is not None:
            self._lane.send(data)
        else:
            self._out.put(data)
        return call_id

    def _fail(self, pending: Pending[Any], error: LarderError) -> None:
        self._counters.failure(error.kind)
        pending.fail(error)

    def _sweep(self) -> None:
        # The time is given up before the calls are looked at: one added in
        # between sets its own.
        self._sweep_at = math.inf
        over, earliest = self._calls.sweep(time.monotonic())
        if earliest < self._sweep_at:
            self._sweep_at = earliest
            self._timers.at(earliest, self._sweep)
        for call in over:
            self._breaker.failure()
            call.fail(UnavailableError("no answer in time"))
        if self._calls.clogged:
            self.abort(UnavailableError("the daemon leaves too many requests unanswered"))

    # -- loads ---------------------------------------------------------------

    def start_load(
        self,
        load: engine_pb2.Load,
        take: Callable[[engine_pb2.LoadReply], None],
        fail: Callable[[LarderError], None],
    ) -> int:
        """Starts a load; its id. Its deadline is its owner's business. Raises
        LarderError where it cannot be sent."""
        call = Call(functools.partial(self._take_load, take, fail), fail)
        return self._send({"load": load}, call)

    def release(self, load_id: int) -> Pending[bool]:
        """Ends a load: whether the daemon confirms its leases."""
        answer = self.ask(
            {"release": engine_pb2.Release(load_id=load_id)},
            lambda reply: reply.release.confirmed,
            "release",
            reserved=True,
        )
        # An unfinished load gets no further reply once it is released.
        answer.add_callback(lambda _: self._calls.end(load_id))
        return answer

    # -- notices -------------------------------------------------------------

    def end_holds(self, hold_ids: Sequence[int]) -> None:
        """Ends holds, best effort."""
        self._holds.add(list(hold_ids))

    def return_slots(self, slots: Sequence[part_pb2.Slot]) -> None:
        """Gives grants back, best effort."""
        self._returns.add(list(slots))

    def answer_revoke(self, slots: Sequence[part_pb2.Slot], load_ids: Sequence[int]) -> None:
        """Says that nobody touches these any more."""
        self._answers.add([*slots, *load_ids])

    def _send_holds(self, ids: list[int]) -> bool:
        body = {"end_holds": engine_pb2.EndHolds(hold_ids=ids)}
        return self._notify(body, "end_holds", self._holds, ids)

    def _send_returns(self, slots: list[part_pb2.Slot]) -> bool:
        body = {"return_credits": engine_pb2.ReturnCredits(slots=slots)}
        return self._notify(body, "return_credits", self._returns, slots)

    def _send_answers(self, items: list[part_pb2.Slot | int]) -> bool:
        answer = engine_pb2.RevokeAnswer()
        for item in items:
            if isinstance(item, int):
                answer.load_ids.append(item)
            else:
                answer.grants.append(item)
        return self._notify({"revoke_answer": answer}, "revoke_answer", self._answers, items)

    def _notify(self, body: dict[str, Any], name: str, batcher: Batcher[T], items: list[T]) -> bool:
        if not self.alive:
            return False
        answer = self.ask(body, lambda _: None, name, reserved=True)
        if answer.error is not None and answer.error.kind == Kind.BUSY:
            self._timers.at(time.monotonic() + _AGAIN_S, functools.partial(batcher.again, items))
            return True
        answer.add_callback(lambda _: batcher.answered())
        return True

    def _take(self, pending: Pending[T], pick: Callable[[Reply], T], name: str, reply: Reply) -> bool:
        which = reply.WhichOneof("body")
        if which == name:
            pending.resolve(pick(reply))
        elif which == "error":
            self._fail(pending, from_proto(reply.error))
        else:
            error = UnavailableError("the daemon answered with another message than asked for", name, str(which))
            self._fail(pending, error)
            raise error
        return True

    def _take_load(
        self, take: Callable[[engine_pb2.LoadReply], None], fail: Callable[[LarderError], None], reply: Reply
    ) -> bool:
        which = reply.WhichOneof("body")
        if which == "load":
            take(reply.load)
            return reply.load.done
        if which == "error":
            error = from_proto(reply.error)
            self._counters.failure(error.kind)
            fail(error)
            return True
        raise UnavailableError("the daemon answered a load with another message", "load", str(which))

    # -- replies -------------------------------------------------------------

    def _dispatch(self, reply: Reply) -> None:
        if reply.id == 0:
            self._event(reply)
            return
        call = self._calls.find(reply.id)
        if call is None:
            # A load's last words may cross its release.
            return
        if call.expired:
            self._calls.end(reply.id)
            self._counters.add(late_replies=1)
            if call.late is not None:
                call.late(reply)
            return
        if reply.WhichOneof("body") == "error" and reply.error.kind == error_pb2.ERROR_KIND_UNAVAILABLE:
            self._breaker.failure()
        elif self._greeted:
            self._breaker.success()
            self.proven = True
        if call.take(reply):
            self._calls.end(reply.id)

    def _event(self, reply: Reply) -> None:
        which = reply.WhichOneof("body")
        if which == "revoke":
            revoke = reply.revoke
            self._counters.add(revokes=len(revoke.grants) + len(revoke.load_ids))
            self._events.revoked(self.leases.revoke(revoke.grants, revoke.load_ids))
        elif which == "draining":
            self.draining = True
            self._events.draining()
        elif which == "epoch_changed":
            self._events.epoch(reply.epoch_changed.epoch)
        elif which == "error":
            raise from_proto(reply.error)
        # Anything else is an event of a later minor version.

    def wait_ended(self, timeout_s: float) -> bool:
        """Waits for the end of the stream."""
        return self._ended.wait(timeout_s)
