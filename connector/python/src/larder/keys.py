"""Keys of chunks: chained hashes over a prompt (api/KEYS.md).

A key covers the namespace, the tenant, the salt, the adapter and every token
and extra up to the chunk's end. Only full chunks have keys. Tokens are the
list of ints that engines pass; a conversion and one SHA-256 for each chunk is
all that happens to them.
"""

from __future__ import annotations

import hashlib
import hmac
import sys
from array import array
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from operator import index

from larder._tagged import field, u32
from larder.errors import InvalidError

KEY_BYTES = 32
MAX_CHUNK_TOKENS = 1024
MAX_SALT = 4096
MAX_TENANT = 128
MAX_EXTRAS = 4096
MAX_CONTENT = 256
MAX_TOKENS = 1 << 32

_ROOT_MAGIC = b"larder/1"
_ZERO = bytes(32)

# array's unsigned 32-bit type by its size; the letter differs by platform.
_U32 = next(code for code in "ILH" if array(code).itemsize == 4)


class ExtraKind(IntEnum):
    """What stands in place of tokens; the values are the fields' tags."""

    MULTIMODAL = 0x30
    """An image, sound or video."""
    EMBEDDING = 0x31
    """Prompt embeddings."""


@dataclass(frozen=True, order=True)
class Extra:
    """Content that tokens [start, start + count) of the prompt stand for.

    content is the content's hash, 1 to 256 bytes. The extra enters the key of
    every chunk that it overlaps.
    """

    kind: ExtraKind
    start: int
    count: int
    content: bytes


def tenant_key(secret: bytes, tenant: str) -> bytes:
    """Return HMAC-SHA-256(cluster secret, tenant name), 32 bytes; a secret.

    INVALID unless the secret has 32 bytes and the name is 1 to 128 characters
    of ASCII 0x21..0x7e.
    """
    if len(secret) != 32:
        raise InvalidError("wrong length", "secret", str(len(secret)), "32")
    if not 1 <= len(tenant) <= MAX_TENANT or not all("\x21" <= c <= "\x7e" for c in tenant):
        raise InvalidError(
            "a tenant's name is 1 to 128 printable ASCII characters without space",
            "tenant",
            ascii(tenant[:160]),
        )
    return hmac.new(secret, tenant.encode("ascii"), hashlib.sha256).digest()


def root_key(fingerprint: bytes, tenant_key: bytes, salt: bytes = b"", adapter: bytes | None = None) -> bytes:
    """Return the key before the first chunk, 32 bytes.

    salt is the request's extra secret (text: UTF-8 as it came, never
    normalised), at most 4096 bytes; empty means none. adapter is the digest of
    a LoRA adapter (larder.weights.adapter_digest), None without one.
    """
    _check_hash("fingerprint", fingerprint)
    _check_hash("tenant_key", tenant_key)
    if len(salt) > MAX_SALT:
        raise InvalidError("too long", "salt", str(len(salt)), str(MAX_SALT))
    m = _ROOT_MAGIC + field(0x01, fingerprint) + field(0x02, tenant_key) + field(0x03, salt)
    if adapter is not None:
        _check_hash("adapter", adapter)
        if adapter == _ZERO:
            raise InvalidError("an adapter's digest is not zero", "adapter")
        m += field(0x20, adapter)
    return hashlib.sha256(m).digest()


def chunk_keys(root: bytes, tokens: Sequence[int], chunk_tokens: int, extras: Iterable[Extra] = ()) -> bytes:
    """Return the keys of all full chunks, concatenated (n x 32 bytes).

    INVALID for a token below 0 or above 2^32 - 1, naming its index.
    """
    return Chain(root, chunk_tokens, extras).append(tokens)


class Chain:
    """Makes the keys of one prompt's chunks as its tokens become known.

    Not safe for concurrent use.
    """

    __slots__ = ("_buf", "_bytes", "_chunks", "_extras", "_filled", "_view")

    def __init__(self, root: bytes, chunk_tokens: int, extras: Iterable[Extra] = ()) -> None:
        _check_hash("root", root)
        if not 1 <= chunk_tokens <= MAX_CHUNK_TOKENS:
            raise InvalidError("out of range", "chunk_tokens", str(chunk_tokens), "1..1024")
        self._bytes = 4 * chunk_tokens
        # The message of the chunk that is being filled: parent, tokens.
        self._buf = bytearray(field(0x10, root))
        self._buf += b"\x11" + self._bytes.to_bytes(4, "little") + bytes(self._bytes)
        self._view = memoryview(self._buf)
        self._filled = 0
        self._chunks = 0
        self._extras = _Extras(extras, chunk_tokens)

    @property
    def last(self) -> bytes:
        """The key of the last full chunk, or the root."""
        return bytes(self._view[5:37])

    @property
    def chunks(self) -> int:
        """Full chunks so far."""
        return self._chunks

    @property
    def pending(self) -> int:
        """Tokens after the last full chunk."""
        return self._filled // 4

    def append(self, tokens: Sequence[int]) -> bytes:
        """Take the prompt's next tokens; return the keys of the chunks that
        they complete, concatenated.

        On an error nothing is taken.
        """
        if (self._chunks * self._bytes + self._filled) // 4 + len(tokens) > MAX_TOKENS:
            raise InvalidError("the prompt is too long", "tokens", "", str(MAX_TOKENS))
        data = memoryview(_pack(tokens)).cast("B")
        view, size, sha256 = self._view, self._bytes, hashlib.sha256
        out: list[bytes] = []
        at, end, filled, chunk = 0, len(data), self._filled, self._chunks
        extras = self._extras
        while filled + end - at >= size:
            view[42 + filled :] = data[at : at + size - filled]
            at += size - filled
            filled = 0
            key = sha256(self._buf + extras.of(chunk) if extras.left else view).digest()
            view[5:37] = key
            out.append(key)
            chunk += 1
        if at < end:
            view[42 + filled : 42 + filled + end - at] = data[at:]
            filled += end - at
        self._filled, self._chunks = filled, chunk
        return b"".join(out)


def _pack(tokens: Sequence[int]) -> array[int]:
    """Return tokens as u32 little-endian."""
    if isinstance(tokens, bytes | bytearray | str):
        # array() would take these for memory.
        raise InvalidError("tokens are a sequence of ints", "tokens", type(tokens).__name__)
    try:
        a = array(_U32, tokens)
    except (OverflowError, TypeError) as e:
        i, bad = next((i, t) for i, t in enumerate(tokens) if not _is_token(t))
        raise InvalidError(f"token {i} is no unsigned 32-bit integer", "tokens", ascii(bad)[:80], "0..2^32-1") from e
    if sys.byteorder == "big":
        a.byteswap()
    return a


def _is_token(t: object) -> bool:
    try:
        return 0 <= index(t) < 1 << 32  # type: ignore[arg-type]
    except TypeError:
        return False


class _Extras:
    """The fields that follow a chunk's tokens, for one chunk after the other.

    An extra is looked at where it begins, not for each chunk that it overlaps:
    how long it is costs nothing before tokens are there.
    """

    __slots__ = ("_here", "_next")

    def __init__(self, extras: Iterable[Extra], chunk_tokens: int) -> None:
        ordered = sorted(islice(extras, MAX_EXTRAS + 1))
        if len(ordered) > MAX_EXTRAS:
            raise InvalidError("too many", "extras", f"more than {MAX_EXTRAS}", str(MAX_EXTRAS))
        for e, previous in zip(ordered, [None, *ordered], strict=False):
            _check_extra(e)
            if e == previous:
                raise InvalidError("the same extra twice", "extras", str(e.start))
        # First and last chunk, place among all extras, field.
        entries = [
            (e.start // chunk_tokens, (e.start + e.count - 1) // chunk_tokens, place, _extra_field(e))
            for place, e in enumerate(ordered)
        ]
        # Those that begin later, the next one at the end; and those that reach
        # the chunk asked for last, by place.
        self._next = sorted(entries, reverse=True)
        self._here: list[tuple[int, int, bytes]] = []

    @property
    def left(self) -> bool:
        """Whether any extra reaches the next chunk or a later one."""
        return bool(self._next or self._here)

    def of(self, chunk: int) -> bytes:
        """Return the fields of a chunk; chunks are asked for in order."""
        while self._next and self._next[-1][0] <= chunk:
            _, last, place, entry = self._next.pop()
            insort(self._here, (place, last, entry))
        out = b"".join(entry for _, _, entry in self._here)
        self._here = [e for e in self._here if e[1] > chunk]
        return out


def _check_extra(e: Extra) -> None:
    if e.kind not in (ExtraKind.MULTIMODAL, ExtraKind.EMBEDDING):
        raise InvalidError("unknown kind", "extras.kind", str(int(e.kind)), "48, 49")
    end = e.start + e.count
    if e.start < 0 or not 1 <= e.count < MAX_TOKENS or end > MAX_TOKENS:
        raise InvalidError(
            "an extra stands for 1 token or more below position 2^32",
            "extras.count",
            str(end),
            str(MAX_TOKENS),
        )
    if not 1 <= len(e.content) <= MAX_CONTENT:
        raise InvalidError("wrong length", "extras.content", str(len(e.content)), "1..256")


def _extra_field(e: Extra) -> bytes:
    return field(e.kind, u32(e.start) + u32(e.count) + e.content)


def _check_hash(name: str, value: bytes) -> None:
    if len(value) != KEY_BYTES:
        raise InvalidError("wrong length", name, str(len(value)), str(KEY_BYTES))
