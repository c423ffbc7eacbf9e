"""Powers of x for checksum.cu."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from larder.part import CRC_POLYNOMIAL


def _multiply(a: int, b: int) -> int:
    """a times b modulo the polynomial of CRC-64/NVMe; x^0 is the highest bit."""
    p = 0
    for i in range(63, -1, -1):
        if a >> i & 1:
            p ^= b
        b = b >> 1 ^ (CRC_POLYNOMIAL if b & 1 else 0)
    return p


@cache
def powers() -> NDArray[np.uint64]:
    """Return x^(8 (4 + i) 2^j) at 32 i + j, for i below 4."""
    eighth = 1 << 55
    fourth = _multiply(_multiply(eighth, eighth), _multiply(eighth, eighth))
    out, power = [], fourth
    for _ in range(4):
        square = power
        for _ in range(32):
            out.append(square)
            square = _multiply(square, square)
        power = _multiply(power, eighth)
    return np.array(out, np.uint64)
