"""Requests with one beginning that come while it is computed, loaded or stored: with vLLM's scheduler, on few pages."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from simulated_config import HEADS, VOCABULARY
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine, Step, expected_output
from stub_daemon import StubDaemon
from vllm.v1.request import RequestStatus

from larder.keys import KEY_BYTES

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


class Crowd:
    """Requests with common beginnings on few pages, some of which arrive while a step computes; and a count of what was
    done though it had been done, or was under way."""

    def __init__(self, engine: SimulatedEngine, daemon: StubDaemon, bases: Sequence[list[int]], seed: int) -> None:
        self.engine = engine
        self.daemon = daemon
        self.bases = bases
        self.random = random.Random(seed)  # noqa: S311
        self.half = engine.connector.scheduler_half
        self.asked: dict[str, tuple[list[int], int]] = {}
        self.aborted: set[str] = set()
        self.arriving: list[Callable[[], Any]] = []
        self.loading: dict[bytes, Any] = {}
        self.told: set[bytes] = set()
        self.again: Counter[str] = Counter()
        compute, allocated = engine._compute, self.half.allocated

        def computing(output: Any) -> Any:
            while self.arriving:
                self.arriving.pop()()
            return compute(output)

        def allocating(request: Any, blocks: Any, external: int) -> None:
            allocated(request, blocks, external)
            if external:
                self.note_load(request, external)

        engine._compute = computing  # type: ignore[method-assign]
        self.half.allocated = allocating

    def note_load(self, request: Any, external: int) -> None:
        """A request loads: chunks that another one is loading count."""
        state = self.half._states[request.request_id]
        for chunk in range(state.local // CHUNK, -(-(state.local + external) // CHUNK)):
            before = self.loading.get(state.key(chunk))
            self.again["loaded"] += before is not None and before.status == RequestStatus.WAITING_FOR_REMOTE_KVS
            self.loading[state.key(chunk)] = request

    def note_step(self, step: Step, had: set[bytes]) -> None:
        """What a step stores, and computes of what the daemon had when it was scheduled."""
        for op in step.metadata.stores:
            self.again["stored"] += op.key in self.told
            self.told.add(op.key)
        for name, count in step.scheduled.items():
            state, request = self.half._states.get(name), self.engine.scheduler.requests.get(name)
            if state is None or request is None:
                continue
            end = request.num_computed_tokens
            for chunk in range(-(-(end - count) // CHUNK), min(end // CHUNK, len(state.keys) // KEY_BYTES)):
                self.again["computed"] += all(state.key(c) in had for c in range(chunk + 1))

    def arrive(self) -> None:
        """A request, between steps or within the next one."""
        source = self.random
        tokens = source.choice(self.bases)[: source.randrange(64, 500)]
        tokens = tokens + [source.randrange(VOCABULARY) for _ in range(source.choice([1, 1, 30]))]
        name, count = f"r{len(self.asked)}", source.choice([1, 4, 40, 120])
        self.asked[name] = (tokens, count)
        if self.engine.scheduler.has_requests() and source.random() < 0.5:
            self.arriving.append(lambda: self.engine.add(name, tokens, count))
        else:
            self.engine.add(name, tokens, count)

    def run(self, steps: int) -> None:
        """All of it."""
        source, engine = self.random, self.engine
        while steps or engine.scheduler.has_requests() or self.arriving:
            steps -= steps > 0
            if steps and (source.random() < 0.12 or not engine.scheduler.has_requests()):
                for _ in range(source.choice([1, 2, 8])):
                    self.arrive()
            running = [name for name in engine.scheduler.requests if name not in engine.ended]
            if running and source.random() < 0.03:
                self.aborted.add(name := source.choice(running))
                engine.abort(name)
            had = {key for key, parts in self.daemon.chunks.items() if len(parts) == HEADS}
            self.note_step(engine.step(), had)
        engine.run()


@pytest.mark.parametrize("seed", [1, 3])
def test_a_crowd_does_nothing_twice(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, seed: int) -> None:
    e = engine(seqs=8, blocks=64, budget=256, model_len=1024)
    crowd = Crowd(e, daemon, [prompt(499, seed=100 + i) for i in range(3)], seed)
    crowd.run(200)
    half = crowd.half
    for name, (tokens, count) in crowd.asked.items():
        want, got = expected_output(tokens, count), e.outputs.get(name, [])
        assert got == (want[: len(got)] if name in crowd.aborted else want), name
    # Else it proves nothing.
    assert e.preemptions
    assert half.stats.loads
    assert half.stats.waits_for_load
    assert crowd.aborted
    assert crowd.told
    assert not +crowd.again
    assert e.free_blocks() == 63
    assert not half._states
    assert not half._holds
    assert not half._inflight
    assert not daemon.holds
