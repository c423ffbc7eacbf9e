"""larder.part against the known answers and against api/PART.md."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_vectors import load

from larder.errors import CorruptError, InvalidError, LarderError, MissError
from larder.part import PartDescriptor, PartId, checksums, crc64

VECTORS = load("parts")


def payload(n: int) -> bytes:
    return bytes((131 * i + 7) % 256 for i in range(n))


def descriptor(v: dict[str, Any]) -> PartDescriptor:
    return PartDescriptor(
        id=PartId(bytes.fromhex(v["chunk"]), v["group"], v["span"], v["head_group"]),
        parent=bytes.fromhex(v["parent"]),
        ordinal=v["ordinal"],
        tokens=v["tokens"],
        stored_length=v["stored_length"],
        raw_length=v["raw_length"],
        table=tuple(v["table"]) if v.get("table") else checksums(payload(v["raw_length"]), v["layers"]),
        encoding=v["encoding"],
        encoding_version=v["encoding_version"],
        quality=v["quality"],
        basis=v["basis"],
    )


def sample() -> PartDescriptor:
    return descriptor(next(v for v in VECTORS["parts"] if v["name"] == "twelve layers")).seal()


def test_crc_check_value() -> None:
    assert crc64(b"123456789") == VECTORS["crc_check"] == 0xAE8B14860A799888
    assert crc64(b"") == 0


@pytest.mark.parametrize("v", VECTORS["parts"], ids=lambda v: v["name"])
def test_part(v: dict[str, Any]) -> None:
    d = descriptor(v).seal()
    assert d.checksum == v["checksum"]
    assert d.encode().hex() == v["descriptor"]
    assert PartDescriptor.decode(d.encode()) == d
    assert d.known == v["known"]
    assert PartId.decode(d.encode()[4:40]) == d.id
    if d.known:
        d.verify(payload(d.stored_length))
    else:
        with pytest.raises(MissError):
            d.verify(payload(d.stored_length))


@pytest.mark.parametrize("v", VECTORS["invalid"], ids=lambda v: v["name"])
def test_invalid(v: dict[str, str]) -> None:
    with pytest.raises(LarderError) as e:
        PartDescriptor.decode(bytes.fromhex(v["encoding"]))
    assert str(e.value.kind) == v["kind"]
    assert e.value.field == v["field"]


def test_verify_names_the_layer() -> None:
    d, data = sample(), bytearray(payload(12 * 512))
    data[5 * 512 + 511] ^= 1
    with pytest.raises(CorruptError, match="layer 5"):
        d.verify(data)
    d.verify(memoryview(data)[: 5 * 512])
    d.verify(memoryview(data)[6 * 512 :], first=6)
    for first, piece in ((0, b""), (0, data[:511]), (12, data[:512]), (-1, data[:512]), (1, data)):
        with pytest.raises(CorruptError):
            d.verify(piece, first)


def test_verify_coded() -> None:
    d = descriptor(next(v for v in VECTORS["parts"] if v["name"] == "coded")).seal()
    assert d.known
    assert d.coded
    assert not d.raw
    data = bytearray(payload(1000))
    d.verify(data)
    for piece, first in ((data[:999], 0), (b"", 0), (data, 1)):
        with pytest.raises(CorruptError):
            d.verify(piece, first)
    data[999] ^= 1
    with pytest.raises(CorruptError):
        d.verify(data)


OTHER = {"encoding": 9}
CODED = {"encoding": 2, "raw_length": 6144, "stored_length": 6143, "table": (1, 2)}


@pytest.mark.parametrize(
    ("name", "at", "past"),
    [
        ("parent", {"parent": bytes(32)}, {"parent": bytes(31)}),
        ("ordinal", {"ordinal": 0}, {"ordinal": -1}),
        ("ordinal", {"ordinal": (1 << 32) - 1}, {"ordinal": 1 << 32}),
        ("tokens", {"tokens": 1}, {"tokens": 0}),
        ("tokens", {"tokens": 1024}, {"tokens": 1025}),
        ("quality", {"quality": 255}, {"quality": 256}),
        ("quality", {"quality": 0}, {"quality": -1}),
        ("encoding", {"encoding": 1}, {"encoding": 0}),
        ("encoding", {"encoding": 255}, {"encoding": 256}),
        ("encoding_version", {"encoding_version": 255}, {"encoding_version": 256}),
        ("encoding_version", {"encoding_version": 0}, {"encoding_version": -1}),
        ("basis", OTHER | {"basis": (1 << 64) - 1}, OTHER | {"basis": 1 << 64}),
        ("basis", {"basis": 0}, {"basis": 1}),
        ("stored_length", OTHER | {"stored_length": 64 << 20}, OTHER | {"stored_length": (64 << 20) + 1}),
        ("stored_length", OTHER | {"stored_length": 1}, OTHER | {"stored_length": 0}),
        ("stored_length", {"stored_length": 6144}, {"stored_length": 6143}),
        ("raw_length", OTHER | {"raw_length": 64 << 20}, OTHER | {"raw_length": (64 << 20) + 1}),
        ("raw_length", OTHER | {"raw_length": 1}, OTHER | {"raw_length": 0}),
        ("table", OTHER | {"table": (0,) * 4096}, OTHER | {"table": (0,) * 4097}),
        ("table", CODED, CODED | {"table": (1,)}),
        ("table", CODED | {"table": (1, 2, 3)}, CODED | {"table": (1, 2, 3, 4)}),
        ("stored_length", CODED, CODED | {"stored_length": 6144}),
        ("table", {"table": (0,)}, {"table": ()}),
        ("table", {"table": (0,) * 12}, {"table": (0,) * 11}),
        (
            "table",
            {"table": (0,) * 1024, "stored_length": 1024, "raw_length": 1024},
            {"table": (0,) * 1025, "stored_length": 1025, "raw_length": 1025},
        ),
    ],
)
def test_limits_may_be_reached_and_not_passed(name: str, at: dict[str, Any], past: dict[str, Any]) -> None:
    d = dataclasses.replace(sample(), **at).seal()
    assert PartDescriptor.decode(d.encode()) == d
    with pytest.raises(InvalidError) as e:
        dataclasses.replace(sample(), **past).seal()
    assert e.value.field == f"part.{name}"


def test_checksums() -> None:
    assert checksums(b"123456789123456789", 2) == (VECTORS["crc_check"],) * 2
    assert len(checksums(bytes(1024), 1024)) == 1024
    for size, layers in ((0, 1), (10, 0), (10, -1), (10, 3), (2050, 1025)):
        with pytest.raises(InvalidError):
            checksums(bytes(size), layers)


@pytest.mark.parametrize(
    "part",
    [
        PartId(bytes(31), 0, 0, 0),
        PartId(bytes(32), 256, 0, 0),
        PartId(bytes(32), 0, -1, 0),
        PartId(bytes(32), 0, 0, 65536),
    ],
)
def test_bad_id(part: PartId) -> None:
    with pytest.raises(InvalidError):
        part.encode()
    with pytest.raises(InvalidError):
        PartId.decode(bytes(35))


@given(st.integers(0, 8 * 200 - 1))
def test_every_bit_counts(bit: int) -> None:
    good = bytearray(sample().encode())
    assert len(good) == 200
    good[bit // 8] ^= 1 << bit % 8
    with pytest.raises(LarderError):
        PartDescriptor.decode(bytes(good))


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Whatever bytes come, decode answers with a descriptor or a kind."""
    body = b"\x01" + data
    for candidate in (body, body + crc64(body).to_bytes(8, "little")):
        try:
            d = PartDescriptor.decode(candidate)
        except LarderError:
            continue
        assert d.encode() == candidate
