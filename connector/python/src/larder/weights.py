"""Names for weights by content (api/NAMESPACE.md, "Weights id").

Only samples are read: of every tensor, and spread over every file. Loading
70 GB of weights must not wait for hashing them. What is not sampled can differ
unseen; whoever edits weights in place by a few elements names them by hand
(named_weights_id) or raises the weights epoch.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from larder._tagged import field
from larder.errors import InvalidError

SAMPLE_BYTES = 4096
FILE_SAMPLES = 64
"""Samples spread over a file that has a safetensors header."""
BARE_STRIDE = 1 << 20
"""Bytes for each sample of a file without one."""
MAX_HEADER = 16 << 20
"""Bytes of a safetensors header. The format allows more; 16 of them are parsed
at a time."""
MAX_INDEX = 64 << 20
MAX_SAMPLES = 1 << 17
MAX_FILES = 4096
MAX_NAME = 256

_ADAPTER_SUFFIXES = (".safetensors", ".bin", ".pt")


def weights_id(files: Iterable[str | os.PathLike[str]]) -> bytes:
    """Return the id of weights, 32 bytes, from their files in any order.

    INVALID for no file, two of one name, something that is not a regular
    file, a broken safetensors header, or a file that changes while it is read.
    """
    paths = _by_name(files)
    with ThreadPoolExecutor(max_workers=16, thread_name_prefix="larder-weights") as pool:
        digests = list(pool.map(_file_digest, paths))
    h = hashlib.sha256(b"larder/weights/1")
    for d in digests:
        h.update(field(0x01, d))
    return h.digest()


def named_weights_id(name: str) -> bytes:
    """Return the id for an operator's word instead of content: 1 to 256
    characters of ASCII 0x21..0x7e."""
    if not 1 <= len(name) <= MAX_NAME or not all("\x21" <= c <= "\x7e" for c in name):
        raise InvalidError(
            "a weights id is 1 to 256 printable ASCII characters without space",
            "weights_id",
            ascii(name[:300]),
        )
    return hashlib.sha256(b"larder/weights-name/1" + field(0x01, name.encode("ascii"))).digest()


def adapter_digest(directory: str | os.PathLike[str]) -> bytes:
    """Return the digest of a LoRA adapter, 32 bytes: of all bytes of its
    weight files and its adapter_config.json (rank and scaling change KV)."""
    folder = Path(directory)
    paths = _by_name(p for p in _list(folder) if p.name.endswith(_ADAPTER_SUFFIXES) or p.name == "adapter_config.json")
    h = hashlib.sha256(b"larder/adapter/1")
    for path in paths:
        with _open(path) as (fd, size):
            content, at = hashlib.sha256(), 0
            while at < size:
                piece = _read(fd, at, min(1 << 20, size - at), path)
                content.update(piece)
                at += len(piece)
        h.update(field(0x01, path.name.encode("utf-8", "surrogateescape")))
        h.update(field(0x02, size.to_bytes(8, "little")))
        h.update(field(0x03, content.digest()))
    return h.digest()


def find_weight_files(directory: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the weight files of a model's folder, by name: whatever engines
    may choose to load from it.

    If there are .safetensors files: those that model.safetensors.index.json
    lists, and consolidated*, which some engines load in their place; all of
    them without an index. Else every .bin, .gguf and .pt. Hidden files are
    none. INVALID if there is none. Not for an engine told to load .bin or .pt
    beside .safetensors.
    """
    folder = Path(directory)
    entries = {p.name: p for p in _list(folder) if not p.name.startswith(".")}
    tensors = {n for n in entries if n.endswith(".safetensors")}
    if (index := entries.get("model.safetensors.index.json")) is not None:
        tensors = _index_files(index) | {n for n in tensors if n.startswith("consolidated")}
    return _by_name(folder / n for n in tensors or (n for n in entries if n.endswith((".bin", ".gguf", ".pt"))))


def _index_files(index: Path) -> set[str]:
    with _open(index) as (fd, size):
        if size > MAX_INDEX:
            raise InvalidError("the index is too long", "weights", str(size), str(MAX_INDEX))
        text = _read(fd, 0, size, index)
    try:
        names = set(json.loads(text)["weight_map"].values())
        plain = all(
            n == os.path.basename(n) and n not in ("", ".", "..") and b"\0" not in os.fsencode(n) for n in names
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise InvalidError("not a safetensors index", "weights", str(index)) from e
    if not plain:
        raise InvalidError("the index names a file outside its folder", "weights", str(index))
    return names


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as e:
        raise InvalidError("the folder cannot be read", "weights", str(folder)) from e


def _by_name(files: Iterable[str | os.PathLike[str]]) -> tuple[Path, ...]:
    paths = sorted((Path(f) for f in files), key=lambda p: os.fsencode(p.name))
    if not 1 <= len(paths) <= MAX_FILES:
        raise InvalidError("wrong number of weight files", "weights", str(len(paths)), f"1..{MAX_FILES}")
    for a, b in pairwise(paths):
        if a.name == b.name:
            raise InvalidError("two weight files of one name", "weights", a.name)
    return tuple(paths)


def _file_digest(path: Path) -> bytes:
    with _open(path) as (fd, size):
        header = _header(fd, size, path) if path.name.endswith(".safetensors") else b""
        h = hashlib.sha256(b"larder/weights-file/1")
        h.update(field(0x01, size.to_bytes(8, "little")))
        h.update(field(0x02, header))
        for offset, length in _samples(size, header, path):
            h.update(field(0x03, _read(fd, offset, length, path)))
        return h.digest()


def _header(fd: int, size: int, path: Path) -> bytes:
    """Return length and JSON of a safetensors header, as they are."""
    length = int.from_bytes(_read(fd, 0, 8, path), "little") if size >= 8 else -1
    if not 2 <= length <= size - 8:
        raise InvalidError("broken safetensors header", "weights", str(path))
    if length > MAX_HEADER:
        raise InvalidError(f"the safetensors header of {path} is too long", "weights", str(length), str(MAX_HEADER))
    return _read(fd, 0, 8 + length, path)


def _samples(size: int, header: bytes, path: Path) -> Iterator[tuple[int, int]]:
    """Yield offset and length of every sample, in the order of hashing."""
    seed = hashlib.sha256(b"larder/weights-seed/1" + field(0x01, size.to_bytes(8, "little")) + field(0x02, header))
    start, total = len(header), size - len(header)
    strata = FILE_SAMPLES if header else max(FILE_SAMPLES, min(total // BARE_STRIDE, MAX_SAMPLES))
    ranges = [(start + total * j // strata, start + total * (j + 1) // strata) for j in range(strata)]
    if header:
        ranges += [(start + b, start + e) for b, e in _tensors(header, total, path)]
    for j, (begin, end) in enumerate(ranges):
        room = end - begin - SAMPLE_BYTES
        if room > 0:
            pick = seed.copy()
            pick.update(j.to_bytes(4, "little"))
            yield begin + int.from_bytes(pick.digest()[:8], "little") % (room + 1), SAMPLE_BYTES
        elif end > begin:
            yield begin, end - begin


def _tensors(header: bytes, total: int, path: Path) -> list[tuple[int, int]]:
    """Return the byte range of every tensor within the data, ascending."""
    try:
        entries = json.loads(header[8:])
        found = sorted((t["data_offsets"][0], t["data_offsets"][1]) for n, t in entries.items() if n != "__metadata__")
        good = all(type(b) is int and type(e) is int and 0 <= b <= e <= total for b, e in found)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as e:
        raise InvalidError("broken safetensors header", "weights", str(path)) from e
    if not good:
        raise InvalidError("a safetensors header names bytes outside its file", "weights", str(path))
    if len(found) > MAX_SAMPLES:
        raise InvalidError(f"too many tensors in {path}", "weights", str(len(found)), str(MAX_SAMPLES))
    return found


@contextmanager
def _open(path: Path) -> Iterator[tuple[int, int]]:
    """Open a regular file for reading; gives descriptor and size."""
    try:
        # Non-blocking: opening a pipe must not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as e:
        raise InvalidError("the file cannot be read", "weights", str(path)) from e
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise InvalidError("not a regular file", "weights", str(path))
        yield fd, info.st_size
        # Not a file that was written before and after: that is what the weights
        # epoch is for.
        now = os.fstat(fd)
        if (now.st_size, now.st_mtime_ns) != (info.st_size, info.st_mtime_ns):
            raise InvalidError("the file changes while it is read", "weights", str(path))
    finally:
        os.close(fd)


def _read(fd: int, offset: int, length: int, path: Path) -> bytes:
    pieces = []
    while length > 0:
        try:
            piece = os.pread(fd, length, offset)
        except OSError as e:
            raise InvalidError("the file cannot be read", "weights", str(path)) from e
        if not piece:
            raise InvalidError("the file changes while it is read", "weights", str(path))
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)
