"""The whole connector with pages on a device that is late: what stores read and
loads write is right although nobody waits for the device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fake_device import FakeDevice
from gpu_engine import GpuEngine, MakeGpuEngine
from hybrid_engine import HybridEngine
from simulated_engine import MakePrompt, check_chunk, expected_output, prefix_hashes
from stub_daemon import StubDaemon
from test_random_runs import Run

from larder.vllm.gpu_loader import GpuLoader
from larder.vllm.gpu_path import Order
from larder.vllm.sleeping import watch


@pytest.mark.parametrize(("variant", "covered"), [("staged", True), ("zero_copy", True), ("zero_copy", False)])
def test_stored_and_loaded(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, variant: str, covered: bool
) -> None:
    device = FakeDevice(1)
    device.covered = covered
    engine = gpu(device, variant)()
    proof = device.copies - device.launches
    tokens = prompt(300)
    assert engine.generate("a", tokens) == expected_output(tokens, 4)
    assert engine.worker.stats.chunks_stored == 4
    for ordinal, (key, *_) in enumerate(daemon.commits):
        check_chunk(daemon.chunks[key], prefix_hashes(tokens), ordinal)
    engine.drop_own_cache()
    assert engine.generate("b", tokens) == expected_output(tokens, 4)
    assert engine.external["b"] == 256
    assert engine.worker.stats.chunks_loaded == 4
    assert isinstance(engine.worker.worker_half._loader, GpuLoader)
    assert (device.copies - device.launches == proof) == (variant == "zero_copy" and covered)


def test_pages_that_are_read_are_not_given_away_before(gpu: MakeGpuEngine, daemon: StubDaemon) -> None:
    """A request's pages go to others in the steps after its last one, while its
    stores have not begun on the device."""
    device = FakeDevice(1)
    engine = gpu(device)(blocks=19, budget=256)
    for i in range(6):
        engine.add(f"r{i}", [i] * 256, 1)
    device.hold()
    while engine.scheduler.has_requests():
        engine.step()
        # The computation is done as soon as it may be.
        device.run(1000)
    engine.run()
    assert engine.worker.stats.chunks_stored == len(daemon.chunks) == 24
    for i in range(6):
        for ordinal in range(4):
            key = daemon.commits[4 * i + ordinal][0]
            check_chunk(daemon.chunks[key], prefix_hashes([i] * 256), ordinal)


def test_pages_in_use_are_not_loaded_into(gpu: MakeGpuEngine, prompt: MakePrompt) -> None:
    """A load gets the pages of a request whose last step the device has not begun."""
    stored = prompt(257)
    gpu(FakeDevice())(blocks=40).generate("stored", stored)
    device = FakeDevice(2)
    engine = gpu(device)(blocks=19, budget=256)
    engine.add("other", [7] * 250, 1)
    engine.add("loaded", stored)
    computed = len(device.compute.work)
    while "loaded" not in engine.ended:
        # Never by itself.
        HybridEngine.step(engine)
        computed = max(computed, len(device.compute.work))
    assert computed, "the device is behind"
    engine.run()
    assert engine.outputs["loaded"] == expected_output(stored, 4)
    assert engine.external["loaded"] == 256
    assert engine.checked_tokens >= 256


def test_a_step_waits_for_reads_of_the_pages_that_it_writes_only(gpu: MakeGpuEngine) -> None:
    device = FakeDevice(3)
    engine = gpu(device)(blocks=200, budget=256)
    device.hold()
    engine.add("a", [1] * 256, 8)
    for _ in range(4):
        engine.step()
    path = engine.worker.worker_half._path
    assert path.reads.of(None), "the stores are under way"
    device.run(1000)
    assert not device.compute.work, "nothing waited for them"
    engine.worker.worker_half.settle([999])
    assert not device.compute.work
    engine.worker.worker_half.settle([1])
    assert device.compute.work


def test_beside_another_connector_nothing_is_left_to_the_device(gpu: MakeGpuEngine) -> None:
    device = FakeDevice(4)
    engine = gpu(device)(blocks=200, budget=256)
    path = engine.worker.worker_half._path
    path._order = Order.OTHERS
    device.hold()
    engine.add("a", [1] * 256, 8)
    engine.step()
    assert path.reads.of(None)
    device.release()
    engine.step()
    assert not path.reads._under_way


def test_pages_that_the_engine_zeroes_come_after_all_reads(gpu: MakeGpuEngine) -> None:
    device = FakeDevice(5)
    engine = gpu(device)(blocks=200, budget=256)
    engine.worker.worker_half._path._order = Order.EVERYTHING
    device.hold()
    engine.add("a", [1] * 256, 8)
    engine.step()
    device.run(1000)
    assert device.compute.work, "the engine's stream waits for the reads"


def test_while_the_engine_sleeps_pages_are_not_touched(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    tokens = prompt(200)
    device = FakeDevice(7)
    engine = gpu(device)(extra={"failed_pause_s": 0.0})
    engine.generate("a", tokens)
    engine.drop_own_cache()
    path = engine.worker.worker_half._path
    done: list[str] = []
    allocator = SimpleNamespace(
        sleep=lambda offload_tags: done.append(f"sleep {offload_tags}"), wake_up=lambda tags: done.append(f"up {tags}")
    )
    watch(allocator, path)
    # Asked for, and then left behind.
    daemon.stuck = True
    engine.add("b", tokens)
    engine.step()
    engine.abort("b")
    launches = device.launches
    allocator.sleep(offload_tags=("weights",))
    daemon.stuck = False
    engine.run()
    assert device.launches == launches
    allocator.wake_up(["weights"])
    engine.generate("c", tokens)
    assert device.launches == launches
    allocator.wake_up(["kv_cache"])
    engine.drop_own_cache()
    assert engine.generate("d", tokens) == expected_output(tokens, 4)
    assert engine.external["d"] == 192
    assert done == ["sleep ('weights',)", "up ['weights']", "up ['kv_cache']"]


def test_a_copy_that_does_not_start_is_a_store_dropped_and_a_load_failed(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = gpu(FakeDevice(6))()
    tokens = prompt(200)
    half = engine.worker.worker_half

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such kernel")

    with monkeypatch.context() as patch:
        patch.setattr(half._path.stores, "start", broken)
        engine.generate("a", tokens)
    assert not daemon.commits
    assert engine.worker.stats.dropped_no_credit > 0
    engine.drop_own_cache()
    engine.generate("b", tokens)
    assert len(daemon.chunks) == 3
    engine.drop_own_cache()
    monkeypatch.setattr(half._path.loads._copies[0, 0], "start", broken)
    assert engine.generate("c", tokens) == expected_output(tokens, 4)
    assert engine.worker.stats.loads_failed == 1


@pytest.mark.parametrize(
    ("seed", "windows", "ahead_ms"), [(0, 0, 3), (1, 0, 3), (2, 1, 3), (3, 2, 3), (4, 0, 0), (6, 0, 3), (7, 0, 3)]
)
def test_random_run(gpu: MakeGpuEngine, daemon: StubDaemon, seed: int, windows: int, ahead_ms: float) -> None:
    device = FakeDevice(seed)
    daemon.reuses = not ahead_ms
    make = gpu(device, ["staged", "zero_copy"][seed % 2])

    def engine(extra: dict[str, Any], **options: Any) -> Any:
        layers = {"load_layers": "auto" if seed == 6 else "off", "store_layers": "auto" if seed >= 6 else "off"}
        return make(extra=extra | layers | {"load_ahead_ms": ahead_ms}, **options)

    run = Run(engine, daemon, 200 + seed, windows)
    assert isinstance(run.engine, GpuEngine)
    run.engine.holds = True
    run.run()
    e = run.engine
    for name, (tokens, count) in run.asked.items():
        want = expected_output(tokens, min(count, 640 - len(tokens)))
        got = e.outputs[name]
        assert got == (want[: len(got)] if name in run.aborted else want), name
    assert e.free_blocks() == run.pages
    assert not e.worker.worker_half._loader._pending
    assert not e.worker.worker_half._loader._after
    assert e.checked_tokens > 0
    assert run.check_stored() > 0
    assert e.worker.stats.chunks_loaded > 0
