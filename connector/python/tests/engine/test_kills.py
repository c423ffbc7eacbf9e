"""A daemon that is absent, or killed at random moments of stores and loads.

Every answer is that of an engine without it. The kills hit larderd's process with
SIGKILL, at given moments of the worker's work and at random ones; LARDER_KILLS says
how many of these, ten by default.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from real_engine import RealEngine

from harness.daemon import Daemon, DaemonError

CHUNK = 256
TOKENS = 12
KILLS = int(os.environ.get("LARDER_KILLS", "10"))
ALONE = {"skip_load": True, "skip_store": True}
# A prompt, and what the engine answers by itself.
Case = tuple[list[int], list[int]]
NOTHING = dict.fromkeys(["blocks", "requests", "states", "matches", "loads"], 0)


@pytest.fixture(scope="module")
def work(short_folder: Path) -> Path:
    folder = short_folder / "kills"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def larderd(binaries: Path, work: Path) -> Iterator[Daemon]:
    """Not started: the engine comes first."""
    daemon = Daemon(binaries, work, host_bytes="512MiB")
    yield daemon
    daemon.kill()


@pytest.fixture(scope="module")
def engine(test_model: Path, work: Path, larderd: Daemon) -> Iterator[RealEngine]:
    """One engine for all kills, started without a daemon."""
    # A chunk a step: stores happen throughout a prompt.
    one = RealEngine(test_model, work / "engine.log", socket=larderd.socket, max_num_batched_tokens=CHUNK)
    yield one
    one.kill()


@pytest.fixture(scope="module")
def cases(engine: RealEngine, test_model: Path, words: Callable[[Path], list[int]]) -> list[Case]:
    """Prompts, and what the engine answers by itself."""
    ids = words(test_model)
    # All but the last token can be loaded.
    prompts = [ids[i * 1100 : i * 1100 + 7 * CHUNK + 1] for i in range(4)]
    return [(p, engine.generate(p, TOKENS, larder=ALONE)["token_ids"]) for p in prompts]


def test_an_engine_serves_without_a_daemon_and_uses_it_when_it_comes(
    engine: RealEngine, larderd: Daemon, cases: list[Case]
) -> None:
    assert not engine.ask("ready")
    prompt, want = cases[0]
    assert engine.ask("reset")
    assert engine.generate(prompt, TOKENS) == {"token_ids": want, "cached": 0}
    larderd.start()
    engine.await_ready()
    # What the engine had computed alone is stored once it is asked for again.
    ask_until_stored(engine, larderd, cases[0])
    assert engine.ask("reset")
    answer = engine.generate(prompt, TOKENS)
    assert answer == {"token_ids": want, "cached": len(prompt) // CHUNK * CHUNK}
    larderd.kill()


def killed_during(larderd: Daemon, delay_s: float, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Does the work while larderd is killed after a delay; returns the work's result."""
    timer = threading.Timer(delay_s, larderd.kill)
    timer.start()
    try:
        return work()
    finally:
        timer.join()


def started(engine: RealEngine, larderd: Daemon) -> None:
    """A new daemon, which has nothing, and an engine that has nothing either."""
    larderd.start()
    engine.await_ready()
    assert engine.ask("reset")


def ask_until_stored(engine: RealEngine, larderd: Daemon, case: Case) -> None:
    """A store may be dropped, as where slots come late in a session that has just begun:
    it is made up for when the prompt is asked for again."""
    prompt, want = case
    until = time.monotonic() + 60
    while True:
        assert engine.generate(prompt, TOKENS)["token_ids"] == want
        try:
            larderd.await_published(len(prompt) // CHUNK, 2)
            return
        except DaemonError:
            if time.monotonic() > until:
                raise


def stored(engine: RealEngine, larderd: Daemon, case: Case) -> None:
    """As started, but the daemon has the case's prompt."""
    started(engine, larderd)
    ask_until_stored(engine, larderd, case)
    assert engine.ask("reset")


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def risen(engine: RealEngine, before: dict[str, Any]) -> dict[str, int]:
    """What the worker's counters rose by; dropped is all that was not stored."""
    after = engine.stats()
    rise = {name: after[name] - before[name] for name in after if isinstance(after[name], int)}
    return rise | {"dropped": sum(n for name, n in rise.items() if name.startswith("dropped_"))}


@pytest.mark.parametrize(("moment", "nth"), [("write", 3), ("commit", 3), ("load", 1), ("copy", 3)])
def test_a_kill_at_a_moment(engine: RealEngine, larderd: Daemon, cases: list[Case], moment: str, nth: int) -> None:
    prompt, want = cases[3]
    if moment in ("write", "commit"):
        started(engine, larderd)
    else:
        stored(engine, larderd, cases[3])
    before = engine.stats()
    engine.ask("kill_at", moment=moment, nth=nth, pid=larderd.pid)
    answer = engine.generate(prompt, TOKENS)
    assert answer["token_ids"] == want
    assert larderd.ended(10)
    rise = risen(engine, before)
    hit = {"write": rise["dropped"], "commit": rise["dropped_failed"]}
    assert hit.get(moment, rise["loads_failed"]) > 0, rise
    assert engine.ask("leftovers") == NOTHING


def test_random_kills_during_store_and_load(
    engine: RealEngine, larderd: Daemon, cases: list[Case], capsys: pytest.CaptureFixture[str]
) -> None:
    """As many kills as asked for, and more, to a bound, until both a store and a load were hit."""
    source = random.Random(20261125)  # noqa: S311
    stores_hit = loads_hit = kills = 0
    while kills < KILLS or (not (stores_hit and loads_hit) and kills < 4 * KILLS + 20):
        prompt, want = case = cases[kills // 2 % len(cases)]
        if kills % 2 == 0:
            # A step stores a chunk: the kill falls somewhere from the match to the end of the last store.
            started(engine, larderd)
            span = seconds(partial(engine.generate, prompt, 1, larder=ALONE))
            assert engine.ask("reset")
        else:
            # One token is computed, all others are loaded.
            stored(engine, larderd, case)
            span = seconds(partial(engine.generate, prompt, 1))
            assert engine.ask("reset")
        before = engine.stats()
        answer = killed_during(larderd, source.uniform(0, span), partial(engine.generate, prompt, TOKENS))
        rise = risen(engine, before)
        if kills % 2 == 0:
            # Some of its chunks were stored, some not.
            stores_hit += 0 < rise["chunks_stored"] < len(prompt) // CHUNK and rise["dropped"] > 0
        else:
            loads_hit += rise["loads_failed"] > 0
        assert answer["token_ids"] == want, f"kill {kills}"
        assert engine.ask("leftovers") == NOTHING
        kills += 1
    with capsys.disabled():
        print(f"{kills} kills, {stores_hit} within a prompt's stores, {loads_hit} within its load")  # noqa: T201
    assert stores_hit > 0
    assert loads_hit > 0


def test_a_last_daemon_is_used_as_if_nothing_had_been(engine: RealEngine, larderd: Daemon, cases: list[Case]) -> None:
    larderd.start()
    engine.await_ready()
    prompt, want = cases[1]
    assert engine.ask("reset")
    assert engine.generate(prompt, TOKENS) == {"token_ids": want, "cached": 0}
    ask_until_stored(engine, larderd, cases[1])
    assert engine.ask("reset")
    answer = engine.generate(prompt, TOKENS)
    assert answer == {"token_ids": want, "cached": len(prompt) // CHUNK * CHUNK}
    larderd.stop()


def test_a_daemon_that_is_stopped_while_a_step_waits_for_its_load(
    engine: RealEngine, larderd: Daemon, cases: list[Case]
) -> None:
    started(engine, larderd)
    prompt, want = cases[3]
    chunks = len(prompt) // CHUNK
    ask_until_stored(engine, larderd, cases[3])
    engine.ask("load_in_step", ms=120_000)
    before, told = engine.stats(), engine.stats("scheduler")
    assert engine.ask("reset")
    assert engine.generate(prompt, TOKENS) == {"token_ids": want, "cached": chunks * CHUNK}
    assert engine.stats()["chunks_loaded"] - before["chunks_loaded"] == chunks
    assert engine.stats("scheduler")["loads_in_step"] - told["loads_in_step"] == 1
    engine.ask("load_in_step", ms=300)
    engine.ask("kill_at", moment="load", nth=1, pid=larderd.pid, by=signal.SIGSTOP)
    assert engine.ask("reset")
    try:
        assert engine.generate(prompt, TOKENS)["token_ids"] == want
        after = engine.stats("scheduler")
        assert after["loads_in_step"] - told["loads_in_step"] == 2
        assert after["loads_failed"] - told["loads_failed"] == 1
        assert engine.stats()["chunks_loaded"] - before["chunks_loaded"] == chunks
    finally:
        os.kill(larderd.pid, signal.SIGCONT)
    assert engine.generate(prompt, TOKENS)["token_ids"] == want
    engine.ask("load_in_step", ms=0)
    until = time.monotonic() + 60
    while engine.ask("leftovers") != NOTHING and time.monotonic() < until:
        engine.ask("step", times=1)
    assert engine.ask("leftovers") == NOTHING
    larderd.stop()


def test_a_daemon_that_is_stopped_for_a_while(engine: RealEngine, larderd: Daemon, cases: list[Case]) -> None:
    """SIGSTOP: nothing is answered, nothing is lost."""
    larderd.start()
    engine.await_ready()
    prompt, want = cases[2]
    ask_until_stored(engine, larderd, cases[2])
    assert engine.ask("reset")
    os.kill(larderd.pid, signal.SIGSTOP)
    try:
        assert engine.generate(prompt, TOKENS) == {"token_ids": want, "cached": 0}
    finally:
        os.kill(larderd.pid, signal.SIGCONT)
    assert engine.ask("reset")
    engine.await_ready()
    answer = engine.generate(prompt, TOKENS)
    assert answer["token_ids"] == want
