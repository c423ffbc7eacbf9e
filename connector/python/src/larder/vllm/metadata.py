"""What the two halves tell each other, step by step. All of it is pickled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorWorkerMetadata,
)

from larder.errors import InvalidError
from larder.namespace import NamespaceDescriptor, diff


@dataclass(frozen=True)
class Handshake(KVConnectorHandshakeMetadata):
    """From each worker to the scheduler, once, before the first step.

    namespace: canonical encoding; empty where Larder is off, and off says why.
    """

    namespace: bytes
    off: str = ""


def common_namespace(handshakes: Sequence[Handshake]) -> NamespaceDescriptor:
    """Returns the namespace that all ranks have; INVALID names a field that differs."""
    namespace, *others = [NamespaceDescriptor.decode(n) for n in sorted({h.namespace for h in handshakes})]
    for other in others:
        different = diff(namespace, other)[0]
        raise InvalidError(
            "the ranks of this engine have different namespaces", different.field, different.a, different.b
        )
    return namespace


@dataclass(frozen=True)
class LoadOp:
    """Chunks [first_chunk, first_chunk + chunks) of a hold, into pages.

    blocks: for each KV cache group, ids of the pages to write: the chunks'
    blocks without the first skip_blocks, which a local hit covers or which lie
    behind the group's window. deadline: time.monotonic() seconds. priority:
    among the loads that wait, the lowest goes first. in_step_s: seconds that the
    step itself, which computes on top of these pages, waits for them; 0: it
    does not.
    """

    request_id: str
    hold_id: int
    first_chunk: int
    chunks: int
    skip_blocks: tuple[int, ...]
    blocks: tuple[tuple[int, ...], ...]
    deadline: float
    priority: int = 0
    in_step_s: float = 0.0


@dataclass(frozen=True)
class StoreOp:
    """One chunk to read from pages after the step's computation. blocks: for
    each KV cache group, ids of its pages. quality: 0 exact, else 1 + the worst
    level of what it rests on."""

    request_id: str
    ordinal: int
    key: bytes
    parent: bytes
    blocks: tuple[tuple[int, ...], ...]
    quality: int = 0


@dataclass
class StepMetadata(KVConnectorMetadata):
    """From the scheduler to every worker.

    idle_wait_s: seconds that the worker waits for its loads, in a step that
    computes nothing. number: of a step whose time is measured, else 0. writes:
    ids of the blocks that its computation writes and its requests did not write
    before; None: not said. arrived: requests of whose loads' end the engine has heard
    since the last step. session: what loads and stores belong to, counted from
    0, which workers begin by themselves; namespace: canonical encoding, in the
    first step of a later one, empty where there is none.
    """

    loads: list[LoadOp] = field(default_factory=list)
    stores: list[StoreOp] = field(default_factory=list)
    idle_wait_s: float = 0.0
    number: int = 0
    writes: tuple[int, ...] | None = None
    arrived: tuple[str, ...] = ()
    session: int = 0
    namespace: bytes = b""


@dataclass
class WorkerReport(KVConnectorWorkerMetadata):
    """From the workers to the scheduler.

    dropped: (request, ordinal) of chunks that were not stored on some rank.
    published: of those that became visible, where the engine publishes events.
    failed: the first chunk that could not be loaded, counted from the load's
    first, for each request whose load failed on some rank. handshakes: sent
    once, for a scheduler half that did not get them before the first step,
    because another connector's took their place. number: that of the step's
    metadata. took_s: the seconds of each load that ended, on the slowest rank,
    without its wait for earlier ones.
    """

    dropped: set[tuple[str, int]] = field(default_factory=set)
    failed: dict[str, int] = field(default_factory=dict)
    handshakes: tuple[Handshake, ...] = ()
    number: int = 0
    took_s: dict[str, float] = field(default_factory=dict)
    published: set[tuple[str, int]] = field(default_factory=set)

    def aggregate(self, other: WorkerReport) -> WorkerReport:
        """Adds what another rank reports."""
        failed = dict(self.failed)
        for request_id, chunk in other.failed.items():
            failed[request_id] = min(chunk, failed.get(request_id, chunk))
        took = dict(self.took_s)
        for request_id, seconds in other.took_s.items():
            took[request_id] = max(seconds, took.get(request_id, seconds))
        return WorkerReport(
            self.dropped | other.dropped,
            failed,
            self.handshakes + other.handshakes,
            max(self.number, other.number),
            took,
            self.published | other.published,
        )
