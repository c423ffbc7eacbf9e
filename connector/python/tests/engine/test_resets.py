"""Contract, line 11: what was stored before the engine's cache was reset is not used after.

The simulated engine's pages are checked before every step: KV of other weights is wrong there."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from other_connector import CLAIM
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine, check_chunk, larder, prefix_hashes
from stub_daemon import StubClient, StubDaemon

from larder.client import Options
from larder.vllm import epochs
from larder.vllm.metadata import LoadOp


class Namespaces:
    """The daemon's side of connecting: who came with which namespace."""

    def __init__(self, daemon: StubDaemon) -> None:
        self._daemon = daemon
        self.clients: list[StubClient] = []

    def connect(self, options: Options) -> StubClient:
        self.clients.append(self._daemon.connect(options))
        return self.clients[-1]

    def epochs(self) -> list[int]:
        """The namespaces' epochs, in order of appearance."""
        found = [c.options.namespace.weights_epoch for c in self.clients if c.options.namespace is not None]
        return list(dict.fromkeys(found))

    def open(self) -> int:
        return sum(not client.closed for client in self.clients)


@pytest.fixture
def namespaces(daemon: StubDaemon) -> Namespaces:
    return Namespaces(daemon)


def check_stored(daemon: StubDaemon, prompt: Sequence[int], weights: int, since: int = 0) -> int:
    """Fails unless the chunks stored since then are of the prompt and of these weights; how many."""
    hashes = prefix_hashes(prompt, weights)
    for key, _, ordinal, _ in daemon.commits[since:]:
        check_chunk(daemon.chunks[key], hashes, ordinal)
    return len(daemon.commits) - since


def test_what_was_stored_before_is_not_loaded_after(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, namespaces: Namespaces
) -> None:
    e = engine(connect=namespaces.connect)
    e.generate("r", prompt(300), max_tokens=1)
    assert check_stored(daemon, prompt(300), 0) == 4
    e.load_weights(7)
    assert e.reset()
    e.generate("again", prompt(300), max_tokens=1)
    assert not e.external["again"]
    # It goes on with what it stores from now on.
    assert check_stored(daemon, prompt(300), 7, since=4) == 4
    e.drop_own_cache()
    e.generate("and again", prompt(400), max_tokens=1)
    assert e.external["and again"] == 256
    assert namespaces.epochs()[0] == 0
    assert [n >> 63 for n in namespaces.epochs()] == [0, 1]
    # Both halves, once each; those of before are gone.
    assert len(namespaces.clients) == 4
    assert namespaces.open() == 2
    assert e.connector.stats.resets == 1
    # Who starts anew is what it was.
    other = engine()
    other.generate("r", prompt(400), max_tokens=1)
    assert other.external["r"] == 256


def test_requests_that_run_begin_anew(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine(budget=128)
    runs, waits = prompt(300), prompt(300, seed=1)
    e.add("runs", runs, max_tokens=40)
    e.add("waits", waits, max_tokens=1)
    for _ in range(4):
        e.step()
    larder(e.worker).worker_half.settle()
    before = len(daemon.commits)
    assert before >= 3
    e.load_weights(7)
    assert e.reset(running=True)
    owner = {op.key: op.request_id for step in e.run() for op in step.metadata.stores}
    assert len(daemon.commits) - before >= 8
    for key, _, ordinal, _ in daemon.commits[before:]:
        check_chunk(daemon.chunks[key], e._hashes[owner[key]], ordinal)
    e.drop_own_cache()
    e.generate("runs again", runs, max_tokens=1)
    e.generate("waits again", waits, max_tokens=1)
    assert e.external["runs again"] == e.external["waits again"] == 256
    assert e.external["runs"] == 0


def test_copies_under_way_land_where_they_belong(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's stores are copied after it; the reset and the next step come before they end."""
    e = engine()
    saver = larder(e.worker).worker_half._saver
    assert saver is not None
    write, go = saver._write, threading.Event()

    def slow(*args: object) -> bool:
        assert go.wait(60)
        return bool(write(*args))

    monkeypatch.setattr(saver, "_write", slow)
    e.add("r", prompt(300), max_tokens=4)
    e.step()
    threading.Timer(0.05, go.set).start()
    assert e.reset(running=True)
    e.load_weights(7)
    e.run()
    assert [ordinal for _, _, ordinal, _ in daemon.commits[:4]] == [0, 1, 2, 3]
    keys = {key for key, *_ in daemon.commits[:4]}
    for key, _, ordinal, _ in daemon.commits[:4]:
        check_chunk(daemon.chunks[key], prefix_hashes(prompt(300), 0), ordinal)
    assert check_stored(daemon, prompt(300), 7, since=4) == 4
    assert keys.isdisjoint(key for key, *_ in daemon.commits[4:])


def test_a_cache_that_is_still_in_use(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    """The engine keeps its pages then, and what they hold may be of weights of before."""
    engine().generate("before", prompt(300), max_tokens=1)
    e = engine(blocks=128)
    e.add("runs", prompt(300, seed=1), max_tokens=60)
    e.step()
    e.step()
    stored = len(daemon.commits)
    assert not e.reset()
    e.generate_beside("beside", prompt(300))
    e.run()
    assert not e.external["beside"]
    assert len(daemon.commits) == stored
    # A reset that empties it makes all well.
    e.load_weights(7)
    assert e.reset()
    e.generate("r", prompt(300), max_tokens=1)
    assert not e.external["r"]
    e.drop_own_cache()
    e.generate("again", prompt(300), max_tokens=1)
    assert e.external["again"] == 256


@pytest.mark.parametrize("when", ["begun", "in part", "ended"])
def test_a_load_under_way_brings_nothing(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    engine().generate("before", prompt(300), max_tokens=1)
    daemon.stuck = when != "in part"
    daemon.max_parts = 2
    e = engine()
    half = larder(e.worker).worker_half
    loader = half._loader
    assert loader is not None
    take = loader._take

    def then_stuck(op: LoadOp, ranges: Any) -> int:
        loaded: int = take(op, ranges)
        daemon.stuck = True
        return loaded

    if when == "in part":
        monkeypatch.setattr(loader, "_take", then_stuck)
    e.add("r", prompt(300), max_tokens=1)
    e.step()
    if when == "ended":
        daemon.stuck = False
    until = time.monotonic() + 60
    # Nobody heard yet of what is in its pages.
    while (when == "ended" and not loader._done) or (when == "in part" and not daemon.stuck):
        assert time.monotonic() < until
        time.sleep(0.001)
    monkeypatch.undo()
    assert not e.reset()
    e.load_weights(7)
    steps = [e.step()]
    daemon.stuck = False
    steps += e.run()
    assert len(daemon.loaded) >= {"begun": 0, "in part": 2, "ended": 8}[when]
    assert [r for step in steps for r in step.output.finished_recving or ()] == ["r"]
    assert sum(step.scheduled.get("r", 0) for step in steps) == 300
    assert not half._ending
    assert not e.connector.scheduler_half._inflight
    assert not daemon.holds


def test_a_failed_load_of_before_is_tried_again(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.generate("r", prompt(300), max_tokens=1)
    e.reset()
    e.generate("r2", prompt(300), max_tokens=1)
    e.drop_own_cache()
    daemon.corrupt = {daemon.commits[4][0]}
    e.generate("fails", prompt(300), max_tokens=1)
    assert e.connector.stats.loads_failed == 1
    daemon.corrupt = set()
    e.reset()
    e.generate("stores", prompt(300), max_tokens=1)
    e.drop_own_cache()
    e.generate("loads", prompt(300), max_tokens=1)
    assert e.external["loads"] == 256


def test_idle_resets_take_one_namespace(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, namespaces: Namespaces
) -> None:
    e = engine(connect=namespaces.connect)
    for _ in range(5):
        assert e.reset()
    e.generate("r", prompt(300), max_tokens=1)
    assert len(namespaces.epochs()) == 2
    for _ in range(5):
        assert e.reset()
    e.generate("again", prompt(300), max_tokens=1)
    assert not e.external["again"]
    assert len(namespaces.epochs()) == 3
    assert len(daemon.commits) == 8


def test_an_engine_makes_so_many_namespaces(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch, namespaces: Namespaces
) -> None:
    monkeypatch.setattr(epochs, "MOST_EPOCHS", 2)
    e = engine(connect=namespaces.connect)
    for i in range(4):
        assert e.reset()
        e.generate(str(i), prompt(300), max_tokens=1)
        assert not e.external[str(i)]
    assert len(namespaces.epochs()) == 3
    assert len(daemon.commits) == 8


def test_who_says_that_weights_never_change(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, namespaces: Namespaces
) -> None:
    e = engine(connect=namespaces.connect, extra={"keep_on_reset": True})
    e.generate("r", prompt(300), max_tokens=1)
    assert e.reset()
    e.generate("again", prompt(300), max_tokens=1)
    assert e.external["again"] == 256
    assert namespaces.epochs() == [0]


def test_lossy_pages_are_gone(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    engine().generate("before", prompt(300), max_tokens=1)
    daemon.qualities.update((key, 3) for key, *_ in daemon.commits)
    e = engine(extra={"lowest_level": "L2"})
    e.generate("r", prompt(300), max_tokens=1)
    assert e.external["r"] == 256
    assert e.reset()
    e.generate("again", prompt(300), max_tokens=1)
    assert [daemon.qualities[key] for key, *_ in daemon.commits[4:]] == [0] * 4


def test_without_a_daemon_at_the_reset(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.generate("r", prompt(300), max_tokens=1)
    daemon.up = False
    e.load_weights(7)
    assert e.reset()
    e.generate("alone", prompt(300), max_tokens=1)
    daemon.up = True
    e.drop_own_cache()
    e.generate("stores", prompt(300), max_tokens=1)
    e.drop_own_cache()
    e.generate("loads", prompt(300), max_tokens=1)
    assert e.external["loads"] == 256


@pytest.mark.parametrize("order", [("larder", "other"), ("other", "larder")])
def test_beside_another_connector(
    both: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, order: tuple[str, ...]
) -> None:
    e = both(*order)
    assert not CLAIM["tokens"]
    e.generate("r", prompt(300), max_tokens=1)
    e.load_weights(7)
    assert e.reset()
    e.generate("again", prompt(300), max_tokens=1)
    assert not e.external["again"]
    assert check_stored(daemon, prompt(300), 7, since=4) == 4


def early(e: SimulatedEngine) -> None:
    """Makes the scheduler half hear of the namespace with the first step, as where another connector's handshake
    took the place of ours."""
    half = e.connector.scheduler_half
    half._client.close()
    half._client = half._planner = half._lineage = None
    half.epochs = epochs.Epochs(keep=False)
    half.epochs.bind(e.scheduler.kv_cache_manager.block_pool)


@pytest.mark.parametrize("emptied", [True, False])
def test_a_reset_before_the_first_step(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, emptied: bool
) -> None:
    engine().generate("before", prompt(300), max_tokens=1)
    e = engine()
    early(e)
    e.load_weights(7)
    if emptied:
        assert e.reset()
    else:
        e.connector.scheduler_half.epochs.bind(None)
        e.connector.reset_cache()
    e.generate("r", prompt(100), max_tokens=1)
    e.generate("s", prompt(300), max_tokens=1)
    assert not e.external["s"]
    assert len(daemon.commits) == (8 if emptied else 4)
