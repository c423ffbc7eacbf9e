"""The kernel that moves rows between pages and parts.

A tile is some jobs (a job: one block of one part), one layer, one head, one
plane and some rows; a program takes every n-th. Jobs go fastest, so the tiles
under way at one time lie close to each other in a part. Addresses come from
tables, so the same kernel reads and writes memory of the device and host memory
that the device has mapped.
"""

# ruff: noqa: N803 - Triton's constants are written so

from __future__ import annotations

import triton
import triton.language as tl

from larder.vllm.rows import Rows

# Bytes of a tile. What is under way hides the latency of the bus: 16 programs
# with 16 KiB each are 256 KiB, where 55 GB/s at 2 us need 110.
TILE_BYTES = 16 << 10
# Programs of a launch, so multiprocessors in use at most, and warps of each.
PROGRAMS = 16
WARPS = 8


@triton.jit(do_not_specialize=["addresses_at", "jobs_at", "job_count"])  # type: ignore[untyped-decorator]
def _move(
    addresses_at: tl.int64,
    jobs_at: tl.int64,
    job_count: tl.int32,
    TO_PARTS: tl.constexpr,
    LAYERS: tl.constexpr,
    HEADS: tl.constexpr,
    PLANES: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PAGE_HEAD: tl.constexpr,
    PAGE_ROW: tl.constexpr,
    CHUNK_HEAD: tl.constexpr,
    PART_ROW: tl.constexpr,
    PART_PLANE: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    ROW_TILES: tl.constexpr,
    WORD: tl.constexpr,
    TILE_JOBS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
) -> None:
    # Everything but word indices is in bytes.
    word: tl.constexpr = tl.int64 if WORD == 8 else tl.int32 if WORD == 4 else tl.int16 if WORD == 2 else tl.int8
    addresses = addresses_at.to(tl.pointer_type(tl.int64))
    jobs = jobs_at.to(tl.pointer_type(tl.int64))
    job_tiles = tl.cdiv(job_count, TILE_JOBS)
    tiles = job_tiles * ROW_TILES * LAYERS * HEADS * PLANES
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        job = tile % job_tiles * TILE_JOBS + tl.arange(0, TILE_JOBS)
        rest = tile // job_tiles
        first_row = rest % ROW_TILES * TILE_ROWS
        rest = rest // ROW_TILES
        plane = rest % PLANES
        rest = rest // PLANES
        head = rest % HEADS
        layer = rest // HEADS

        here = job < job_count
        pages = tl.load(addresses + layer * PLANES + plane)
        page = pages + head * PAGE_HEAD + tl.load(jobs + 2 * job + 1, mask=here, other=0)
        part = (
            tl.load(jobs + 2 * job, mask=here, other=0)
            + (layer * HEADS + head).to(tl.int64) * CHUNK_HEAD
            + plane * PART_PLANE
        )
        page_rows = tl.multiple_of(page.to(tl.pointer_type(word)), ALIGNMENT)
        part_rows = tl.multiple_of(part.to(tl.pointer_type(word)), ALIGNMENT)

        row = first_row + tl.arange(0, TILE_ROWS)
        column = tl.arange(0, TILE_WIDTH)
        inside = (row < ROWS)[None, :, None] & (column < WIDTH // WORD)[None, None, :] & here[:, None, None]
        in_page = page_rows[:, None, None] + (row * (PAGE_ROW // WORD))[None, :, None] + column[None, None, :]
        in_part = part_rows[:, None, None] + (row * (PART_ROW // WORD))[None, :, None] + column[None, None, :]
        if TO_PARTS:
            tl.store(in_part, tl.load(in_page, mask=inside), mask=inside)
        else:
            tl.store(in_page, tl.load(in_part, mask=inside), mask=inside)


class Mover:
    """Launches the kernel for pages of one form. Each new (direction, heads)
    is compiled once, in seconds: warm up what will be used."""

    def __init__(self, rows: Rows, programs: int = PROGRAMS, warps: int = WARPS, tile_bytes: int = TILE_BYTES) -> None:
        self._rows = rows
        self._grid = (programs,)
        self._warps = warps
        alignment = rows.alignment
        self._word = min(8, alignment)
        self._alignment = alignment
        self._tile_width = _power(rows.width // self._word)
        row = self._tile_width * self._word
        self._tile_rows = min(_power(rows.rows), max(1, _floor_power(tile_bytes // row)))
        self._tile_jobs = max(1, _floor_power(tile_bytes // (row * self._tile_rows)))
        self._row_tiles = -(-rows.rows // self._tile_rows)

    def move(self, addresses: int, jobs: int, job_count: int, heads: int, *, to_parts: bool) -> None:
        """Moves jobs on the current stream.

        addresses, jobs: where Rows.addresses and rows.jobs lie, for the device,
        until it is done. (Numbers: a launch costs less than with tensors, whose
        pointers are looked up.) heads: of each part."""
        rows = self._rows
        _move[self._grid](
            addresses,
            jobs,
            job_count,
            TO_PARTS=to_parts,
            LAYERS=rows.layers,
            HEADS=heads,
            PLANES=rows.planes,
            ROWS=rows.rows,
            WIDTH=rows.width,
            PAGE_HEAD=rows.page_head,
            PAGE_ROW=rows.page_row,
            CHUNK_HEAD=rows.chunk_head,
            PART_ROW=rows.part_row,
            PART_PLANE=rows.part_plane,
            ALIGNMENT=self._alignment,
            ROW_TILES=self._row_tiles,
            WORD=self._word,
            TILE_JOBS=self._tile_jobs,
            TILE_ROWS=self._tile_rows,
            TILE_WIDTH=self._tile_width,
            num_warps=self._warps,
        )


def _power(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def _floor_power(n: int) -> int:
    """The largest power of two that is at most n; 1 for less."""
    return 1 << max(0, n.bit_length() - 1)
