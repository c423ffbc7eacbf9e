"""Stores: from pages into the arena, between the step that computed them and the
next one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from vllm.logger import init_logger

from larder.commit import CommitChunk, CommitPart
from larder.credits import Credit, Writing
from larder.errors import LarderError
from larder.load import Bytes
from larder.pending import Pending
from larder.v1 import engine_pb2
from larder.vllm.copiers import Copiers, wait_for
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


class Batch:
    """The chunks of one step, until all of them are copied."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self.written: list[tuple[StoreOp, list[Credit]]] = []

    def ended(self, op: StoreOp, taken: list[Credit] | None) -> bool:
        """One copy has ended, with taken None in vain; whether it was the last."""
        with self._lock:
            if taken is not None:
                self.written.append((op, taken))
            self._left -= 1
            return not self._left


class Saver:
    """Copies chunks into credits and commits them.

    save only starts the copies, so that the step's tokens leave first. They run
    on threads of their own, and settle, called before the next step touches
    pages, waits for them. The last one commits. Whatever is in the way of a
    store drops it.
    """

    def __init__(
        self,
        client: StoreClient,
        adapters: Mapping[tuple[int, int], LayoutAdapter],
        parts: Sequence[RankPart],
        chunk_tokens: int,
        stats: WorkerStats,
        threads: int,
        *,
        tell_published: bool = False,
    ) -> None:
        self._client = client
        self._adapters = adapters
        self._tell_published = tell_published
        self._copiers = Copiers(threads, "larder-store")
        self._parts = tuple(part for part in parts if part.writes)
        self._chunk_tokens = chunk_tokens
        self._stats = stats
        self._copies: list[Future[None]] = []
        # Filled and counted on several threads.
        self._lock = threading.Lock()
        self._dropped: set[tuple[str, int]] = set()
        self._published: set[tuple[str, int]] = set()

    # -- the engine's thread -------------------------------------------------

    def save(self, ops: Sequence[StoreOp]) -> None:
        """Starts to store chunks. After the first one without a credit the rest
        of its request is dropped too: chunks after a gap are of no use yet."""
        if not self._parts:
            return
        ready = self._take_all(ops)
        self._start(Batch(len(ready)), ready)

    def follow(self, ops: Sequence[StoreOp]) -> bool:  # noqa: ARG002
        """A step begins that stores these chunks; whether their copies can start
        while it goes through the layers. On processors they cannot: they would
        take them from the computation."""
        return False

    def give_up(self) -> None:
        """The step that began does not come to its end: nothing of it is stored."""

    def _take_all(self, ops: Sequence[StoreOp]) -> list[tuple[StoreOp, list[Credit]]]:
        """Credits for chunks, as far as there are any."""
        gap: set[str] = set()
        ready: list[tuple[StoreOp, list[Credit]]] = []
        for op in ops:
            taken = [] if op.request_id in gap else self._take()
            if taken:
                ready.append((op, taken))
            else:
                gap.add(op.request_id)
                self._drop(op)
        return ready

    def _start(self, batch: Batch, ready: Sequence[tuple[StoreOp, list[Credit]]]) -> None:
        """Starts the copies of one step."""
        self._copies += [self._copiers.start(self._copy, batch, op, taken) for op, taken in ready]

    def settle(self, writes: Sequence[int] | None = None) -> None:  # noqa: ARG002
        """Waits until nothing reads pages any more. writes: all that matters, or
        None."""
        if self._copies:
            copies, self._copies = self._copies, []
            wait_for(copies)

    def close(self) -> None:
        """Ends the threads."""
        self._copiers.close()

    def take_dropped(self) -> set[tuple[str, int]]:
        """Returns request and ordinal of the chunks dropped since the last call."""
        if not self._dropped:
            return set()
        with self._lock:
            dropped, self._dropped = self._dropped, set()
        return dropped

    def take_published(self) -> set[tuple[str, int]]:
        """As take_dropped, of the chunks that this rank's parts made complete."""
        if not self._published:
            return set()
        with self._lock:
            published, self._published = self._published, set()
        return published

    def _take(self) -> list[Credit]:
        """Credits for one chunk, or none."""
        taken: list[Credit] = []
        for part in self._parts:
            credit = self._client.take_credit(part.length)
            if credit is None:
                self._give_back(taken)
                return []
            taken.append(credit)
        return taken

    def _give_back(self, taken: list[Credit]) -> None:
        for credit in taken:
            self._client.return_credit(credit)

    def _drop(self, op: StoreOp) -> None:
        with self._lock:
            self._dropped.add((op.request_id, op.ordinal))
            self._stats.dropped_no_credit += 1

    # -- the copying threads -------------------------------------------------

    def _copy(self, batch: Batch, op: StoreOp, taken: list[Credit]) -> None:
        self._ended(batch, op, taken, good=self._write(op, taken))

    def _ended(self, batch: Batch, op: StoreOp, taken: list[Credit], *, good: bool) -> None:
        """A chunk's copies have ended, and nothing writes into its slots."""
        if not good:
            self._give_back(taken)
            self._drop(op)
        if batch.ended(op, taken if good else None):
            self._commit_all(batch)

    def _write(self, op: StoreOp, taken: list[Credit]) -> bool:
        """Copies a chunk's parts while none of the slots can be revoked."""
        views: dict[tuple[int, int], list[tuple[PartHeads, Bytes]]] = {}
        try:
            sections, slots = self._open(taken)
        except LarderError:
            # A slot was revoked.
            return False
        try:
            for part, slot in zip(self._parts, slots, strict=True):
                views.setdefault((part.group, part.span), []).append((part.heads, slot))
            for (group, span), some in views.items():
                self._adapters[group, span].gather(op.blocks[group], some)
        except Exception:
            logger.exception("Larder: a chunk of %s is not stored", op.request_id)
            return False
        finally:
            self._leave(sections)
        return True

    def _open(self, taken: Sequence[Credit]) -> tuple[list[Writing], list[Bytes]]:
        """Enters the sections in which a chunk's slots can be written; returns
        them with the parts' bytes. Raises LarderError where a slot is gone."""
        sections: list[Writing] = []
        slots: list[Bytes] = []
        try:
            for part, credit in zip(self._parts, taken, strict=True):
                section = credit.writing()
                slots.append(section.__enter__()[: part.length])
                sections.append(section)
        except BaseException:
            self._leave(sections)
            raise
        return sections, slots

    def _leave(self, sections: Sequence[Writing]) -> None:
        for section in sections:
            section.__exit__(None, None, None)

    def _commit_all(self, batch: Batch) -> None:
        most = max(1, max_parts(self._client.hello) // len(self._parts))
        written = sorted(batch.written, key=lambda w: (w[0].request_id, w[0].ordinal))
        for i in range(0, len(written), most):
            self._commit(written[i : i + most])

    def _commit(self, written: Sequence[tuple[StoreOp, list[Credit]]]) -> None:
        chunks = []
        for op, taken in written:
            parts = [CommitPart(p.index, c, p.length) for p, c in zip(self._parts, taken, strict=True)]
            chunks.append(CommitChunk(op.key, op.parent, op.ordinal, self._chunk_tokens, parts, op.quality))
        pending = self._client.commit(chunks)
        if pending.error is not None:
            # Nothing was sent, or the connection is gone; dead credits are
            # ignored here.
            for _, taken in written:
                self._give_back(taken)
        pending.add_callback(self._answered([op for op, _ in written]))

    # -- the client's thread -------------------------------------------------

    def _answered(self, ops: list[StoreOp]) -> Callable[[Pending[engine_pb2.CommitReply]], None]:
        def answered(pending: Pending[engine_pb2.CommitReply]) -> None:
            reply = None if pending.error is not None else pending.poll()
            with self._lock:
                if reply is None:
                    self._stats.dropped_failed += len(ops)
                    self._dropped.update((op.request_id, op.ordinal) for op in ops)
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
            self._dropped.add((op.request_id, op.ordinal))
        elif engine_pb2.COMMIT_OUTCOME_CONFLICT in outcomes:
            stats.chunks_conflict += 1
        elif engine_pb2.COMMIT_OUTCOME_DUPLICATE in outcomes:
            stats.chunks_duplicate += 1
        else:
            stats.chunks_stored += 1
            if engine_pb2.COMMIT_OUTCOME_PUBLISHED in outcomes:
                stats.chunks_published += 1
                if self._tell_published:
                    self._published.add((op.request_id, op.ordinal))
            stats.bytes_stored += sum(part.length for part in self._parts)
