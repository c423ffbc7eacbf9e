"""A daemon in this process, as small as the protocol allows, whose every answer
a test can replace: late, wrong, never. It proves the client's behaviour under
failures; what the real daemon does is in test_real_daemon.py."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from fake_handover import FakeHandover
from fake_objects import FakeObjects

from larder.v1 import engine_pb2, error_pb2, part_pb2

Request = engine_pb2.SessionRequest
Response = engine_pb2.SessionResponse
Handler = Callable[["FakeSession", Request], None]

SEGMENT = 1 << 20
SLOT = 8192
PARTS = [
    part_pb2.PartSpec(group=0, span=0, head_group=0, raw_length=8192, layers=2),
    part_pb2.PartSpec(group=0, span=0, head_group=1, raw_length=4096, layers=2),
]
# Bounds every wait for what must come; nothing is timed by it.
PATIENCE_S = 60.0


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def memory(name: str) -> int:
    """A segment."""
    fd = os.memfd_create(name)
    os.ftruncate(fd, SEGMENT)
    return fd


class FakeSession:
    """One stream as the daemon sees it."""

    def __init__(self, daemon: FakeDaemon, number: int) -> None:
        self.daemon = daemon
        self.number = number
        self.token = number.to_bytes(32, "little")
        self.requests: list[Request] = []
        self.over = False
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self.lane: socket.socket | None = None
        # Whether the stream outlives the lane.
        self.stays = False

    def send(self, reply_id: int = 0, **body: Any) -> None:
        self.send_raw(Response(id=reply_id, **body).SerializeToString())

    def send_raw(self, data: bytes) -> None:
        """Sends a message over the lane, if there is one, else the stream."""
        if self.lane is None:
            self._out.put(data)
        else:
            self.send_bytes(struct.pack("<I", len(data)) + data)

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes over the lane; into the void where the client is gone."""
        assert self.lane is not None
        with self._sending, contextlib.suppress(OSError):
            self.lane.sendall(data)

    def fail(self, reply_id: int, kind: int, message: str = "no", name: str = "") -> None:
        error = error_pb2.Error(message=message, field=name)
        error.kind = kind  # type: ignore[assignment]
        self.send(reply_id, error=error)

    def end(self) -> None:
        """Ends the stream from the daemon's side, and the lane with it."""
        self._out.put(None)
        if self.lane is not None:
            with contextlib.suppress(OSError):
                self.lane.shutdown(socket.SHUT_RDWR)

    def of(self, name: str) -> list[Request]:
        """Requests of one kind, in order."""
        return [r for r in list(self.requests) if r.WhichOneof("body") == name]

    def run(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        reader = threading.Thread(target=self._read, args=(requests,), daemon=True)
        if not context.add_callback(self._gone):
            # It is over already, and nobody would tell.
            self._gone()
        reader.start()
        while (data := self._out.get()) is not None:
            yield data

    def _read(self, requests: Iterator[bytes]) -> None:
        try:
            for data in requests:
                request = Request.FromString(data)
                self.daemon.note(self, request)
        except Exception as error:
            if not isinstance(error, grpc.RpcError) and type(error) is not Exception:
                raise
        finally:
            self.end()

    def serve_lane(self, lane: socket.socket) -> None:
        """Handles what comes over the lane, whose end is the stream's."""
        with lane, contextlib.suppress(OSError, EOFError):
            with self._sending:
                self.lane = lane
                lane.sendall(struct.pack("<BHI", 0, 0, 0))
            while True:
                (size,) = struct.unpack("<I", _exactly(lane, 4))
                self.daemon.note(self, Request.FromString(_exactly(lane, size)))
        if not self.stays:
            self.end()

    def _gone(self) -> None:
        self.end()
        self.daemon.note_end(self)


@dataclass
class FakeDaemon:
    """Starts at making. Behaviour is changed through its fields."""

    folder: Path
    limits: engine_pb2.Limits = field(
        default_factory=lambda: engine_pb2.Limits(
            max_in_flight=64,
            max_message_bytes=1 << 20,
            max_match_chunks=4096,
            max_parts=64,
            max_credits=64,
            max_holds=64,
            hold_default_ms=10_000,
            hold_max_ms=60_000,
            lease_ms=60_000,
            revoke_grace_ms=60_000,
        )
    )
    mode: engine_pb2.ArenaMode = engine_pb2.ARENA_MODE_SHARED
    shares: bool = True
    lease_s: float = 60.0
    lanes: bool = True
    refuse_lane: tuple[int, str] | None = None
    refuse_handover: tuple[int, str] | None = None
    # Replaces the handler of a kind of request.
    on: dict[str, Handler] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.socket = str(self.folder / "larder.sock")
        self.handover = str(self.folder / "handover.sock")
        self.news = threading.Condition()
        self.sessions: list[FakeSession] = []
        self.chunks: dict[bytes, dict[int, tuple[part_pb2.Slot, int]]] = {}
        self.objects = FakeObjects(self)
        self.holds: dict[int, list[bytes]] = {}
        self.lifetimes: list[int] = []
        self._next_slot = 0
        self._generation = 0
        self._next_hold = 0
        self.segment = memory("fake")
        self.own = memory("fake-own")
        self._server: grpc.Server | None = None
        self._handing: FakeHandover | None = None
        self.start()

    # -- life ----------------------------------------------------------------

    def start(self) -> None:
        self._server = grpc.server(
            futures.ThreadPoolExecutor(16),
            handlers=[_Handlers(self)],
            options=[("grpc.max_receive_message_length", 64 << 20)],
        )
        self._server.add_insecure_port("unix:" + self.socket)
        self._server.start()
        self._handing = FakeHandover(self, self.handover)

    def stop(self) -> None:
        """Dies: streams break, the sockets are gone."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None
            Path(self.socket).unlink(missing_ok=True)
        if self._handing is not None:
            self._handing.close()
        for session in self.sessions:
            session.end()
        if self._handing is not None:
            self._handing.join(PATIENCE_S)
            self._handing = None

    def close(self) -> None:
        self.stop()
        for fd in [self.segment, self.own, *self.lifetimes]:
            os.close(fd)

    # -- what tests look at ----------------------------------------------------

    @property
    def session(self) -> FakeSession:
        return self.sessions[-1]

    def note(self, session: FakeSession, request: Request) -> None:
        name = request.WhichOneof("body") or ""
        with self.news:
            # A test that has seen the request may replace the handler for the
            # ones that follow, not for this one.
            handler = self.on.get(name) or getattr(self, "_" + name)
            session.requests.append(request)
            self.news.notify_all()
        handler(session, request)
        with self.news:
            self.news.notify_all()

    def note_end(self, session: FakeSession) -> None:
        with self.news:
            session.over = True
            self.news.notify_all()

    def wait_for(self, check: Callable[[], Any]) -> Any:
        """Waits until check is true; it is looked at when a request comes and
        once more when it was handled."""
        with self.news:
            assert self.news.wait_for(check, PATIENCE_S), "the daemon never saw it"
            return check()

    def request(self, name: str, nth: int = 0) -> Request:
        """The nth request of a kind in the newest session, awaited."""
        self.wait_for(lambda: self.sessions and len(self.session.of(name)) > nth)
        return self.session.of(name)[nth]

    def bytes_at(self, slot: part_pb2.Slot, length: int) -> bytes:
        fd = self.own if slot.segment == 65535 else self.segment
        return os.pread(fd, length, slot.offset)

    def put(self, key: bytes, parts: list[bytes]) -> None:
        """A complete chunk, as if stored before."""
        self.chunks[key] = {index: self._written(data) for index, data in enumerate(parts)}

    def keep(self, key: bytes, index: int, data: bytes) -> bool:
        """Stores one part; whether its chunk is complete now."""
        held = self.chunks.setdefault(key, {})
        held[index] = self._written(data)
        return len(held) == len(PARTS)

    def _written(self, data: bytes) -> tuple[part_pb2.Slot, int]:
        slot = self._slot(0)
        os.pwrite(self.segment, data, slot.offset)
        return slot, len(data)

    def segments(self) -> list[int]:
        """The descriptors that a client gets."""
        guarded = self.mode == engine_pb2.ARENA_MODE_GUARDED
        return [self.segment, self.own] if guarded else [self.segment]

    # -- the protocol ----------------------------------------------------------

    def _slot(self, segment: int) -> part_pb2.Slot:
        offset = self._next_slot * SLOT
        assert offset + SLOT <= SEGMENT, "the fake's arena is used up"
        self._next_slot += 1
        self._generation += 1
        return part_pb2.Slot(segment=segment, offset=offset, length=SLOT, generation=self._generation)

    def _deadline(self) -> int:
        return time.monotonic_ns() + int(self.lease_s * 1e9)

    def hello_reply(self, session: FakeSession) -> engine_pb2.HelloReply:
        reply = engine_pb2.HelloReply(
            major=1,
            session_id=session.number,
            session_token=session.token,
            tenant_key=b"t" * 32,
            epoch=1,
            limits=self.limits,
            parts=PARTS,
            daemon="fake",
            lane_socket=self.handover if self.lanes else "",
        )
        if self.shares:
            reply.arena.mode = self.mode
            reply.arena.handover_socket = self.handover
            reply.arena.segment_bytes.append(SEGMENT)
            if self.mode == engine_pb2.ARENA_MODE_GUARDED:
                reply.arena.write_segment_bytes = SEGMENT
        return reply

    def _hello(self, session: FakeSession, request: Request) -> None:
        session.send(request.id, hello=self.hello_reply(session))

    def _match(self, session: FakeSession, request: Request) -> None:
        session.send(request.id, match=self.match_reply(request.match))

    def match_reply(self, match: engine_pb2.Match) -> engine_pb2.MatchReply:
        keys = [match.keys[i : i + 32] for i in range(0, len(match.keys), 32)]
        found: list[bytes] = []
        for key in keys:
            if len(self.chunks.get(key, {})) < len(PARTS):
                break
            found.append(key)
        reply = engine_pb2.MatchReply(chunks=len(found))
        if found and match.hold_ms != 0xFFFFFFFF:
            self._next_hold += 1
            self.holds[self._next_hold] = found
            reply.hold_id = self._next_hold
        return reply

    def _renew_hold(self, session: FakeSession, request: Request) -> None:
        if request.renew_hold.hold_id in self.holds:
            session.send(request.id, renew_hold=engine_pb2.RenewHoldReply(hold_deadline_ns=self._deadline()))
        else:
            session.fail(request.id, error_pb2.ERROR_KIND_MISS, "no such hold", "renew_hold.hold_id")

    def _end_holds(self, session: FakeSession, request: Request) -> None:
        for hold in request.end_holds.hold_ids:
            self.holds.pop(hold, None)
        session.send(request.id, end_holds=engine_pb2.EndHoldsReply())

    def _skip(self, session: FakeSession, request: Request) -> None:
        session.fail(
            request.id, error_pb2.ERROR_KIND_INVALID, "a daemon of an earlier version does not know it", "body"
        )

    def _prefetch(self, session: FakeSession, request: Request) -> None:
        reply = self.match_reply(engine_pb2.Match(keys=request.prefetch.keys, hold_ms=0xFFFFFFFF))
        session.send(request.id, prefetch=engine_pb2.PrefetchReply(resident=reply.chunks))

    def load_reply(self, load: engine_pb2.Load, *, done: bool = True) -> engine_pb2.LoadReply:
        reply = engine_pb2.LoadReply(done=done, deadline_ns=self._deadline())
        keys = self.holds[load.hold_id]
        for chunk in range(load.first_chunk, load.first_chunk + load.chunks):
            for part in load.parts or range(len(PARTS)):
                slot, length = self.chunks[keys[chunk]][part]
                reply.ready.add(chunk=chunk, part=part, slot=slot, length=length)
        return reply

    def _load(self, session: FakeSession, request: Request) -> None:
        if request.load.hold_id in self.holds:
            session.send(request.id, load=self.load_reply(request.load))
        else:
            session.fail(request.id, error_pb2.ERROR_KIND_MISS, "no such hold", "load.hold_id")

    def _release(self, session: FakeSession, request: Request) -> None:
        session.send(request.id, release=engine_pb2.ReleaseReply(confirmed=True))

    def grant(self, want: engine_pb2.Credits) -> engine_pb2.CreditsReply:
        guarded = self.mode == engine_pb2.ARENA_MODE_GUARDED
        slots = [self._slot(65535 if guarded else 0) for w in want.want for _ in range(w.count)]
        # One deadline for all, as the daemon gives it: each its own would part them
        # by as long as this thread waits for a processor.
        deadline = self._deadline()
        return engine_pb2.CreditsReply(
            granted=[engine_pb2.GrantedSlot(slot=slot, deadline_ns=deadline) for slot in slots]
        )

    def _credits(self, session: FakeSession, request: Request) -> None:
        session.send(request.id, credits=self.grant(request.credits))

    def _commit(self, session: FakeSession, request: Request) -> None:
        reply = engine_pb2.CommitReply()
        for chunk in request.commit.chunks:
            held = self.chunks.setdefault(chunk.key, {})
            for part in chunk.parts:
                held[part.part] = (part.slot, part.length)
                reply.outcomes.append(
                    engine_pb2.COMMIT_OUTCOME_PUBLISHED if len(held) == len(PARTS) else engine_pb2.COMMIT_OUTCOME_KEPT
                )
        session.send(request.id, commit=reply)

    def _return_credits(self, session: FakeSession, request: Request) -> None:
        session.send(request.id, return_credits=engine_pb2.ReturnCreditsReply())

    def _revoke_answer(self, session: FakeSession, request: Request) -> None:
        session.send(request.id, revoke_answer=engine_pb2.RevokeAnswerReply())


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method == "/larder.v1.Engine/Session":
            return grpc.stream_stream_rpc_method_handler(self._session)
        return self._daemon.objects.handler(method)

    def _session(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        session = FakeSession(self._daemon, len(self._daemon.sessions) + 1)
        with self._daemon.news:
            self._daemon.sessions.append(session)
        yield from session.run(requests, context)
