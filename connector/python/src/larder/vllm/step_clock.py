"""How long the engine's steps take, measured from its scheduler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from larder.prefill_cost import PrefillCost

# Steps under way at most; engines have two or three.
_UNDER_WAY = 16
# A step of fewer prompt tokens says more about everything else.
_LEAST_TOKENS = 16


@dataclass(frozen=True)
class _Begun:
    at: float
    tokens: int
    pairs: float


class StepClock:
    """A step lasts from its building, or from the end of the one before it where
    that comes later, to the report of its workers, which carries its number.

    Counted are steps most of whose tokens are of prompts, and that ran while
    nothing was loaded: copies take cores and memory from them."""

    def __init__(self, cost: PrefillCost) -> None:
        self._cost = cost
        self._begun: dict[int, _Begun] = {}
        self._number = 0
        self._last_end = 0.0
        # Tokens that other requests take of the next step, about.
        self.others = 0

    def begin(self, output: Any, prompt_tokens: Callable[[str], int], loading: bool, now: float) -> int:
        """A step is built; prompt_tokens: of a request. Returns its number, 0
        where it is not measured."""
        total = output.total_num_scheduled_tokens
        scheduled = output.num_scheduled_tokens
        self.others = len(scheduled)
        if total <= len(scheduled):
            # Only generation: nothing to learn, and nothing to take long over.
            return 0
        cached = output.scheduled_cached_reqs
        new = {one.req_id: one.num_computed_tokens for one in output.scheduled_new_reqs}
        # All as if they had one token, then those that have more: few, usually,
        # among many that generate.
        pairs = float(sum(new.values()) + sum(cached.num_computed_tokens))
        for request_id, count in [item for item in scheduled.items() if item[1] > 1]:
            before = new.get(request_id)
            if before is None:
                before = cached.num_computed_tokens[cached.req_ids.index(request_id)]
            pairs += (count - 1) * before + count * count / 2
            self.others += max(0, prompt_tokens(request_id) - before - count - 1)
        prompts = total - len(scheduled)
        if loading or prompts < _LEAST_TOKENS or 2 * prompts < total:
            return 0
        self._number += 1
        self._begun[self._number] = _Begun(now, total, pairs)
        if len(self._begun) > _UNDER_WAY:
            del self._begun[next(iter(self._begun))]
        return self._number

    def end(self, number: int, loading: bool, now: float) -> bool:
        """Workers reported on a step. Whether it counted."""
        step = self._begun.pop(number, None)
        last, self._last_end = self._last_end, now
        if step is None or loading:
            return False
        self._cost.observe(step.tokens, step.pairs, now - max(step.at, last))
        return True
