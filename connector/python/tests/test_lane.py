"""The lane: who reads, and what becomes of frames that are late, in pieces or
garbage. That all else is as over a stream is shown by every other test, which
runs over both."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from fake_daemon import PATIENCE_S, FakeDaemon, FakeSession, Request
from support import Connect, eventually

from larder.client import NO_HOLD, Client
from larder.errors import Kind, LarderError, UnavailableError
from larder.lane import Lane
from larder.v1 import engine_pb2, error_pb2

ROOT = b"r" * 32
KEYS = b"k" * 32
HEAD = struct.Struct("<I")


@pytest.fixture
def lane() -> bool:
    """These tests choose by themselves."""
    return True


@pytest.fixture
def client(daemon: FakeDaemon, connect: Connect) -> Client:
    """A client whose messages go over a lane."""
    made = connect(lane=True)
    assert daemon.session.lane is not None
    return made


def frame(request: Request, chunks: int) -> bytes:
    data = engine_pb2.SessionResponse(id=request.id, match=engine_pb2.MatchReply(chunks=chunks)).SerializeToString()
    return HEAD.pack(len(data)) + data


def test_replies_in_pieces_and_several_at_once(daemon: FakeDaemon, client: Client) -> None:
    held: list[Request] = []

    def together(session: FakeSession, request: Request) -> None:
        held.append(request)
        if len(held) == 3:
            data = b"".join(frame(r, r.match.hold_ms) for r in held)
            for cut in (data[:2], data[2:5], data[5:11], data[11:]):
                session.send_bytes(cut)
                time.sleep(0.002)

    daemon.on["match"] = together
    asked = [client.match(ROOT, KEYS, hold_ms=n) for n in (5, 6, 7)]
    assert [pending.result().chunks for pending in asked] == [5, 6, 7]


def test_a_reply_larger_than_the_buffer(daemon: FakeDaemon, client: Client) -> None:
    def long(session: FakeSession, request: Request) -> None:
        session.fail(request.id, error_pb2.ERROR_KIND_MISS, "m" * 300_000)

    daemon.on["match"] = long
    for _ in range(2):
        with pytest.raises(LarderError) as caught:
            client.match(ROOT, KEYS).result()
        assert len(caught.value.message) == 300_000
    del daemon.on["match"]
    assert client.match(ROOT, KEYS).result().chunks == 0


@pytest.mark.parametrize(
    "garbage",
    [HEAD.pack(1 << 31), HEAD.pack(3) + b"\xff\xff\xff", HEAD.pack(2**32 - 1)],
    ids=["long", "junk", "longest"],
)
def test_garbage_ends_the_connection_and_the_next_one_works(daemon: FakeDaemon, client: Client, garbage: bytes) -> None:
    daemon.on["match"] = lambda session, _: session.send_bytes(garbage)
    with pytest.raises(LarderError) as caught:
        client.match(ROOT, KEYS).result()
    assert caught.value.kind is Kind.UNAVAILABLE
    del daemon.on["match"]
    daemon.wait_for(lambda: len(daemon.sessions) == 2)
    assert client.wait_ready(PATIENCE_S)
    assert eventually(lambda: client.match(ROOT, KEYS).result() is not None)


def test_a_lane_that_ends_in_the_middle_of_a_reply(daemon: FakeDaemon, client: Client) -> None:
    def half(session: FakeSession, request: Request) -> None:
        session.send_bytes(frame(request, 1)[:-1])
        session.end()

    daemon.on["match"] = half
    with pytest.raises(UnavailableError):
        client.match(ROOT, KEYS).result()
    daemon.wait_for(lambda: len(daemon.sessions) == 2)


def test_a_lane_that_ends_without_its_stream(daemon: FakeDaemon, client: Client) -> None:
    def cut(session: FakeSession, _: Request) -> None:
        assert session.lane is not None
        session.stays = True
        session.lane.shutdown(socket.SHUT_RDWR)

    daemon.on["match"] = cut
    with pytest.raises(UnavailableError, match="lane has ended"):
        client.match(ROOT, KEYS).result()
    daemon.wait_for(lambda: len(daemon.sessions) == 2)


@pytest.mark.parametrize("kind", [Kind.DENIED, Kind.FULL, Kind.BUSY, Kind.INVALID])
def test_a_refused_lane_leaves_the_stream(daemon: FakeDaemon, connect: Connect, kind: Kind) -> None:
    daemon.refuse_lane = (int(kind), "not for you")
    client = connect(lane=True)
    assert client.match(ROOT, KEYS).result().chunks == 0
    assert len(daemon.sessions) == 1
    assert daemon.session.lane is None


def test_a_lane_that_is_not_there_leaves_the_stream(daemon: FakeDaemon, connect: Connect) -> None:
    reply = daemon.hello_reply

    def elsewhere(session: FakeSession) -> engine_pb2.HelloReply:
        hello = reply(session)
        hello.lane_socket = "/nonexistent/lane.sock"
        return hello

    daemon.hello_reply = elsewhere  # type: ignore[method-assign]
    client = connect(lane=True)
    assert client.match(ROOT, KEYS).result().chunks == 0
    assert daemon.session.lane is None


def test_no_lane_without_shared_memory_or_where_none_is_offered(daemon: FakeDaemon, connect: Connect) -> None:
    connect(lane=True, share_memory=False)
    assert daemon.session.lane is None
    connect(lane=False)
    assert daemon.session.lane is None
    daemon.lanes = False
    connect(lane=True)
    assert daemon.session.lane is None
    assert len(daemon.sessions) == 3


def test_a_callback_needs_nobody_who_waits(daemon: FakeDaemon, client: Client) -> None:
    called = threading.Event()
    client.match(ROOT, KEYS).add_callback(lambda _: called.set())
    assert called.wait(PATIENCE_S)


def test_whoever_waits_reads_for_all(daemon: FakeDaemon, client: Client) -> None:
    """The first to wait gets the last answer, and none of the others stays
    without a reader when those before it leave."""
    threads = 8
    held: list[Request] = []

    def reversed_(session: FakeSession, request: Request) -> None:
        held.append(request)
        if len(held) == threads:
            for late in reversed(held):
                session.send(late.id, match=engine_pb2.MatchReply(chunks=late.match.hold_ms))
                time.sleep(0.002)

    daemon.on["match"] = reversed_
    got: list[int] = [0] * threads

    def ask(n: int) -> None:
        got[n] = client.match(ROOT, KEYS, hold_ms=n + 1).result().chunks

    workers = [threading.Thread(target=ask, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_S)
    assert got == [n + 1 for n in range(threads)]


def test_many_threads_for_a_while(daemon: FakeDaemon, client: Client) -> None:
    wrong: list[object] = []

    def ask(seed: int) -> None:
        for n in range(100):
            hold_ms = 1 + (seed * 100 + n) % 1000
            pending = client.match(ROOT, KEYS, hold_ms=hold_ms)
            if n % 3 == 0:
                eventually(lambda pending=pending: pending.done)  # type: ignore[misc]
            if pending.result().chunks != hold_ms:
                wrong.append((seed, n))

    daemon.on["match"] = lambda session, request: session.send(
        request.id, match=engine_pb2.MatchReply(chunks=request.match.hold_ms)
    )
    workers = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_S)
        assert not worker.is_alive()
    assert wrong == []


def test_a_wait_ends_in_time_and_the_answer_still_comes(daemon: FakeDaemon, client: Client) -> None:
    go = threading.Event()

    def wait(session: FakeSession, request: Request) -> None:
        go.wait(PATIENCE_S)
        session.send(request.id, match=engine_pb2.MatchReply(chunks=3))

    daemon.on["match"] = wait
    pending = client.match(ROOT, KEYS, hold_ms=NO_HOLD)
    for timeout in (0.0, 0.0003, 0.01):
        with pytest.raises(UnavailableError, match="no answer in time"):
            pending.result(timeout)
    go.set()
    assert eventually(pending.poll).chunks == 3


def test_a_deadline_passes_while_the_caller_reads(daemon: FakeDaemon, client: Client) -> None:
    daemon.on["match"] = lambda _session, _request: None
    with pytest.raises(UnavailableError, match="no answer in time"):
        client.match(ROOT, KEYS, timeout=0.02).result()
    assert client.stats.failures == {"UNAVAILABLE": 1}


def test_an_exception_in_the_midst_of_reading_costs_the_connection_only(daemon: FakeDaemon, client: Client) -> None:
    class Stop(BaseException):
        pass

    def stop(_: object) -> None:
        raise Stop

    daemon.on["match"] = lambda _session, _request: None
    pending = client.match(ROOT, KEYS)
    pending.add_callback(stop)
    session = daemon.session
    # Answered once this thread reads, so that the exception is raised here.
    reads = threading.Event()
    wait = client._supervisor.connection.session.wait  # type: ignore[union-attr]

    def read(done: Callable[[], bool], until: float) -> None:
        def noticed() -> bool:
            reads.set()
            return done()

        wait(noticed, until)

    pending._read = read

    def answer() -> None:
        assert reads.wait(PATIENCE_S)
        session.send(daemon.request("match").id, match=engine_pb2.MatchReply())

    answers = threading.Thread(target=answer)
    answers.start()
    with pytest.raises(Stop):
        pending.result()
    answers.join()
    del daemon.on["match"]
    daemon.wait_for(lambda: len(daemon.sessions) == 2)
    assert client.wait_ready(PATIENCE_S)
    assert eventually(lambda: client.match(ROOT, KEYS).result() is not None)


def test_no_descriptor_is_left(daemon: FakeDaemon, connect: Connect) -> None:
    connect(lane=True).close()

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for _ in range(5):
        client = connect(lane=True)
        assert client.match(ROOT, KEYS).result().chunks == 0
        client.close()
    assert [t.name for t in threading.enumerate() if t.name == "larder-lane"] == []
    # Each session of the fake keeps the read end of its lifetime pipe, and the
    # client the write end of the last ones.
    assert eventually(lambda: count() - before <= 2 * 5)


# -- the lane by itself ------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[Lane, socket.socket, list[bytes], threading.Event]]:
    ours, theirs = socket.socketpair()
    got: list[bytes] = []
    lost = threading.Event()
    lane = Lane(ours, got.append, lost.set)
    lane.start()
    yield lane, theirs, got, lost
    lane.close()
    lane.join(PATIENCE_S)
    theirs.close()
    assert lost.is_set()
    assert ours.fileno() == -1


Pair = tuple[Lane, socket.socket, list[bytes], threading.Event]


def read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(1 << 20)
        assert more, "ended early"
        data += more
    return data


def test_sending_never_waits_for_a_slow_reader(pair: Pair) -> None:
    lane, theirs, got, _ = pair
    messages = [bytes([i]) * 100_000 for i in range(20)]
    for message in messages:
        lane.send(message)
    # More than any buffer took, so the rest is on its way by the lane's thread.
    # What comes the other way is read all the while.
    theirs.sendall(HEAD.pack(2) + b"hi")
    assert eventually(lambda: got == [b"hi"])
    want = b"".join(HEAD.pack(len(m)) + m for m in messages)
    assert read(theirs, len(want)) == want
    lane.send(b"after")
    assert read(theirs, 9) == HEAD.pack(5) + b"after"


def test_finish_comes_after_everything(pair: Pair) -> None:
    lane, theirs, _, _ = pair
    lane.send(b"x" * 2_000_000)
    lane.finish()
    assert len(read(theirs, 2_000_004)) == 2_000_004
    assert theirs.recv(1) == b""


def test_the_other_end_is_gone(pair: Pair) -> None:
    lane, theirs, _, lost = pair
    lane.send(b"x" * 2_000_000)
    theirs.close()
    assert lost.wait(PATIENCE_S)
    lane.join(PATIENCE_S)
    lane.send(b"into the void")
    lane.finish()
    lane.wait(lambda: False, time.monotonic() + PATIENCE_S)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_a_receiver_raises_on_the_lanes_thread_ends_the_lane() -> None:
    ours, theirs = socket.socketpair()
    lost = threading.Event()

    def receive(message: bytes) -> None:
        raise ValueError(message)

    lane = Lane(ours, receive, lost.set)
    lane.start()
    with theirs:
        theirs.sendall(HEAD.pack(2) + b"hi")
        assert lost.wait(PATIENCE_S)
        lane.join(PATIENCE_S)
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""


def test_a_close_ends_a_wait(pair: Pair) -> None:
    lane, _, _, lost = pair
    reading = threading.Event()

    def done() -> bool:
        reading.set()
        return False

    waiter = threading.Thread(target=lane.wait, args=(done, time.monotonic() + PATIENCE_S))
    waiter.start()
    assert reading.wait(PATIENCE_S)
    lane.close()
    waiter.join(PATIENCE_S)
    assert not waiter.is_alive()
    assert lost.is_set()


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_in_any_pieces(pair: Pair, seed: int) -> None:
    """Messages come out as they went in, wherever the stream is cut."""
    lane, theirs, got, _ = pair
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    messages = [rng.randbytes(rng.choice([0, 1, 3, 100, 65532, 65536, 70_000])) for _ in range(8)]
    data = b"".join(HEAD.pack(len(m)) + m for m in messages)

    def feed() -> None:
        at = 0
        while at < len(data):
            size = rng.choice([1, 2, 5, 1000, 100_000])
            theirs.sendall(data[at : at + size])
            at += size

    def complete() -> bool:
        return len(got) == len(messages)

    feeder = threading.Thread(target=feed)
    feeder.start()
    until = time.monotonic() + PATIENCE_S
    while not complete() and time.monotonic() < until:
        lane.wait(complete, until)
    feeder.join()
    assert got == messages
