"""Pages that copies of loads still fill though their requests may be scheduled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from itertools import groupby
from operator import attrgetter

from larder.vllm.device import Device, Event
from larder.vllm.gpu_copies import Piece, ends


class Arrivals:
    """Loads that were reported while their copies were under way: what the
    engine computes after it has heard of that waits for them, on the device; for
    copies of later layers as late as `layer` is called for these. Used on the
    engine's thread only."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._reported: dict[str, tuple[Sequence[Piece], Set[int]]] = {}
        # What the step that has begun is yet to wait for: (layer, event).
        self._due: list[tuple[int, Event]] = []

    def reported(self, request_id: str, pieces: Sequence[Piece], blocks: Iterable[int]) -> None:
        """A load into these blocks was reported."""
        self._reported[request_id] = pieces, frozenset(blocks)

    @property
    def unheard(self) -> bool:
        """Whether the engine has yet to hear of one."""
        return bool(self._reported)

    def heard(self, request_ids: Iterable[str], writes: Iterable[int] | None) -> None:
        """The engine has heard of these loads' end: from this step on it may use
        their pages, or give them to others. writes: the blocks that the step
        writes before it comes to a layer's hook; None: not said."""
        for request_id in request_ids:
            pieces, blocks = self._reported.pop(request_id, ((), frozenset()))
            whole = writes is None or not blocks.isdisjoint(writes)
            for layer, some in groupby(pieces, attrgetter("layer")):
                for event in ends(list(some)):
                    if whole or not layer:
                        self._wait(event)
                    else:
                        self._due.append((layer, event))

    @property
    def due(self) -> bool:
        """Whether layer, or rest, has anything to do."""
        return bool(self._due)

    def layer(self, layer: int) -> None:
        """The step comes to a layer."""
        later = []
        for one in self._due:
            if one[0] <= layer:
                self._wait(one[1])
            else:
                later.append(one)
        self._due = later

    def rest(self) -> None:
        """Whatever comes now waits for everything."""
        due, self._due = self._due, []
        for _, event in due:
            self._wait(event)

    def _wait(self, event: Event) -> None:
        self._device.wait(self._device.current_stream(), event)
