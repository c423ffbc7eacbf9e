"""Requests with one beginning that come while it is computed, loaded or stored: with vLLM's scheduler, on few pages."""

from __future__ import annotations

from collections import Counter
from typing import Any

from simulated_engine import HEADS, MakeEngine, MakePrompt, SimulatedEngine, expected_output
from stub_daemon import StubDaemon

CHUNK = 64


def during_the_next_computation(e: SimulatedEngine, do: Any) -> None:
    """Does something while a step computes, once."""
    compute = e._compute

    def computing(output: Any) -> Any:
        e._compute = compute  # type: ignore[method-assign]
        do()
        return compute(output)

    e._compute = computing  # type: ignore[method-assign]


def test_what_is_being_stored_is_not_stored_again(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine(budget=512)
    tokens = prompt(4 * CHUNK)
    e.add("first", [*tokens, 1])
    # They ask while the daemon does not have it yet.
    during_the_next_computation(e, lambda: [e.add(f"later {i}", [*tokens, 2 + i]) for i in range(3)])
    steps = e.run()
    for i, name in enumerate(("first", "later 0", "later 1", "later 2")):
        assert e.outputs[name] == expected_output([*tokens, 1 + i], 4)
    told = Counter(op.key for step in steps for op in step.metadata.stores)
    assert len(told) == 4
    assert set(told.values()) == {1}
    assert len(daemon.chunks) == 4


def test_a_request_that_waited_loads_what_was_stored_meanwhile(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    # Two run at once, on pages for both and little more.
    e = engine(seqs=2, blocks=48, budget=512)
    tokens = prompt(4 * CHUNK)
    e.add("first", [*tokens, 1])
    e.add("other", prompt(4 * CHUNK, seed=5), 100)
    # Takes the pages of the first one's beginning, before the last one's turn.
    e.add("between", prompt(7 * CHUNK, seed=6), 1)
    e.add("waits", [*tokens, 2])
    steps = e.run()
    assert e.outputs["waits"] == expected_output([*tokens, 2], 4)
    # Its last token and three of its four new ones are computed.
    assert sum(step.scheduled.get("waits", 0) for step in steps) == 1 + 3
    assert e.external["waits"] >= 2 * CHUNK
    assert len(daemon.loaded) >= 2 * HEADS
    assert daemon.holds == {}
