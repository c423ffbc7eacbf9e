"""larder.codec against the objects and answers of the Go codec."""

from __future__ import annotations

from typing import Any

import pytest
from identity_vectors import load

from larder.codec import decode, parse
from larder.errors import CorruptError, InvalidError, LarderError, MissError
from larder.part import crc64

VECTORS: Any = load("codec")


@pytest.mark.parametrize("v", VECTORS, ids=lambda v: v["name"])
def test_vectors(v: dict[str, Any]) -> None:
    raw, data = bytes.fromhex(v["raw"]), bytes.fromhex(v["object"])
    for level in range(4):
        out = decode(data, level, len(raw))
        assert len(out) == len(raw)
        assert crc64(out) == v["decoded"][level], f"level {level}"
    if all(f["mode"] != "plain" for f in v["fields"]):
        assert decode(data, 0, len(raw)) == raw


@pytest.mark.parametrize("v", VECTORS, ids=lambda v: v["name"])
def test_a_prefix_is_the_coarse_object(v: dict[str, Any]) -> None:
    raw, data = bytes.fromhex(v["raw"]), bytes.fromhex(v["object"])
    o = parse(data, len(raw))
    for level in range(o.finest, o.coarsest + 1):
        end = int(o.starts[(o.coarsest - level + 1) * o.units])
        assert crc64(decode(data[:end], level, len(raw))) == v["decoded"][level]
        if end < len(data):
            with pytest.raises(CorruptError):
                decode(data[:end], o.finest, len(raw))


@pytest.mark.parametrize("v", VECTORS[:2], ids=lambda v: v["name"])
def test_damage_is_found(v: dict[str, Any]) -> None:
    raw, data = bytes.fromhex(v["raw"]), bytearray.fromhex(v["object"])
    for at in range(0, len(data), 37):
        data[at] ^= 4
        with pytest.raises(LarderError):
            decode(bytes(data), 0, len(raw))
        data[at] ^= 4


def test_what_the_caller_does_not_expect() -> None:
    v = VECTORS[0]
    raw, data = bytes.fromhex(v["raw"]), bytes.fromhex(v["object"])
    with pytest.raises(InvalidError):
        decode(data, 0, len(raw) - 1)
    with pytest.raises(MissError):
        decode(data[:4] + b"\x02" + data[5:], 0, len(raw))
