"""The kernel that moves rows, under Triton's interpreter, against its reference:

    make test-kernel

Needs neither a GPU nor an engine nor torch, but Triton (190 MB), so it is no
part of CI. On a GPU bench/gpu/test_pages.py runs the compiled kernel.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

os.environ["TRITON_INTERPRET"] = "1"
# The package itself imports the engine.
PACKAGE = types.ModuleType("larder.vllm")
PACKAGE.__path__ = [str(Path(__file__).resolve().parents[2] / "src/larder/vllm")]
sys.modules.setdefault("larder.vllm", PACKAGE)

from larder.load import Bytes  # noqa: E402
from larder.vllm.rows import PartJob, Rows, Table, jobs  # noqa: E402
from larder.vllm.rows_kernel import Mover  # noqa: E402
from larder.vllm.rows_reference import HostMover  # noqa: E402

# Of the interpreter itself.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

LAYERS, HEADS, BLOCKS, CHUNK_BLOCKS = 2, 2, 9, 2
FORMS = {
    # rows of a block, bytes of a row, planes, head before row, attention's blocks in one, bytes of a tile
    "NHD": (4, 64, 1, False, 1, 256),
    "HND": (4, 64, 1, True, 1, 256),
    "K and V apart": (4, 48, 2, False, 1, 512),
    "one tile for several jobs": (2, 16, 1, True, 1, 128),
    "tiles larger than a block": (3, 24, 1, True, 1, 4096),
    "tiles smaller than a block": (5, 32, 1, False, 1, 64),
    "two-byte words": (3, 6, 1, True, 1, 64),
    "bytes": (2, 5, 1, False, 1, 32),
    "small blocks of the attention": (2, 32, 1, True, 2, 64),
}


def make(name: str, pages: Bytes) -> Rows:
    rows, width, planes, head_first, split, _ = FORMS[name]
    block = HEADS * rows * width
    addresses = [[layer[plane].ctypes.data for plane in range(planes)] for layer in pages]
    head, row = (rows * width, width) if head_first else (width, HEADS * width)
    part_row = width * planes
    chunk = CHUNK_BLOCKS * split * rows * part_row
    table = np.array(addresses, np.int64)
    return Rows(table, HEADS, rows, width, block, head, row, chunk, rows * part_row, part_row, width, split)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("heads", [1, 2])
def test_the_kernel_does_what_the_reference_does(name: str, heads: int) -> None:
    rows_of_block, width, planes, _, split, tile = FORMS[name]
    random = np.random.default_rng(1)
    shape = (LAYERS, planes, BLOCKS * split * HEADS * rows_of_block * width)
    pages = random.integers(0, 256, shape, np.uint8)
    rows = make(name, pages)
    parts = [np.zeros(rows.part_bytes(heads), np.uint8) for _ in range(2 * HEADS // heads)]
    expected = [np.zeros_like(p) for p in parts]
    chunks = [[7, 3], [0, 8]]

    def work(views: Sequence[Bytes], skip: int) -> Table:
        per_chunk = HEADS // heads
        return jobs(
            rows,
            [
                PartJob(v.ctypes.data, heads * (i % per_chunk), chunks[i // per_chunk][skip:], skip)
                for i, v in enumerate(views)
            ],
        )

    kernel = Mover(rows, programs=2, warps=1, tile_bytes=tile)
    at = rows.addresses.ctypes.data
    mine, reference = work(parts, 0), work(expected, 0)
    kernel.move(at, mine.ctypes.data, len(mine), heads, to_parts=True)
    HostMover(rows).move(at, reference.ctypes.data, len(reference), heads, to_parts=True)
    assert any(e.any() for e in expected)
    for have, right in zip(parts, expected, strict=True):
        assert np.array_equal(have, right)

    # Back, all but the first block of each chunk, into other pages.
    other = np.zeros_like(pages)
    rows = make(name, other)
    some = work(parts, 1)
    kernel = Mover(rows, programs=3, warps=1, tile_bytes=tile)
    kernel.move(rows.addresses.ctypes.data, some.ctypes.data, len(some), heads, to_parts=False)
    want = np.zeros_like(pages).reshape(LAYERS, planes, BLOCKS, -1)
    for _, block in chunks:
        want[:, :, block] = pages.reshape(want.shape)[:, :, block]
    assert np.array_equal(other.reshape(want.shape), want)


def test_no_jobs_change_nothing() -> None:
    pages = np.ones((LAYERS, 1, BLOCKS * HEADS * 4 * 64), np.uint8)
    rows = make("NHD", pages)
    table = np.zeros((1, 2), np.int64)
    for to_parts in (True, False):
        Mover(rows).move(rows.addresses.ctypes.data, table.ctypes.data, 0, 1, to_parts=to_parts)
    assert pages.all()
