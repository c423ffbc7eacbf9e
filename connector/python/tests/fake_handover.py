"""The hand-over socket of the fake daemon, which gives descriptors and lanes."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fake_daemon import FakeDaemon

_HEAD = struct.Struct("<BHI")
_REQUEST = 36


class FakeHandover:
    """Listens from its making on."""

    def __init__(self, daemon: FakeDaemon, path: str) -> None:
        self._daemon = daemon
        self._lanes: list[threading.Thread] = []
        Path(path).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Takes no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()

    def join(self, timeout_s: float) -> None:
        """Waits for the lanes of sessions that were ended."""
        for thread in self._lanes:
            thread.join(timeout_s)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # A client may be gone by then, since its session is.
            with contextlib.suppress(OSError):
                if self._lane(connection):
                    continue
                self._hand_over(connection)
            connection.close()

    def _lane(self, connection: socket.socket) -> bool:
        """Whether the connection is for a lane, which is then served."""
        if connection.recv(4, socket.MSG_PEEK) != b"LDL1":
            return False
        token = connection.recv(_REQUEST)[4:]
        if self._daemon.refuse_lane is not None:
            with connection:
                _refuse(connection, *self._daemon.refuse_lane)
            return True
        (session,) = [s for s in self._daemon.sessions if s.token == token]
        self._lanes.append(threading.Thread(target=session.serve_lane, args=(connection,), daemon=True))
        self._lanes[-1].start()
        return True

    def _hand_over(self, connection: socket.socket) -> None:
        asked = connection.recv(_REQUEST)
        if not asked:
            return
        if self._daemon.refuse_handover is not None:
            _refuse(connection, *self._daemon.refuse_handover)
            return
        assert asked[:4] == b"LDH1"
        assert asked[4:] in [s.token for s in self._daemon.sessions]
        read_end, write_end = os.pipe()
        self._daemon.lifetimes.append(read_end)
        fds = [*self._daemon.segments(), write_end]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            connection.sendmsg([_HEAD.pack(0, len(fds), 0)], rights)
        finally:
            os.close(write_end)


def _refuse(connection: socket.socket, kind: int, text: str) -> None:
    connection.sendall(_HEAD.pack(kind, 0, len(text)) + text.encode())
