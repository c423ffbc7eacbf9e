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

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np

from larder.load import Bytes
from larder.vllm.device import Device, Event, RowMover
from larder.vllm.layout import PartHeads
from larder.vllm.rows import PartJob, Rows, Table, jobs

Variant = Literal["staged", "zero_copy"]

# Bytes of a stage. Each direction has two, so that DMA of one goes on beside
# the kernel of the other.
STAGE_BYTES = 32 << 20
# Streams, and stages, of one direction.
_LANES = 2
# Of the first piece, so that the bus begins soon; each one has twice as many.
_FIRST_BYTES = 8 << 20
# Bytes of a job table that most launches fit.
_TABLE_BYTES = 64 << 10


class PartCopy(NamedTuple):
    """One part and its pages. blocks: ids of the chunk's blocks from number skip
    on; parts of one chunk share one object. at: where view lies."""

    blocks: Sequence[int]
    skip: int
    heads: PartHeads
    view: Bytes
    at: int


class Piece(NamedTuple):
    """Copies of so many bytes that are over with an event. layer: the first one
    that they belong to, counted from the pages' first."""

    event: Event
    size: int
    layer: int = 0


def ends(pieces: Sequence[Piece]) -> list[Event]:
    """With which events all are over: streams take turns, and are in order."""
    return [piece.event for piece in pieces[-_LANES:]]


def part_copy(blocks: Sequence[int], skip: int, heads: PartHeads, view: Bytes) -> PartCopy:
    """A PartCopy of a part."""
    return PartCopy(blocks, skip, heads, view, int(view.__array_interface__["data"][0]))


class _Form(NamedTuple):
    """Pages of some layers, from one on, whose addresses lie at a place on the
    device."""

    layer: int
    rows: Rows
    mover: RowMover
    at: int

    def of(self, copy: PartCopy) -> PartCopy:
        """The same of these layers only. A part is one layer after the other."""
        each = (1 if self.rows.whole else copy.heads.count) * self.rows.chunk_head
        begin, size = self.layer * each, self.rows.layers * each
        return copy._replace(view=copy.view[begin : begin + size], at=copy.at + begin)


class _Lane:
    """A stream, its stage and its job table; what they are used for is in order."""

    def __init__(self, device: Device, size: int) -> None:
        self._device = device
        self._size = size
        self._stage: Any = None
        self._table: Any = None
        self._table_bytes = 0
        # Tables on their way, and the events after which they may be used again.
        self._sent: deque[tuple[Event, Bytes]] = deque()
        self.stream = device.stream()

    def stage(self) -> int:
        """Where the stage lies, which is made when first needed."""
        if self._stage is None:
            with self._device.on(self.stream):
                self._stage = self._device.memory(self._size)
        return self._device.address(self._stage)

    def send(self, table: Table) -> int:
        """Copies a job table; where it will lie until the next one."""
        device, size = self._device, table.nbytes
        if size > self._table_bytes:
            self._table_bytes = max(_TABLE_BYTES, 1 << (size - 1).bit_length())
            with device.on(self.stream):
                self._table = device.memory(self._table_bytes)
        host: Bytes | None = None
        if self._sent and self._sent[0][0].query():
            host = self._sent.popleft()[1]
        if host is None or host.nbytes < size:
            host = device.pinned(self._table_bytes)
        host[:size] = table.reshape(-1).view(np.uint8)
        at = device.address(self._table)
        device.to_device(self.stream, at, int(host.ctypes.data), size, registered=True)
        self._sent.append((device.record(self.stream), host))
        return at


class Lanes:
    """The lanes of one direction, in turns. Used by one thread at a time."""

    def __init__(self, device: Device, longest: int, stage_bytes: int = STAGE_BYTES) -> None:
        """longest: bytes of the longest part."""
        self._device = device
        self.stage_bytes = max(stage_bytes, longest)
        self._lanes = [_Lane(device, self.stage_bytes) for _ in range(_LANES)]
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
        self._lanes = lanes
        self._registered = registered
        self._variant = variant
        self._to_parts = to_parts
        self._addresses = device.upload(rows.addresses)
        # Lanes use it, which know nothing of this stream.
        device.record(device.current_stream()).synchronize()
        self._all = _Form(0, rows, mover, device.address(self._addresses))
        self._cut: list[_Form] = []

    @property
    def steps(self) -> tuple[int, ...]:
        """With how many layers each step through them is complete; none where cut
        was not called."""
        return tuple(form.layer + form.rows.layers for form in self._cut)

    def cut(self, times: int) -> None:
        """Lets start go through the layers, in so many steps."""
        every, rows = self._all, self._all.rows
        step = max(1, -(-rows.layers // times))
        for layer in range(0, rows.layers, step):
            some = replace(rows, addresses=rows.addresses[layer : layer + step])
            at = every.at + layer * rows.addresses.strides[0]
            self._cut.append(_Form(layer, some, self._device.mover(some), at))

    def warm(self, heads: int) -> None:
        """Compiles what parts of so many heads need, and makes what copies need."""
        for form in [self._all, self._all, *self._cut]:
            lane = self._lanes.next()
            if self._variant == "staged":
                lane.stage()
            with self._device.on(lane.stream):
                self._launch(lane, form, np.zeros((1, 2), np.int64), 1 if form.rows.whole else heads, 0)

    def start(
        self,
        copies: Sequence[PartCopy],
        after: Sequence[Event],
        *,
        by_layer: bool = False,
        steps: slice = slice(None),
    ) -> list[Piece]:
        """Starts copies, which begin after the given events, and returns them, in
        order. Until they are over pages and views belong to them. If it raises,
        Lanes.stop must be called before they may be used. by_layer: the first
        layers of all go first, where cut was called; only these steps through
        them."""
        used: set[int] = set()
        pieces: list[Piece] = []

        def enter() -> _Lane:
            lane = self._lanes.next()
            if id(lane) not in used:
                used.add(id(lane))
                for event in after:
                    self._device.wait(lane.stream, event)
            return lane

        direct = self._variant == "zero_copy" and all(self._registered(c.at, c.view.nbytes) for c in copies)
        for form in self._cut[steps] if by_layer and self._cut else [self._all]:
            mine = copies if form is self._all else [form.of(copy) for copy in copies]
            for some in [mine] if direct else self._pieces(mine):
                lane = enter()
                with self._device.on(lane.stream):
                    if direct:
                        self._move(lane, form, some, [c.at for c in some])
                    else:
                        self._stage(lane, form, some)
                size = sum(copy.view.nbytes for copy in some)
                pieces.append(Piece(self._device.record(lane.stream), size, form.layer))
        return pieces

    def _pieces(self, copies: Sequence[PartCopy]) -> list[list[PartCopy]]:
        """Copies by what one stage holds, in the order of their addresses."""
        pieces: list[list[PartCopy]] = []
        most, left = _FIRST_BYTES, 0
        for copy in sorted(copies, key=itemgetter(4)):
            size = copy.view.nbytes
            if size > left or not pieces:
                pieces.append([])
                left = min(self._lanes.stage_bytes, max(most, size))
                most *= 2
            pieces[-1].append(copy)
            left -= size
        return pieces

    def _stage(self, lane: _Lane, form: _Form, piece: Sequence[PartCopy]) -> None:
        """One stage full of parts."""
        begin = lane.stage()
        runs, places = _runs(piece)
        if not self._to_parts:
            self._send(lane, runs, begin)
        self._move(lane, form, piece, [begin + place for place in places])
        if self._to_parts:
            self._send(lane, runs, begin)

    def _send(self, lane: _Lane, runs: Sequence[tuple[int, int, int]], begin: int) -> None:
        """DMA between parts and the stage."""
        device, stream = self._device, lane.stream
        together = []
        for place, at, size in runs:
            here = begin + place
            if self._registered(at, size):
                together.append((at, here, size) if self._to_parts else (here, at, size))
            elif self._to_parts:
                device.to_host(stream, at, here, size, registered=False)
            else:
                device.to_device(stream, here, at, size, registered=False)
        device.copy_all(stream, together, to_host=self._to_parts)

    def _move(self, lane: _Lane, form: _Form, copies: Sequence[PartCopy], addresses: Sequence[int]) -> None:
        """One launch for all parts of one number of heads."""
        by_heads: dict[int, list[PartJob]] = {}
        for copy, at in zip(copies, addresses, strict=True):
            heads = 1 if form.rows.whole else copy.heads.count
            by_heads.setdefault(heads, []).append(PartJob(at, copy.heads.first, copy.blocks, copy.skip))
        for heads, parts in by_heads.items():
            table = jobs(form.rows, parts)
            if len(table):
                self._launch(lane, form, table, heads, len(table))

    def _launch(self, lane: _Lane, form: _Form, table: Table, heads: int, count: int) -> None:
        at = lane.send(table)
        form.mover.move(form.at, at, count, heads, to_parts=self._to_parts)


def _runs(piece: Sequence[PartCopy]) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Copies that move a stage full, (place in the stage, address, bytes), and
    the place of each part. Parts that lie one after the other in one mapping go
    as one copy: no copy may span what was registered in two pieces."""
    runs: list[tuple[int, int, int]] = []
    places: list[int] = []
    base: object = None
    place = end = 0
    for _, _, _, view, at in piece:
        size = view.nbytes
        if at == end and base is not None and view.base is base:
            first, begin, length = runs[-1]
            runs[-1] = (first, begin, length + size)
        else:
            runs.append((place, at, size))
        base, end = view.base, at + size
        places.append(place)
        place += size
    return runs, places
