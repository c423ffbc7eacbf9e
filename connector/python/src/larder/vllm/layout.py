"""Layout adapters: between pages of an engine and parts (api/PART.md).

A page's shape says little about where a token's K and V lie in it, so an
adapter is chosen by the kind of KV and the name of the attention backend, and
trusted only after known values, written by the backend's own cache operation,
came through it unchanged (prove). Where no adapter passes, pages are stored as
they are: layout_opaque, in a namespace that only the same engine shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from larder.load import Bytes
from larder.namespace import LAYOUT_CANONICAL, LAYOUT_OPAQUE, Layout


@dataclass(frozen=True)
class Geometry:
    """The pages of one KV cache group on one rank.

    tensors: one for each layer, ascending by layer id; the first dimension
    counts blocks. heads: KV heads of this rank. block_tokens: tokens of a block.
    """

    tensors: tuple[Any, ...]
    heads: int
    dk: int
    dv: int
    block_tokens: int
    chunk_tokens: int

    @property
    def chunk_blocks(self) -> int:
        """Blocks of one chunk."""
        return self.chunk_tokens // self.block_tokens


@dataclass(frozen=True)
class PartHeads:
    """The KV heads of a part, counted on this rank: [first, first + count)."""

    first: int
    count: int


class LayoutAdapter(Protocol):
    """Moves chunks between pages and parts. Calls for different parts may run at
    the same time on several threads."""

    layout: Layout

    def gather(self, blocks: Sequence[int], parts: Sequence[tuple[PartHeads, Bytes]]) -> None:
        """Copies the pages of one whole chunk into its parts.

        blocks: ids of its chunk_blocks blocks. parts: heads, and the bytes to
        write, raw_length long."""
        ...

    def scatter(self, blocks: Sequence[int], skip: int, heads: PartHeads, part: Bytes) -> None:
        """Copies one part into pages.

        blocks: ids of the chunk's blocks from number skip on. Bytes of earlier
        blocks and other heads stay as they are."""
        ...


def by_block(cache: Any, geometry: Geometry) -> Any:
    """One layer's cache with the engine's blocks as its first dimension. In
    some K and V come before the blocks; in others the attention's own blocks
    are smaller, and several of them are one of the engine's."""
    if cache.dim() == 5 and cache.shape[0] == 2 and cache.shape[1] != 2:
        cache = cache.transpose(0, 1)
    block = geometry.heads * geometry.block_tokens * (geometry.dk + geometry.dv)
    one = cache[0].numel()
    return cache.unflatten(0, (-1, block // one)) if 0 < one < block and block % one == 0 else cache


class WholeBlocks(LayoutAdapter, Protocol):
    """An adapter of an opaque layout."""

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of one layer."""
        ...


def canonical() -> Layout:
    """The layout that engines share."""
    return Layout(LAYOUT_CANONICAL)


def opaque(engine: str, backend: str, isa: str) -> Layout:
    """The layout of pages as they are."""
    return Layout(LAYOUT_OPAQUE, engine, backend, isa)
