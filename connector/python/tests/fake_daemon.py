"""A daemon in this process, as small as the protocol allows, whose every answer
a test can replace: late, wrong, never. It proves the client's behaviour under
failures; what the real daemon does is in test_real_daemon.py."""

from __future__ import annotations

import array
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

from larder.v1 import engine_pb2, error_pb2, objects_pb2, part_pb2

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
        with self._sending:
            self.lane = lane
            lane.sendall(struct.pack("<BHI", 0, 0, 0))
        with lane, contextlib.suppress(OSError, EOFError):
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
        self.files: dict[str, bytes] = {}
        self.holds: dict[int, list[bytes]] = {}
        self.lifetimes: list[int] = []
        self._next_slot = 0
        self._generation = 0
        self._next_hold = 0
        self.segment = memory("fake")
        self.own = memory("fake-own")
        self._listener: socket.socket | None = None
        self._server: grpc.Server | None = None
        self._acceptor: threading.Thread | None = None
        self._lanes: list[threading.Thread] = []
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
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        Path(self.handover).unlink(missing_ok=True)
        self._listener.bind(self.handover)
        self._listener.listen()
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Dies: streams break, the sockets are gone."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None
            Path(self.socket).unlink(missing_ok=True)
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        if self._acceptor is not None:
            self._acceptor.join()
        for session in self.sessions:
            session.end()
        for thread in self._lanes:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        self._lanes.clear()

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
        held: dict[int, tuple[part_pb2.Slot, int]] = {}
        for index, data in enumerate(parts):
            slot = self._slot(0)
            os.pwrite(self.segment, data, slot.offset)
            held[index] = (slot, len(data))
        self.chunks[key] = held

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
        return engine_pb2.CreditsReply(
            granted=[engine_pb2.GrantedSlot(slot=slot, deadline_ns=self._deadline()) for slot in slots]
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

    # -- hand-over -------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if not self._lane(connection):
                with connection:
                    self._hand_over(connection)

    def _lane(self, connection: socket.socket) -> bool:
        """Whether the connection is for a lane, which is then served."""
        if connection.recv(4, socket.MSG_PEEK) != b"LDL1":
            return False
        token = connection.recv(36)[4:]
        if self.refuse_lane is not None:
            kind, text = self.refuse_lane
            with connection:
                connection.sendall(struct.pack("<BHI", kind, 0, len(text)) + text.encode())
            return True
        (session,) = [s for s in self.sessions if s.token == token]
        self._lanes.append(threading.Thread(target=session.serve_lane, args=(connection,), daemon=True))
        self._lanes[-1].start()
        return True

    def _hand_over(self, connection: socket.socket) -> None:
        asked = connection.recv(36)
        if self.refuse_handover is not None:
            kind, text = self.refuse_handover
            connection.sendall(struct.pack("<BHI", kind, 0, len(text)) + text.encode())
            return
        assert asked[:4] == b"LDH1"
        assert asked[4:] in [s.token for s in self.sessions]
        read_end, write_end = os.pipe()
        self.lifetimes.append(read_end)
        fds = [self.segment]
        if self.mode == engine_pb2.ARENA_MODE_GUARDED:
            fds.append(self.own)
        fds.append(write_end)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        connection.sendmsg([struct.pack("<BHI", 0, len(fds), 0)], rights)
        os.close(write_end)

    # -- objects ---------------------------------------------------------------

    def put_objects(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        head: objects_pb2.PutHead | None = None
        data = b""
        for raw in requests:
            request = objects_pb2.PutRequest.FromString(raw)
            if request.HasField("head"):
                head, data = request.head, b""
            else:
                assert len(request.data) <= 1 << 20
                data += request.data
            assert head is not None
            if head.HasField("file"):
                if len(data) == head.file.length:
                    self.files[head.file.name] = data
                    yield _put_outcome(objects_pb2.PUT_OUTCOME_PUBLISHED)
                continue
            if len(data) < head.part.length:
                continue
            if self._token(context) not in [s.token for s in self.sessions]:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "no such session")
            held = self.chunks.setdefault(head.part.id.chunk_key, {})
            slot = self._slot(0)
            os.pwrite(self.segment, data, slot.offset)
            held[head.part.id.head_group] = (slot, len(data))
            complete = len(held) == len(PARTS)
            yield _put_outcome(objects_pb2.PUT_OUTCOME_PUBLISHED if complete else objects_pb2.PUT_OUTCOME_KEPT)

    def _token(self, context: Any) -> bytes | None:
        return dict(context.invocation_metadata()).get("larder-session-bin")

    def get_objects(self, raw: bytes, context: Any) -> Iterator[bytes]:
        request = objects_pb2.GetRequest.FromString(raw)
        if request.HasField("parts"):
            assert self._token(context) == self.session.token
            for index, part in enumerate(request.parts.ids):
                found = self.chunks.get(part.chunk_key, {}).get(part.head_group)
                yield from _get_frames(index, None if found is None else self.bytes_at(*found))
        else:
            yield from _get_frames(0, self.files.get(request.file))

    def stat_objects(self, raw: bytes, _: Any) -> bytes:
        request = objects_pb2.StatRequest.FromString(raw)
        reply = objects_pb2.StatResponse()
        for part in request.parts.ids:
            reply.parts.add(present=part.head_group in self.chunks.get(part.chunk_key, {}))
        if request.file in self.files:
            reply.file.length = len(self.files[request.file])
        return reply.SerializeToString()

    def delete_objects(self, raw: bytes, _: Any) -> bytes:
        request = objects_pb2.DeleteRequest.FromString(raw)
        existed = (
            self.files.pop(request.file, None) if request.HasField("file") else self.chunks.pop(request.chunk_key, None)
        ) is not None
        return objects_pb2.DeleteResponse(existed=existed).SerializeToString()


def _put_outcome(outcome: objects_pb2.PutOutcome) -> bytes:
    return objects_pb2.PutResponse(outcome=outcome).SerializeToString()


def _get_frames(index: int, data: bytes | None) -> Iterator[bytes]:
    if data is None:
        head = objects_pb2.GetHead(index=index, error_kind=int(error_pb2.ERROR_KIND_MISS))
        yield objects_pb2.GetResponse(head=head).SerializeToString()
        return
    head = objects_pb2.GetHead(index=index, length=len(data), descriptor=b"d")
    yield objects_pb2.GetResponse(head=head).SerializeToString()
    # Frames smaller than allowed, so that readers have to join them.
    for at in range(0, len(data), 3000):
        yield objects_pb2.GetResponse(data=data[at : at + 3000]).SerializeToString()


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def service(self, handler_call_details: Any) -> Any:
        daemon = self._daemon
        match handler_call_details.method:
            case "/larder.v1.Engine/Session":
                return grpc.stream_stream_rpc_method_handler(self._session)
            case "/larder.v1.Objects/Put":
                return grpc.stream_stream_rpc_method_handler(daemon.put_objects)
            case "/larder.v1.Objects/Get":
                return grpc.unary_stream_rpc_method_handler(daemon.get_objects)
            case "/larder.v1.Objects/Stat":
                return grpc.unary_unary_rpc_method_handler(daemon.stat_objects)
            case "/larder.v1.Objects/Delete":
                return grpc.unary_unary_rpc_method_handler(daemon.delete_objects)
        return None

    def _session(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        session = FakeSession(self._daemon, len(self._daemon.sessions) + 1)
        with self._daemon.news:
            self._daemon.sessions.append(session)
        yield from session.run(requests, context)
