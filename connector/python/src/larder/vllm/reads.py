"""Pages that stores still read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from larder.vllm.device import Event


class PageReads:
    """Reads of pages under way on the device, for whoever writes pages next.
    Used on the engine's thread only."""

    def __init__(self) -> None:
        self._under_way: list[tuple[Sequence[Event], frozenset[int]]] = []

    def add(self, events: Sequence[Event], blocks: Iterable[int]) -> None:
        """Reads of these blocks are over with the events."""
        self._under_way.append((events, frozenset(blocks)))

    def of(self, blocks: Iterable[int] | None) -> list[Event]:
        """The events that a write of these blocks must come after; None: of any."""
        if not self._under_way:
            return []
        self._under_way = [(e, b) for e, b in self._under_way if not all(event.query() for event in e)]
        if not self._under_way:
            return []
        wanted = None if blocks is None else frozenset(blocks)
        return [
            event
            for events, read in self._under_way
            if wanted is None or not wanted.isdisjoint(read)
            for event in events
        ]
