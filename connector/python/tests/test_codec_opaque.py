"""larder.codec against objects of the Go codec with opaque fields, and larder.frames
against frames that nothing of ours makes."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zstandard
from identity_vectors import load

from larder import frames
from larder.codec import decode, parse
from larder.errors import CorruptError, LarderError, MissError, UnavailableError
from larder.gpu.layout import Source, lay_out
from larder.part import crc64

VECTORS: Any = load("opaque")
FRAMES = [v for v in VECTORS if any(f["dtype"] == "u8" for f in v["fields"])]


def frame(data: bytes, *, level: int = 3, size: bool = True, **parameters: Any) -> bytes:
    chosen = zstandard.ZstdCompressionParameters.from_level(level, write_content_size=size, **parameters)
    return zstandard.ZstdCompressor(compression_params=chosen).compress(data)


@pytest.mark.parametrize("v", VECTORS, ids=lambda v: v["name"])
def test_vectors(v: dict[str, Any]) -> None:
    raw, data = bytes.fromhex(v["raw"]), bytes.fromhex(v["object"])
    for level in range(4):
        assert crc64(decode(data, level, len(raw))) == v["decoded"][level], f"level {level}"
    if all(f["mode"] == "lossless" for f in v["fields"]):
        assert decode(data, 0, len(raw)) == raw


@pytest.mark.parametrize("v", VECTORS, ids=lambda v: v["name"])
def test_damage_is_found(v: dict[str, Any]) -> None:
    raw, data = bytes.fromhex(v["raw"]), bytearray.fromhex(v["object"])
    for at in range(0, len(data), 61):
        data[at] ^= 4
        with pytest.raises(LarderError):
            decode(bytes(data), 0, len(raw))
        data[at] ^= 4


# What the reference encoder makes with several blocks, matches and windows.
@pytest.mark.parametrize("parameters", [{"level": 1}, {"level": 19}, {"level": 3, "window_log": 10}])
@pytest.mark.parametrize("width", frames.WIDTHS)
def test_frames_of_others(parameters: dict[str, Any], width: int) -> None:
    rows = np.random.default_rng(1).normal(60, 3, (100_000, width)).astype(np.uint8)
    rows[20_000:40_000] = rows[:20_000]
    stream = bytes([width]) + b"".join(frame(rows[:, k].tobytes(), **parameters) for k in range(width))
    assert len(stream) < rows.size * 0.9
    assert frames.read(stream, rows.size).tobytes() == rows.tobytes()


def test_forged_frames() -> None:
    raw = bytes(1000) + bytes(range(256)) * 4
    n, good = len(raw), frame(raw)
    assert frames.read(b"\x01" + good, n).tobytes() == raw
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    window = good[:4] + b"\x80" + bytes([14 << 3]) + n.to_bytes(4, "little")
    header = good[:4] + b"\xa0" + n.to_bytes(4, "little")
    bomb = header + (1 << 1 | frames.MAX_BLOCK << 3).to_bytes(3, "little") + b"a"
    for name, stream in {
        "nothing": b"",
        "no frame": b"\x01",
        "width 3": b"\x03" + good,
        "one plane of two": b"\x02" + frame(raw[: n // 2]),
        "two frames": b"\x01" + good * 2,
        "skippable first": b"\x01" + skippable + good,
        "skippable last": b"\x01" + good + skippable,
        "a byte behind": b"\x01" + good + b"\0",
        "checksum": b"\x01" + frame(raw, write_checksum=True),
        "without its size": b"\x01" + frame(raw, size=False),
        "larger": b"\x01" + frame(raw + b"a"),
        "smaller": b"\x01" + frame(raw[1:]),
        "window": b"\x01" + window + good[10:],
        "a bomb": b"\x01" + bomb,
        "no last block": b"\x01" + header,
    }.items():
        with pytest.raises(CorruptError):
            pytest.fail(f"{name}: {len(frames.read(stream, n))}")
    for end in range(1, len(good)):
        with pytest.raises(CorruptError):
            frames.read(b"\x01" + good[:end], n)
    for at in range(9, len(good)):
        changed = bytearray(good)
        changed[at] ^= 0x51
        with contextlib.suppress(CorruptError):
            assert len(frames.read(b"\x01" + changed, n)) == n


def only(names: set[str]) -> Callable[..., Any]:
    def load_module(name: str) -> Any:
        if name not in names:
            raise ModuleNotFoundError(name)
        return zstandard

    return load_module


def test_pythons_own_decoder_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", only({"compression.zstd"}))
    v = FRAMES[0]
    raw = bytes.fromhex(v["raw"])
    assert decode(bytes.fromhex(v["object"]), 0, len(raw)) == raw


def test_without_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", only(set()))
    for v in FRAMES:
        data, size = bytes.fromhex(v["object"]), len(v["raw"]) // 2
        if v["name"] != "noise, equal rows":
            with pytest.raises(UnavailableError, match="install the package zstandard"):
                decode(data, 0, size)
    noise = next(v for v in FRAMES if v["name"] == "noise, equal rows")
    decode(bytes.fromhex(noise["object"]), 0, len(noise["raw"]) // 2)


@pytest.mark.parametrize("v", VECTORS, ids=lambda v: v["name"])
def test_gpu_leaves_frames_to_the_host(v: dict[str, Any]) -> None:
    data, size = bytes.fromhex(v["object"]), len(v["raw"]) // 2
    source = Source(parse(data, size, verify=False), 0, 0, 0)
    if v in FRAMES and v["name"] != "noise, equal rows":
        with pytest.raises(MissError, match="zstd frames are not decoded on a GPU"):
            lay_out([source], len(data), size)
    else:
        assert lay_out([source], len(data), size).out_size == size
