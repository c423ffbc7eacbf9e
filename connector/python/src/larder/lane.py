"""The lane: a session's messages over a Unix socket of their own
(storage/arena/PROTOCOL.md)."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable

from larder.errors import UnavailableError

_HEAD = struct.Struct("<I")
_BUFFER = 64 << 10
# A reply that nobody waits for is read after this: a thread that wakes for each
# of them would take the interpreter's lock from whoever computes.
_GRACE_S = 0.001
_WAKE = 0


class Lane:
    """Frames over a socket, read by whoever waits.

    gRPC hands every reply from thread to thread, which costs more than the
    daemon's work. Here the thread that waits for an answer reads, and handles
    what comes for others too (`wait`); a thread of the lane's own reads only
    what came while nobody waited. At any time at most one thread reads.

    Sending never waits: what the socket does not take is kept, bounded by the
    session's limit of unanswered requests, and sent by the lane's thread. So
    whoever reads may send."""

    def __init__(self, sock: socket.socket, receive: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        # Two objects for one socket, since each has its own timeout.
        self._in = sock
        self._out = sock.dup()
        self._out.setblocking(False)
        self._receive = receive
        # Called once, on the thread that finds out that the lane has ended.
        self._lost = lost
        self._reading = threading.Lock()
        self._buffer = bytearray(_BUFFER)
        self._have = 0
        self._sending = threading.Lock()
        self._unsent: deque[memoryview] = deque()
        self._over = False
        self._closed = False
        self._epoll = select.epoll()
        # Under _reading and _sending: what the lane's thread listens for.
        self._fd_in = self._in.fileno()
        self._fd_out = self._out.fileno()
        self._epoll.register(self._fd_in, select.EPOLLIN)
        self._epoll.register(self._fd_out, 0)
        self._thread = threading.Thread(target=self._run, name="larder-lane", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # -- sending ---------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Sends one message, now or soon."""
        frame = memoryview(_HEAD.pack(len(message)) + message)
        with self._sending:
            if not self._unsent:
                frame = self._push(frame)
                if not frame:
                    return
                if not self._over:
                    self._epoll.modify(self._fd_out, select.EPOLLOUT)
            self._unsent.append(frame)

    def _push(self, frame: memoryview) -> memoryview:
        """What of the frame the socket did not take."""
        try:
            return frame[self._out.send(frame, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            return frame
        except OSError:
            # The reader finds out.
            return frame[:0]

    def _flush(self) -> None:
        with self._sending:
            while self._unsent:
                left = self._push(self._unsent[0])
                if left:
                    self._unsent[0] = left
                    return
                self._unsent.popleft()
            self._epoll.modify(self._fd_out, 0)

    # -- reading ---------------------------------------------------------------

    def wait(self, done: Callable[[], bool], until: float) -> None:
        """Reads until done, at most until `until` (time.monotonic() seconds).
        Returns at once where another thread reads, or the lane has ended: then
        the caller waits for what that thread, or the session's end, brings."""
        if not self._reading.acquire(blocking=False):
            return
        try:
            if self._over:
                return
            self._epoll.modify(self._fd_in, 0)
            while not done() and not self._over:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._in.settimeout(left)
                self._read()
            if not self._over:
                self._epoll.modify(self._fd_in, select.EPOLLIN)
        finally:
            self._reading.release()

    def _read(self) -> bool:
        """Takes what the socket has and handles all complete messages. Whether
        there was anything."""
        try:
            n = self._in.recv_into(memoryview(self._buffer)[self._have :])
        except (TimeoutError, BlockingIOError):
            return False
        except OSError:
            n = 0
        if n == 0:
            self._end()
            return False
        have = self._have + n
        at = 0
        buffer = self._buffer
        while have - at >= 4:
            (size,) = _HEAD.unpack_from(buffer, at)
            if have - at - 4 < size:
                if size + 4 > len(buffer):
                    grown = bytearray(size + 4)
                    grown[: have - at] = buffer[at:have]
                    self._buffer = buffer = grown
                    have -= at
                    at = 0
                break
            message = bytes(memoryview(buffer)[at + 4 : at + 4 + size])
            at += 4 + size
            self._receive(message)
        if at and have > at:
            buffer[: have - at] = buffer[at:have]
        self._have = have - at
        return True

    def _end(self) -> None:
        self._over = True
        self._lost()

    def _run(self) -> None:
        while True:
            events = self._epoll.poll()
            if self._closed:
                return
            for fd, event in events:
                if fd == self._fd_out and event & select.EPOLLOUT:
                    self._flush()
            time.sleep(_GRACE_S)
            if not self._reading.acquire(blocking=False):
                continue
            try:
                if self._over:
                    return
                self._in.settimeout(0)
                while self._read():
                    pass
                if self._over:
                    return
            finally:
                self._reading.release()

    # -- the end ---------------------------------------------------------------

    def finish(self) -> None:
        """Says that no more comes from here."""
        try:
            self._out.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._closed = True
        try:
            self._out.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
