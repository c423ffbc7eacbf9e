"""Reads bases of calibrated objects (codec/basis/FORMAT.md) with numpy.

The reference beside larder.codec: the same bits as the Go codec, slowly, written
from the page alone.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larder.errors import CorruptError, MissError
from larder.part import crc64

VERSION = 1
LOW_ROWS = 256
MAX_CLASSES = 10
KIND_K = 1

_HEADER = struct.Struct("<4sBBBBHHHHHHIQ")
_FIELD = struct.Struct("<BBHI")

Floats = NDArray[np.float32]


def fma(a: Floats, b: Floats, c: Floats) -> Floats:
    """Return a x b + c, rounded once.

    The product is exact in float64. The sum is rounded to odd there, so that
    rounding it again gives what rounding the exact sum would.
    """
    p, c64 = a.astype(np.float64) * b, c.astype(np.float64)
    s = p + c64
    v = s - p
    lost = (p - (s - v)) + (c64 - v)
    bits = s.view(np.int64)
    even = (lost != 0) & (bits & 1 == 0)
    odd = bits + np.where(even, np.where((lost > 0) == (s > 0), 1, -1), 0)
    out: Floats = odd.view(np.float64).astype(np.float32)
    return out


@dataclass(frozen=True)
class Field:
    kind: int
    classes: int
    dims: int


@dataclass(frozen=True)
class Transform:
    """That of one unit of n components; the matrix has a row for each."""

    mean: Floats
    steps: Floats
    classes: NDArray[np.uint8]
    matrix: Floats

    def reconstruct(self, coefficients: Floats) -> Floats:
        """Return rows [token, element] of coefficients [token, component]."""
        rows = np.tile(self.mean, (len(coefficients), 1))
        for j, row in enumerate(self.matrix):
            c = coefficients[:, j : j + 1]
            rows = np.where(c == 0, rows, fma(c, row[None, :], rows))
        return rows


@dataclass(frozen=True)
class Basis:
    name: bytes
    unit: int
    first_layer: int
    layers: int
    heads: int
    joined: int
    halves: bool
    rotated: int
    positions: int
    fields: list[Field]
    low: Floats
    high: Floats
    transforms: list[Transform]

    def field(self, kind: int) -> int:
        """Return the number of the field of a kind, -1 if there is none."""
        return next((i for i, f in enumerate(self.fields) if f.kind == kind), -1)

    def turns(self, field: int) -> bool:
        return self.rotated > 0 and self.fields[field].kind == KIND_K

    def transform(self, layer: int, field: int, block: int) -> Transform:
        """Return that of a unit; layer counts from first_layer."""
        return self.transforms[(layer * len(self.fields) + field) * (self.heads // self.joined) + block]

    def rotate(self, rows: Floats, first: int, dims: int) -> Floats:
        """Turn keys [token, heads x dims], the first of which has position first."""
        positions = np.arange(first, first + len(rows))
        high, low = self.high[positions // LOW_ROWS], self.low[positions % LOW_ROWS]
        ch, sh, cl, sl = high[..., 0], high[..., 1], low[..., 0], low[..., 1]
        cos, sin = fma(ch, cl, -(sh * sl))[:, None, :], fma(sh, cl, ch * sl)[:, None, :]
        out = rows.reshape(len(rows), -1, dims).copy()
        half = self.rotated // 2
        first_of, second_of = slice(0, half), slice(half, 2 * half)
        if not self.halves:
            first_of, second_of = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
        x, y = out[..., first_of].copy(), out[..., second_of].copy()
        cos, sin = np.broadcast_to(cos, x.shape), np.broadcast_to(sin, x.shape)
        out[..., first_of], out[..., second_of] = fma(x, cos, -(y * sin)), fma(y, cos, x * sin)
        return out.reshape(rows.shape)


class _Cursor:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, dtype: str, *shape: int) -> NDArray[Any]:
        n = int(np.prod(shape))
        out = np.frombuffer(self.data, dtype, n, self.at).reshape(shape)
        self.at += out.nbytes
        return out

    def floats(self, limit: float, *shape: int) -> Floats:
        out = self.take("<f4", *shape).astype(np.float32)
        if not (np.abs(out) <= limit).all() or (np.signbit(out) & (out == 0)).any():
            raise CorruptError("a number is out of range", field="basis.number", limit=str(limit))
        return out

    def bf16(self, *shape: int) -> Floats:
        return (self.take("<u2", *shape).astype(np.uint32) << 16).view(np.float32)


def parse(data: bytes) -> Basis:
    """Read a basis. MissError: another format or version."""
    if len(data) < _HEADER.size + _FIELD.size + 8:
        raise CorruptError("ends early", field="basis.header", value=str(len(data)))
    magic, version, unit, count, pairing, *numbers = _HEADER.unpack_from(data)
    first, layers, heads, joined, rotated, zero, positions, length = numbers
    if magic != b"LKVB" or version != VERSION:
        raise MissError("not a basis of this version", field="basis.version", value=str(version))
    if not (unit in {1, 2} and 1 <= count <= 8 and len(data) >= _HEADER.size + count * _FIELD.size + 8):
        raise CorruptError("impossible unit or fields", field="basis.header")
    fields = []
    for i in range(count):
        kind, classes, dims, reserved = _FIELD.unpack_from(data, _HEADER.size + i * _FIELD.size)
        if not (1 <= kind <= 3 and 1 <= classes <= MAX_CLASSES and 1 <= dims * joined <= 4096 and reserved == 0):
            raise CorruptError("impossible field", field="basis.fields", value=str(i))
        fields.append(Field(kind, classes, dims))
    plain = pairing == 0
    if not (
        1 <= layers <= 1024
        and 1 <= heads <= 1024
        and 1 <= joined <= heads
        and heads % joined == 0
        and (unit == 1 or joined == heads)
        and len({f.kind for f in fields}) == count
        and pairing <= 2
        and rotated % 2 == 0
        and plain == (rotated == 0) == (positions == 0)
        and positions <= 1 << 22
        and rotated <= (4096 if plain else min([f.dims for f in fields if f.kind == KIND_K], default=4096))
        and zero == 0
    ):
        raise CorruptError("impossible shape", field="basis.shape")
    rows = -(-positions // LOW_ROWS)
    blocks = heads // joined
    size = _HEADER.size + count * _FIELD.size + 8 + 4 * rotated * (LOW_ROWS + rows)
    size += sum(layers * blocks * n * (7 + 2 * n) for n in (joined * f.dims for f in fields))
    if size != len(data) or size != length:
        raise CorruptError("is not what the shape makes", field="basis.length", value=str(len(data)), limit=str(size))
    if crc64(data[:-8]) != int.from_bytes(data[-8:], "little"):
        raise CorruptError("does not match its checksum", field="basis.checksum")
    cursor = _Cursor(data, _HEADER.size + count * _FIELD.size)
    low = cursor.floats(2, LOW_ROWS if rotated else 0, rotated // 2, 2)
    high = cursor.floats(2, rows, rotated // 2, 2)
    transforms = []
    for i in range(layers * count * blocks):
        f = fields[i // blocks % count]
        n = joined * f.dims
        mean, steps = cursor.floats(2.0**96, n), cursor.bf16(n)
        classes, matrix = cursor.take("u1", n), cursor.bf16(n, n)
        if not ((steps >= 2.0**-80) & (steps < 2.0**56)).all() or (classes >= f.classes).any():
            raise CorruptError("a step or class is out of range", field="basis.transform", value=str(i))
        if not (np.abs(matrix) <= 2).all():
            raise CorruptError("an entry is out of range", field="basis.transform", value=str(i))
        transforms.append(Transform(mean, steps, classes, matrix))
    name = hashlib.sha256(data).digest()
    shape = (unit, first, layers, heads, joined, pairing == 1, rotated, positions)
    return Basis(name, *shape, fields, low, high, transforms)
