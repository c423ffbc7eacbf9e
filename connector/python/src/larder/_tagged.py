"""Tagged, length-prefixed fields: the one way in which Larder's formats put
variable things side by side (api/NAMESPACE.md, api/KEYS.md).

A field is its tag (u8), its length (u32, little-endian) and its bytes.
"""

from __future__ import annotations

import struct

from larder.errors import InvalidError


def u32(value: int) -> bytes:
    """Return value in 4 bytes."""
    return value.to_bytes(4, "little")


def item(value: bytes) -> bytes:
    """Return length and value."""
    return len(value).to_bytes(4, "little") + value


def field(tag: int, value: bytes) -> bytes:
    """Return tag, length and value."""
    return bytes([tag]) + item(value)


class Reader:
    """Takes fields off the front of an encoding; INVALID names `at`."""

    def __init__(self, data: bytes, at: str) -> None:
        self._data = data
        self._pos = 0
        self._at = at

    @property
    def left(self) -> int:
        return len(self._data) - self._pos

    def _fail(self, message: str) -> InvalidError:
        return InvalidError(message, self._at)

    def item(self) -> bytes:
        """Take a length and as many bytes."""
        if self.left < 4:
            raise self._fail("the encoding ends inside a length")
        start = self._pos + 4
        n = int.from_bytes(self._data[self._pos : start], "little")
        if n > len(self._data) - start:
            raise self._fail(f"a length of {n} reaches past the end")
        self._pos = start + n
        return self._data[start : self._pos]

    def field(self, tag: int) -> bytes:
        if not self.left:
            raise self._fail(f"field {tag} is missing")
        if self._data[self._pos] != tag:
            raise self._fail(f"field {tag} expected, found {self._data[self._pos]}")
        self._pos += 1
        return self.item()

    def fixed(self, tag: int, n: int) -> bytes:
        value = self.field(tag)
        if len(value) != n:
            raise self._fail(f"field {tag} has {len(value)} bytes instead of {n}")
        return value

    def u32(self, tag: int) -> int:
        return int.from_bytes(self.fixed(tag, 4), "little")

    def u32s(self, tag: int) -> tuple[int, ...]:
        value = self.field(tag)
        if len(value) % 4:
            raise self._fail(f"field {tag} has {len(value)} bytes, not a multiple of 4")
        return struct.unpack(f"<{len(value) // 4}I", value)

    def text(self, value: bytes) -> str:
        # Latin-1 keeps every byte apart; validate() then refuses what is not
        # ASCII, under the field's own name.
        return value.decode("latin-1")

    def end(self) -> None:
        if self.left:
            raise self._fail(f"{self.left} bytes follow the last field")
