"""Lays out coded objects for the kernels: what each warp decodes, from where to where.

Everything that a header or the first bytes of a stream say is checked here,
before memory is taken or a kernel runs: the kernels trust Unit, Group and Task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larder.codec import (
    ALIGN,
    DIGITS_CODED,
    DIGITS_RAW,
    DIGITS_ZERO,
    DTYPES,
    LOSSLESS,
    PLAIN,
    RAW,
    REPEAT,
    Field,
    Object,
)
from larder.errors import CorruptError, InvalidError, MissError
from larder.rans import LANES, Table

Array = NDArray[Any]

# The structs of decode.cu and checksum.cu.
UNIT = np.dtype(
    [
        ("base", "<u8"),
        ("out", "<u8"),
        ("digits", "<u8", 3),
        ("size", "<u4"),
        ("digits_size", "<u4", 3),
        ("levels", "<u4"),
        ("escapes", "<u4"),
        ("step", "<u2"),
        ("shift", "i1"),
        ("mean_bits", "u1"),
        ("state", "u1"),
        ("level", "u1"),
        ("digits_mode", "u1", 3),
        ("reserved", "u1", 7),
    ]
)
GROUP = np.dtype(
    [(n, "<u4") for n in ("tables", "contexts", "tokens", "dims", "stride", "sinks", "pitch")]
    + [(n, "u1") for n in ("dtype", "size", "exp", "man", "classes", "zero", "exponent", "coarsest")]
    + [(n, "u1") for n in ("level", "whole", "vector", "reserved")]
)
TASK = np.dtype([(n, "<u4") for n in ("group", "first", "count")])
RANGE = np.dtype([("offset", "<u8"), ("sum", "<u8"), ("size", "<u4"), ("reserved", "<u4")])

NO_LEVELS = 0xFFFFFFFF
RING = 1024
_NESTED = ("narrow", "wide")  # values between passes in 8 and 16 bits
GROUP_DIGITS, GROUP_BYTES = 320, 64

# Limits of codec/FORMAT.md. They keep every index of the kernels below 2^32.
MAX_LAYERS = MAX_HEADS = MAX_SINKS = 1024
MAX_TOKENS = 1 << 16
MAX_DIMS = 1 << 13
MAX_UNITS = 1 << 16
MAX_CELLS = 1 << 30
MAX_UNIT_BYTES = 1 << 28

FAULTS = {
    1: "a body does not end with its last symbol",
    2: "lanes are not where an encoder starts",
    4: "the number of escapes does not fit",
    8: "a channel has a class without a table",
    16: "padding is not zero",
    32: "a value is out of range",
    64: "digits are impossible",
    128: "a lane is below its range",
    256: "a layer does not match its checksum",
}


@dataclass(frozen=True)
class Source:
    """An object (parse gave it, with or without verifying its layers), the level
    that is wanted, where the object's bytes are in the device's source buffer (a
    multiple of 16) and where its rows go in the output."""

    object: Object
    level: int
    at: int = 0
    out: int = 0


@dataclass
class Work:
    """Units of equal shape that one kernel takes. classes and contexts are the
    most of any; listed: some have tokens of different levels. units is where they
    are in Layout.units: (group, first, count)."""

    kind: str
    tokens: int
    dims: int
    pitch: int
    classes: int = 0
    contexts: int = 0
    listed: bool = False
    units: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def stage(self) -> int:
        """Bytes of a unit's stage."""
        return _up(self.tokens * self.pitch, ALIGN)

    @property
    def fixed(self) -> int:
        """Bytes of shared memory that a warp needs beside its stage."""
        return RING + 4 * _up(self.dims, 4) + _up(2 * self.dims, ALIGN) + _up(self.dims, ALIGN)

    @property
    def shared(self) -> int:
        """Bytes of shared memory that a block's warps have in common."""
        return 1024 * self.classes + 4 * _up(self.contexts, 4)

    @property
    def active(self) -> int:
        """Bytes of scratch for the numbers of the tokens that a pass takes."""
        return _up(2 * self.tokens, ALIGN) if self.listed else 0

    def tasks(self, warps: int) -> Array:
        """Return tasks of at most `warps` units each."""
        rows = [(g, i, min(warps, first + n - i)) for g, first, n in self.units for i in range(first, first + n, warps)]
        return np.array(rows, TASK)


@dataclass(frozen=True)
class Layout:
    """What the kernels are given. names has the object and number of each unit,
    ranges_of the object and layer of each range of bytes with a checksum;
    out_size is where the last row ends."""

    units: Array
    names: Array
    groups: Array
    ranges: Array
    ranges_of: Array
    tables: Array
    contexts: Array
    levels: Array
    work: list[Work]
    out_size: int


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def lay_out(sources: Sequence[Source], source_size: int, out_size: int) -> Layout:
    """Check objects and return how the kernels decode them. Errors are those of
    larder.codec; also INVALID where a source does not lie in the buffers."""
    b = _Builder()
    for i, source in enumerate(sources):
        b.add(i, source, source_size, out_size)
    return b.layout()


class _Builder:
    def __init__(self) -> None:
        self.units: list[Array] = []
        self.names: list[Array] = []
        self.groups: list[Array] = []
        self.ranges: list[Array] = []
        self.ranges_of: list[Array] = []
        self.tables: list[Array] = []
        self.contexts: list[Array] = []
        self.levels: list[Array] = []
        self.count = self.slots = self.context_count = self.level_count = self.out_size = 0
        self.work: dict[tuple[str, int, int, int], Work] = {}

    def layout(self) -> Layout:
        def joined(parts: list[Array], dtype: Any) -> Array:
            return np.concatenate(parts) if parts else np.empty(0, dtype)

        return Layout(
            joined(self.units, UNIT),
            joined(self.names, np.int64).reshape(-1, 2),
            joined(self.groups, GROUP),
            joined(self.ranges, RANGE),
            joined(self.ranges_of, np.int64).reshape(-1, 2),
            joined(self.tables, np.uint32),
            joined(self.contexts, np.uint32),
            joined(self.levels, np.uint8),
            list(self.work.values()),
            self.out_size,
        )

    def add(self, number: int, source: Source, source_size: int, out_size: int) -> None:
        o = source.object
        _check_limits(o)
        level = min(max(source.level, o.finest), o.coarsest)
        passes = o.coarsest - level
        end = int(o.starts[(passes + 1) * o.units])
        if end > len(o.data):
            raise CorruptError("ends before the level", field="object", value=str(len(o.data)), limit=str(end))
        if source.at % ALIGN or not 0 <= source.at <= source_size - end:
            raise InvalidError("not aligned, or not in the buffer", "source.at", str(source.at), str(source_size))
        stride = sum(f.width for f in o.fields)
        size = o.layers * o.heads * o.tokens * stride
        if not 0 <= source.out <= out_size - size:
            raise InvalidError("does not lie in the output", "source.out", str(source.out), str(out_size))
        self.out_size = max(self.out_size, source.out + size)
        self._ranges(number, source, o, passes)
        at = 0
        for i, f in enumerate(o.fields):
            index = np.arange(o.layers)[:, None] * (len(o.fields) * o.heads) + i * o.heads + np.arange(o.heads)
            rows = np.arange(o.layers)[:, None] * o.heads + np.arange(o.heads)
            out = source.out + rows.ravel() * o.tokens * stride + at
            self._field(number, source, o, f, index.ravel(), out, stride, level)
            at += f.width

    def _ranges(self, number: int, source: Source, o: Object, passes: int) -> None:
        n, per = (passes + 1) * o.layers, o.heads * len(o.fields)
        ends = o.starts[: n * per + 1 : per]
        ranges = np.zeros(n, RANGE)
        ranges["offset"], ranges["size"], ranges["sum"] = source.at + ends[:-1], np.diff(ends), o.sums[:n]
        self.ranges.append(ranges)
        self.ranges_of.append(np.stack([np.full(n, number), np.arange(n) % o.layers], 1))

    def _field(
        self, number: int, source: Source, o: Object, f: Field, index: Array, out: Array, stride: int, level: int
    ) -> None:
        u = np.zeros(len(index), UNIT)
        u["base"], u["size"], u["out"] = source.at + o.starts[index], o.lengths[index], out
        modes, passes = o.modes[index], o.coarsest - level
        if f.dtype.name == "u8" and (modes == LOSSLESS).any():
            raise MissError("opaque bytes in zstd frames are not decoded on a GPU", "object.fields", str(number))
        heads = _stream_heads(o, index, modes)
        plan = o.plan[index]
        exact, lossless, plain = modes <= REPEAT, modes == LOSSLESS, modes == PLAIN
        _check_exact(u, modes, o, f)
        for p in range(1, o.coarsest - o.finest + 1):
            _check_digits(u, plain, p, o, f, index, plan, source.at, p <= passes)
        _check_lossless(u, lossless, heads, o, f)
        _check_plain(u, plain, heads, o, f)
        u["level"] = plan[:, 0]
        mixed = plain & (plan.min(1) != plan.max(1))
        u["levels"] = np.where(mixed, self.level_count + (np.cumsum(mixed) - 1) * o.tokens, NO_LEVELS)
        self.level_count += int(np.count_nonzero(mixed)) * o.tokens
        if self.level_count >= NO_LEVELS:
            raise InvalidError("too many tokens with levels of their own", "object.plan", str(self.level_count))
        self.levels.append(plan[mixed].ravel())
        flat, narrow = plain & (passes == 0), plain & (passes > 0) & _fits_bytes(o, f, index, u, plain, passes)
        wide = plain & ~flat & ~narrow
        for kind, mask, tables in (
            ("exact", exact, []),
            ("lossless", lossless, f.lossless),
            ("flat", flat, f.plain),
            ("narrow", narrow, f.plain),
            ("wide", wide, f.plain),
        ):
            if mask.any():
                contexts = f.digits[:passes] if kind in _NESTED else []
                group = self._group(o, f, stride, level, kind, tables, contexts)
                group["vector"] = f.dims % 4 == 0 and stride % 8 == 0 and not (u["out"] % 8).any()
                listed = kind in _NESTED and bool(mixed.any())
                self._units(number, group, kind, u[mask], index[mask], listed)

    def _group(
        self, o: Object, f: Field, stride: int, level: int, kind: str, tables: list[Table], contexts: list[list[Table]]
    ) -> Array:
        g = np.zeros(1, GROUP)
        g["tables"], g["contexts"] = self.slots, self.context_count
        words = [t.symbol | (t.freq & 255) << 8 | t.bias << 16 for t in tables]
        digits = [_context(t) for each in contexts for t in each]
        self.tables += words
        self.contexts.append(np.array(digits, np.uint32))
        self.slots += sum(len(w) for w in words)
        self.context_count += len(digits)
        g["tokens"], g["dims"], g["stride"], g["sinks"] = o.tokens, f.dims, stride, o.sinks
        g["dtype"] = next(n for n, d in DTYPES.items() if d is f.dtype)
        g["size"], g["exp"], g["man"] = f.dtype.size, f.dtype.exp, f.dtype.man
        g["classes"], g["zero"], g["exponent"] = len(tables), f.zero, f.exponent
        # Only nested units have passes: for others the coarsest level is read.
        g["coarsest"], g["level"] = (o.coarsest, level) if kind in ("flat", *_NESTED) else (0, 0)
        g["whole"] = level == o.finest
        words_of_row = _up(f.dims, 4) * (2 if kind == "wide" else 1) // 4
        g["pitch"] = 4 * (words_of_row | 1)  # odd: channels of 32 tokens lie in 32 banks
        return g

    def _units(self, number: int, group: Array, kind: str, units: Array, index: Array, listed: bool) -> None:
        g = group[0]
        tokens, dims, pitch = int(g["tokens"]), int(g["dims"]), int(g["pitch"])
        classes, contexts = int(g["classes"]), 2 * int(g["classes"]) * (int(g["coarsest"]) - int(g["level"]))
        key = (kind, tokens, dims, pitch)
        w = self.work.setdefault(key, Work(*key))
        w.classes, w.contexts = max(w.classes, classes), max(w.contexts, contexts)
        w.listed |= listed
        w.units.append((len(self.groups), self.count, len(units)))
        self.groups.append(group)
        self.units.append(units)
        self.names.append(np.stack([np.full(len(units), number), index], 1))
        self.count += len(units)


def _check_limits(o: Object) -> None:
    if o.basis is not None:
        raise MissError("calibrated objects are not decoded on a GPU", "object.basis", o.basis.name.hex())
    for name, value, limit in (
        ("layers", o.layers, MAX_LAYERS),
        ("heads", o.heads, MAX_HEADS),
        ("tokens", o.tokens, MAX_TOKENS),
        ("sinks", o.sinks, MAX_SINKS),
        ("dims", max(f.dims for f in o.fields), MAX_DIMS),
        ("units", o.units, MAX_UNITS),
        ("cells", o.units * o.tokens, MAX_CELLS),
        ("unit", o.tokens * max(f.width for f in o.fields), MAX_UNIT_BYTES),
    ):
        if value > limit:
            raise CorruptError("out of range", "object.shape." + name, str(value), str(limit))
    if (o.plan < o.finest).any() or (o.plan > o.coarsest).any():
        raise CorruptError("a level that the object does not have", "object.plan")
    for f in o.fields:
        if (f.plain and f.zero == 0) or (f.dtype.name == "u8" and f.kind != "opaque"):
            raise CorruptError("impossible field", "object.fields")
        if (f.kind == "opaque" and f.plain) or (f.dtype.name == "u8" and f.lossless):
            raise CorruptError("an opaque field has no such classes", "object.fields")


def _stream_heads(o: Object, index: Array, modes: Array) -> Array:
    """Return the first 8 bytes of the coded streams; zeros for others."""
    heads = np.zeros((len(index), 8), np.uint8)
    coded = modes >= LOSSLESS
    if (o.lengths[index][coded] < 8).any():
        raise CorruptError("a stream ends early", field="object.stream")
    heads[coded] = np.frombuffer(o.data, np.uint8)[o.starts[index][coded][:, None] + np.arange(8)]
    return heads


def _packed(n: int, width: Array | int) -> Array:
    return (n * np.asarray(width, np.int64) + 7) // 8


def _check_exact(u: Array, modes: Array, o: Object, f: Field) -> None:
    for mode, size in ((RAW, o.tokens * f.width), (REPEAT, f.width)):
        if (u["size"][modes == mode] != size).any():
            raise CorruptError("wrong size of an exact unit", field="object.stream", limit=str(size))


def _check_digits(
    u: Array, plain: Array, p: int, o: Object, f: Field, index: Array, plan: Array, at: int, read: bool
) -> None:
    k = p * o.units + index
    modes, sizes = o.modes[k], o.lengths[k]
    if (modes > DIGITS_CODED).any() or (sizes[modes == DIGITS_ZERO] != 0).any() or (modes[~plain] != DIGITS_ZERO).any():
        raise CorruptError("an impossible refinement", field="object.directory", value=str(p))
    n = np.count_nonzero(plan <= o.coarsest - p, axis=1).astype(np.int64) * f.dims
    raw = n // GROUP_DIGITS * GROUP_BYTES + (n % GROUP_DIGITS + 4) // 5
    if (plain & (modes == DIGITS_RAW) & (sizes != raw)).any():
        raise CorruptError("wrong size of raw digits", field="object.digits", value=str(p))
    if read:
        u["digits"][:, p - 1], u["digits_size"][:, p - 1] = at + o.starts[k], sizes
        u["digits_mode"][:, p - 1] = modes


def _check_ends(u: Array, mask: Array, used: Array, state: Array) -> None:
    """used: bytes before state and body."""
    used = used + np.where(state == 1, -used % 4 + 2 * LANES, 0)
    if (used > u["size"])[mask].any():
        raise CorruptError("a stream ends early", field="object.stream")


def _check_lossless(u: Array, mask: Array, heads: Array, o: Object, f: Field) -> None:
    if not mask.any():
        return
    if not f.lossless:
        raise CorruptError("no tables for a lossless unit", field="object.classes")
    if heads[mask, :3].any() or (heads[mask, 3] > 1).any():
        raise CorruptError("unknown flags", field="object.flags")
    n, bits = o.tokens * f.dims, f.dtype.man + 1
    escapes = heads[:, 4:].copy().view("<u4")[:, 0].astype(np.int64)
    rests = n * (bits // 8) + _packed(n, bits % 8)
    used = 8 + _packed(f.dims, (len(f.lossless) - 1).bit_length()) + escapes + rests
    _check_ends(u, mask, used, heads[:, 3])
    u["escapes"][mask], u["state"][mask] = escapes[mask], heads[mask, 3]


def _check_plain(u: Array, mask: Array, heads: Array, o: Object, f: Field) -> None:
    if not mask.any():
        return
    if not f.plain:
        raise CorruptError("no tables for a plain unit", field="object.classes")
    bits, shift, flags = heads[:, :2].copy().view("<u2")[:, 0], heads[:, 2].view(np.int8), heads[:, 3] & 15
    width = (heads[:, 3] >> 4).astype(np.int64)
    low, high = (int(np.float32(2.0**e).view(np.uint32)) >> 16 for e in (-90, 90))  # positive: ordered as integers
    for name, value, least, most in (
        ("step", bits, low, high),
        ("shift", shift, -6, 10),
        ("flags", flags, 0, 1),
        ("means", width, 0, 8),
    ):
        wrong = value[mask]
        if (wrong < least).any() or (wrong > most).any():
            raise CorruptError("out of range", "object.base." + name, limit=f"{least}..{most}")
    escapes = heads[:, 4:].copy().view("<u4")[:, 0].astype(np.int64)
    used = 8 + _packed(f.dims, width) + _packed(f.dims, (len(f.plain) - 1).bit_length())
    used = used + min(o.sinks, o.tokens) * f.width + 2 * escapes
    _check_ends(u, mask, used, flags)
    u["step"][mask], u["shift"][mask], u["mean_bits"][mask] = bits[mask], shift[mask], width[mask]
    u["escapes"][mask], u["state"][mask] = escapes[mask], flags[mask]


def _fits_bytes(o: Object, f: Field, index: Array, u: Array, plain: Array, passes: int) -> Array:
    """Say of which plain units all values after so many passes have 8 bits."""
    largest = np.zeros(len(index), np.int64)
    largest += max(
        (int(np.abs(t.symbol[t.symbol > 0].astype(int) - f.zero).max(initial=0)) for t in f.plain), default=0
    )
    counts = np.where(plain, u["escapes"], 0).astype(np.int64)
    if counts.any():
        skip = 8 + _packed(f.dims, u["mean_bits"]) + _packed(f.dims, (len(f.plain) - 1).bit_length())
        first = o.starts[index] + skip + min(o.sinks, o.tokens) * f.width
        ends = np.cumsum(counts)
        at = np.repeat(first, counts) + 2 * (np.arange(ends[-1]) - np.repeat(ends - counts, counts))
        data = np.frombuffer(o.data, np.uint8)
        values = np.abs(
            (data[at].astype(np.int64) | data[at + 1].astype(np.int64) << 8).astype(np.int16).astype(np.int64)
        )
        some = counts > 0
        largest[some] = np.maximum(largest[some], np.maximum.reduceat(values, (ends - counts)[some]))
    result: Array = largest * 3**passes + (3**passes - 1) // 2 <= 127
    return result


def _context(table: Table) -> int:
    """Return the first slots of the second and third symbol, and the symbols."""
    freqs = np.bincount(table.symbol, minlength=3)
    order = sorted(range(3), key=lambda s: (freqs[s], s))
    second = int(freqs[order[0]])
    third = second + int(freqs[order[1]])
    return second | third << 8 | order[0] << 16 | order[1] << 18 | order[2] << 20
