"""Copies of loads inside of a step: the computation comes after them, and none comes after it was given up."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from fake_device import FakeDevice
from gpu_engine import MakeGpuEngine
from simulated_engine import MakeEngine, MakePrompt, expected_output
from step_cases import MakeStep, nothing_left, stats, whole
from stub_daemon import StubDaemon, StubLoad


def on_device(gpu: MakeGpuEngine, device: FakeDevice, tokens: list[int], ms: float) -> Any:
    """An engine on a device that stands still, and that knows what loads cost."""
    gpu(FakeDevice())().generate("stored", tokens)
    e = gpu(device)(extra={"load_in_step_ms": ms})
    e.generate("other", [5] * 40)
    for _ in range(3):
        e.connector.scheduler_half._in_step._costs.copied(4, 1e-3)
    device.hold()
    return e


@pytest.mark.parametrize("layers", ["off", "auto"])
def test_a_step_waits_on_the_device(gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, layers: str) -> None:
    tokens = prompt(300)
    device = FakeDevice(8)
    e = on_device(gpu, device, tokens, 120_000)
    path = e.worker.worker_half._path
    path.by_layer = layers == "auto"
    e.add("r", tokens)
    assert e.step().scheduled == {"r": 44}
    device.run(1000)
    assert device.compute.work, "the computation waits for the copies"
    e.run()
    assert e.outputs["r"] == expected_output(tokens, 4)
    assert e.external["r"] == e.worker.stats.chunks_loaded * 64 == 256
    assert stats(e).loads_in_step == 1
    assert e.worker.stats.loads_failed == 0
    assert not daemon.holds
    # A thread gives the slots up.
    until = time.monotonic() + 60
    while e.worker.worker_half._loader.busy:
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("launched", [False, True])
def test_no_copy_touches_the_pages_of_a_load_that_was_given_up(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch, launched: bool
) -> None:
    tokens = prompt(300)
    device = FakeDevice(9)
    e = on_device(gpu, device, tokens, 60)
    if launched:
        # Two chunks come at once, and the others late.
        batches, half_way = StubLoad.batches, threading.Event()

        def late(load: StubLoad, deadline_s: float) -> Any:
            for i, batch in enumerate(batches(load, deadline_s)):
                if i == 2:
                    assert half_way.wait(60)
                yield batch

        monkeypatch.setattr(StubLoad, "batches", late)
    else:
        daemon.stuck = True
    e.add("r", tokens, 8)
    e._judge = lambda: None
    step = e.step()
    assert len(step.output.invalid_block_ids) == 16
    assert len(device.compute.work) > 0
    # What comes after is what the engine itself computes.
    daemon.stuck = False
    if launched:
        half_way.set()
    device.release()
    while device.run(1000):
        pass
    assert e.wrong, "it computed on what had not come"
    e.wrong.clear()
    del e._judge
    e.holds = True
    for name, seed in (("x", 4), ("y", 5)):
        e.add(name, prompt(300, seed=seed), 8)
    e.run()
    assert e.outputs["r"] == expected_output(tokens, 8)
    assert e.outputs["x"] == expected_output(prompt(300, seed=4), 8)
    assert stats(e).loads_failed == 1
    assert e.generate("again", tokens) == expected_output(tokens, 4)


def test_no_late_copy_on_processors(
    engine: MakeEngine, engines: MakeStep, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine().generate("cold", prompt(300))
    e = engines()
    loader = e.worker.worker_half._loader
    begun, go = threading.Event(), threading.Event()
    copies: list[str] = []
    scatter = next(iter(e.worker.worker_half._adapters.values())).scatter

    def slow(*args: Any) -> None:
        begun.set()
        with loader._changed:
            loader._changed.notify_all()
        assert go.wait(60)
        copies.append("copied")
        scatter(*args)

    monkeypatch.setattr(next(iter(e.worker.worker_half._adapters.values())), "scatter", slow)
    outlast, wait_for = loader._outlast, loader._changed.wait_for

    def until_begun(done: Any, timeout: float | None = None) -> Any:
        if threading.current_thread() is threading.main_thread():
            done, timeout = begun.is_set, 60
        return wait_for(done, timeout)

    def outlasts(started: Any) -> None:
        # A copy is under way; it goes on only now that the load is given up.
        assert begun.is_set()
        go.set()
        outlast(started)
        copies.append("over")

    loader._outlast = outlasts
    monkeypatch.setattr(loader._changed, "wait_for", until_begun)
    e.add("r", prompt(300), 8)
    e.step()
    monkeypatch.setattr(loader._changed, "wait_for", wait_for)
    assert copies[-1] == "over"
    count = len(copies)
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 8)
    assert len(copies) == count, "no copy comes after the step went on"
    assert stats(e).loads_failed == 1
    nothing_left(e, daemon, [whole(e, prompt(300))])
