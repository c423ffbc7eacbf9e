"""Stores from pages on a GPU: started after the step's computation, or as it goes
through the layers, and read beside the next steps.

A step's stores end in one of these ways, on the engine's thread:

    save        the rest of the copies is started
    give_up     the step has failed, or is followed by another one, or by the end
                of the session, without save: nothing is committed

Then a thread waits for the copies that were started, leaves the slots' sections,
and commits or gives the credits back. So a section is open from the start of the
first copy of its slot to the end of the last. A slot that is revoked meanwhile is
answered after that, and if the engine's thread is stopped for longer than the
daemon waits, the session ends and the slots are in quarantine
(storage/arena/PROTOCOL.md, section 2).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NamedTuple

from vllm.logger import init_logger

from larder.credits import Credit, Writing
from larder.errors import LarderError
from larder.vllm.device import Event, wait_all
from larder.vllm.gpu_copies import PartCopy, ends, part_copy
from larder.vllm.gpu_path import GpuPath
from larder.vllm.metadata import StoreOp
from larder.vllm.saver import Batch, Saver

logger = init_logger("vllm.larder.saver")


class Opened(NamedTuple):
    """A chunk that is being written."""

    op: StoreOp
    taken: list[Credit]
    sections: list[Writing]


class Started(NamedTuple):
    """Chunks whose copies end with some events; good: and are to be committed."""

    batch: Batch
    chunks: list[Opened]
    events: list[Event]
    good: bool = True


@dataclass
class UnderWay:
    """Chunks of a step whose copies are being started. blocks: the pages to read.
    events: with which what was started is over. steps: of those through the
    layers, how many were started."""

    batch: Batch
    chunks: list[Opened]
    copies: dict[tuple[int, int], list[PartCopy]]
    blocks: frozenset[int]
    events: list[Event] = field(default_factory=list)
    steps: int = 0


class GpuSaver(Saver):
    """Copies chunks on a stream that waits for the step's computation.

    The engine's next steps may run beside it: they wait, on the device, for the
    reads of those pages only that they write. A thread waits for the end of the
    copies and commits.
    """

    def __init__(self, path: GpuPath, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._path = path
        # What the step that has begun stores, where that may follow its layers.
        self._follows: Sequence[StoreOp] = ()
        self._under_way: UnderWay | None = None
        self._started: SimpleQueue[Started | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="larder-store", daemon=True)
        self._thread.start()

    # -- the engine's thread -------------------------------------------------

    def settle(self, writes: Sequence[int] | None = None) -> None:
        """The engine may go on: its device waits, not its thread."""
        self._path.order(writes)

    def follow(self, ops: Sequence[StoreOp]) -> bool:
        """See Saver. Credits are taken, and slots' sections entered, only when the
        first copies start: a step that never comes so far leaves nothing behind."""
        self.give_up()
        self._follows = ops if self._parts else ()
        return bool(self._follows)

    def reached(self, step: int) -> None:
        """What the current stream was given brings the KV of the layers of so many
        steps through them: starts their copies."""
        one = self._under_way
        if one is None:
            ready = self._take_all(self._follows)
            one = self._under_way = self._open_all(Batch(len(ready)), ready)
        self._launch(one, step)

    def save(self, ops: Sequence[StoreOp]) -> None:
        """See Saver; or starts what is left of the copies."""
        one, self._under_way, self._follows = self._under_way, None, ()
        if one is None:
            super().save(ops)
            return
        if one.steps < len(self._path.stores.steps):
            self._launch(one)
        self._hand_over(one)

    def give_up(self) -> None:
        """See Saver."""
        one, self._under_way, self._follows = self._under_way, None, ()
        if one is not None:
            self._hand_over(one, good=False)

    def close(self) -> None:
        """Ends the thread after what was started."""
        self.give_up()
        self._started.put(None)
        self._thread.join(30.0)
        super().close()

    def _start(self, batch: Batch, ready: Sequence[tuple[StoreOp, list[Credit]]]) -> None:
        one = self._open_all(batch, ready)
        self._launch(one)
        self._hand_over(one)

    def _open_all(self, batch: Batch, ready: Sequence[tuple[StoreOp, list[Credit]]]) -> UnderWay:
        opened: list[Opened] = []
        copies: dict[tuple[int, int], list[PartCopy]] = {}
        for op, taken in ready:
            try:
                sections, views = self._open(taken)
            except LarderError:
                # A slot was revoked.
                self._ended(batch, op, taken, good=False)
                continue
            opened.append(Opened(op, taken, sections))
            for part, view in zip(self._parts, views, strict=True):
                copy = part_copy(op.blocks[part.group], 0, part.heads, view)
                copies.setdefault((part.group, part.span), []).append(copy)
        blocks = frozenset(block for one in opened for blocks in one.op.blocks for block in blocks)
        return UnderWay(batch, opened, copies, blocks)

    def _launch(self, one: UnderWay, step: int | None = None) -> None:
        """Starts the copies that are left, of the layers before the end of a step
        through them, or of all, after what the current stream was given."""
        if not one.chunks:
            return
        path = self._path
        by_layer = step is not None or one.steps > 0
        try:
            now = [path.device.record(path.device.current_stream())]
            pieces = path.stores.start(one.copies, now, by_layer=by_layer, steps=slice(one.steps, step))
        except Exception:
            logger.exception("Larder: %d chunks are not stored", len(one.chunks))
            # What was started before is over, too.
            chunks, one.chunks = one.chunks, []
            self._finish(one.batch, chunks, good=False)
            return
        one.steps = step or one.steps
        one.events += ends(pieces)
        path.reading(ends(pieces), one.blocks)

    def _hand_over(self, one: UnderWay, *, good: bool = True) -> None:
        """To the storing thread."""
        if one.chunks:
            self._started.put(Started(one.batch, one.chunks, one.events, good))

    # -- the storing thread ----------------------------------------------------

    def _run(self) -> None:
        self._path.device.bind()
        while (started := self._started.get()) is not None:
            good = started.good
            try:
                wait_all(started.events)
            except Exception:
                logger.exception("Larder: %d chunks are not stored", len(started.chunks))
                good = False
            self._finish(started.batch, started.chunks, good=good)

    def _finish(self, batch: Batch, chunks: Sequence[Opened], *, good: bool) -> None:
        for one in chunks:
            self._leave(one.sections)
            self._ended(batch, one.op, one.taken, good=good)
