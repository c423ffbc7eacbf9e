"""What it takes to compute a prompt's tokens, as steps have shown."""

from __future__ import annotations

from larder.fading_fit import FadingFit

# Steps that are not counted: memory is touched and code made for the first time.
_WARM_UP = 3
# Steps until the figures are used, and how many they remember.
_ENOUGH = 6
_MEMORY = 64
# A step so many times slower or faster than expected does not count. So many of
# them in a row, on one side, are no outliers: the engine has changed.
_OUTLIER = 3.0
_CHANGED = 8

_TOKENS = 1024.0
_PAIRS = 1024.0 * 1024.0


class PrefillCost:
    """Seconds of a step = fixed + per token x tokens + per pair x pairs, where
    pairs are tokens times the position of each: attention reads all before it.

    With what happens on the way: other requests' tokens, copies of stores."""

    def __init__(self) -> None:
        self._fit = FadingFit(3, _MEMORY)
        self._warm = 0
        self._odd = 0

    @property
    def measured(self) -> bool:
        """Whether there are figures."""
        return self._fit.samples >= _ENOUGH

    def observe(self, tokens: int, pairs: float, seconds: float) -> None:
        """Takes a step that computed so many tokens."""
        if self._warm < _WARM_UP:
            self._warm += 1
            return
        if self.measured and self._outlier(seconds / max(1e-9, self.step(tokens, pairs))):
            return
        size = tokens / _TOKENS
        # The error grows with the step.
        self._fit.add((1.0, size, pairs / _PAIRS), seconds, 1 / (0.1 + size) ** 2)

    def _outlier(self, ratio: float) -> bool:
        side = (ratio > _OUTLIER) - (ratio < 1 / _OUTLIER)
        self._odd = self._odd + side if side * self._odd > 0 else side
        if abs(self._odd) < _CHANGED:
            return side != 0
        self._fit, self._odd = FadingFit(3, _MEMORY), 0
        return False

    def step(self, tokens: float, pairs: float) -> float:
        """Expected seconds of a step."""
        fixed, each, pair = self._fit.parameters()
        return fixed + each * tokens / _TOKENS + pair * pairs / _PAIRS

    def prompt(self, begin: int, end: int, others: int, budget: int) -> float:
        """Expected seconds to compute tokens [begin, end) of a prompt in steps of
        budget tokens, others of which belong to other requests."""
        fixed, each, pair = self._fit.parameters()
        tokens = end - begin
        own = each * tokens / _TOKENS + pair * (end * end - begin * begin) / (2 * _PAIRS)
        # Others are done some time: a request is never left with next to nothing.
        steps = tokens / max(budget - others, budget / 4)
        return own + steps * (fixed + each * others / _TOKENS)
