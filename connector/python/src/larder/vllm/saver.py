"""Stores: from pages into the arena, within the step that computed them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from vllm.logger import init_logger

from larder.commit import CommitChunk, CommitPart
from larder.credits import Credit
from larder.errors import LarderError
from larder.load import Bytes
from larder.pending import Pending
from larder.v1 import engine_pb2
from larder.vllm.identity import RankPart
from larder.vllm.layout import LayoutAdapter, PartHeads
from larder.vllm.loader import max_parts
from larder.vllm.metadata import StoreOp
from larder.vllm.stats import WorkerStats

logger = init_logger("vllm.larder.saver")

_DROPPED = (engine_pb2.COMMIT_OUTCOME_UNSPECIFIED, engine_pb2.COMMIT_OUTCOME_REJECTED)


class StoreClient(Protocol):
    """What stores need of larder.client.Client."""

    @property
    def hello(self) -> Any:
        """The connection's HelloReply, or None."""
        ...

    def take_credit(self, length: int) -> Credit | None:
        """Returns a slot to write into, or None; never waits."""
        ...

    def return_credit(self, credit: Credit) -> None:
        """Gives a slot back."""
        ...

    def commit(self, chunks: Sequence[CommitChunk]) -> Pending[engine_pb2.CommitReply]:
        """Hands written slots over."""
        ...


class Saver:
    """Copies chunks into credits and commits them.

    The copies are done when save returns, so pages may be reused at once; the
    daemon's answers come later, on the client's thread. Whatever is in the way
    of a store drops it.
    """

    def __init__(
        self,
        client: StoreClient,
        adapter: LayoutAdapter,
        parts: Sequence[RankPart],
        chunk_tokens: int,
        stats: WorkerStats,
    ) -> None:
        self._client = client
        self._adapter = adapter
        self._parts = tuple(part for part in parts if part.writes)
        self._chunk_tokens = chunk_tokens
        self._stats = stats
        # Filled on the client's thread too.
        self._dropped: deque[tuple[str, int]] = deque()

    def save(self, ops: Sequence[StoreOp]) -> None:
        """Stores chunks. After the first one without a credit the rest of its
        request is dropped too: chunks after a gap are of no use yet."""
        if not self._parts:
            return
        batch: list[tuple[StoreOp, CommitChunk]] = []
        most = max(1, max_parts(self._client.hello) // len(self._parts))
        gap: set[str] = set()
        for op in ops:
            chunk = None if op.request_id in gap else self._copy(op)
            if chunk is None:
                gap.add(op.request_id)
                self._dropped.append((op.request_id, op.ordinal))
                self._stats.dropped_no_credit += 1
                continue
            batch.append((op, chunk))
            if len(batch) == most:
                self._commit(batch)
                batch = []
        if batch:
            self._commit(batch)

    def take_dropped(self) -> set[tuple[str, int]]:
        """Returns request and ordinal of the chunks dropped since the last call."""
        dropped: set[tuple[str, int]] = set()
        while self._dropped:
            dropped.add(self._dropped.popleft())
        return dropped

    def _copy(self, op: StoreOp) -> CommitChunk | None:
        taken: list[Credit] = []
        for part in self._parts:
            credit = self._client.take_credit(part.length)
            if credit is None:
                break
            taken.append(credit)
        if len(taken) == len(self._parts) and self._write(op, taken):
            parts = [CommitPart(p.index, c, p.length) for p, c in zip(self._parts, taken, strict=True)]
            return CommitChunk(op.key, op.parent, op.ordinal, self._chunk_tokens, parts)
        for credit in taken:
            self._client.return_credit(credit)
        return None

    def _write(self, op: StoreOp, taken: list[Credit]) -> bool:
        """Copies a chunk's parts while none of the slots can be revoked."""
        sections = [credit.writing() for credit in taken]
        views: list[tuple[PartHeads, Bytes]] = []
        entered = 0
        try:
            for part, section in zip(self._parts, sections, strict=True):
                view = section.__enter__()
                entered += 1
                views.append((part.heads, view[: part.length]))
            self._adapter.gather(op.blocks, views)
        except LarderError:
            return False
        finally:
            for section in sections[:entered]:
                section.__exit__(None, None, None)
        return True

    def _commit(self, batch: list[tuple[StoreOp, CommitChunk]]) -> None:
        pending = self._client.commit([chunk for _, chunk in batch])
        if pending.error is not None:
            # Nothing was sent, or the connection is gone; dead credits are
            # ignored here.
            for _, chunk in batch:
                for part in chunk.parts:
                    self._client.return_credit(part.credit)
        pending.add_callback(self._answered([op for op, _ in batch]))

    def _answered(self, ops: list[StoreOp]) -> Callable[[Pending[engine_pb2.CommitReply]], None]:
        def answered(pending: Pending[engine_pb2.CommitReply]) -> None:
            reply = None if pending.error is not None else pending.poll()
            if reply is None:
                self._stats.dropped_failed += len(ops)
                self._dropped.extend((op.request_id, op.ordinal) for op in ops)
                return
            outcomes = list(reply.outcomes)
            each = len(self._parts)
            for i, op in enumerate(ops):
                self._count(op, outcomes[i * each : (i + 1) * each])

        return answered

    def _count(self, op: StoreOp, outcomes: Sequence[int]) -> None:
        stats = self._stats
        if len(outcomes) < len(self._parts) or any(o in _DROPPED for o in outcomes):
            stats.dropped_rejected += 1
            self._dropped.append((op.request_id, op.ordinal))
        elif engine_pb2.COMMIT_OUTCOME_CONFLICT in outcomes:
            stats.chunks_conflict += 1
        elif engine_pb2.COMMIT_OUTCOME_DUPLICATE in outcomes:
            stats.chunks_duplicate += 1
        else:
            stats.chunks_stored += 1
            stats.bytes_stored += sum(part.length for part in self._parts)
