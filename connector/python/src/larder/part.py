"""Part ids and part descriptors (api/PART.md).

The descriptor travels with a part's bytes; its checksum covers id, fields and
table. Verifying payload is the daemon's work: CRC-64 in Python runs at some
MB/s, enough for descriptors and tests and nothing else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from larder.errors import CorruptError, InvalidError, MissError

ENCODING_RAW = 1
ENCODING_CODEC = 2
ENCODING_BUNDLE = 3
RAW_VERSION = 1
CODEC_VERSION = 1
BUNDLE_VERSION = 1
QUALITY_EXACT = 0
FORMAT_VERSION = 1
ID_BYTES = 36
HEADER_BYTES = 96
MAX_TOKENS = 1024
MAX_LENGTH = 64 << 20
MAX_TABLE = 4096
MAX_RAW_TABLE = 1024
MIN_BYTES = HEADER_BYTES + 8 + 8
MAX_BYTES = HEADER_BYTES + 8 * MAX_TABLE + 8

_ID = struct.Struct("<32sBBH")
_HEADER = struct.Struct("<BBBB32sBBH32sIHHIIQ")


# CRC-64/NVMe; the highest power is the lowest bit.
CRC_POLYNOMIAL = 0x9A6C9329AC4BC9B5


def _crc_table() -> tuple[int, ...]:
    out = []
    for i in range(256):
        crc = i
        for _ in range(8):
            crc = (crc >> 1) ^ (CRC_POLYNOMIAL if crc & 1 else 0)
        out.append(crc)
    return tuple(out)


_CRC = _crc_table()


def crc64(data: bytes | bytearray | memoryview) -> int:
    """Return CRC-64/NVMe of data; of b"123456789" it is 0xAE8B14860A799888."""
    crc, table = 0xFFFFFFFFFFFFFFFF, _CRC
    for byte in memoryview(data).cast("B"):
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, order=True)
class PartId:
    """Names a part: chunk key (32 bytes), group and span (0..255), head group
    (0..65535)."""

    chunk: bytes
    group: int
    span: int
    head_group: int

    def encode(self) -> bytes:
        """Return the 36 bytes; INVALID for a value out of its range."""
        if len(self.chunk) != 32:
            raise InvalidError("wrong length", "part.id.chunk_key", str(len(self.chunk)), "32")
        for name, value, limit in (
            ("group", self.group, 0xFF),
            ("span", self.span, 0xFF),
            ("head_group", self.head_group, 0xFFFF),
        ):
            if not 0 <= value <= limit:
                raise InvalidError("out of range", f"part.id.{name}", str(value), f"0..{limit}")
        return _ID.pack(self.chunk, self.group, self.span, self.head_group)

    @classmethod
    def decode(cls, data: bytes) -> PartId:
        """Read exactly 36 bytes."""
        if len(data) != ID_BYTES:
            raise InvalidError("wrong length", "part.id", str(len(data)), str(ID_BYTES))
        return cls(*_ID.unpack(data))


@dataclass(frozen=True)
class PartDescriptor:
    """Says what a part's bytes are; the fields and limits of api/PART.md.

    Lengths are in bytes. quality is 0 for exact, else 1 + the worst level in
    the history of the bytes. table holds, for raw parts, the CRC-64/NVMe of
    each layer; for coded ones that of the object's header as it says it, of all
    stored bytes, and if nothing was lost the checksum of the descriptor that the
    decoded part has. checksum is set by seal() and decode().
    """

    id: PartId
    parent: bytes
    ordinal: int
    tokens: int
    stored_length: int
    raw_length: int
    table: tuple[int, ...]
    encoding: int = ENCODING_RAW
    encoding_version: int = RAW_VERSION
    quality: int = QUALITY_EXACT
    basis: int = 0
    checksum: int = 0

    @property
    def known(self) -> bool:
        """Whether this version can verify the stored bytes; else they are a miss."""
        return self.raw or self.coded or self.bundled

    @property
    def raw(self) -> bool:
        """Whether the stored bytes are the part's own."""
        return self.encoding == ENCODING_RAW and self.encoding_version == RAW_VERSION

    @property
    def coded(self) -> bool:
        """Whether the stored bytes are an object of the codec (larder.codec)."""
        return self.encoding == ENCODING_CODEC and self.encoding_version == CODEC_VERSION

    @property
    def bundled(self) -> bool:
        """Whether the stored bytes are a slice of an object of the codec that has all head groups."""
        return self.encoding == ENCODING_BUNDLE and self.encoding_version == BUNDLE_VERSION

    def seal(self) -> PartDescriptor:
        """Return the descriptor with its checksum; INVALID if a field is."""
        return replace(self, checksum=crc64(self._covered()))

    def encode(self) -> bytes:
        """Return the canonical encoding of a sealed descriptor."""
        return self._covered() + self.checksum.to_bytes(8, "little")

    def _covered(self) -> bytes:
        self._validate()
        head = _HEADER.pack(
            FORMAT_VERSION,
            self.encoding,
            self.encoding_version,
            self.quality,
            self.id.chunk,
            self.id.group,
            self.id.span,
            self.id.head_group,
            self.parent,
            self.ordinal,
            self.tokens,
            len(self.table),
            self.stored_length,
            self.raw_length,
            self.basis,
        )
        return head + struct.pack(f"<{len(self.table)}Q", *self.table)

    def _validate(self) -> None:
        self.id.encode()
        if len(self.parent) != 32:
            raise InvalidError("wrong length", "part.parent", str(len(self.parent)), "32")
        for name, value, low, high in (
            ("encoding", self.encoding, 1, 0xFF),
            ("encoding_version", self.encoding_version, 0, 0xFF),
            ("quality", self.quality, 0, 0xFF),
            ("ordinal", self.ordinal, 0, 0xFFFFFFFF),
            ("basis", self.basis, 0, 0xFFFFFFFFFFFFFFFF),
            ("tokens", self.tokens, 1, MAX_TOKENS),
            ("stored_length", self.stored_length, 1, MAX_LENGTH),
            ("raw_length", self.raw_length, 1, MAX_LENGTH),
            ("table", len(self.table), 1, MAX_TABLE),
        ):
            if not low <= value <= high:
                raise InvalidError("out of range", f"part.{name}", str(value), f"{low}..{high}")
        layers = len(self.table)
        if self.coded or self.bundled:
            if self.stored_length >= self.raw_length:
                raise InvalidError(
                    "a part that does not shrink is stored raw",
                    "part.stored_length",
                    str(self.stored_length),
                    str(self.raw_length),
                )
            if not 2 <= layers <= (3 if self.coded else 2):
                raise InvalidError(
                    "wrong number of checksums", "part.table", str(layers), "2..3" if self.coded else "2"
                )
        if not self.raw:
            return
        if self.stored_length != self.raw_length:
            raise InvalidError(
                "a raw part is stored as it is",
                "part.stored_length",
                str(self.stored_length),
                str(self.raw_length),
            )
        if self.basis != 0:
            raise InvalidError("a raw part has no basis", "part.basis", str(self.basis), "0")
        if layers > MAX_RAW_TABLE:
            raise InvalidError("too many layers", "part.table", str(layers), str(MAX_RAW_TABLE))
        if self.raw_length % layers:
            raise InvalidError("the layers are not equally long", "part.table", str(layers), str(self.raw_length))

    @classmethod
    def decode(cls, data: bytes) -> PartDescriptor:
        """Read a canonical encoding.

        A wrong checksum is CORRUPT, everything else that is wrong INVALID.
        Encodings that are not known decode, so that they can be carried.
        """
        if not MIN_BYTES <= len(data) <= MAX_BYTES:
            raise InvalidError("wrong length", "part.descriptor", str(len(data)), f"{MIN_BYTES}..{MAX_BYTES}")
        if data[0] != FORMAT_VERSION:
            raise InvalidError("unknown format version", "part.format", str(data[0]), "1")
        f = _HEADER.unpack_from(data)
        n = f[11]
        if len(data) != HEADER_BYTES + 8 * n + 8:
            raise InvalidError(
                f"the length does not fit a table of {n}",
                "part.descriptor",
                str(len(data)),
                str(HEADER_BYTES + 8 * n + 8),
            )
        checksum = int.from_bytes(data[-8:], "little")
        if crc64(memoryview(data)[:-8]) != checksum:
            raise CorruptError("the descriptor does not match its checksum", "part.checksum")
        d = cls(
            id=PartId(f[4], f[5], f[6], f[7]),
            parent=f[8],
            ordinal=f[9],
            tokens=f[10],
            stored_length=f[12],
            raw_length=f[13],
            table=struct.unpack_from(f"<{n}Q", data, HEADER_BYTES),
            encoding=f[1],
            encoding_version=f[2],
            quality=f[3],
            basis=f[14],
            checksum=checksum,
        )
        d._validate()
        return d

    def verify(self, data: bytes | bytearray | memoryview, first: int = 0) -> None:
        """Check whole layers, from layer first on, against the table; a coded
        part as a whole.

        CORRUPT names the first layer that differs; an encoding that is not
        known is a MISS. Slow: for tests and tools.
        """
        if not self.known:
            raise MissError("unknown encoding", "part.encoding", str(self.encoding), "1")
        if not self.raw:
            if first or len(data) != self.stored_length:
                raise CorruptError("wrong number of bytes", "part.stored_length", str(len(data)))
            if crc64(data) != self.table[1]:
                raise CorruptError("the part does not match its checksum", "part.table")
            return
        per = self.raw_length // len(self.table)
        view = memoryview(data).cast("B")
        layers, rest = divmod(len(view), per)
        if rest or not layers or first < 0 or first + layers > len(self.table):
            raise CorruptError("wrong number of bytes", "part.raw_length", str(len(view)))
        for i in range(layers):
            if crc64(view[i * per : (i + 1) * per]) != self.table[first + i]:
                raise CorruptError(f"layer {first + i} does not match its checksum", "part.table")


def checksums(data: bytes | bytearray | memoryview, layers: int) -> tuple[int, ...]:
    """Return the checksum of each of the layers that data consists of."""
    view = memoryview(data).cast("B")
    if not 1 <= layers <= MAX_RAW_TABLE:
        raise InvalidError("out of range", "part.layers", str(layers), "1..1024")
    if not len(view) or len(view) % layers:
        raise InvalidError("the bytes do not divide into layers", "part.raw_length", str(len(view)), str(layers))
    per = len(view) // layers
    return tuple(crc64(view[i * per : (i + 1) * per]) for i in range(layers))
