"""Loads: from the arena into pages, on a thread of their own."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from vllm.logger import init_logger

from larder.errors import LarderError, UnavailableError
from larder.load import LeasedPart, Load
from larder.vllm.copiers import Copiers, Copy, end
from larder.vllm.identity import RankPart
from larder.vllm.layout import LayoutAdapter, PartHeads
from larder.vllm.metadata import LoadOp
from larder.vllm.stats import WorkerStats

logger = init_logger("vllm.larder.loader")

# As long as the engine waits for an answer to a match.
BRIEF_S = 0.0003


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
    """What became of one load. wanted: its chunks; chunks: leading ones that
    are in their pages, complete; invalid: the pages of all others, unless loads
    are whole; took_s: from its turn on."""

    request_id: str
    wanted: int
    chunks: int
    invalid: frozenset[int]
    took_s: float


def nothing(op: LoadOp) -> LoadResult:
    """What becomes of a load inside of a step where nothing is loaded."""
    (blocks,) = op.blocks
    return LoadResult(op.request_id, op.chunks, 0, frozenset(blocks), 0.0)


def until_step(op: LoadOp) -> LoadOp:
    """A load as its step begins: no longer than that waits."""
    return replace(op, deadline=min(op.deadline, time.monotonic() + op.in_step_s))


@dataclass(frozen=True)
class _Range:
    """Chunks [first, last), counted from a load's first, and the parts that each
    needs of this rank."""

    first: int
    last: int
    parts: tuple[int, ...]


class Started(NamedTuple):
    """What some ranges of a load need until their copies are over."""

    loads: Sequence[Load]
    copies: Sequence[Copy]

    def finish(self) -> None:
        """Waits for the copies, and gives the slots up; raises where one went
        wrong, or the daemon does not say that the bytes count."""
        end(self.copies)
        for copy in self.copies:
            copy.result()
        if not all([load.release() for load in self.loads]):  # noqa: C419 - each is to be released
            raise UnavailableError("the daemon did not confirm the leases")


class Target(NamedTuple):
    """Pages of a part: its group and layer span, the ids of its chunk's blocks
    from number skip on, and its heads."""

    where: tuple[int, int]
    blocks: Sequence[int]
    skip: int
    heads: PartHeads


class Loader:
    """Runs loads one after the other, by priority and then as they came, each to
    its own deadline, and copies the parts of one on several threads.

    Every load that was submitted ends in exactly one result, taken by
    take_done; after that nothing writes into its pages any more. Nothing here
    makes the engine's thread wait, except wait, within its timeout.

    whole: loads bring all that they are to bring or nothing, so no page is
    written before everything is there; pages are then never called invalid.
    """

    def __init__(
        self,
        client: LoadClient,
        adapters: Mapping[tuple[int, int], LayoutAdapter],
        parts: Sequence[RankPart],
        all_parts: int,
        chunk_blocks: Sequence[int],
        stats: WorkerStats,
        threads: int,
        *,
        whole: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._adapters = adapters
        self._parts = {part.index: part for part in parts}
        self._all_parts = all_parts
        self._chunk_blocks = tuple(chunk_blocks)
        self._whole = whole
        self._copiers = Copiers(threads, "larder-load")
        self._stats = stats
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: list[tuple[int, int, LoadOp]] = []
        self._order = itertools.count()
        self._pending: dict[str, LoadOp] = {}
        self._cancelled: set[str] = set()
        self._done: list[LoadResult] = []
        self._closed = False
        self._void = False
        # Loads that their steps gave up, and copies of those that steps wait for.
        # Copies of a load begin under the gate: after it was given up there are no
        # more than are known here.
        self._gate = threading.Lock()
        self._given_up: list[LoadOp] = []
        self._copies: dict[str, list[Copy]] = {}
        self._thread = threading.Thread(target=self._run, name="larder-loader", daemon=True)
        self._thread.start()

    # -- the engine's thread -------------------------------------------------

    def submit(self, op: LoadOp) -> None:
        """Starts a load."""
        with self._changed:
            self._pending[op.request_id] = op
            # As was one of a request of that name which is gone, perhaps.
            self._cancelled.discard(op.request_id)
            heapq.heappush(self._queue, (op.priority, next(self._order), op))
            self._changed.notify_all()

    def cancel(self, request_ids: set[str]) -> None:
        """Ends the loads of requests that nobody waits for any more, soon; each
        still has its result."""
        with self._changed:
            self._cancelled |= request_ids & self._pending.keys()

    def void(self) -> None:
        """Ends all loads; what they brought, and is not taken yet, counts as not
        loaded."""
        with self._changed:
            self._void = True
            self._cancelled |= self._pending.keys()
            self._done = [self._nothing(self._pending[r.request_id], r.took_s) for r in self._done]

    @property
    def busy(self) -> bool:
        """Whether a result is yet to come, or to be taken."""
        return bool(self._pending)

    def wait(self, timeout_s: float) -> None:
        """Waits until some load is done, or time is over; briefly where none is
        under way on this rank, for the others wait for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._done, timeout_s if self._pending else min(timeout_s, BRIEF_S))

    def take_done(self, *, idle: bool = False) -> list[LoadResult]:  # noqa: ARG002
        """Returns the results since the last call. idle: the engine computes
        nothing."""
        if not self._pending:
            return []
        with self._changed:
            done, self._done = self._done, []
            for result in done:
                del self._pending[result.request_id]
                self._cancelled.discard(result.request_id)
            return done

    def land(self, ops: Sequence[LoadOp]) -> list[LoadResult]:
        """Waits for loads that were just submitted, for each until its time in the
        step is over, and returns what became of them; take_done does not. What is
        not over by then is given up and counts as not loaded; no copy for it begins
        any more, and none touches its pages once the engine goes on."""
        return [self._land_one(op) for op in ops]

    def _land_one(self, op: LoadOp) -> LoadResult:
        start = time.perf_counter()
        result = None
        with self._changed:
            self._changed.wait_for(lambda: self._has_landed(op), op.in_step_s)
            if self._has_landed(op):
                result = self._take_landed(op)
            else:
                self._given_up.append(op)
        with self._gate:
            copies = self._copies.pop(op.request_id, [])
        self._outlast(copies)
        if result is not None:
            return result
        logger.warning("Larder: %s: not loaded within its step, which computes", op.request_id)
        return self._nothing(op, time.perf_counter() - start)

    def _has_landed(self, op: LoadOp) -> bool:
        """Whether a load is over, as far as a step is concerned that waits for it."""
        return any(result.request_id == op.request_id for result in self._done)

    def _take_landed(self, op: LoadOp) -> LoadResult:
        """Takes its result."""
        (result,) = (result for result in self._done if result.request_id == op.request_id)
        self._done.remove(result)
        self._forget(op)
        return result

    def _forget(self, op: LoadOp) -> None:
        """Nobody asks for a load's result any more. One that was given up may end after
        its request did, when there is another one of that name."""
        if self._pending.get(op.request_id) is op:
            del self._pending[op.request_id]
            self._cancelled.discard(op.request_id)
        self._given_up = [other for other in self._given_up if other is not op]

    def _is_given_up(self, op: LoadOp) -> bool:
        return any(other is op for other in self._given_up)

    def _outlast(self, copies: Sequence[Copy]) -> None:
        """What the engine does from now on comes after these copies."""
        end(copies)

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
                self._changed.wait_for(lambda: (self._queue and self._may_begin()) or self._closed)
                if not self._queue:
                    return
                op = heapq.heappop(self._queue)[2]
            self._report(op, self._load(op))

    def _may_begin(self) -> bool:
        """Whether the next load's turn has come."""
        return True

    def _report(self, op: LoadOp, result: LoadResult) -> None:
        """A load has ended."""
        with self._changed:
            if self._void:
                result = self._nothing(op, result.took_s)
            if self._is_given_up(op):
                self._forget(op)
            else:
                self._done.append(result)
            self._changed.notify_all()

    def _nothing(self, op: LoadOp, took_s: float) -> LoadResult:
        """The result of a load that does not count."""
        return LoadResult(op.request_id, op.chunks, 0, self._invalid(op, 0), took_s)

    def _invalid(self, op: LoadOp, chunks: int) -> frozenset[int]:
        """The pages of a load that are not filled, of which so many chunks came."""
        if chunks == op.chunks or self._whole:
            return frozenset()
        (blocks,) = op.blocks
        return frozenset(blocks[self._begin(op, 0, chunks) :])

    def _load(self, op: LoadOp) -> LoadResult:
        start = time.perf_counter()
        stats = self._stats
        chunks = 0
        try:
            ranges = list(self._ranges(op))
            # One load after the other, or all before the first page is written.
            for some in [ranges] if self._whole else [[one] for one in ranges]:
                chunks = self._take(op, some)
                if chunks < some[-1].last:
                    break
        except _CancelledError:
            stats.loads_cancelled += 1
            stats.load_failure("cancelled")
        except LarderError as error:
            stats.load_failure(str(error.kind))
            logger.warning("Larder: %s: %d of %d chunks loaded: %s", op.request_id, chunks, op.chunks, error)
        except Exception:
            # Whatever went wrong, the engine must hear of this load's end.
            stats.load_failure("internal")
            logger.exception("Larder: load for %s failed", op.request_id)
        invalid = self._invalid(op, chunks)
        stats.loads += 1
        stats.loads_failed += chunks < op.chunks
        stats.blocks_invalid += len(invalid)
        took = time.perf_counter() - start
        stats.load_s += took
        return LoadResult(op.request_id, op.chunks, chunks, invalid, took)

    def _ranges(self, op: LoadOp) -> Iterator[_Range]:
        """Cuts a load where its chunks begin to need a further group, and into
        what one load may name."""
        needed = [skip // blocks for skip, blocks in zip(op.skip_blocks, self._chunk_blocks, strict=True)]
        cuts = sorted({0, op.chunks, *(chunk for chunk in needed if chunk < op.chunks)})
        most = max_parts(self._client.hello)
        for first, last in pairwise(cuts):
            parts = tuple(index for index, part in self._parts.items() if needed[part.group] <= first)
            step = max(1, most // max(1, len(parts)))
            for begin in range(first, last, step):
                yield _Range(begin, min(begin + step, last), parts)

    def _take(self, op: LoadOp, ranges: Sequence[_Range]) -> int:
        """Loads some ranges, which follow each other. Returns up to which chunk
        all are complete."""
        size = 0
        copies: list[Copy] = []
        loads: list[Load] = []
        # Parts that came, by chunk.
        seen = dict.fromkeys(range(ranges[0].first, ranges[-1].last), 0)
        with ExitStack() as stack:
            waiting: list[LeasedPart] = []
            for one in (r for r in ranges if r.parts):
                self._check(op)
                # Empty stands for all of them, and keeps the message short.
                parts = () if len(one.parts) == self._all_parts else one.parts
                load = self._client.load(op.hold_id, op.first_chunk + one.first, one.last - one.first, parts)
                loads.append(stack.enter_context(load))
            # Before the slots are given up, whatever happens.
            stack.callback(end, copies)
            for load in loads:
                for batch in load.batches(max(0.001, op.deadline - self._clock())):
                    self._check(op)
                    for part in batch:
                        seen[part.chunk - op.first_chunk] += 1
                        size += part.view.nbytes
                    if self._whole:
                        waiting += batch
                    else:
                        self._go(op, copies, partial(self._start, op, batch))
                if load.failed:
                    # One line: a long prompt has thousands of parts.
                    failed = load.failed[0]
                    logger.warning(
                        "Larder: %d parts for %s failed, first chunk %d part %d: %s",
                        len(load.failed),
                        op.request_id,
                        failed.chunk,
                        failed.part,
                        failed.error,
                    )
                for kind in {str(failed.error.kind) for failed in load.failed}:
                    self._stats.load_failure(kind)
                if self._whole and load.failed:
                    break
            last = self._complete(ranges, seen)
            if self._whole and last < ranges[-1].last:
                return last
            self._go(op, copies, partial(self._start, op, waiting))
            self._go(op, copies, partial(self._start_rest, op))
            self._started(Started(loads, copies), stack)
        self._stats.chunks_loaded += last - ranges[0].first
        self._stats.bytes_loaded += size
        return last

    def _go(self, op: LoadOp, copies: list[Copy], start: Callable[[], Sequence[Copy]]) -> None:
        """Starts copies, unless the load was given up."""
        with self._gate:
            self._check(op)
            started = start()
            copies += started
            if op.in_step_s:
                self._copies.setdefault(op.request_id, []).extend(started)

    def _started(self, started: Started, stack: ExitStack) -> None:
        """All copies of some ranges were started; stack waits for them, and then
        gives the slots up. Raises where what they bring does not count."""
        del stack
        started.finish()

    def _complete(self, ranges: Sequence[_Range], seen: Mapping[int, int]) -> int:
        """Up to which chunk all parts came."""
        for one in ranges:
            for chunk in range(one.first, one.last):
                if seen[chunk] < len(one.parts):
                    return chunk
        return ranges[-1].last

    def _check(self, op: LoadOp) -> None:
        if self._closed or op.request_id in self._cancelled:
            raise _CancelledError
        if self._is_given_up(op):
            raise UnavailableError("the load's step has not waited longer")
        if self._clock() >= op.deadline:
            raise UnavailableError("the load's deadline has passed")

    def _start(self, op: LoadOp, parts: Sequence[LeasedPart]) -> Sequence[Copy]:
        """Starts to copy parts into their pages."""
        return [self._copiers.start(self._copy, op, part) for part in parts]

    def _start_rest(self, op: LoadOp) -> Sequence[Copy]:
        """All parts have come: starts the copies that were held back."""
        del op
        return ()

    def _copy(self, op: LoadOp, part: LeasedPart) -> None:
        self._check(op)
        to = self._target(op, part)
        if to.blocks:
            self._adapters[to.where].scatter(to.blocks, to.skip, to.heads, part.view)

    def _target(self, op: LoadOp, part: LeasedPart) -> Target:
        """Where a part belongs."""
        chunk = part.chunk - op.first_chunk
        mine = self._parts[part.part]
        group = mine.group
        blocks = op.blocks[group][self._begin(op, group, chunk) : self._begin(op, group, chunk + 1)]
        skip = max(0, op.skip_blocks[group] - chunk * self._chunk_blocks[group])
        return Target((group, mine.span), blocks, skip, mine.heads)

    def _begin(self, op: LoadOp, group: int, chunk: int) -> int:
        """Where a chunk's blocks begin in op.blocks of a group."""
        return max(0, chunk * self._chunk_blocks[group] - op.skip_blocks[group])
