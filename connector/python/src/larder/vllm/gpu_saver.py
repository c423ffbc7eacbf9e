"""Stores from pages on a GPU: started after the step's computation, read beside
the next ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence
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
    """Chunks whose copies end with some events."""

    batch: Batch
    chunks: list[Opened]
    events: list[Event]


class GpuSaver(Saver):
    """Copies chunks on a stream that waits for the step's computation.

    The engine's next steps may run beside it: they wait, on the device, for the
    reads of those pages only that they write. A thread waits for the end of the
    copies and commits.
    """

    def __init__(self, path: GpuPath, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._path = path
        self._started: SimpleQueue[Started | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="larder-store", daemon=True)
        self._thread.start()

    # -- the engine's thread -------------------------------------------------

    def settle(self, writes: Sequence[int] | None = None) -> None:
        """The engine may go on: its device waits, not its thread."""
        self._path.order(writes)

    def close(self) -> None:
        """Ends the thread after what was started."""
        self._started.put(None)
        self._thread.join(30.0)
        super().close()

    def _start(self, batch: Batch, ready: Sequence[tuple[StoreOp, list[Credit]]]) -> None:
        path = self._path
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
        if not opened:
            return
        try:
            events = ends(path.stores.start(copies, [path.device.record(path.device.current_stream())]))
        except Exception:
            logger.exception("Larder: %d chunks are not stored", len(opened))
            self._finish(batch, opened, good=False)
            return
        path.reading(events, (block for one in opened for blocks in one.op.blocks for block in blocks))
        self._started.put(Started(batch, opened, events))

    # -- the storing thread ----------------------------------------------------

    def _run(self) -> None:
        self._path.device.bind()
        while (started := self._started.get()) is not None:
            good = True
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
