"""The whole connector with pages on a device that is late: what stores read and
loads write is right although nobody waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_device import FakeDevice
from gpu_engine import GpuEngine, write
from simulated_engine import MakeEngine, MakePrompt, check_chunk, expected_output, make_config, prefix_hashes
from stub_daemon import StubDaemon
from test_random_runs import Run

from larder.registered import RegisteredMemory
from larder.vllm import layout_choice, layout_choice_gpu
from larder.vllm.gpu_loader import GpuLoader

MakeGpuEngine = Callable[..., MakeEngine]


@pytest.fixture
def gpu(model_folder: Path, daemon: StubDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeGpuEngine]:
    """gpu(device, variant) makes what the fixture engine is, on that device."""
    made: list[GpuEngine] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(layout_choice_gpu, "backend_write", lambda _: write)

    def on(device: FakeDevice, variant: str = "auto") -> MakeEngine:
        monkeypatch.setattr(layout_choice, "device_of", lambda _: device)
        monkeypatch.setattr(RegisteredMemory, "covers", lambda *_: device.covered)

        def make(connect: Any = daemon.connect, cache_config: Any = None, **options: Any) -> GpuEngine:
            options["extra"] = {"gpu_load": variant, "gpu_store": variant} | (options.get("extra") or {})
            made.append(GpuEngine(device, make_config(model_folder, **options), connect, cache_config))
            return made[-1]

        return make

    yield on
    for one in made:
        one.close()
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("variant", "covered"), [("staged", True), ("zero_copy", True), ("zero_copy", False)])
def test_stored_and_loaded(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, variant: str, covered: bool
) -> None:
    device = FakeDevice(1)
    device.covered = covered
    engine = gpu(device, variant)()
    proof = device.bytes_by_dma
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
    assert (device.bytes_by_dma == proof) == (variant == "zero_copy" and covered)


@pytest.mark.parametrize("seed", range(4))
def test_random_run(gpu: MakeGpuEngine, daemon: StubDaemon, seed: int) -> None:
    device = FakeDevice(seed)
    run = Run(gpu(device, ["staged", "zero_copy"][seed % 2]), daemon, 200 + seed)
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
