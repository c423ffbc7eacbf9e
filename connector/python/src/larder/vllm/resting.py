"""Chunks whose load failed a short while ago: nobody loads them again yet."""

from __future__ import annotations

from collections.abc import Iterable

# Chunks remembered at most.
_MOST = 1 << 16


class RestingChunks:
    """Keys of such chunks, each until its time."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def add(self, keys: Iterable[bytes], until: float) -> None:
        """Their load failed; until: time.monotonic() seconds."""
        self._until |= dict.fromkeys(keys, until)
        while len(self._until) > _MOST:
            del self._until[next(iter(self._until))]

    def holds(self, key: bytes, now: float) -> bool:
        """Whether a chunk is to be left alone."""
        until = self._until.get(key)
        if until is not None and until <= now:
            del self._until[key]
            return False
        return until is not None

    def clear(self) -> None:
        """Nothing is known of another daemon."""
        self._until.clear()
