"""What larder.gpu refuses before memory is taken, and how it lays out the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gpu_cases import VECTORS, sealed
from identity_vectors import load

from larder import codec
from larder.errors import CorruptError, InvalidError, MissError, UnavailableError
from larder.gpu import driver, layout
from larder.gpu.checksum import powers
from larder.gpu.decoder import source
from larder.gpu.layout import NO_LEVELS, Layout, Source, lay_out
from larder.part import crc64

SIZES = {v["name"]: len(v["raw"]) // 2 for v in VECTORS}
OBJECTS = {v["name"]: bytes.fromhex(v["object"]) for v in VECTORS}


def laid_out(name: str, level: int = 0, data: bytes | None = None, at: int = 0, out: int = 0, **changes: Any) -> Layout:
    o = codec.parse(data or OBJECTS[name], SIZES[name], verify=False)
    return lay_out([Source(replace(o, **changes), level, at, out)], at + len(o.data), out + SIZES[name])


def test_every_unit_is_decoded_once() -> None:
    for name, data in OBJECTS.items():
        got = laid_out(name)
        o = codec.parse(data, SIZES[name], verify=False)
        assert sorted(got.names[:, 1]) == list(range(o.units))
        for warps in (1, 3, 16):
            taken = [i for w in got.work for t in w.tasks(warps) for i in range(t["first"], t["first"] + t["count"])]
            assert sorted(taken) == list(range(o.units)), name
        for w in got.work:
            for group, first, count in w.units:
                assert got.groups[group]["tokens"] == o.tokens == w.tokens
                assert first + count <= o.units


def test_offsets_are_those_of_the_buffers() -> None:
    near, far = laid_out("all levels, sinks"), laid_out("all levels, sinks", at=4096, out=800)
    for field, by in (("base", 4096), ("out", 800)):
        assert (far.units[field] - near.units[field] == by).all()
    assert (far.ranges["offset"] - near.ranges["offset"] == 4096).all()
    rows = sorted(near.units["out"])
    assert rows == [0, 24, 70 * 38, 70 * 38 + 24]  # 2 heads of 70 tokens of 12 and 7 elements of 2 bytes


def test_ranges_cover_what_a_level_reads() -> None:
    data = OBJECTS["all levels, sinks"]
    o = codec.parse(data, SIZES["all levels, sinks"])
    for level in range(4):
        ranges = laid_out("all levels, sinks", level).ranges
        assert len(ranges) == 4 - level
        assert sum(ranges["size"]) == o.starts[(4 - level) * o.units] - o.starts[0]
        for r in ranges:
            assert crc64(data[int(r["offset"]) : int(r["offset"]) + int(r["size"])]) == r["sum"]


def test_kinds_of_work() -> None:
    def kinds(name: str, level: int) -> set[str]:
        return {w.kind for w in laid_out(name, level).work}

    assert kinds("all levels, sinks", 3) == {"flat"}
    assert kinds("all levels, sinks", 0) <= {"narrow", "wide"}
    assert kinds("lossless bf16", 0) == {"lossless"}
    assert kinds("raw and opaque", 0) == {"exact"}
    assert kinds("one row repeated, NaN in another unit", 3) == {"exact", "lossless", "flat"}


def test_values_of_8_bits_only_where_they_fit() -> None:
    name = "all levels, sinks"
    o = codec.parse(OBJECTS[name], SIZES[name], verify=False)
    largest = max(int(t.symbol[t.symbol > 0].max()) - f.zero for f in o.fields for t in f.plain)
    assert largest >= 2
    # With another zero every value is larger: 3 passes do not fit any more.
    fields = [replace(f, zero=200) for f in o.fields]
    assert {w.kind for w in laid_out(name, 0, fields=fields).work} == {"wide"}


def test_tables() -> None:
    got = laid_out("all levels, sinks", 0)
    o = codec.parse(OBJECTS["all levels, sinks"], SIZES["all levels, sinks"], verify=False)
    g = got.groups[0]
    for k, table in enumerate(o.fields[0].plain):
        words = got.tables[g["tables"] + 256 * k :][:256]
        assert (words & 255 == table.symbol).all()
        assert (words >> 16 == table.bias).all()
        assert ((words >> 8 & 255) == table.freq % 256).all()
    context = int(got.contexts[g["contexts"]])
    second, third = context & 255, context >> 8 & 255
    slots = [context >> 16 & 3] * second + [context >> 18 & 3] * (third - second) + [context >> 20 & 3] * (256 - third)
    assert slots == list(o.fields[0].digits[0][0].symbol)


def test_levels_of_tokens() -> None:
    got = laid_out("a plan", 0)
    o = codec.parse(OBJECTS["a plan"], SIZES["a plan"], verify=False)
    for (_, unit), u in zip(got.names, got.units, strict=True):
        plan = o.plan[unit]
        if plan.min() == plan.max():
            assert u["levels"] == NO_LEVELS
            assert u["level"] == plan[0]
        else:
            assert (got.levels[u["levels"] :][: o.tokens] == plan).all()


def test_the_source_must_lie_in_the_buffers() -> None:
    o = codec.parse(OBJECTS["fp16"], SIZES["fp16"], verify=False)
    stored, size = len(o.data), SIZES["fp16"]
    for source_, out, at, to in (
        (stored, size, 16, 0),
        (stored + 8, size, 8, 0),
        (stored, size, -16, 0),
        (stored, size, 0, 1),
        (stored, size, 0, -1),
    ):
        with pytest.raises(InvalidError):
            lay_out([Source(o, 0, at, to)], source_, out)
    # A prefix needs only room for the levels that are read.
    end = int(o.starts[o.units])
    prefix = codec.parse(o.data[:end], size, verify=False)
    lay_out([Source(prefix, 3)], end, size)
    with pytest.raises(CorruptError):
        lay_out([Source(prefix, 0)], stored, size)


def test_calibrated_objects_are_a_miss() -> None:
    vectors: Any = load("calibrated")
    for v in vectors:
        o = codec.parse(bytes.fromhex(v["object"]), len(v["raw"]) // 2, verify=False)
        with pytest.raises(MissError):
            lay_out([Source(o, 0)], 1 << 20, 1 << 20)


def forged(name: str, offset: int, value: bytes, unit: int = 0) -> bytes:
    """Overwrite bytes of a unit's base stream."""
    data = bytearray(OBJECTS[name])
    at = int(codec.parse(bytes(data), SIZES[name]).starts[unit]) + offset
    data[at : at + len(value)] = value
    return sealed(data, OBJECTS[name])


@pytest.mark.parametrize(
    ("name", "offset", "value"),
    [
        ("all levels, sinks", 0, b"\0\0"),  # a step of 0
        ("all levels, sinks", 0, b"\x80\xbf"),  # and a negative one
        ("all levels, sinks", 2, b"\x7f"),
        ("all levels, sinks", 3, b"\x92"),  # means of 9 bits
        ("all levels, sinks", 4, b"\xff\xff\xff\xff"),
        ("all levels, sinks", 4, b"\0\x20\0\0"),
        ("lossless bf16", 0, b"\1"),
        ("lossless bf16", 3, b"\2"),
        ("lossless bf16", 4, b"\xff\xff\xff\xff"),
    ],
)
def test_heads_of_streams_are_checked_first(name: str, offset: int, value: bytes) -> None:
    laid_out(name)
    with pytest.raises(CorruptError):
        laid_out(name, data=forged(name, offset, value))


def test_directories_are_checked_first() -> None:
    name = "all levels, sinks"
    o = codec.parse(OBJECTS[name], SIZES[name], verify=False)
    digits = np.where(np.arange(len(o.modes)) >= o.units)[0]
    for k, mode, length in (
        (digits[0], 3, None),
        (digits[0], 0, 5),
        (digits[-1], 1, 1),
        (0, 0, None),
        (0, 1, None),
        (0, 3, 7),
    ):
        modes, lengths = o.modes.copy(), o.lengths.copy()
        modes[k] = mode
        lengths[k] = lengths[k] if length is None else length
        with pytest.raises(CorruptError):
            laid_out(name, modes=modes, lengths=lengths)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": layout.MAX_TOKENS + 1},
        {"layers": layout.MAX_LAYERS + 1},
        {"heads": layout.MAX_HEADS + 1},
        {"sinks": layout.MAX_SINKS + 1},
        {"plan": np.full((4, 70), 3, np.uint8), "coarsest": 2},
    ],
    ids=str,
)
def test_limits(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptError):
        laid_out("all levels, sinks", **changes)


def test_structs_are_those_of_the_kernels() -> None:
    text = source().decode()
    for name, dtype in (("Unit", layout.UNIT), ("Group", layout.GROUP), ("Task", layout.TASK), ("Range", layout.RANGE)):
        assert f"sizeof({name}) == {dtype.itemsize}" in text
    assert f"RING = {layout.RING}," in text
    for bit in layout.FAULTS:
        assert f" = {bit}" in text


def test_powers() -> None:
    """Joining the sums of two halves, as the kernel does."""
    data = bytes(range(256)) * 2
    length = len(data) // 2  # 4 x 2^6
    power = int(powers()[6])

    def raw(message: bytes) -> int:  # without inversions
        return crc64(message) ^ crc64(bytes(len(message)))

    product, p, b = 0, raw(data[:length]), power
    for i in range(63, -1, -1):
        product ^= b if p >> i & 1 else 0
        b = b >> 1 ^ (0x9A6C9329AC4BC9B5 if b & 1 else 0)
    assert product ^ raw(data[length:]) == raw(data)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_DRIVER", "libcuda-that-is-not-there.so.1")
    with pytest.raises(UnavailableError, match="libcuda"):
        driver.Device(source())


def test_without_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_nvrtc_files", lambda: iter(["libnvrtc-that-is-not-there.so.12"]))
    with pytest.raises(UnavailableError, match="libnvrtc"):
        driver.compile_source(b"", "sm_90")
