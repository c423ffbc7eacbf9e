"""Loads into pages on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from larder.load import LeasedPart
from larder.vllm.copiers import Copy
from larder.vllm.device import Event, wait_all
from larder.vllm.gpu_copies import PartCopy, part_copy
from larder.vllm.gpu_path import GpuPath
from larder.vllm.loader import Loader, LoadResult
from larder.vllm.metadata import LoadOp


class _Launched:
    """Copies that end with some events."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def exception(self) -> BaseException | None:
        """Waits; what went wrong."""
        try:
            wait_all(self._events)
        except Exception as error:  # noqa: BLE001
            return error
        return None

    def result(self) -> None:
        """Waits; raises what went wrong."""
        wait_all(self._events)


class GpuLoader(Loader):
    """Copies what comes at one time with one launch, on streams that first wait
    for whatever the engine had started when it asked for the load: the pages may
    still be in use by a step under way, or be read for a store."""

    def __init__(self, path: GpuPath, *args: Any, **options: Any) -> None:
        # Before the thread starts, which is in here.
        self._path = path
        self._after: dict[str, list[Event]] = {}
        super().__init__(*args, **options)

    def submit(self, op: LoadOp) -> None:
        """See Loader."""
        path = self._path
        reads = path.reads.of(block for blocks in op.blocks for block in blocks)
        self._after[op.request_id] = [path.device.record(path.device.current_stream()), *reads]
        super().submit(op)

    def _run(self) -> None:
        self._path.device.bind()
        super()._run()

    def _load(self, op: LoadOp) -> LoadResult:
        try:
            return super()._load(op)
        finally:
            self._after.pop(op.request_id, None)

    def _start(self, op: LoadOp, parts: Sequence[LeasedPart]) -> Sequence[Copy]:
        copies: dict[tuple[int, int], list[PartCopy]] = {}
        shared: dict[Sequence[int], Sequence[int]] = {}
        for part in parts:
            target = self._target(op, part)
            if target.blocks:
                blocks = shared.setdefault(target.blocks, target.blocks)
                copies.setdefault(target.where, []).append(part_copy(blocks, target.skip, target.heads, part.view))
        return [_Launched(self._path.loads.start(copies, self._after[op.request_id]))]
