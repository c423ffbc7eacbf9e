"""An engine whose steps take as long as a test says, on its scheduler half's clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from simulated_engine import MakePrompt, SimulatedEngine, expected_output

# Seconds of a step, of each of its tokens, and for each token before those.
FIXED, EACH, PAIR = 0.002, 1e-4, 1e-6


def seconds(begin: int, end: int) -> float:
    """What computing tokens [begin, end) takes, but for the fixed part of steps."""
    return (end - begin) * EACH + PAIR * (end**2 - begin**2) / 2


class Timed:
    """An engine whose steps take as long as said, and know it after some prompts."""

    def __init__(self, engine: SimulatedEngine, prompt: MakePrompt) -> None:
        self.engine = engine
        self.half = engine.connector.scheduler_half
        self.now = time.monotonic()
        self.half._clock = lambda: self.now
        compute = engine._compute

        def timed(output: Any) -> list[list[int]]:
            self.now += FIXED
            before = {n.req_id: n.num_computed_tokens for n in output.scheduled_new_reqs}
            cached = output.scheduled_cached_reqs
            before |= dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
            for request_id, count in output.num_scheduled_tokens.items():
                self.now += count * (EACH + PAIR * (before[request_id] + count / 2))
            return compute(output)

        engine._compute = timed  # type: ignore[method-assign]
        for i in range(4):
            engine.generate(f"warm{i}", prompt(1000, seed=100 + i))

    def answer(self, name: str, tokens: Sequence[int]) -> int:
        """Answers a prompt as an engine that computed nothing yet; returns the tokens loaded."""
        self.engine.drop_own_cache()
        assert self.engine.generate(name, tokens) == expected_output(tokens, 4)
        return self.engine.external[name]
