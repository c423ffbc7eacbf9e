"""Copies between pages on a GPU and parts in host memory, on side streams.

Two variants, for each direction by itself:

    staged      DMA between the part and a stage in GPU memory, and the kernel
                between stage and pages: the copy engine is on the bus, and the
                kernel needs its few multiprocessors for a moment
    zero_copy   the kernel reads and writes the host's memory itself, which must
                be registered with the device: no stage, but the kernel runs as
                long as the bus is busy

Parts in memory that is not registered are always staged; the driver then copies
them through page-locked memory of its own: slow, but right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from larder.load import Bytes
from larder.vllm.device import Device, Event, RowMover
from larder.vllm.layout import PartHeads
from larder.vllm.rows import PartJob, Rows, Table, jobs

Variant = Literal["staged", "zero_copy"]

# Bytes of a stage. Each direction has two, so that DMA of one goes on beside
# the kernel of the other.
STAGE_BYTES = 32 << 20


@dataclass(frozen=True)
class PartCopy:
    """One part and its pages. blocks: ids of the chunk's blocks from number skip on."""

    blocks: Sequence[int]
    skip: int
    heads: PartHeads
    view: Bytes


class _Lane:
    """A stream and its stage; what they are used for is in order."""

    def __init__(self, device: Device, size: int) -> None:
        self._device = device
        self._size = size
        self._stage: Any = None
        self.stream = device.stream()

    @property
    def stage(self) -> Any:
        """The stage, made when first needed: on a thread of the connector, not
        where the engine allocates pages that it gives up when it sleeps."""
        if self._stage is None:
            with self._device.on(self.stream):
                self._stage = self._device.memory(self._size)
        return self._stage


class Lanes:
    """The lanes of one direction, in turns. Used by one thread at a time."""

    def __init__(self, device: Device, longest: int, stage_bytes: int = STAGE_BYTES) -> None:
        """longest: bytes of the longest part."""
        self._device = device
        self.stage_bytes = max(stage_bytes, longest)
        self._lanes = [_Lane(device, self.stage_bytes) for _ in range(2)]
        self._turns = 0

    def next(self) -> _Lane:
        """The one whose turn it is."""
        self._turns += 1
        return self._lanes[self._turns % len(self._lanes)]

    def stop(self) -> None:
        """Waits until nothing that was started touches pages or parts."""
        for lane in self._lanes:
            self._device.record(lane.stream).synchronize()


class PageCopies:
    """Starts copies of many parts of one KV cache group at once, in one
    direction. Nothing here waits for the device. Used by one thread at a time."""

    def __init__(
        self,
        device: Device,
        rows: Rows,
        mover: RowMover,
        lanes: Lanes,
        registered: Callable[[int, int], bool],
        variant: Variant,
        *,
        to_parts: bool,
    ) -> None:
        """registered: whether a range (address, bytes) of host memory may be
        touched by the device."""
        self._device = device
        self._rows = rows
        self._mover = mover
        self._lanes = lanes
        self._registered = registered
        self._variant = variant
        self._to_parts = to_parts
        self._addresses = device.upload(rows.addresses)
        # Lanes use it, which know nothing of this stream.
        device.record(device.current_stream()).synchronize()

    def warm(self, heads: int) -> None:
        """Compiles what parts of so many heads need."""
        self._launch(np.zeros((1, 2), np.int64), 1 if self._rows.whole else heads, 0)

    def start(self, copies: Sequence[PartCopy], after: Sequence[Event]) -> list[Event]:
        """Starts copies; they begin after the given events and are over with the
        returned ones. Until then pages and views belong to them. If it raises,
        Lanes.stop must be called before they may be used."""
        used: dict[int, _Lane] = {}

        def enter() -> _Lane:
            lane = self._lanes.next()
            if id(lane) not in used:
                used[id(lane)] = lane
                for event in after:
                    self._device.wait(lane.stream, event)
            return lane

        if self._variant == "zero_copy" and all(self._covers(c.view) for c in copies):
            lane = enter()
            with self._device.on(lane.stream):
                self._move(copies, [_address(c.view) for c in copies])
        else:
            for piece in self._pieces(copies):
                lane = enter()
                with self._device.on(lane.stream):
                    self._stage(lane, piece)
        return [self._device.record(lane.stream) for lane in used.values()]

    def _pieces(self, copies: Sequence[PartCopy]) -> list[list[PartCopy]]:
        """Copies by what one stage holds, in the order of their addresses."""
        pieces: list[list[PartCopy]] = []
        left = 0
        for copy in sorted(copies, key=lambda c: _address(c.view)):
            if copy.view.nbytes > left:
                pieces.append([])
                left = self._lanes.stage_bytes
            pieces[-1].append(copy)
            left -= copy.view.nbytes
        return pieces

    def _stage(self, lane: _Lane, piece: Sequence[PartCopy]) -> None:
        """One stage full of parts."""
        stage = lane.stage
        runs, places = _runs(piece)
        if not self._to_parts:
            for place, address, size in runs:
                self._device.to_device(stage, place, address, size)
        begin = self._device.address(stage)
        self._move(piece, [begin + place for place in places])
        if self._to_parts:
            for place, address, size in runs:
                self._device.to_host(stage, place, address, size)

    def _move(self, copies: Sequence[PartCopy], addresses: Sequence[int]) -> None:
        """One launch for all parts of one number of heads."""
        by_heads: dict[int, list[PartJob]] = {}
        for copy, at in zip(copies, addresses, strict=True):
            job = PartJob(at, copy.heads.first, copy.blocks, copy.skip)
            heads = 1 if self._rows.whole else copy.heads.count
            by_heads.setdefault(heads, []).append(job)
        for heads, parts in by_heads.items():
            table = jobs(self._rows, parts)
            if len(table):
                self._launch(table, heads, len(table))

    def _launch(self, table: Table, heads: int, count: int) -> None:
        uploaded = self._device.upload(table)
        addresses, at = self._device.address(self._addresses), self._device.address(uploaded)
        self._mover.move(addresses, at, count, heads, to_parts=self._to_parts)

    def _covers(self, view: Bytes) -> bool:
        return self._registered(_address(view), view.nbytes)


def _address(view: Bytes) -> int:
    return int(view.__array_interface__["data"][0])


def _runs(piece: Sequence[PartCopy]) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Copies that move a stage full, (place in the stage, address, bytes), and
    the place of each part. Parts that lie one after the other in one mapping go
    as one copy: no copy may span what was registered in two pieces."""
    runs: list[tuple[int, int, int]] = []
    places: list[int] = []
    base: object = None
    place = 0
    for copy in piece:
        view = copy.view
        address, size = _address(view), view.nbytes
        if runs and base is not None and view.base is base and address == runs[-1][1] + runs[-1][2]:
            at, begin, length = runs[-1]
            runs[-1] = (at, begin, length + size)
        else:
            runs.append((place, address, size))
        base = view.base
        places.append(place)
        place += size
    return runs, places
