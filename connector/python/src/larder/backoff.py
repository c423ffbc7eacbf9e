"""How long to wait between attempts to connect."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Pauses that double from least to most seconds, each multiplied by a
    random factor in [0.5, 1), so that a host's engines do not all come back
    in the same instant."""

    def __init__(self, least_s: float, most_s: float, random01: Callable[[], float] = random.random) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._random01 = random01
        self._next_s = least_s

    def pause(self) -> float:
        """The next pause in seconds."""
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, self._most_s)
        return pause_s * (0.5 + self._random01() / 2)

    def reset(self) -> None:
        """A connection was of use: the next failure is a first one."""
        self._next_s = self._least_s
