"""The hand-over socket: how a client gets the arena's descriptors, and a lane
(storage/arena/PROTOCOL.md)."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from dataclasses import dataclass

from larder.errors import FullError, InvalidError, UnavailableError
from larder.errors import error as make_error

_MAGIC = b"LDH1"
_LANE_MAGIC = b"LDL1"
_HEAD = struct.Struct("<BHI")
_MAX_TEXT = 4096
# SCM_RIGHTS carries at most this many descriptors.
_MAX_FDS = 253


@dataclass
class Handed:
    """Descriptors from the daemon. The caller owns them."""

    segments: list[int]
    # The write end of a pipe by which the daemon sees that this process is
    # gone; to be kept open for as long as the process may touch a slot.
    lifetime: int

    def close(self) -> None:
        """Closes all of them."""
        for fd in [*self.segments, self.lifetime]:
            os.close(fd)


def receive(path: str, token: bytes, segments: int, timeout_s: float) -> Handed:
    """Asks for the descriptors of `segments` segments (the write segment
    included) and the lifetime pipe. Raises LarderError: the daemon's own where
    it refuses, FULL where a limit of descriptors is in the way, UNAVAILABLE
    where the socket does not answer in time, INVALID for anything else."""
    fds: list[int] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            _ask(sock, path, _MAGIC + token, timeout_s)
            text = _read(sock, fds)
        if len(fds) != segments + 1:
            raise InvalidError(
                text or "the hand-over socket sent another number of descriptors than announced",
                "arena.segments",
                str(len(fds)),
                f"{segments} segments and the lifetime pipe",
            )
        handed = Handed(fds[:-1], fds[-1])
        fds = []
        return handed
    except OSError as error:
        raise UnavailableError(f"hand-over socket: {error}", "arena.handover_socket", path) from error
    finally:
        for fd in fds:
            os.close(fd)


def _ask(sock: socket.socket, path: str, request: bytes, timeout_s: float) -> None:
    sock.settimeout(timeout_s)
    sock.connect(path)
    # A daemon that takes no request at the moment says so and closes, perhaps
    # before this is written: the answer is there all the same.
    with contextlib.suppress(BrokenPipeError):
        sock.sendall(request)


def _read(sock: socket.socket, fds: list[int]) -> str:
    """Reads one answer and appends its descriptors to fds; returns its text."""
    # recv_fds would do, but without the flag that keeps the descriptors from
    # crossing an exec.
    data, ancillary, flags, _ = sock.recvmsg(
        _HEAD.size, socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            got = array.array("i")
            got.frombytes(payload[: len(payload) - len(payload) % got.itemsize])
            fds.extend(got)
    if flags & socket.MSG_CTRUNC:
        raise FullError("descriptors were lost on their way: raise the limit of open files", "RLIMIT_NOFILE")
    data += _read_exactly(sock, _HEAD.size - len(data))
    return _read_head(data, sock, fds)


def _read_head(data: bytes, sock: socket.socket, fds: list[int]) -> str:
    """The rest of an answer; its text."""
    status, count, size = _HEAD.unpack(data)
    if size > _MAX_TEXT:
        raise InvalidError("the hand-over socket sent garbage", "text length", str(size), str(_MAX_TEXT))
    text = _read_exactly(sock, size).decode(errors="replace")
    if status != 0:
        raise make_error(status, text or "the hand-over was refused without a reason", "arena.handover_socket")
    if count != len(fds):
        raise InvalidError(
            "the hand-over socket sent another number of descriptors than it says",
            "descriptors",
            str(len(fds)),
            str(count),
        )
    return text


def _read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise UnavailableError("the hand-over socket was closed in the middle of an answer")
        data += more
    return data


def open_lane(path: str, token: bytes, timeout_s: float) -> socket.socket:
    """A socket that carries the session's messages from now on. Raises
    LarderError as receive does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _ask(sock, path, _LANE_MAGIC + token, timeout_s)
        _read_head(_read_exactly(sock, _HEAD.size), sock, [])
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise UnavailableError(f"hand-over socket: {error}", "lane_socket", path) from error
        raise
    return sock
