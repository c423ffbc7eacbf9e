"""Contract, line 12: requests whose prompts are to be pinned."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine, expected_output
from stub_daemon import StubDaemon

from harness.daemon import Daemon
from larder.errors import DeniedError, InvalidError, LarderError
from larder.v1 import admin_pb2
from larder.vllm import pins
from larder.vllm.stats import SchedulerStats

PIN = {"larder": {"pin": True}}


def told(e: SimulatedEngine, what: Callable[[SchedulerStats], int]) -> int:
    """A counter, once it is more than 0."""
    until = time.monotonic() + 60
    while not what(e.connector.stats):
        assert time.monotonic() < until, e.connector.stats
        time.sleep(0.002)
    return what(e.connector.stats)


def test_a_prompt_is_pinned_once_it_is_stored(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.generate("other", prompt(300, seed=1))
    e.generate("r", prompt(300), max_tokens=40, params=PIN)
    assert told(e, lambda s: s.chunks_pinned) == 4
    # Of the prompt, not of what was generated.
    assert daemon.pinned == [key for key, *_ in daemon.commits[4:8]]
    assert len(daemon.commits) == 9


def test_what_is_still_on_its_way(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    daemon.pin_answers = [admin_pb2.PinResponse(chunks_asked=4, chunks=3, absent=1)]
    e = engine()
    e.generate("r", prompt(300), params=PIN)
    assert told(e, lambda s: s.chunks_pinned) == 4
    assert e.connector.stats.pins_absent == 0


def test_what_the_daemon_never_gets(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "_TRIES", (0.0, 0.0))
    daemon.credits = 4
    e = engine()
    e.generate("r", prompt(300), max_tokens=1, params=PIN)
    assert told(e, lambda s: s.pins_absent) == 2
    assert e.connector.stats.chunks_pinned == len(daemon.pinned) // 2 == 2


def test_what_the_daemon_lost_a_moment_ago(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    for name in ("stored", "asked for"):
        e.generate(name, prompt(300))
    for key in list(daemon.chunks):
        daemon.evict(key)
    # The engine has it all, and Larder had.
    e.generate("r", prompt(300), params=PIN)
    assert told(e, lambda s: s.chunks_pinned) == 4
    assert len(daemon.commits) == 8


def test_no_room(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    daemon.pin_answers = [admin_pb2.PinResponse(chunks_asked=4, chunks=1, full=3, text="no room")]
    e = engine()
    e.generate("r", prompt(300), params=PIN)
    assert told(e, lambda s: s.pins_full) == 3
    assert e.connector.stats.chunks_pinned == 1


@pytest.mark.parametrize("why", [DeniedError("no admin"), InvalidError("there is no nvme tier")])
def test_a_daemon_that_refuses(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, why: LarderError) -> None:
    daemon.pin_answers = [why]
    e = engine()
    assert e.generate("r", prompt(300), params=PIN) == expected_output(prompt(300), 4)
    assert told(e, lambda s: s.pins_refused) == 1
    assert len(daemon.chunks) == 4


def test_so_many_wait(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "_MOST", 2)
    daemon.pin_gate.clear()
    e = engine()
    for i in range(5):
        e.generate(str(i), prompt(100, seed=i), params=PIN)
    # One may be under way.
    assert e.connector.stats.pins_dropped in (2, 3)
    daemon.pin_gate.set()
    told(e, lambda s: s.chunks_pinned + s.pins_dropped == 5)


def test_short_prompts_and_wrong_types(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.generate("short", prompt(40), params=PIN)
    e.generate("wrong", prompt(300), params={"larder": {"pin": "yes"}})
    assert e.connector.stats.uncached == {"kv_transfer_params.larder.pin is no boolean": 1}
    assert e.connector.scheduler_half._pins._thread is None
    assert not daemon.commits


@pytest.mark.parametrize("disk", [True, False])
def test_a_real_daemon(
    engine: MakeEngine, prompt: MakePrompt, binaries: Path, short_folder: Path, tmp_path: Path, disk: bool
) -> None:
    folder = short_folder / f"pins{int(disk)}"
    folder.mkdir()
    flags = {
        "nvme.path": str(tmp_path / "nvme"), "nvme.bytes": "256MiB", "nvme.reserve_bytes": "1MiB",
        "nvme.buffered": "true",
    }  # fmt: skip
    larderd = Daemon(binaries, folder, host_bytes="64MiB", flags=flags if disk else {})
    larderd.start()
    try:
        patient = {"socket": str(larderd.socket), "match_deadline_ms": 20_000, "call_timeout_ms": 20_000}
        e = engine(connect=None, extra=patient)
        halves = (e.connector.scheduler_half, e.worker.worker_half)
        until = time.monotonic() + 60
        while not all(half._client is not None and half._client.ready for half in halves):
            assert time.monotonic() < until
            time.sleep(0.005)
        e.generate("r", prompt(300), params=PIN)
        if not disk:
            assert told(e, lambda s: s.pins_refused) == 1
            return
        assert told(e, lambda s: s.chunks_pinned) == 4
        assert int(larderd.status()["tiers"][1]["pinned"]) == e.worker.stats.bytes_stored > 0
    finally:
        larderd.stop()
