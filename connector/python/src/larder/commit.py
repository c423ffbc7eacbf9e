"""What a commit says about the slots that it hands over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from larder.credits import Credit
from larder.errors import InvalidError, LarderError


@dataclass(frozen=True, slots=True)
class CommitPart:
    """One written part."""

    # Index into hello.parts.
    part: int
    credit: Credit
    # Bytes written; 0 = all of the credit's.
    length: int = 0


@dataclass(frozen=True, slots=True)
class CommitChunk:
    """Parts of one chunk; its other parts may come from other processes."""

    # 32 bytes each.
    key: bytes
    parent: bytes
    # Index of the chunk in its prompt, from 0.
    ordinal: int
    # Tokens in the chunk: the namespace's chunk_tokens.
    tokens: int
    parts: Sequence[CommitPart]
    # 0 = exact, else 1 + the worst level in the history of these bytes.
    quality: int = 0


def check_chunks(chunks: Sequence[CommitChunk], part_count: int, max_parts: int) -> int:
    """The number of parts; raises LarderError INVALID where the daemon would
    say so too, so that no credit is lost on it."""
    total = 0
    for chunk in chunks:
        for name, key in (("key", chunk.key), ("parent", chunk.parent)):
            if len(key) != 32:
                raise _invalid(f"commit.chunks.{name}", f"{len(key)} bytes", "32 bytes")
        for part in chunk.parts:
            total += 1
            if not 0 <= part.part < part_count:
                raise _invalid("commit.chunks.parts.part", str(part.part), f"less than {part_count}")
            if not 0 <= part.length <= part.credit.length:
                raise _invalid("commit.chunks.parts.length", str(part.length), f"{part.credit.length} bytes")
    if not 1 <= total <= max_parts:
        raise _invalid("commit.chunks", f"{total} parts", f"1 to {max_parts} parts")
    return total


def _invalid(name: str, value: str, limit: str) -> LarderError:
    return InvalidError("the commit cannot be right", name, value, limit)
