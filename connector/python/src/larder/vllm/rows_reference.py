"""What rows_kernel does, on the processor: for tests, and as its reference. The
same tables, the same arithmetic, no device."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from larder.vllm.rows import Rows


class HostMover:
    """Moves rows at once, in the calling thread."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def move(self, addresses: int, jobs: int, job_count: int, heads: int, *, to_parts: bool) -> None:
        """As rows_kernel.Mover.move."""
        r = self._rows
        starts = (ctypes.c_int64 * (r.layers * r.planes)).from_address(addresses)
        pairs = (ctypes.c_int64 * (2 * job_count)).from_address(jobs)
        for part, offset in zip(pairs[::2], pairs[1::2], strict=True):
            for layer in range(r.layers):
                for plane in range(r.planes):
                    page = self._at(starts[layer * r.planes + plane] + offset, heads, r.page_head, r.page_row)
                    begin = part + layer * heads * r.chunk_head + plane * r.part_plane
                    here = self._at(begin, heads, r.chunk_head, r.part_row)
                    if to_parts:
                        here[:] = page
                    else:
                        page[:] = here

    def _at(self, address: int, heads: int, head: int, row: int) -> Any:
        """Rows of some heads, from an address on."""
        return np.asarray(_Memory(address, (heads, self._rows.rows, self._rows.width), (head, row, 1)))


class _Memory:
    """Bytes at an address, for numpy."""

    def __init__(self, address: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.__array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "strides": strides,
            "typestr": "|u1",
            "version": 3,
        }
