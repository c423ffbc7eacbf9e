"""Mooncake Store's shared-memory client, as an arm of a benchmark.

Runs in an environment with mooncake-transfer-engine(-non-cuda), in a network
namespace of its own: Mooncake listens on every interface, whatever it is told.
The master and the client that owns the memory are children of this process.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lines import Answer, serve, timed

MASTER, METRICS, CLIENT = 51051, 19003, 51052
LOG = Path(tempfile.gettempdir()) / "larder-bench-mooncake.log"


def loopback_up() -> None:
    """A new network namespace has its loopback interface down."""
    up, set_flags = 0x1, 0x8914
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, set_flags, struct.pack("16sh14x", b"lo", up))


def await_port(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on port {port} after 30 s: {LOG}")


class Worker:
    """State between commands."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._store: Any = None
        self._n = self._batch = self._stored = self._at = 0

    def open(self, c: Answer) -> Answer:
        """Starts the servers; part_bytes and batch (parts) of every call;
        memory: bytes that sources and destinations rotate through."""
        loopback_up()
        spec = find_spec("mooncake")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        at = Path(spec.submodule_search_locations[0])
        self._n, self._batch, self._memory = c["part_bytes"], c["batch"], c["memory"]
        master = f"127.0.0.1:{MASTER}"
        self._start(
            at / "mooncake_master", "--rpc_address=127.0.0.1", f"--rpc_port={MASTER}", f"--metrics_port={METRICS}"
        )
        await_port(MASTER)
        self._start(
            at / "mooncake_client",
            f"--master_server_address={master}",
            "--metadata_server=P2PHANDSHAKE",
            "--host=127.0.0.1",
            f"--port={CLIENT}",
            "--protocol=tcp",
            f"--global_segment_size={2 * self._memory >> 20} MB",
        )
        await_port(CLIENT)
        from mooncake.store import MooncakeDistributedStore

        self._store = MooncakeDistributedStore()
        spare = 64 << 20
        self._check([self._store.setup_dummy(self._memory + spare, spare, f"127.0.0.1:{CLIENT}")])
        self._pool = self._store.alloc_from_mem_pool(self._memory)
        self._check([self._store.register_buffer(self._pool, self._memory)])
        ctypes.memset(self._pool, 1, self._memory)
        self._slots = ctypes.create_string_buffer(self._memory)
        ctypes.memset(self._slots, 2, self._memory)
        self.store({"batches": self._memory // (self._n * self._batch)})
        return {}

    def _start(self, binary: Path, *flags: str) -> None:
        with LOG.open("ab") as log:
            self._children.append(subprocess.Popen([binary, *flags, "--logtostderr"], stdout=log, stderr=log))

    def pids(self, _: Answer) -> Answer:
        """Of the servers, for their CPU time."""
        return {"pids": [child.pid for child in self._children]}

    def _pieces(self) -> list[int]:
        size = self._n * self._batch
        if self._at + size > self._memory:
            self._at = 0
        first = self._pool + self._at
        self._at += size
        return [first + i * self._n for i in range(self._batch)]

    def _keys(self, batch: int) -> list[str]:
        return [f"{batch}-{i}" for i in range(self._batch)]

    def store(self, c: Answer) -> Answer:
        """Stores batches of new parts over those of before."""
        self._check_removed(self._store.remove_all(True))
        work = [(self._keys(i), self._pieces()) for i in range(c["batches"])]
        self._stored = len(work)
        sizes = [self._n] * self._batch

        def run() -> None:
            for keys, pieces in work:
                self._check(self._store.batch_put_from(keys, pieces, sizes))

        return timed(run)

    def load(self, c: Answer) -> Answer:
        """Loads batches of what the last store stored."""
        work = [(self._keys(i % self._stored), self._pieces()) for i in range(c["batches"])]
        sizes = [self._n] * self._batch

        def run() -> None:
            for keys, pieces in work:
                got = self._store.batch_get_into(keys, pieces, sizes)
                if got != sizes:
                    raise RuntimeError(f"a load answered {got}")

        return timed(run)

    def memcpy(self, c: Answer) -> Answer:
        """Copies as many bytes between private memory and the pool."""
        work = [self._pieces() for _ in range(c["batches"])]
        slots = ctypes.addressof(self._slots) - self._pool

        def run() -> None:
            for pieces in work:
                for piece in pieces:
                    ctypes.memmove(piece + slots, piece, self._n)

        return timed(run)

    @staticmethod
    def _check(codes: list[int]) -> None:
        if any(codes):
            raise RuntimeError(f"a call answered {codes}")

    @staticmethod
    def _check_removed(count: int) -> None:
        if count < 0:
            raise RuntimeError(f"remove_all answered {count}")

    def close(self) -> None:
        for child in self._children:
            child.send_signal(signal.SIGKILL)
            child.wait()


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    try:
        serve(worker, channel)
    finally:
        worker.close()
    sys.stdout.flush()
    os._exit(0)  # its own threads do not end
