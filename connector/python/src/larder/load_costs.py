"""The two sides of the choice between loading and computing, as measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from larder.fading_fit import FadingFit
from larder.load_or_recompute import Choice, Copying, Run, choose, load_seconds
from larder.prefill_cost import PrefillCost

# Loads from the host until their time is used, and how many it remembers.
_ENOUGH = 3
_MEMORY = 32
# A load that takes so many times longer than expected counts as that, and one
# that takes so many times less makes the earlier ones void.
_ODD = 3.0
# While nothing is loaded, copies are taken to be twice as fast after each so many
# requests that compute: one that was slow for a while is tried again.
_HALVED = 16


class LoadCosts:
    """What computing takes is learnt from steps, what copying from the arena
    takes from loads of chunks that were in it, and what tiers take is said by the
    daemon. now is seconds of one clock. Everything runs on the scheduler's thread."""

    def __init__(self, chunk_tokens: int, step_tokens: int, deadline_s: float) -> None:
        self._chunk_tokens = chunk_tokens
        self._step_tokens = step_tokens
        self._deadline_s = deadline_s
        self.prefill = PrefillCost()
        self._copies = FadingFit(2, _MEMORY)
        self._declined = 0
        self._busy_until = 0.0

    def copied(self, chunks: int, seconds: float) -> None:
        """A load of chunks that were in the arena took so long."""
        self._declined = 0
        if self._copies.samples >= _ENOUGH:
            fixed, each = self._copies.parameters()
            expected = fixed + chunks * each
            if seconds * _ODD < expected:
                self._copies = FadingFit(2, _MEMORY)
            seconds = min(seconds, _ODD * expected)
        self._copies.add((1.0, float(chunks)), seconds, 1 / (1 + chunks) ** 2)

    def started(self, runs: Sequence[Run], now: float) -> float:
        """These are loaded; loads run one after the other. Returns when it is
        expected to end."""
        copying = self._copying(now)
        seconds = copying.fixed_s + sum(run.chunks * (run.cost_s + copying.chunk_s) for run in runs)
        self._busy_until = max(self._busy_until, now) + seconds
        return self._busy_until

    def idle(self) -> None:
        """Nothing is loaded any more."""
        self._busy_until = 0.0

    def expected(self, runs: Sequence[Run], now: float) -> float | None:
        """Seconds to load these; None: not known yet."""
        return load_seconds(runs, self._copying(now))[-1] if self._copies.samples >= _ENOUGH else None

    def _copying(self, now: float) -> Copying:
        fixed, each = self._copies.parameters() if self._copies.samples >= _ENOUGH else (0.0, 0.0)
        scale = 0.5 ** (self._declined / _HALVED)
        return Copying(scale * fixed, scale * each, max(0.0, self._busy_until - now))

    def choose(self, runs: Sequence[Run], first: int, local: int, tokens: int, others: int, now: float) -> Choice:
        """How many of the chunks of runs, the first of which is the prompt's
        chunk `first`, are loaded. local: tokens that need neither; tokens: of the
        prompt; others: tokens that other requests have in the next step."""
        others = min(others, self._step_tokens)
        compute, copying = None, self._copying(now)
        if self.prefill.measured:
            compute = self._compute(first, local, tokens, others)
            # A load's end is seen at the end of a step that others fill.
            copying = replace(copying, late_s=self.prefill.step(others, 0) / 2 if others else 0.0)
        return choose(runs, copying, compute, self._deadline_s)

    def declined(self) -> None:
        """A request computes what it could have loaded, all of it."""
        self._declined += 1

    def _compute(self, first: int, local: int, tokens: int, others: int) -> Callable[[int], float]:
        def compute(chunks: int) -> float:
            begin = max(local, min(tokens, (first + chunks) * self._chunk_tokens))
            return self.prefill.prompt(begin, tokens, others, self._step_tokens)

        return compute
