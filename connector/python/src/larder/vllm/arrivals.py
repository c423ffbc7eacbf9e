"""Pages that copies of loads still fill though their requests may be scheduled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from larder.vllm.device import Device, Event
from larder.vllm.gpu_copies import Piece, ends


class Arrivals:
    """Loads that were reported while their copies were under way: what the
    engine computes after it has heard of that waits for them, on the device.
    Used on the engine's thread only."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._events: dict[str, list[Event]] = {}

    def reported(self, request_id: str, pieces: Sequence[Piece]) -> None:
        """A load was reported."""
        self._events.setdefault(request_id, []).extend(ends(pieces))

    @property
    def unheard(self) -> bool:
        """Whether the engine has yet to hear of one."""
        return bool(self._events)

    def heard(self, request_ids: Iterable[str]) -> None:
        """The engine has heard of these loads' end: from this step on it may use
        their pages, or give them to others."""
        for request_id in request_ids:
            for event in self._events.pop(request_id, ()):
                self._device.wait(self._device.current_stream(), event)
