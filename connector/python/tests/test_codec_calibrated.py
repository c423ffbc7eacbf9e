"""larder.codec and larder.basis against calibrated objects of the Go codec."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from identity_vectors import load

from larder import basis
from larder.codec import decode, parse
from larder.errors import CorruptError, LarderError, MissError
from larder.part import crc64

VECTORS: Any = load("calibrated")


def parts(v: dict[str, Any]) -> tuple[bytes, bytes, basis.Basis]:
    return bytes.fromhex(v["raw"]), bytes.fromhex(v["object"]), basis.parse(bytes.fromhex(v["basis"]))


@pytest.mark.parametrize("v", VECTORS, ids=lambda v: v["name"])
def test_vectors(v: dict[str, Any]) -> None:
    raw, data, b = parts(v)
    assert b.name.hex() == v["id"]
    o = parse(data, len(raw))
    for level in range(4):
        out = decode(data, level, len(raw), b)
        assert len(out) == len(raw)
        assert crc64(out) == v["decoded"][level], f"level {level}"
        end = int(o.starts[(o.coarsest - min(max(level, o.finest), o.coarsest) + 1) * o.units])
        assert decode(data[:end], level, len(raw), b) == out


def test_another_basis_is_a_miss() -> None:
    raw, data, _ = parts(VECTORS[0])
    with pytest.raises(MissError):
        decode(data, 0, len(raw))
    with pytest.raises(MissError):
        decode(data, 0, len(raw), parts(VECTORS[1])[2])


@pytest.mark.parametrize("v", VECTORS, ids=lambda v: v["name"])
def test_damage_is_found(v: dict[str, Any]) -> None:
    raw, whole, b = parts(v)
    data = bytearray(whole)
    for at in range(0, len(data), 61):
        data[at] ^= 4
        with pytest.raises(LarderError):
            decode(bytes(data), 0, len(raw), b)
        data[at] ^= 4


def test_damage_of_a_basis_is_found() -> None:
    whole = bytes.fromhex(VECTORS[0]["basis"])
    data = bytearray(whole)
    for at in range(0, len(data), 53):
        data[at] ^= 16
        with pytest.raises(LarderError):
            basis.parse(bytes(data))
        data[at] ^= 16
        with pytest.raises(LarderError):
            basis.parse(whole[:at])
    # Numbers that no encoder writes, with a right checksum.
    for at in (5, 6, 10, 14, 16, 18, 21, 32, 33, 36, len(whole) - 9):
        data = bytearray(whole)
        data[at] = 0xFF
        data[-8:] = crc64(bytes(data[:-8])).to_bytes(8, "little")
        with pytest.raises(CorruptError):
            basis.parse(bytes(data))


def test_fma_rounds_once() -> None:
    # 1 + 2^-23 squared, plus a number that is next to the middle of two others.
    one = np.float32(1 + 2.0**-23)
    a = np.array([one, 3, 0, -one], np.float32)
    b = np.array([one, 7, 5, one], np.float32)
    c = np.array([2.0**24, 0.1, -2, -(2.0**24)], np.float32)
    assert basis.fma(a, b, c).tolist() == [2.0**24 + 2, np.float32(21.1), -2, -(2.0**24) - 2]
    assert np.float32(np.float64(one) * one + 2.0**24) == np.float32(2.0**24 + 2)
