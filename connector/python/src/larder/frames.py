"""Bytes of opaque fields in coded objects: zstd frames (codec/FORMAT.md, Bytes).

Python has a decoder of them from 3.14 on; before, the package zstandard is one. It
is optional (larder[zstd]): nothing but such fields needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larder.errors import CorruptError, UnavailableError

MAX_WINDOW = 8 << 20
MAX_BLOCK = 128 << 10
WIDTHS = (1, 2, 4)

Bytes = NDArray[np.uint8]


def read(stream: bytes, size: int) -> Bytes:
    """Return the size bytes of a unit whose stream this is. UNAVAILABLE: nothing
    here decodes zstd."""
    width = stream[0] if stream else 0
    if width not in WIDTHS or size % width:
        raise CorruptError("impossible", field="object.width", value=str(width))
    out = np.empty((size // width, width), np.uint8)
    at = 1
    for k in range(width):
        end = at + frame_size(stream[at:], len(out))
        out[:, k] = np.frombuffer(_decompress(stream[at:end], len(out)), np.uint8)
        at = end
    if at != len(stream):
        raise CorruptError("bytes are left behind the last one", field="object.frame", value=str(len(stream) - at))
    return out.reshape(-1)


def frame_size(data: bytes, want: int) -> int:
    """Return the length of the frame at the start of data. It must be one of the
    format, say that it gives want bytes, and have no other behind it: so it is
    known before anything is decoded how much that takes."""
    if len(data) < 6 or data[:4] != b"\x28\xb5\x2f\xfd":
        raise CorruptError("no frame", field="object.frame")
    flags = data[4]
    single, sizes = flags >> 5 & 1, (1 if flags >> 5 & 1 else 0, 2, 4, 8)[flags >> 6]
    # Reserved bit, checksum, dictionary.
    if flags & 0x0F or not sizes:
        raise CorruptError("with a checksum or a dictionary, or without its size", field="object.frame")
    at = 5 + (1 - single) + sizes
    content = int.from_bytes(data[at - sizes : at], "little") + (256 if sizes == 2 else 0)
    base = 1 << (10 + (data[5] >> 3))
    window = content if single else base + base // 8 * (data[5] & 7)
    if content != want or window > MAX_WINDOW:
        raise CorruptError("size or window", field="object.frame", value=f"{content}, {window}", limit=str(want))
    given, last = 0, False
    while not last:
        block = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        at += 3
        given += size if kind < 2 else 0
        size = 1 if kind == 1 else size
        if kind == 3 or size > MAX_BLOCK or at + size > len(data) or given > want:
            raise CorruptError("impossible block", field="object.frame", value=str(size), limit=str(len(data) - at))
        at += size
    return at


def _decompress(frame: bytes, size: int) -> bytes:
    decompress, failure = _decoder()
    try:
        out = decompress(frame)
    except failure as e:
        raise CorruptError(f"does not decode: {e}", field="object.frame") from e
    if len(out) != size:
        raise CorruptError("gives another size", field="object.frame", value=str(len(out)), limit=str(size))
    return out


def _decoder() -> tuple[Callable[[bytes], bytes], type[Exception]]:
    """Return what decodes one frame whose header was checked, and how it fails. Both
    libraries take memory by that header."""
    for name in ("compression.zstd", "zstandard"):
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        return module.decompress, module.ZstdError
    raise UnavailableError(
        "opaque bytes need a decoder of zstd: install the package zstandard (larder[zstd]), or use Python 3.14",
        field="object.frame",
    )
