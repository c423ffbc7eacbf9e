"""Loads that cannot fail any more, on their way into pages.

Once all parts of a load are leased and verified and their copies started, no
more than the device itself could be in the way, and that ends the engine. What
the arena promises holds until the leases are released, which comes after the
copies: no slot is reused while this process may read it, whatever becomes of
deadlines, of the daemon and of the connection (storage/arena/PROTOCOL.md,
section 2), and memory stays mapped while there are views. So such a load can be
reported before its bytes are there, if what uses its pages waits for them on
the device.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from larder.vllm.gpu_copies import Piece
from larder.vllm.loader import LoadResult, Started
from larder.vllm.metadata import LoadOp

# Bytes a second that copies are taken to make before some were measured, and
# the least that are believed.
_FIRST_RATE = 10e9
_LEAST_RATE = 0.5e9
# Fewer bytes say little.
_ENOUGH_BYTES = 32 << 20


class Rate:
    """How fast copies are. Used under the loader's lock."""

    def __init__(self) -> None:
        self._rate = _FIRST_RATE

    def seconds(self, size: int) -> float:
        """How long so many bytes take."""
        return size / self._rate

    def observe(self, size: int, seconds: float) -> None:
        """So many bytes took so long."""
        if size >= _ENOUGH_BYTES and seconds > 0:
            self._rate = max(_LEAST_RATE, (self._rate + size / seconds) / 2)


class Landing:
    """One load, from the start of its last copy to the end of all."""

    def __init__(
        self, op: LoadOp, result: LoadResult, started: Sequence[Started], pieces: Sequence[Piece], stack: ExitStack
    ) -> None:
        self.op = op
        self.result = result
        self.started = started
        self.pieces = pieces
        self.stack = stack
        # Everything came, so it may be reported ahead.
        self.complete = result.chunks == op.chunks
        # Little is left to copy.
        self.near = False
        self.reported = False
        self._at = time.perf_counter()
        self._over = 0
        self._left = sum(piece.size for piece in pieces)

    def left(self) -> int:
        """Bytes whose copies are not over, at most. Used by one thread."""
        while self._over < len(self.pieces) and self.pieces[self._over].event.query():
            self._left -= self.pieces[self._over].size
            self._over += 1
        return self._left

    def last(self, size: int) -> int:
        """From which piece on no more than so many bytes are left."""
        at = len(self.pieces)
        while at and self.pieces[at - 1].size <= size:
            at -= 1
            size -= self.pieces[at].size
        return at

    def ends(self, left_s: float = 0.0) -> LoadResult:
        """The result when so many seconds of its copies are left."""
        return replace(self.result, took_s=self.result.took_s + time.perf_counter() - self._at + left_s)
