"""The pages of vLLM's attention on GPUs, as rows.

The adapter itself copies a chunk at a time and waits for it, which is for the
proof; what serves an engine is PageCopies, many chunks at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from larder.load import Bytes
from larder.namespace import Layout
from larder.vllm.device import Device, wait_all
from larder.vllm.gpu_copies import Lanes, PageCopies, PartCopy, Variant, ends, part_copy
from larder.vllm.layout import PartHeads
from larder.vllm.rows import Rows

Covers = Callable[[int, int], bool]
"""(address, bytes): whether the device may touch this host memory."""


class GpuAdapter:
    """Copies between pages on a GPU and parts, by rows."""

    def __init__(self, device: Device, rows: Rows, layout: Layout) -> None:
        self.layout = layout
        self.device = device
        self._rows = rows
        self._mover = device.mover(rows)
        self._own: dict[bool, PageCopies] = {}

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of one layer."""
        return self._rows.block_bytes

    def longest(self, heads: int) -> int:
        """Bytes of a part of so many heads."""
        return self._rows.part_bytes(heads)

    def copies(
        self, lanes: Lanes, variant: Variant, registered: Covers, heads: int, *, to_parts: bool, cut: int = 0
    ) -> PageCopies:
        """Copies in one direction, of parts of so many heads. cut: see
        PageCopies; 0: none. Not to be made
        where the engine allocates its pages: what it holds must outlive them."""
        made = PageCopies(self.device, self._rows, self._mover, lanes, registered, variant, to_parts=to_parts)
        if cut:
            made.cut(cut)
        made.warm(heads)
        return made

    def gather(self, blocks: Sequence[int], parts: Sequence[tuple[PartHeads, Bytes]]) -> None:
        """See LayoutAdapter."""
        self._copy([part_copy(blocks, 0, heads, view) for heads, view in parts], to_parts=True)

    def scatter(self, blocks: Sequence[int], skip: int, heads: PartHeads, part: Bytes) -> None:
        """See LayoutAdapter."""
        self._copy([part_copy(blocks, skip, heads, part)], to_parts=False)

    def _copy(self, copies: list[PartCopy], *, to_parts: bool) -> None:
        own = self._own.get(to_parts)
        if own is None:
            lanes = Lanes(self.device, max(c.view.nbytes for c in copies), 0)
            heads = copies[0].heads.count
            own = self._own[to_parts] = self.copies(lanes, "staged", lambda *_: False, heads, to_parts=to_parts)
        wait_all(ends(own.start(copies, [self.device.record(self.device.current_stream())])))
