"""Loads and commits over streams, where no memory is shared."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from larder.commit import CommitChunk
from larder.credits import Credit
from larder.errors import InvalidError, LarderError, UnavailableError
from larder.load import FailedPart, LeasedPart, Load
from larder.objects import Objects, PartToPut
from larder.pending import Pending
from larder.stats import Counters
from larder.v1 import engine_pb2, objects_pb2, part_pb2

_OUTCOMES: dict[int, engine_pb2.CommitOutcome] = {
    objects_pb2.PUT_OUTCOME_KEPT: engine_pb2.COMMIT_OUTCOME_KEPT,
    objects_pb2.PUT_OUTCOME_PUBLISHED: engine_pb2.COMMIT_OUTCOME_PUBLISHED,
    objects_pb2.PUT_OUTCOME_DUPLICATE: engine_pb2.COMMIT_OUTCOME_DUPLICATE,
    objects_pb2.PUT_OUTCOME_CONFLICT: engine_pb2.COMMIT_OUTCOME_CONFLICT,
}


def part_id(key: bytes, spec: part_pb2.PartSpec) -> part_pb2.PartId:
    """The id of one part of a chunk."""
    return part_pb2.PartId(chunk_key=key, group=spec.group, span=spec.span, head_group=spec.head_group)


class StreamedLoad(Load):
    """A load whose parts are received into buffers of this process. Nothing
    can be revoked, so whatever arrived counts."""

    def __init__(
        self,
        objects: Objects,
        hello: engine_pb2.HelloReply,
        keys: Sequence[bytes],
        first_chunk: int,
        parts: Sequence[int],
        counters: Counters,
        worst_quality: int = 0,
    ) -> None:
        self._worst_quality = worst_quality
        self.failed: list[FailedPart] = []
        self._objects = objects
        self._counters = counters
        self._wanted = [
            (first_chunk + i, part, part_id(key, hello.parts[part])) for i, key in enumerate(keys) for part in parts
        ]
        self._step = hello.limits.max_parts or len(self._wanted)
        self._parts = 0
        self._bytes = 0
        self._released: Pending[bool] | None = None

    def batches(self, deadline_s: float) -> Iterator[list[LeasedPart]]:
        if self._released is not None:
            raise InvalidError("the load was released before")
        until = time.monotonic() + deadline_s
        for at in range(0, len(self._wanted), self._step):
            wanted = self._wanted[at : at + self._step]
            left = until - time.monotonic()
            if left <= 0:
                raise UnavailableError("the load was not ready in time", "deadline_s", limit=f"{deadline_s:.3f} s")
            for got in self._objects.get_parts([part for _, _, part in wanted], self._worst_quality, timeout=left):
                if got.index >= len(wanted):
                    raise UnavailableError("the daemon sent garbage", "get.head.index", str(got.index))
                chunk, part, _ = wanted[got.index]
                if got.data is None:
                    error = got.error or UnavailableError("no data")
                    self.failed.append(FailedPart(chunk, part, error))
                    continue
                self._parts += 1
                self._bytes += got.data.nbytes
                yield [LeasedPart(chunk, part, got.data)]

    def release_nowait(self) -> Pending[bool]:
        if self._released is None:
            counts = self._parts > 0
            if counts:
                self._counters.add(loads_confirmed=1, parts_loaded=self._parts, bytes_loaded=self._bytes)
            self._counters.add(parts_failed=len(self.failed))
            self._released = Pending.of(counts)
        return self._released


class FailedLoad(Load):
    """A load that could not be started."""

    def __init__(self, error: LarderError) -> None:
        self.failed: list[FailedPart] = []
        self._error = error

    def batches(self, deadline_s: float) -> Iterator[list[LeasedPart]]:
        del deadline_s
        raise self._error

    def release_nowait(self) -> Pending[bool]:
        return Pending.of(False)


class StreamedCommits:
    """Sends committed buffers on one thread of its own. Its queue is bounded by
    the buffers that the pool gives out."""

    def __init__(
        self, objects: Objects, parts: Sequence[part_pb2.PartSpec], done: Callable[[list[Credit]], None]
    ) -> None:
        self._objects = objects
        self._specs = parts
        self._done = done
        self._work: queue.SimpleQueue[tuple[Pending[engine_pb2.CommitReply], Sequence[CommitChunk]] | None]
        self._work = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="larder-put", daemon=True)
        self._thread.start()

    def commit(self, pending: Pending[engine_pb2.CommitReply], chunks: Sequence[CommitChunk]) -> None:
        """Sends the chunks and resolves pending."""
        self._work.put((pending, chunks))

    def close(self) -> None:
        """Ends the thread once what was committed is sent or has failed."""
        self._work.put(None)

    def join(self, timeout_s: float) -> None:
        """Waits for the thread's end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            pending, chunks = job
            failure: LarderError | None = None
            reply = engine_pb2.CommitReply()
            try:
                left = pending.deadline - time.monotonic()
                if left <= 0:
                    raise UnavailableError("no answer in time")
                outcomes = self._objects.put_parts(self._to_put(chunks), left)
                reply.outcomes.extend(_OUTCOMES.get(o, engine_pb2.COMMIT_OUTCOME_UNSPECIFIED) for o in outcomes)
            except LarderError as error:
                failure = error
            finally:
                # Before the answer: whoever has it may take these buffers again.
                self._done([part.credit for chunk in chunks for part in chunk.parts])
            if failure is None:
                pending.resolve(reply)
            else:
                pending.fail(failure)

    def _to_put(self, chunks: Sequence[CommitChunk]) -> list[PartToPut]:
        return [
            PartToPut(
                objects_pb2.PutPart(
                    id=part_id(chunk.key, self._specs[part.part]),
                    parent=chunk.parent,
                    ordinal=chunk.ordinal,
                    tokens=chunk.tokens,
                    quality=chunk.quality,
                    length=part.length or part.credit.length,
                ),
                part.credit.view[: part.length or part.credit.length],
            )
            for chunk in chunks
            for part in chunk.parts
        ]
