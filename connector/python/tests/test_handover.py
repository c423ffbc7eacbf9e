"""The hand-over socket, with daemons that get it wrong."""

from __future__ import annotations

import array
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_daemon import PATIENCE_S, FakeDaemon
from support import Connect, eventually

from larder.errors import DeniedError, FullError, InvalidError, Kind, UnavailableError
from larder.handover import receive

TOKEN = b"t" * 32
Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    """Serves one connection."""
    threads: list[threading.Thread] = []
    listener = socket.socket(socket.AF_UNIX)
    path = str(folder / "h.sock")
    listener.bind(path)
    listener.listen()

    def start(answer: Callable[[socket.socket], None]) -> str:
        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(100) == b"LDH1" + TOKEN
                answer(connection)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join()
    listener.close()


def send(connection: socket.socket, data: bytes, count: int) -> None:
    """Sends data with `count` descriptors."""
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
    for fd in fds:
        os.close(fd)


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_descriptors_come_in_order_and_do_not_cross_exec(serve: Serve) -> None:
    handed = receive(serve(lambda c: send(c, struct.pack("<BHI", 0, 3, 2) + b"ok", 3)), TOKEN, 2, PATIENCE_S)
    assert len(handed.segments) == 2
    assert not any(os.get_inheritable(fd) for fd in [*handed.segments, handed.lifetime])
    handed.close()


def test_an_answer_in_pieces(serve: Serve) -> None:
    def pieces(connection: socket.socket) -> None:
        data = struct.pack("<BHI", 0, 1, 3) + b"yes"
        send(connection, data[:1], 1)
        for byte in data[1:]:
            connection.sendall(bytes([byte]))

    receive(serve(pieces), TOKEN, 0, PATIENCE_S).close()


@pytest.mark.parametrize(
    ("data", "count", "error"),
    [
        (struct.pack("<BHI", Kind.DENIED, 0, 2) + b"no", 0, DeniedError),
        (struct.pack("<BHI", Kind.FULL, 0, 0), 0, FullError),
        (struct.pack("<BHI", 99, 0, 0), 0, UnavailableError),
        (struct.pack("<BHI", 0, 2, 0), 2, InvalidError),  # one short
        (struct.pack("<BHI", 0, 3, 0), 2, InvalidError),  # says more than it sends
        (struct.pack("<BHI", 0, 4, 0), 4, InvalidError),  # one too many
        (struct.pack("<BHI", 0, 3, 1 << 30), 3, InvalidError),  # endless text
        (struct.pack("<BHI", 0, 3, 5) + b"cut", 3, UnavailableError),
        (b"\0\3", 3, UnavailableError),
        (b"", 0, UnavailableError),
    ],
)
def test_refusals_and_garbage_leak_nothing(serve: Serve, data: bytes, count: int, error: type[Exception]) -> None:
    before = open_fds()

    def answer(connection: socket.socket) -> None:
        if data:
            send(connection, data, count)

    with pytest.raises(error):
        receive(serve(answer), TOKEN, 2, PATIENCE_S)
    eventually(lambda: open_fds() <= before)


def test_a_refusal_before_the_request_is_heard(folder: Path) -> None:
    path = str(folder / "h.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def refuse() -> None:
            for _ in range(20):
                connection, _ = listener.accept()
                with connection:
                    send(connection, struct.pack("<BHI", int(Kind.FULL), 0, 4) + b"full", 0)

        thread = threading.Thread(target=refuse)
        thread.start()
        for _ in range(20):
            with pytest.raises(FullError, match="full"):
                receive(path, TOKEN, 2, PATIENCE_S)
        thread.join()


def test_silence_ends_in_time(serve: Serve) -> None:
    done = threading.Event()

    def wait(_: socket.socket) -> None:
        done.wait(PATIENCE_S)

    path = serve(wait)
    with pytest.raises(UnavailableError):
        receive(path, TOKEN, 2, 0.01)
    done.set()


def test_no_socket(folder: Path) -> None:
    with pytest.raises(UnavailableError):
        receive(str(folder / "none"), TOKEN, 2, 1.0)


@pytest.mark.parametrize("kind", [Kind.DENIED, Kind.FULL])
def test_without_shared_memory_the_client_goes_on_over_streams(
    daemon: FakeDaemon, connect: Connect, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.refuse_handover = (int(kind), "not you")
    client = connect()
    assert client.arena is None
    assert client.ready
    assert "not you" in caplog.text


def test_a_broken_handover_is_tried_again(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.refuse_handover = (int(Kind.UNAVAILABLE), "starting")
    client = connect(ready=False)
    daemon.wait_for(lambda: len(daemon.sessions) >= 2)
    assert not client.ready
    daemon.refuse_handover = None
    assert client.wait_ready(PATIENCE_S)
    # The attempts were declared as over, since they touched nothing.
    assert daemon.session.of("hello")[0].hello.ended_sessions


def test_a_segment_shorter_than_announced_is_not_mapped(daemon: FakeDaemon, connect: Connect) -> None:
    os.ftruncate(daemon.segment, 4096)
    client = connect(ready=False)
    eventually(lambda: client.last_error)
    assert isinstance(client.last_error, InvalidError)
    assert client.last_error.field == "arena.segment_bytes"
    # It would otherwise be looked at by the next attempts.
    os.ftruncate(daemon.segment, 1 << 20)
    assert client.wait_ready(PATIENCE_S)
