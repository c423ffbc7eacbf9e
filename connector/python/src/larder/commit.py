"""What a commit says about the slots that it hands over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from larder.credits import Credit
from larder.errors import InvalidError, LarderError


class CommitPart(NamedTuple):
    """One written part."""

    # Index into hello.parts.
    part: int
    credit: Credit
    # Bytes written; 0 = all of the credit's.
    length: int = 0


class CommitChunk(NamedTuple):
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


def check_chunks(chunks: Sequence[CommitChunk], part_count: int, max_parts: int) -> list[int]:
    """The bytes of each part; raises LarderError INVALID where the daemon would
    say so too, so that no credit is lost on it."""
    lengths: list[int] = []
    for chunk in chunks:
        if len(chunk.key) != 32:
            raise _invalid("commit.chunks.key", f"{len(chunk.key)} bytes", "32 bytes")
        if len(chunk.parent) != 32:
            raise _invalid("commit.chunks.parent", f"{len(chunk.parent)} bytes", "32 bytes")
        for part, credit, length in chunk.parts:
            if not 0 <= part < part_count:
                raise _invalid("commit.chunks.parts.part", str(part), f"less than {part_count}")
            if not 0 <= length <= credit.length:
                raise _invalid("commit.chunks.parts.length", str(length), f"{credit.length} bytes")
            lengths.append(length or credit.length)
    if not 1 <= len(lengths) <= max_parts:
        raise _invalid("commit.chunks", f"{len(lengths)} parts", f"1 to {max_parts} parts")
    return lengths


def _invalid(name: str, value: str, limit: str) -> LarderError:
    return InvalidError("the commit cannot be right", name, value, limit)
