"""A daemon that is absent, or killed at random moments of stores and loads.

Every answer is that of an engine without it. The kills hit larderd's process with
SIGKILL; LARDER_KILLS says how many, ten by default.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
from real_engine import RealEngine

from harness.daemon import Daemon

CHUNK = 256
TOKENS = 12
KILLS = int(os.environ.get("LARDER_KILLS", "10"))
ALONE = {"skip_load": True, "skip_store": True}


@pytest.fixture(scope="module")
def work(short_folder):
    folder = short_folder / "kills"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def larderd(binaries, work):
    """Not started: the engine comes first."""
    daemon = Daemon(binaries, work, host_bytes="512MiB")
    yield daemon
    daemon.kill()


@pytest.fixture(scope="module")
def engine(test_model, work, larderd):
    """One engine for all kills, started without a daemon."""
    one = RealEngine(test_model, work / "engine.log", socket=larderd.socket)
    yield one
    one.kill()


@pytest.fixture(scope="module")
def cases(engine, test_model, words):
    """Prompts, and what the engine answers by itself."""
    ids = words(test_model)
    prompts = [ids[i * 1100 : i * 1100 + 2000] for i in range(4)]
    return [(p, engine.generate(p, TOKENS, larder=ALONE)["token_ids"]) for p in prompts]


def test_an_engine_serves_without_a_daemon_and_uses_it_when_it_comes(engine, larderd, cases):
    assert not engine.ask("ready")
    prompt, want = cases[0]
    assert engine.ask("reset")
    assert engine.generate(prompt, TOKENS) == {"token_ids": want, "cached": 0}
    larderd.start()
    engine.await_ready()
    # What the engine had computed alone is stored once it is asked for again.
    assert engine.generate(prompt, TOKENS)["token_ids"] == want
    larderd.await_published(len(prompt) // CHUNK, 60)
    assert engine.ask("reset")
    answer = engine.generate(prompt, TOKENS)
    assert answer == {"token_ids": want, "cached": len(prompt) // CHUNK * CHUNK}
    larderd.kill()


def killed_during(larderd, delay_s, work):
    """Does the work while larderd is killed after a delay; returns the work's result."""
    timer = threading.Timer(delay_s, larderd.kill)
    timer.start()
    try:
        return work()
    finally:
        timer.join()


def test_random_kills_during_store_and_load(engine, larderd, cases):
    source = random.Random(20261125)  # noqa: S311
    loaded = failed = 0
    for kill in range(KILLS):
        prompt, want = cases[kill % len(cases)]
        larderd.start()
        engine.await_ready()
        assert engine.ask("reset")
        if kill % 2 == 0:
            # Cold: the kill falls somewhere from the match to the commit's answer.
            start = time.monotonic()
            engine.generate(prompt, 1, larder=ALONE)
            span = time.monotonic() - start
            assert engine.ask("reset")
            answer = killed_during(larderd, source.uniform(0, 1.1 * span), lambda p=prompt: engine.generate(p, TOKENS))
        else:
            engine.generate(prompt, TOKENS)
            larderd.await_published(len(prompt) // CHUNK, 60)
            assert engine.ask("reset")
            before = engine.stats()
            answer = killed_during(larderd, source.uniform(0, 0.08), lambda p=prompt: engine.generate(p, TOKENS))
            after = engine.stats()
            loaded += after["chunks_loaded"] - before["chunks_loaded"]
            failed += after["loads_failed"] - before["loads_failed"]
        assert answer["token_ids"] == want, f"kill {kill}"
        assert engine.ask("leftovers") == dict.fromkeys(["blocks", "requests", "states", "matches", "loads"], 0)
    assert loaded + failed > 0, "no kill came while something was loaded"


def test_a_last_daemon_is_used_as_if_nothing_had_been(engine, larderd, cases):
    larderd.start()
    engine.await_ready()
    prompt, want = cases[1]
    assert engine.ask("reset")
    assert engine.generate(prompt, TOKENS) == {"token_ids": want, "cached": 0}
    larderd.await_published(len(prompt) // CHUNK, 60)
    assert engine.ask("reset")
    answer = engine.generate(prompt, TOKENS)
    assert answer == {"token_ids": want, "cached": len(prompt) // CHUNK * CHUNK}
    larderd.stop()


def test_a_daemon_that_is_stopped_for_a_while(engine, larderd, cases):
    """SIGSTOP: nothing is answered, nothing is lost."""
    larderd.start()
    engine.await_ready()
    prompt, want = cases[2]
    engine.generate(prompt, TOKENS)
    larderd.await_published(len(prompt) // CHUNK, 60)
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
