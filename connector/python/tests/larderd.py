"""The real daemon as a process."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
from fake_daemon import PATIENCE_S
from google.protobuf.message import Message
from support import eventually

from larder.client import Client, CommitChunk, CommitPart, Credit
from larder.errors import MissError, UnavailableError
from larder.load import Bytes
from larder.namespace import ConfigField, Group, GroupKind, NamespaceDescriptor
from larder.v1 import admin_pb2, engine_pb2

REPOSITORY = Path(__file__).resolve().parents[3]
CHUNK_TOKENS = 256
# 256 tokens of 2 layers with 32 elements for K and 32 for V of 2 bytes.
PART_BYTES = 65536
ROOT = b"r" * 32

M = TypeVar("M", bound=Message)


def build(folder: Path) -> Path:
    """Builds the daemon. The same setting as the Makefile's, so that the
    compiler's cache serves both."""
    binary = folder / "larderd"
    subprocess.run(
        ["go", "build", "-o", str(binary), "./cmd/larderd"],  # noqa: S607 - the Go that made the rest
        cwd=REPOSITORY,
        env={**os.environ, "CGO_ENABLED": "0"},
        check=True,
    )
    return binary


def namespace(name: str = "test") -> NamespaceDescriptor:
    """Chunks of two parts."""
    group = Group(kind=GroupKind.FULL, layers=(0, 1), kv_heads=2, dk=32, dv=32, head_group=1)
    return NamespaceDescriptor(
        weights_id=hashlib.sha256(name.encode()).digest(),
        config=(ConfigField("synthetic", name),),
        kv_dtype="bfloat16",
        groups=(group,),
        chunk_tokens=CHUNK_TOKENS,
    )


def keys(seed: str, count: int) -> list[bytes]:
    """Keys that no other seed has."""
    return [hashlib.sha256(f"{seed} {i}".encode()).digest() for i in range(count)]


def payload(key: bytes, part: int) -> Bytes:
    """The bytes of one part, as different from others as can be."""
    seed = int.from_bytes(key[:8], "little") + part
    return np.random.default_rng(seed).integers(0, 256, PART_BYTES, np.uint8)


def take(client: Client) -> Credit:
    """A credit, once there is one."""
    return eventually(lambda: client.take_credit(PART_BYTES))


@contextmanager
def writing(client: Client) -> Iterator[tuple[Credit, Bytes]]:
    """A section that writes a credit, entered before the credit's deadline,
    however short leases are and however slow this machine."""

    with ExitStack() as stack:

        def enter() -> tuple[Credit, Bytes] | None:
            credit = take(client)
            try:
                return credit, stack.enter_context(credit.writing())
            except MissError:
                return None

        yield eventually(enter)


def store(client: Client, of: list[bytes], *, first: int = 0) -> list[engine_pb2.CommitOutcome]:
    """Stores whole chunks of a prompt; the outcomes of their parts."""
    chunks = []
    for i, key in enumerate(of[first:], first):
        parts = []
        for part in range(2):
            credit = take(client)
            with credit.writing() as view:
                view[:] = payload(key, part)
            parts.append(CommitPart(part, credit))
        chunks.append(CommitChunk(key, of[i - 1] if i else ROOT, i, CHUNK_TOKENS, parts))
    return list(client.commit(chunks).result().outcomes)


def load(client: Client, of: list[bytes], hold_id: int, chunks: int) -> bool:
    """Loads and compares; whether it counts."""
    joined = b"".join(of)
    with client.load(hold_id, 0, chunks, keys=joined) as loading:
        got = 0
        for batch in loading.batches(PATIENCE_S):
            for part in batch:
                assert (part.view == payload(of[part.chunk], part.part)).all()
                got += 1
        assert loading.failed == []
        assert got == 2 * chunks
        return loading.release()


def store_in_the_end(client: Client, of: list[bytes], *, first: int = 0) -> None:
    """Stores on a daemon with leases so short that a busy machine misses some:
    what was refused as late is stored again, until nothing was."""

    def once() -> bool:
        try:
            return engine_pb2.COMMIT_OUTCOME_REJECTED not in store(client, of, first=first)
        except (MissError, UnavailableError):
            return not client.wait_ready(PATIENCE_S)

    eventually(once)


def load_in_the_end(client: Client, of: list[bytes], hold_id: int, chunks: int) -> None:
    """Loads from such a daemon, and compares, until a load counts."""

    def once() -> bool:
        try:
            return load(client, of, hold_id, chunks)
        except (MissError, UnavailableError):
            return False

    eventually(once)


@dataclass
class Larderd:
    """One daemon; keyword options are flags: host__bytes -> --host.bytes."""

    binary: Path
    folder: Path
    flags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.socket = str(self.folder / "larder.sock")
        self._log = (self.folder / "log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        flags = {
            "listen.socket": self.socket,
            "listen.metrics": "off",
            "host.bytes": "64MiB",
            "state_dir": str(self.folder / "state"),
            **{name.replace("__", "."): value for name, value in self.flags.items()},
        }
        self._process = subprocess.Popen(
            [str(self.binary), *(f"--{name}={value}" for name, value in flags.items())], stderr=self._log
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """SIGSTOP, and waits until every thread stands still."""
        self.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        """kill -9, and waits for the end."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def status(self) -> admin_pb2.StatusResponse:
        """What Admin.Status says."""
        return self.admin("Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse)

    def admin(self, method: str, request: Message, answer: type[M]) -> M:
        """One call of the Admin service."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            call = channel.unary_unary(
                f"/larder.v1.Admin/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,
            )
            reply: M = call(request, timeout=PATIENCE_S)
            return reply

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            # A stopped process would not hear anything else.
            self._process.send_signal(signal.SIGCONT)
            self.kill()
        self._log.close()
