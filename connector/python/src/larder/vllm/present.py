"""What the daemon is known to have: saves copies, never decides correctness."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class PresentKeys:
    """Keys stored or matched lately, each with the time of that knowledge."""

    def __init__(self, most: int = 1 << 16) -> None:
        self._most = most
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def add(self, keys: Iterable[bytes], now: float) -> None:
        """The daemon has these, or is just given them."""
        for key in keys:
            self._known[key] = now
            self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def discard(self, keys: Iterable[bytes], asked: float) -> None:
        """The daemon did not have these when asked; what is known since stays."""
        for key in keys:
            if self._known.get(key, asked) < asked:
                del self._known[key]

    def remove(self, key: bytes) -> None:
        """A store failed."""
        self._known.pop(key, None)

    def clear(self) -> None:
        """Nothing is known of another daemon."""
        self._known.clear()
