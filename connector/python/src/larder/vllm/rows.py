"""Pages and parts as rows of bytes: the arithmetic that GPU copies share.

Whatever the order of a page, it holds, for each KV head, one row of bytes for
each token, and these rows lie at even distances; so do those of a part. A
backend that keeps K and V apart has two rows for each token, in two planes. So
a few numbers and a table of addresses say all that a copy needs, and one kernel
serves every order. Orders that have no such form (K transposed inside a block,
as on CPU) have no Rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from larder.errors import InvalidError
from larder.vllm.layout import Geometry, by_block

Table = npt.NDArray[np.int64]

# Of pages whose inside is not known: bytes that move as one row, at most.
_OPAQUE_ROW = 512


@dataclass(frozen=True)
class Rows:
    """Where rows lie in pages, and in which order a part has them. All in bytes.

    addresses: of each layer's planes, (layers, planes): the row of block 0,
    head 0, token 0. A row is at
    address + block * page_block + head * page_head + row * page_row, and in a
    part, whose heads are counted from its first, at
    (layer * heads + head) * chunk_head + block * part_block + row * part_row +
    plane * part_plane, where block counts the chunk's. split: of these blocks
    in one of the engine's; only `jobs` is told the engine's. whole: a part has
    everything, and counts as one head.
    """

    addresses: Table
    heads: int
    rows: int
    width: int
    page_block: int
    page_head: int
    page_row: int
    chunk_head: int
    part_block: int
    part_row: int
    part_plane: int
    split: int = 1
    whole: bool = False

    @property
    def layers(self) -> int:
        """Layers of the pages."""
        return len(self.addresses)

    @property
    def planes(self) -> int:
        """2 where K and V lie apart, else 1."""
        return int(self.addresses.shape[1])

    @property
    def alignment(self) -> int:
        """The largest power of two, at most 16, that divides every distance and address."""
        numbers = [
            self.width,
            self.page_block,
            self.page_head,
            self.page_row,
            self.chunk_head,
            self.part_block,
            self.part_row,
            self.part_plane,
            *self.addresses.ravel().tolist(),
        ]
        return math.gcd(16, *numbers)

    def part_bytes(self, heads: int) -> int:
        """Bytes of a part of so many heads."""
        return self.layers * (1 if self.whole else heads) * self.chunk_head

    @property
    def block_bytes(self) -> int:
        """Bytes of one of the engine's blocks of one layer, all heads."""
        return self.heads * self.part_block * self.split


def canonical_rows(geometry: Geometry) -> Rows | None:
    """Rows whose parts are canonical (layer, head, token, K then V); None for
    pages of another form than one of these, whatever their strides:

        (blocks, heads, block, K and V)   vLLM from 0.26 on
        (blocks, 2, block, heads, dim)    before
        (2, blocks, block, heads, dim)    before
        (blocks, block, dim)              MLA: one latent for each token

    where the attention's block may be a part of the engine's."""
    first = geometry.tensors[0]
    size = first.element_size()
    if any(t.shape != first.shape or t.stride() != first.stride() for t in geometry.tensors):
        return None
    heads, dk, dv = geometry.heads, geometry.dk, geometry.dv
    # K's and V's cache as (blocks, head, token, dim), as the backends see them.
    planes: list[list[Any]] = []
    for t in geometry.tensors:
        shape = tuple(t.shape)
        if len(shape) == 4 and (shape[1], shape[3]) == (heads, dk + dv):
            planes.append([t])
        elif len(shape) == 5 and (shape[1], *shape[3:]) == (2, heads, dk) and dk == dv:
            planes.append([x.transpose(1, 2) for x in t.unbind(1)])
        elif len(shape) == 5 and (shape[0], *shape[3:]) == (2, heads, dk) and dk == dv:
            planes.append([x.transpose(1, 2) for x in t.unbind(0)])
        elif len(shape) == 3 and (heads, dv) == (1, 0) and shape[2] == dk:
            planes.append([t.unsqueeze(1)])
        else:
            return None
    one = planes[0][0]
    block = one.shape[2]
    if one.stride(3) != 1 or geometry.block_tokens % block:
        return None
    width = one.shape[3] * size
    part_row = width * len(planes[0])
    return Rows(
        np.array([[p.data_ptr() for p in layer] for layer in planes], np.int64),
        heads,
        block,
        width,
        one.stride(0) * size,
        one.stride(1) * size,
        one.stride(2) * size,
        geometry.chunk_tokens * part_row,
        block * part_row,
        part_row,
        width,
        geometry.block_tokens // block,
    )


def opaque_rows(geometry: Geometry) -> Rows:
    """Rows whose parts are pages as they are: layer, block, the block's bytes.
    INVALID where a block is not one run of bytes, or two of one length."""
    first = geometry.tensors[0]
    planes: list[list[Any]] = []
    for t in geometry.tensors:
        apart = t.dim() == 5 and t.shape[0] == 2 and t.stride(0) > t.stride(1)
        planes.append(list(t.unbind(0)) if apart else [t])
    run = _run(planes[0][0])
    same = all(t.shape == first.shape and t.stride() == first.stride() for t in geometry.tensors)
    if not run or not same:
        raise InvalidError(
            "the blocks of this KV cache are not runs of bytes",
            "layout",
            f"shape {tuple(first.shape)}, strides {first.stride()}",
        )
    width = math.gcd(run, _OPAQUE_ROW)
    block = run * len(planes[0])
    # The attention's blocks in one of the engine's.
    whole = by_block(first, geometry)[0].numel() * first.element_size()
    split = whole // block
    return Rows(
        np.array([[p.data_ptr() for p in layer] for layer in planes], np.int64),
        1,
        run // width,
        width,
        planes[0][0].stride(0) * first.element_size(),
        0,
        width,
        geometry.chunk_blocks * whole,
        block,
        width,
        run,
        split,
        whole=True,
    )


def _run(t: Any) -> int:
    """Bytes of a block, if they are one run in whatever order; else 0."""
    dims = sorted((stride, size) for size, stride in zip(t.shape[1:], t.stride()[1:], strict=True) if size > 1)
    expected = 1
    for stride, size in dims:
        if stride != expected:
            return 0
        expected *= size
    return int(expected * t.element_size())


class PartJob(NamedTuple):
    """One part and its pages. at: its address. first_head: counted on the rank.
    blocks: ids of the chunk's blocks from number skip on."""

    at: int
    first_head: int
    blocks: Sequence[int]
    skip: int = 0


def jobs(rows: Rows, parts: Sequence[PartJob]) -> Table:
    """What a copy does, as pairs (address in a part, offset in pages), one for
    each part and block."""
    split = rows.split
    counts = [len(p.blocks) * split for p in parts]
    total = sum(counts)
    made = np.empty((total, 2), np.int64)
    if not total:
        return made
    # Where in its chunk each block is.
    starts = np.cumsum([0, *counts[:-1]])
    number = np.arange(total) + np.repeat(np.array([p.skip * split for p in parts]) - starts, counts)
    at = np.array([p.at for p in parts], np.int64)
    head = np.array([p.first_head for p in parts], np.int64)
    # Parts of one chunk share the object, and the work.
    arrays = {id(p.blocks): p.blocks for p in parts}
    converted = {key: np.asarray(blocks, np.int64) for key, blocks in arrays.items()}
    ids = np.concatenate([converted[id(p.blocks)] for p in parts])
    if split > 1:
        ids = (ids[:, None] * split + np.arange(split)).ravel()
    made[:, 0] = np.repeat(at, counts) + number * rows.part_block
    made[:, 1] = np.repeat(head * rows.page_head, counts) + ids * rows.page_block
    return made
