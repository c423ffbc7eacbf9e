"""The entropy coder of coded objects (codec/rans/FORMAT.md), decoding only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larder.errors import CorruptError

LANES = 64
SLOTS = 256

Bytes = NDArray[np.uint8]
Array = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """A table of a class: symbol, frequency and bias of each slot."""

    symbol: Bytes
    freq: NDArray[np.uint32]
    bias: NDArray[np.uint32]
    single: bool = False

    @classmethod
    def of(cls, order: Sequence[int], freqs: Sequence[int], first: int = 0, *, single: bool = False) -> Table:
        """Return the table whose symbols, counted from first, get slots in order."""
        symbol = np.concatenate([np.full(freqs[s], first + s, np.uint8) for s in order])
        freq = np.concatenate([np.full(freqs[s], freqs[s], np.uint32) for s in order])
        bias = np.concatenate([np.arange(freqs[s], dtype=np.uint32) for s in order])
        return cls(symbol, freq, bias, single)

    @classmethod
    def read(cls, data: bytes) -> tuple[Table, int]:
        """Return the table at the start of data, and its length there."""
        if len(data) < 2:
            raise CorruptError("a table ends early", field="object.tables")
        first, count = data[0], data[1] + 1
        freqs = [SLOTS] if count == 1 else list(data[2 : 1 + 1 + count])
        if first + count > 256 or len(freqs) != count or sum(freqs) != SLOTS or 0 in (freqs[0], freqs[-1]):
            raise CorruptError("a table is impossible", field="object.tables")
        order = sorted(range(count), key=lambda s: (-freqs[s], s))
        return cls.of(order, freqs, first, single=count == 1), 2 if count == 1 else 2 + count


def ternary(low: int, high: int) -> Table:
    """Return the table of a context: slots by ascending frequency."""
    if low + high > SLOTS:
        raise CorruptError("frequencies of digits exceed their sum", field="object.tables", value=str(low + high))
    freqs = (low, SLOTS - low - high, high)
    order = sorted(range(3), key=lambda s: (freqs[s], s))
    return Table.of(order, freqs)


@dataclass
class Chain:
    """The lanes of a unit's entropy coder."""

    lanes: NDArray[np.uint32] = field(default_factory=lambda: np.full(LANES, SLOTS, np.uint32))

    def step(self, table: Table, rows: Array | int, n: int, body: bytes, at: int) -> tuple[Bytes, int]:
        """Decode n symbols. rows picks each lane's row of a stack of tables."""
        x = self.lanes[:n]
        index = rows * SLOTS + (x & (SLOTS - 1))
        symbols = table.symbol[index]
        x = table.freq[index] * (x >> 8) + table.bias[index]
        short = np.flatnonzero(x < SLOTS)
        end = at + len(short)
        if end > len(body):
            raise CorruptError("a body ends early", field="object.body", value=str(len(body)))
        x[short] = x[short] << 8 | np.frombuffer(body, np.uint8, len(short), at)
        self.lanes[:n] = x
        return symbols, end

    def runs(self, runs: list[tuple[Table, int]], body: bytes) -> Bytes:
        out: list[Bytes] = []
        at = 0
        for table, steps in runs:
            if table.single:
                out.append(np.full(steps * LANES, table.symbol[0], np.uint8))
                continue
            for _ in range(steps):
                symbols, at = self.step(table, 0, LANES, body, at)
                out.append(symbols)
        self._ended(at, body)
        return np.concatenate(out)

    def digits(self, tables: list[Table], contexts: Array, body: bytes) -> Bytes:
        stack = Table(
            np.concatenate([t.symbol for t in tables]),
            np.concatenate([t.freq for t in tables]),
            np.concatenate([t.bias for t in tables]),
        )
        out: list[Bytes] = [np.empty(0, np.uint8)]
        at = 0
        for i in range(0, len(contexts), LANES):
            rows = contexts[i : i + LANES]
            symbols, at = self.step(stack, rows, len(rows), body, at)
            out.append(symbols)
        self._ended(at, body)
        return np.concatenate(out)

    def _ended(self, at: int, body: bytes) -> None:
        if at != len(body):
            raise CorruptError(
                "a body goes on behind its end", field="object.body", value=str(len(body)), limit=str(at)
            )

    def at_start(self) -> bool:
        return bool((self.lanes == SLOTS).all())
