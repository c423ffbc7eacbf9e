"""Least squares that forgets, with parameters that cannot be negative."""

from __future__ import annotations

from collections.abc import Sequence

# Of each parameter's own weight: it shares out what the samples leave open,
# such as steps that are all alike.
_RIDGE = 1e-4


class FadingFit:
    """Fits y = x . parameters to samples, of which each counts by 1/e of itself
    once `memory` others came after it.

    In plain Python: with two or three parameters numpy takes longer, 10 us
    against 6 for a sample and its solution."""

    def __init__(self, parameters: int, memory: int) -> None:
        self._keep = 1 - 1 / memory
        self._all = range(parameters)
        self._a = [[0.0] * parameters for _ in self._all]
        self._b = [0.0] * parameters
        self._solution: list[float] | None = None
        self.samples = 0

    def add(self, x: Sequence[float], y: float, weight: float) -> None:
        """Takes a sample; weight: one over the square of its expected error."""
        keep = self._keep
        for i in self._all:
            row = self._a[i]
            scaled = weight * x[i]
            for j in self._all:
                row[j] = row[j] * keep + scaled * x[j]
            self._b[i] = self._b[i] * keep + scaled * y
        self._solution = None
        self.samples += 1

    def parameters(self) -> list[float]:
        """The parameters; zeros without a sample."""
        if self._solution is None:
            self._solution = self._solve()
        return self._solution

    def _solve(self) -> list[float]:
        active = [i for i in self._all if self._a[i][i] > 0]
        solution = [0.0] * len(self._b)
        while active:
            found = self._solve_for(active)
            least = min(found)
            if least >= 0:
                for i, value in zip(active, found, strict=True):
                    solution[i] = value
                break
            # Not the best of all choices in theory; with two or three
            # parameters it is in practice.
            del active[found.index(least)]
        return solution

    def _solve_for(self, active: list[int]) -> list[float]:
        """Gaussian elimination; the ridge keeps the pivots above 0."""
        n = len(active)
        rows = [[self._a[i][j] * (1 + _RIDGE * (i == j)) for j in active] + [self._b[i]] for i in active]
        for k in range(n):
            pivot = rows[k]
            for i in range(k + 1, n):
                row = rows[i]
                factor = row[k] / pivot[k]
                for j in range(k, n + 1):
                    row[j] -= factor * pivot[j]
        found = [0.0] * n
        for k in reversed(range(n)):
            row = rows[k]
            found[k] = (row[n] - sum(row[j] * found[j] for j in range(k + 1, n))) / row[k]
        return found
