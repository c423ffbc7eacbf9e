"""Pages as they are, for KV whose inside is not known.

A part is the chunk's pages: layer, block, the block's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from larder.errors import InvalidError
from larder.load import Bytes
from larder.namespace import Layout
from larder.vllm.layout import Geometry, PartHeads
from larder.vllm.memory import tensor


class OpaqueAdapter:
    """Copies whole pages. Every block of every layer must be one run of bytes."""

    def __init__(self, geometry: Geometry, layout: Layout) -> None:
        self.layout = layout
        self._pages = [_pages(t) for t in geometry.tensors]
        self._chunk_blocks = geometry.chunk_blocks

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of one layer."""
        return int(self._pages[0].shape[1])

    def gather(self, blocks: Sequence[int], parts: Sequence[tuple[PartHeads, Bytes]]) -> None:
        """See LayoutAdapter; parts has one entry, all heads."""
        ((_, view),) = parts
        index = torch.tensor(blocks)
        for pages, out in zip(self._pages, self._layers(view), strict=True):
            torch.index_select(pages, 0, index, out=out)

    def scatter(self, blocks: Sequence[int], skip: int, heads: PartHeads, part: Bytes) -> None:  # noqa: ARG002
        """See LayoutAdapter."""
        index = torch.tensor(blocks)
        for pages, layer in zip(self._pages, self._layers(part), strict=True):
            pages.index_copy_(0, index, layer[skip : skip + len(blocks)])

    def _layers(self, view: Bytes) -> Any:
        return tensor(view, torch.uint8).view(len(self._pages), self._chunk_blocks, -1).unbind(0)


def _pages(t: Any) -> Any:
    """Returns a cache tensor as [blocks, bytes]."""
    flat = t.flatten(1) if t[0].is_contiguous() else None
    if flat is None or flat.data_ptr() != t.data_ptr():
        raise InvalidError(
            "the blocks of this KV cache are not runs of bytes",
            "layout",
            f"shape {tuple(t.shape)}, strides {t.stride()}",
        )
    return flat.view(torch.uint8)
