"""The lane: a session's messages over a Unix socket of their own
(storage/arena/PROTOCOL.md, section 8)."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable

_HEAD = struct.Struct("<I")
_BUFFER = 64 << 10
# The most that a message may have, so that garbage in place of a length does
# not take all memory.
_MAX_MESSAGE = 64 << 20
# What came while nobody waited is read after this: a thread that wakes for each
# message would take the interpreter's lock from whoever computes.
_GRACE_S = 0.001
# Sockets and poll round a wait up to milliseconds, select does not.
_SHORT_S = 0.002
_FD_SETSIZE = 1024


class Lane:
    """Messages over a socket, read by whoever waits.

    gRPC hands every reply from thread to thread, which costs more than the
    daemon's work. Here a thread that waits for an answer reads by itself, and
    handles what comes for others (`wait`); a thread of the lane's reads what
    comes while nobody waits. At most one thread reads at any time.

    Sending never waits: what the socket does not take is kept, bounded by the
    session's limit of unanswered requests, and sent by the lane's thread. So
    whoever reads may send, and a daemon that waits for us to read gets it."""

    def __init__(self, sock: socket.socket, receive: Callable[[bytes], object], lost: Callable[[], None]) -> None:
        # Takes the socket over. receive: handles one message, on the thread
        # that reads; lost: called once, when the lane has ended.
        self._in = sock
        # Another object for the same socket, since each has its own timeout.
        self._out = sock.dup()
        self._out.setblocking(False)
        self._receive = receive
        self._lost = lost
        # Lock order: reading before sending. Who reads holds `_reading`.
        self._reading = threading.Lock()
        self._buffer = bytearray(_BUFFER)
        self._have = 0
        self._sending = threading.Lock()
        self._unsent: deque[memoryview] = deque()
        self._finishing = False
        self._over = False
        # The lane's thread listens to `_in` unless another one reads, and to
        # `_out` while something is unsent.
        self._listening = select.epoll()
        self._listening.register(self._in, select.EPOLLIN)
        self._listening.register(self._out, 0)
        self._thread = threading.Thread(target=self._run, name="larder-lane", daemon=True)

    def start(self) -> None:
        """Starts the lane's thread."""
        self._thread.start()

    # -- sending -------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Sends one message, now or soon; into the void once the lane is over."""
        frame = memoryview(_HEAD.pack(len(message)) + message)
        with self._sending:
            if self._over:
                return
            if not self._unsent:
                frame = self._push(frame)
                if not frame:
                    return
                self._listening.modify(self._out, select.EPOLLOUT)
            self._unsent.append(frame)

    def _push(self, frame: memoryview) -> memoryview:
        """What of the frame the socket did not take."""
        try:
            return frame[self._out.send(frame, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            return frame
        except OSError:
            # The other end is gone; who reads finds out.
            return frame[:0]

    def _flush(self) -> None:
        with self._sending:
            while self._unsent:
                left = self._push(self._unsent[0])
                if left:
                    self._unsent[0] = left
                    return
                self._unsent.popleft()
            self._listening.modify(self._out, 0)
            if self._finishing:
                self._shutdown(socket.SHUT_WR)

    def finish(self) -> None:
        """Nothing more is sent after what was: the daemon ends the session."""
        with self._sending:
            self._finishing = True
            if not self._unsent:
                self._shutdown(socket.SHUT_WR)

    # -- reading -------------------------------------------------------------

    def wait(self, done: Callable[[], bool], until: float) -> None:
        """Reads until done, at most until `until` (time.monotonic() seconds).
        Returns at once where another thread reads or the lane is over: what the
        caller waits for then comes from there."""
        if not self._reading.acquire(blocking=False):
            return
        try:
            if self._over:
                return
            self._listening.modify(self._in, 0)
            while not done() and not self._over:
                left = until - time.monotonic()
                if left <= 0 or not self._ready(left):
                    break
                self._read()
            if not self._over:
                self._listening.modify(self._in, select.EPOLLIN)
        except BaseException:
            # A signal's handler raised, perhaps in the middle of a message.
            self._end()
            raise
        finally:
            self._reading.release()

    def _ready(self, left: float) -> bool:
        """Prepares for a read that waits at most so long."""
        if left >= _SHORT_S or self._in.fileno() >= _FD_SETSIZE:
            self._in.settimeout(left)
            return True
        self._in.settimeout(0)
        return bool(select.select([self._in], [], [], left)[0])

    def _read(self) -> bool:
        """Takes what the socket has and handles every complete message; whether
        there was anything."""
        if self._over:
            return False
        try:
            count = self._in.recv_into(memoryview(self._buffer)[self._have :])
        except (TimeoutError, BlockingIOError):
            return False
        except OSError:
            count = 0
        if count == 0:
            self._end()
            return False
        have = self._have + count
        at = 0
        while have - at >= _HEAD.size:
            (size,) = _HEAD.unpack_from(self._buffer, at)
            begin = at + _HEAD.size
            if have - begin < size:
                if size > _MAX_MESSAGE:
                    self._end()
                    return False
                break
            at = begin + size
            self._receive(bytes(memoryview(self._buffer)[begin:at]))
        self._keep(at, have)
        return True

    def _keep(self, at: int, have: int) -> None:
        """Moves what is left of the buffer to its front, with room for all of
        the message that it begins."""
        rest = bytes(memoryview(self._buffer)[at:have])
        need = _BUFFER
        if len(rest) >= _HEAD.size:
            need = max(need, _HEAD.size + _HEAD.unpack_from(rest)[0])
        if len(self._buffer) != need:
            self._buffer = bytearray(need)
        self._buffer[: len(rest)] = rest
        self._have = len(rest)

    def _run(self) -> None:
        try:
            while not self._over:
                events = self._listening.poll()
                if any(event & select.EPOLLOUT for _, event in events):
                    self._flush()
                time.sleep(_GRACE_S)
                if self._reading.acquire(blocking=False):
                    self._drain()
        finally:
            with self._reading, self._sending:
                self._listening.close()
                self._in.close()
                self._out.close()

    def _drain(self) -> None:
        """Reads what is there; `_reading` is held, and released."""
        try:
            self._in.settimeout(0)
            while self._read():
                pass
        except BaseException:
            # A callback raised: nobody would read any more.
            self._end()
            raise
        finally:
            self._reading.release()

    # -- the end -------------------------------------------------------------

    def _end(self) -> None:
        """Nothing more comes; `_reading` is held."""
        if not self._over:
            self._over = True
            # Wakes the lane's thread, which closes everything.
            self._shutdown(socket.SHUT_RDWR)
            self._lost()

    def close(self) -> None:
        """Ends the lane: its thread, and a wait that reads, end soon."""
        self._shutdown(socket.SHUT_RDWR)

    def join(self, timeout_s: float) -> None:
        """Waits for the lane's thread."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _shutdown(self, how: int) -> None:
        with contextlib.suppress(OSError):
            self._out.shutdown(how)
