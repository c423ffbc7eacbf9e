"""Loads: from the arena into pages, on a thread of their own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Protocol

from vllm.logger import init_logger

from larder.errors import LarderError, UnavailableError
from larder.load import LeasedPart, Load
from larder.vllm.copiers import Copiers
from larder.vllm.identity import RankPart
from larder.vllm.layout import LayoutAdapter
from larder.vllm.metadata import LoadOp
from larder.vllm.stats import WorkerStats

logger = init_logger("vllm.larder.loader")


def max_parts(hello: Any) -> int:
    """Returns how many parts one load or commit may name."""
    return (hello.limits.max_parts if hello is not None else 0) or 1024


class _CancelledError(Exception):
    """Nobody waits for the load any more."""


class LoadClient(Protocol):
    """What loads need of larder.client.Client."""

    @property
    def hello(self) -> Any:
        """The connection's HelloReply, or None."""
        ...

    def load(self, hold_id: int, first_chunk: int, chunks: int, parts: Sequence[int] = ()) -> Load:
        """Starts loading chunks of a hold."""
        ...


@dataclass(frozen=True)
class LoadResult:
    """What became of one load. chunks: leading chunks that are in their pages,
    complete; invalid: the pages of all others; took_s: from its turn on."""

    request_id: str
    chunks: int
    invalid: frozenset[int]
    took_s: float


class Loader:
    """Runs loads one after the other, each to its own deadline, and copies the
    parts of one on several threads.

    Every load that was submitted ends in exactly one result, taken by
    take_done; after that nothing writes into its pages any more. Nothing here
    makes the engine's thread wait, except wait, within its timeout.
    """

    def __init__(
        self,
        client: LoadClient,
        adapter: LayoutAdapter,
        parts: Sequence[RankPart],
        all_parts: int,
        chunk_blocks: int,
        stats: WorkerStats,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._adapter = adapter
        self._copiers = Copiers(threads, "larder-load")
        self._heads = {part.index: part.heads for part in parts}
        # Empty stands for all of them, and keeps the message short.
        self._wanted = () if len(parts) == all_parts else tuple(part.index for part in parts)
        self._chunk_blocks = chunk_blocks
        self._stats = stats
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: deque[LoadOp] = deque()
        self._pending: set[str] = set()
        self._cancelled: set[str] = set()
        self._done: list[LoadResult] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="larder-loader", daemon=True)
        self._thread.start()

    # -- the engine's thread -------------------------------------------------

    def submit(self, op: LoadOp) -> None:
        """Starts a load."""
        with self._changed:
            self._pending.add(op.request_id)
            self._queue.append(op)
            self._changed.notify_all()

    def cancel(self, request_ids: set[str]) -> None:
        """Ends the loads of requests that nobody waits for any more, soon; each
        still has its result."""
        with self._changed:
            self._cancelled |= request_ids & self._pending

    def wait(self, timeout_s: float) -> None:
        """Waits until some load is done, or time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._done, timeout_s)

    def take_done(self) -> list[LoadResult]:
        """Returns the results since the last call."""
        if not self._pending:
            return []
        with self._changed:
            done, self._done = self._done, []
            for result in done:
                self._pending.discard(result.request_id)
                self._cancelled.discard(result.request_id)
            return done

    def close(self) -> None:
        """Ends the thread after the copy under way; what is left fails."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(5.0)
        self._copiers.close()

    # -- the loader's thread -------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                op = self._queue.popleft()
            result = self._load(op)
            with self._changed:
                self._done.append(result)
                self._changed.notify_all()

    def _load(self, op: LoadOp) -> LoadResult:
        start = time.perf_counter()
        stats = self._stats
        chunks = 0
        try:
            while chunks < op.chunks:
                loaded, wanted = self._range(op, chunks)
                chunks += loaded
                if loaded < wanted:
                    break
        except _CancelledError:
            stats.loads_cancelled += 1
        except LarderError as error:
            logger.warning("Larder: %s: %d of %d chunks loaded: %s", op.request_id, chunks, op.chunks, error)
        except Exception:
            # Whatever went wrong, the engine must hear of this load's end.
            logger.exception("Larder: load for %s failed", op.request_id)
        invalid = frozenset(op.blocks[self._begin(op, chunks) :] if chunks < op.chunks else ())
        stats.loads += 1
        stats.loads_failed += chunks < op.chunks
        stats.blocks_invalid += len(invalid)
        took = time.perf_counter() - start
        stats.load_s += took
        return LoadResult(op.request_id, chunks, invalid, took)

    def _range(self, op: LoadOp, done: int) -> tuple[int, int]:
        """Loads the next chunks, as many as one load may have. Returns how many
        leading ones are complete, and how many were asked for."""
        if not self._heads:
            return op.chunks - done, op.chunks - done
        self._check(op)
        most = max(1, max_parts(self._client.hello) // len(self._heads))
        count = min(op.chunks - done, most)
        seen = [0] * count
        size = 0
        first = op.first_chunk + done
        with self._client.load(op.hold_id, first, count, self._wanted) as load:
            copies: list[Future[None]] = []
            try:
                for batch in load.batches(max(0.001, op.deadline - self._clock())):
                    self._check(op)
                    for part in batch:
                        copies.append(self._copiers.start(self._copy, op, part))
                        seen[part.chunk - first] += 1
                        size += part.view.nbytes
            finally:
                # Before the slots are given up, whatever happened.
                wait(copies)
            for copy in copies:
                copy.result()
            for failed in load.failed:
                logger.warning(
                    "Larder: chunk %d part %d for %s: %s", failed.chunk, failed.part, op.request_id, failed.error
                )
            if not load.release():
                raise UnavailableError("the daemon did not confirm the leases")
        whole = next((i for i, n in enumerate(seen) if n < len(self._heads)), count)
        self._stats.chunks_loaded += whole
        self._stats.bytes_loaded += size
        return whole, count

    def _check(self, op: LoadOp) -> None:
        if self._closed or op.request_id in self._cancelled:
            raise _CancelledError
        if self._clock() >= op.deadline:
            raise UnavailableError("the load's deadline has passed")

    def _copy(self, op: LoadOp, part: LeasedPart) -> None:
        self._check(op)
        chunk = part.chunk - op.first_chunk
        skip = op.skip_blocks if chunk == 0 else 0
        blocks = op.blocks[self._begin(op, chunk) : self._begin(op, chunk + 1)]
        if blocks:
            self._adapter.scatter(blocks, skip, self._heads[part.part], part.view)

    def _begin(self, op: LoadOp, chunk: int) -> int:
        """Where a chunk's blocks begin in op.blocks."""
        return max(0, chunk * self._chunk_blocks - op.skip_blocks)
