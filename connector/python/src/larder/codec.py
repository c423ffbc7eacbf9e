"""Decodes coded objects (codec/FORMAT.md, codec/rans/FORMAT.md) with numpy; those
with calibrated fields with the basis that they name (larder.basis).

The reference that other decoders are compared with: bit for bit what the Go
codec gives, some MB/s, and written from the two pages alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from larder import frames
from larder.basis import Basis
from larder.calibrated import SECTION, BasisRef, Calibrated, Units, heads_of, read_ref, resolve
from larder.errors import CorruptError, InvalidError, MissError
from larder.part import crc64
from larder.rans import LANES, SLOTS, Array, Bytes, Chain, Table, ternary

VERSION = 1
ALIGN = 16
MAX_CLASSES = 10

_HEADER = struct.Struct("<4sBBBBIIHHHHIIQQ")
_FIELD = struct.Struct("<BBHBBBB")

RAW, REPEAT, LOSSLESS, PLAIN = range(4)
DIGITS_ZERO, DIGITS_RAW, DIGITS_CODED = range(3)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class DType:
    """Bytes of an element, bits of its exponent and mantissa."""

    name: str
    size: int
    exp: int
    man: int


DTYPES = {
    1: DType("fp32", 4, 8, 23),
    2: DType("bf16", 2, 8, 7),
    3: DType("fp16", 2, 5, 10),
    4: DType("fp8_e4m3", 1, 4, 3),
    5: DType("fp8_e5m2", 1, 5, 2),
    6: DType("u8", 1, 0, 0),
}
KINDS = {1: "k", 2: "v", 3: "latent", 4: "rope", 5: "opaque"}


@dataclass
class Field:
    kind: str
    dtype: DType
    dims: int
    zero: int
    exponent: int
    plain: list[Table] = field(default_factory=list)
    digits: list[list[Table]] = field(default_factory=list)
    lossless: list[Table] = field(default_factory=list)

    @property
    def width(self) -> int:
        return self.dims * self.dtype.size


class _Cursor:
    """Takes bytes from the front, and never more than there are."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise CorruptError("ends early", field="object", value=str(len(self.data) - self.at), limit=str(n))
        self.at += n
        return self.data[self.at - n : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def align(self, n: int) -> None:
        if any(self.take(-self.at % n)):
            raise CorruptError("padding is not zero", field="object")


def _unpack(data: bytes, n: int, width: int) -> NDArray[np.int64]:
    """Read n numbers of width bits, the first in the lowest bits."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if bits[n * width :].any():
        raise CorruptError("padding is not zero", field="object.packed")
    weights = 1 << np.arange(width, dtype=np.int64)
    return bits[: n * width].reshape(n, width).astype(np.int64) @ weights


@dataclass
class Object:
    """A coded object, or a prefix of one. With a basis, heads and dims are those
    of units: joined heads are one."""

    data: bytes
    finest: int
    coarsest: int
    first_layer: int
    layers: int
    heads: int
    tokens: int
    sinks: int
    fields: list[Field]
    plan: NDArray[np.uint8]
    modes: Array
    lengths: Array
    starts: NDArray[np.int64]
    sums: NDArray[np.uint64]
    basis: BasisRef | None = None

    @property
    def units(self) -> int:
        return self.layers * self.heads * len(self.fields)


def parse(data: bytes, max_bytes: int, *, verify: bool = True) -> Object:
    """Read the header of an object whose uncoded bytes are at most max_bytes,
    and verify the layers that data has, unless the caller does it elsewhere."""
    if len(data) < _HEADER.size:
        raise CorruptError("ends early", field="object.header", value=str(len(data)), limit=str(_HEADER.size))
    magic, version, finest, coarsest, nfields, size, *numbers = _HEADER.unpack_from(data)
    tokens, first, layers, heads, sinks, runs, table_bytes, length, section = numbers
    if magic != b"LKVC" or version != VERSION or section not in {0, SECTION.size}:
        raise MissError("not an object of this version", field="object.version", value=str(version))
    if size > len(data) or size < _HEADER.size + 16 or size % ALIGN:
        raise CorruptError("impossible length", field="object.header", value=str(size), limit=str(len(data)))
    if crc64(data[: size - 8]) != int.from_bytes(data[size - 8 : size], "little"):
        raise CorruptError("does not match its checksum", field="object.header")
    cursor = _Cursor(data[: size - 8])
    cursor.take(_HEADER.size)
    passes, fields, counts = coarsest - finest + 1, [], []
    if not (finest <= coarsest <= 3 and 1 <= nfields <= 8 and tokens and layers and heads):
        raise CorruptError("impossible shape", field="object.header")
    for _ in range(nfields):
        kind, dtype, dims, plain, lossless, zero, exponent = _FIELD.unpack(cursor.take(_FIELD.size))
        if kind not in KINDS or dtype not in DTYPES or dims == 0 or max(plain, lossless) > MAX_CLASSES:
            raise CorruptError("impossible field", field="object.fields")
        fields.append(Field(KINDS[kind], DTYPES[dtype], dims, zero, exponent))
        counts.append((plain, lossless))
    basis = None
    if section:
        basis = read_ref(cursor.take(SECTION.size), heads, [f.kind for f in fields])
        heads //= basis.joined
        for f in fields:
            f.dims *= basis.joined
    cells = layers * heads * nfields * tokens
    if layers * heads * tokens * sum(f.width for f in fields) > max_bytes:
        raise InvalidError("larger than allowed", field="object.shape", limit=str(max_bytes))
    words = np.frombuffer(cursor.take(4 * runs), "<u4").astype(np.int64)
    if (words // 4 + 1).sum() != cells:
        raise CorruptError("does not cover all tokens", field="object.plan")
    plan = np.repeat((words % 4).astype(np.uint8), words // 4 + 1).reshape(-1, tokens)
    tables = _Cursor(cursor.take(table_bytes))
    for f, (plain, lossless) in zip(fields, counts, strict=True):
        f.plain = [_table(tables) for _ in range(plain)]
        for _ in range(passes - 1 if plain else 0):
            f.digits.append([ternary(*tables.take(2)) for _ in range(2 * plain)])
        f.lossless = [_table(tables) for _ in range(lossless)]
    n = layers * heads * nfields * passes
    entries = np.frombuffer(cursor.take(4 * n), "<u4")
    lengths = entries & ((1 << 30) - 1)
    padded = (lengths.astype(np.int64) + ALIGN - 1) // ALIGN * ALIGN
    starts = size + np.concatenate([[0], np.cumsum(padded)])
    if starts[-1] != length:
        raise CorruptError("differs from the sum of the streams", field="object.length", value=str(length))
    sums = np.frombuffer(cursor.take(8 * layers * passes), "<u8")
    per = heads * nfields
    for i, want in enumerate(sums):
        low, high = int(starts[i * per]), int(starts[(i + 1) * per])
        if verify and high <= len(data) and crc64(data[low:high]) != int(want):
            raise CorruptError("a layer does not match its checksum", field="object.stream", value=str(i % layers))
    modes = entries >> 30
    return Object(
        data, finest, coarsest, first, layers, heads, tokens, sinks, fields, plan, modes, lengths, starts, sums, basis
    )


def _table(cursor: _Cursor) -> Table:
    table, used = Table.read(cursor.data[cursor.at :])
    cursor.take(used)
    return table


def decode(data: bytes, level: int, max_bytes: int, basis: Basis | None = None) -> bytes:
    """Return the uncoded bytes of an object (or of a prefix that holds the level)
    at level: layer, head, token, fields. At most max_bytes are made. MissError:
    the object has a basis, and it is not this one."""
    o = parse(data, max_bytes)
    transforms = resolve(_units(o, o.basis), basis) if o.basis is not None else {}
    out = np.zeros((o.layers, o.heads, o.tokens, sum(f.width for f in o.fields)), np.uint8)
    level = min(max(level, o.finest), o.coarsest)
    for unit in range(o.units):
        head, rest = unit % o.heads, unit // o.heads
        number, layer = rest % len(o.fields), rest // len(o.fields)
        at = sum(f.width for f in o.fields[:number])
        f = o.fields[number]
        out[layer, head, :, at : at + f.width] = _unit(o, unit, f, level, transforms.get((layer, number, head)))
    return heads_of(out, [f.width for f in o.fields], o.basis.joined if o.basis is not None else 1).tobytes()


def _units(o: Object, ref: BasisRef) -> Units:
    fields = [(f.kind, f.dims, len(f.plain)) for f in o.fields]
    return Units(ref, o.first_layer, o.layers, o.heads, o.tokens, fields)


def _stream(o: Object, index: int) -> bytes:
    start = int(o.starts[index])
    end = start + int(o.lengths[index])
    if end > len(o.data):
        raise CorruptError("ends before the level", field="object", value=str(len(o.data)), limit=str(end))
    return o.data[start:end]


def _unit(o: Object, unit: int, f: Field, level: int, calibrated: Calibrated | None) -> Bytes:
    mode, stream = o.modes[unit], _Cursor(_stream(o, unit))
    rows: Bytes
    if mode == RAW:
        rows = np.frombuffer(stream.take(o.tokens * f.width), np.uint8).reshape(o.tokens, f.width)
    elif mode == REPEAT:
        rows = np.tile(np.frombuffer(stream.take(f.width), np.uint8), (o.tokens, 1))
    elif mode == LOSSLESS and f.dtype.name == "u8":
        return frames.read(stream.rest(), o.tokens * f.width).reshape(o.tokens, f.width)
    elif mode == LOSSLESS:
        return _lossless(o, f, stream)
    else:
        return _quantized(o, unit, f, stream, level, calibrated)
    if stream.rest():
        raise CorruptError("goes on behind its end", field="object.stream")
    return rows


def _base(o: Object, f: Field, tables: list[Table], stream: _Cursor, flags: int, chain: Chain, classes: Array) -> Array:
    """Decode state, body and order of a base: symbols [token, channel]."""
    if flags & 1:
        stream.align(4)
        chain.lanes = np.frombuffer(stream.take(2 * LANES), "<u2").astype(np.uint32)
        if (chain.lanes < SLOTS).any():
            raise CorruptError("a lane is below its range", field="object.state")
    channels = [np.flatnonzero(classes == c) for c in range(len(tables))]
    sizes = [len(c) * o.tokens for c in channels]
    runs = [(t, -(-n // LANES)) for t, n in zip(tables, sizes, strict=True) if n]
    coded = chain.runs(runs, stream.rest())
    symbols, at = np.empty((o.tokens, f.dims), np.int64), 0
    for c, n in zip(channels, sizes, strict=True):
        symbols[:, c] = coded[at : at + n].reshape(len(c), o.tokens).T
        at += -(-n // LANES) * LANES
    return symbols


def _classes(f: Field, tables: list[Table], stream: _Cursor) -> Array:
    if not tables:
        raise CorruptError("no tables for this mode", field="object.classes")
    width = (len(tables) - 1).bit_length()
    classes = _unpack(stream.take((f.dims * width + 7) // 8), f.dims, width)
    if (classes >= len(tables)).any():
        raise CorruptError("a channel has a class without a table", field="object.class_map")
    return classes


def _escape(symbols: Array, values: Array, escapes: Array) -> None:
    at = symbols == 0
    if np.count_nonzero(at) != len(escapes):
        raise CorruptError("number does not fit", field="object.escapes", value=str(len(escapes)))
    values[at] = escapes


def _lossless(o: Object, f: Field, stream: _Cursor) -> Bytes:
    zero, flags, count = struct.unpack("<3sBI", stream.take(8))
    if zero != b"\0\0\0" or flags > 1:
        raise CorruptError("unknown flags", field="object.flags", value=str(flags))
    d, n = f.dtype, o.tokens * f.dims
    classes = _classes(f, f.lossless, stream)
    escapes = np.frombuffer(stream.take(count), np.uint8)
    bits = d.man + 1
    rest = np.zeros(n, np.int64)
    whole = np.frombuffer(stream.take(n * (bits // 8)), np.uint8).reshape(n, bits // 8)
    for k in range(bits // 8):
        rest |= whole[:, k].astype(np.int64) << (8 * k)
    if bits % 8:
        rest |= _unpack(stream.take((n * (bits % 8) + 7) // 8), n, bits % 8) << (bits // 8 * 8)
    chain = Chain()
    symbols = _base(o, f, f.lossless, stream, flags, chain, classes)
    exponents = symbols - 1 + f.exponent
    _escape(symbols, exponents, escapes)
    if (exponents >= 1 << d.exp).any() or not chain.at_start():
        raise CorruptError("exponents or state out of range", field="object.base")
    mantissa, sign = rest & ((1 << d.man) - 1), rest >> d.man
    words = sign << (d.man + d.exp) | exponents.ravel() << d.man | mantissa
    return words.astype("<u4").view(np.uint8).reshape(n, 4)[:, : d.size].reshape(o.tokens, f.width)


def _quantized(o: Object, unit: int, f: Field, stream: _Cursor, level: int, calibrated: Calibrated | None) -> Bytes:
    if calibrated is not None:
        zero, flags, count = struct.unpack("<3sBI", stream.take(8))
        if zero != b"\0\0\0" or flags > 1:
            raise CorruptError("unknown flags", field="object.flags", value=str(flags))
        classes = calibrated.transform.classes.astype(np.int64)
        exact, values, scale = _values(o, unit, f, stream, level, classes, flags, count)
        rows = _store(f.dtype, calibrated.rows(values * scale))
        rows[: len(exact)] = exact
        return rows
    step_bits, shift, flags, count = struct.unpack("<HbBI", stream.take(8))
    step = np.uint32(step_bits << 16).view(np.float32)
    width = flags >> 4
    if not 2.0**-90 <= step <= 2.0**90 or not -6 <= shift <= 10 or flags & 15 > 1 or width > 8:
        raise CorruptError("step or flags out of range", field="object.base")
    means = np.zeros(f.dims, np.int64)
    if width:
        means = _unpack(stream.take((f.dims * width + 7) // 8), f.dims, width) - (1 << (width - 1))
    classes = _classes(f, f.plain, stream)
    exact, values, scale = _values(o, unit, f, stream, level, classes, flags & 1, count)
    mean = (step * means.astype(np.float32)) * np.float32(2.0**shift)
    rows = _store(f.dtype, step * (values * scale).astype(np.float32) + mean)
    rows[: len(exact)] = exact
    return rows


def _values(
    o: Object, unit: int, f: Field, stream: _Cursor, level: int, classes: Array, flags: int, count: int
) -> tuple[Bytes, Array, Array]:
    """Decode exact rows and values, and the steps of level 0 that one of each
    token's is."""
    sinks = min(o.sinks, o.tokens)
    exact = np.frombuffer(stream.take(sinks * f.width), np.uint8).reshape(sinks, f.width)
    escapes = np.frombuffer(stream.take(2 * count), "<i2").astype(np.int64)
    if (abs(escapes) * 3**o.coarsest > 32767).any():
        raise CorruptError("value out of range", field="object.escapes")
    chain = Chain()
    symbols = _base(o, f, f.plain, stream, flags, chain, classes)
    values = symbols - f.zero
    _escape(symbols, values, escapes)
    for p in range(1, o.coarsest - level + 1):
        active = o.plan[unit] <= o.coarsest - p
        coarse = values[active]
        digits = _digits(o, p * o.units + unit, f.digits[p - 1], 2 * classes + (coarse != 0), chain)
        values[active] = 3 * coarse + np.where(coarse < 0, -digits, digits)
    if level == o.finest and not chain.at_start():
        raise CorruptError("is not where an encoder starts", field="object.state")
    scale = 3 ** np.maximum(o.plan[unit], level).astype(np.int64)
    return exact, values, scale[:, None]


def _digits(o: Object, index: int, tables: list[Table], contexts: Array, chain: Chain) -> Array:
    mode, stream = o.modes[index], _stream(o, index)
    if mode == DIGITS_ZERO:
        return np.zeros(contexts.shape, np.int64)
    if mode == DIGITS_CODED:
        symbols = chain.digits(tables, contexts.ravel(), stream)
    else:
        symbols = _raw_digits(stream, contexts.size)
    return symbols.reshape(contexts.shape).astype(np.int64) - 1


def _raw_digits(stream: bytes, n: int) -> Bytes:
    cursor, out = _Cursor(stream), [np.empty(0, np.uint8)]
    for at in range(0, n, 320):
        m = min(320, n - at)
        group = np.frombuffer(cursor.take((m + 4) // 5), np.uint8)
        symbols = np.concatenate([group // 3**k % 3 for k in range(5)])
        if (group >= 243).any() or symbols[m:].any():
            raise CorruptError("not five digits", field="object.digits")
        out.append(symbols[:m])
    if cursor.rest():
        raise CorruptError("goes on behind its end", field="object.digits")
    return np.concatenate(out)


def _store(d: DType, values: Floats) -> Bytes:
    """Round to the type: to nearest, ties to even, at most the largest finite."""
    if d.name == "fp32":
        return values.astype("<f4").view(np.uint8)
    if d.name == "fp16":
        return np.clip(values, -65504, 65504).astype("<f2").view(np.uint8)
    if d.name == "bf16":
        bits = values.view(np.uint32).astype(np.int64)
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        return np.where(bits & 0x7F80 == 0x7F80, bits - 1, bits).astype("<u2").view(np.uint8)
    bias, top = (7, 0x7E) if d.name == "fp8_e4m3" else (15, 0x7B)
    codes = np.arange(top + 1)
    exponent, mantissa = codes >> d.man, (codes & ((1 << d.man) - 1)) / 2.0**d.man
    numbers = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * 2.0 ** (exponent - bias))
    middles = (numbers[:-1] + numbers[1:]) / 2
    size = np.abs(values.astype(np.float64))
    code = np.searchsorted(middles, size, side="left")
    tie = (code < top) & (size == np.append(middles, np.inf)[code]) & (code % 2 == 1)
    signed: Bytes = ((code + tie) | np.signbit(values) * 128).astype(np.uint8)
    return signed
