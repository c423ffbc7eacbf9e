"""More prompts at once that can be loaded than the engine has pages for."""

from __future__ import annotations

import pytest
from simulated_engine import MakeEngine, MakePrompt, expected_output
from stub_daemon import StubDaemon

PROMPTS = 8


@pytest.mark.parametrize("blocks", [49, 65, 81])
def test_loads_do_not_take_the_pages_that_loaded_requests_need(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, blocks: int
) -> None:
    prompts = [prompt(300, seed=i) for i in range(PROMPTS)]
    first = engine(blocks=blocks)
    for i, tokens in enumerate(prompts):
        first.generate(f"stored{i}", tokens)
    assert len(daemon.chunks) == 4 * PROMPTS
    e = engine(blocks=blocks)
    # No load ends before as many have begun as pages allow.
    daemon.stuck = True
    for i, tokens in enumerate(prompts):
        e.add(f"r{i}", tokens, 4)
    for _ in range(30):
        e.step()
    assert e.connector.stats.loads > 1
    daemon.stuck = False
    e.run()
    for i, tokens in enumerate(prompts):
        assert e.outputs[f"r{i}"] == expected_output(tokens, 4)
    assert e.worker.stats.chunks_loaded == 4 * PROMPTS
