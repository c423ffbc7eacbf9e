"""A simulated engine whose pages lie on a device that is late: a step's
computation is under way while the next steps are prepared, as with asynchronous
scheduling."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_device import FakeDevice
from gpu_pages import NHD
from hybrid_engine import HybridEngine, Layer
from simulated_config import HEADS, make_config
from simulated_engine import Hashes, MakeEngine, Step, larder
from stub_daemon import StubDaemon

from larder.registered import RegisteredMemory
from larder.vllm import layout_choice, layout_choice_gpu
from larder.vllm.gpu_saver import GpuSaver, Started
from larder.vllm.saver import Batch


def write(k: Any, v: Any, cache: Any, slots: Any) -> None:
    """What stands for the backend's own operation."""
    block = cache.shape[2]
    for target, source in zip(NHD.kv(cache, cache.shape[3] // 2), (k, v), strict=True):
        target[slots // block, slots % block] = source


class GpuEngine(HybridEngine):
    """As HybridEngine."""

    def __init__(self, device: FakeDevice, *args: Any) -> None:
        self.device = device
        self.wrong: list[AssertionError] = []
        # Whether copies stand still now and then, for some steps.
        self.holds = False
        # The layer at which the computation fails; layers whose hooks are not called; what is to happen after one's.
        self.fails_at = ""
        self.skipped: set[str] = set()
        self.after_layer: Callable[[str], object] = lambda _: None
        super().__init__(*args)
        larder(self.connector)._on_device = True

    def _make_layers(self, blocks: int) -> dict[str, Layer]:
        layers = super()._make_layers(blocks)
        for layer in layers.values():
            layer.cache = layer.cache.view(blocks, layer.block, HEADS, -1).transpose(1, 2)
            layer.write = write
        return layers

    def step(self) -> Step:
        """As HybridEngine.step; some of what the device has to do is done."""
        done = super().step()
        chance = self.device.chance
        if self.holds and chance.random() < 0.3:
            self.device.hold()
        elif self.holds and chance.random() < 0.3:
            self.device.release()
        self.device.run(chance.choice([0, 0, 1, 3, 20, 100]))
        self._judge()
        return done

    def run(self, most: int = 2000) -> list[Step]:
        """As HybridEngine.run; stores are over, too."""
        steps = super().run(most)
        self.device.release()
        while self.device.run(1000):
            pass
        await_stores(self.worker)
        self._judge()
        return steps

    def close(self) -> None:
        """As HybridEngine.close."""
        self.device.release()
        super().close()

    def _through_layers(self, puts: Sequence[tuple[Any, Hashes, int, int]]) -> None:
        """One layer after the other, as a model."""
        for name, layer in self.layers.items():
            if name == self.fails_at:
                raise RuntimeError("the model failed")
            if self.layer_hooks and name not in self.skipped:
                self.worker.wait_for_layer_load(name)
            for blocks, hashes, begin, end in puts:
                now = list(blocks[layer.group])
                self.device.give(self.device.compute, partial(layer.put, layer.cache, now, hashes, begin, end))
            if self.layer_hooks and name not in self.skipped:
                self.worker.save_kv_layer(name, layer.cache, None)
                self.after_layer(name)

    def _put(self, blocks: Any, hashes: Hashes, begin: int, end: int) -> None:
        now = [list(some) for some in blocks]
        self.device.give(self.device.compute, partial(super()._put, now, hashes, begin, end))

    def _check(self, request_id: str, pages: Any, hashes: Hashes, past: int) -> None:
        check, now = super()._check, [list(some) for some in pages]

        def judge() -> None:
            try:
                check(request_id, now, hashes, past)
            except AssertionError as error:
                self.wrong.append(error)

        self.device.give(self.device.compute, judge)

    def _judge(self) -> None:
        if self.wrong:
            raise self.wrong[0]


def await_stores(worker: Any) -> None:
    """Returns when a worker has committed what its device is done with."""
    saver = larder(worker).worker_half._saver
    if isinstance(saver, GpuSaver):
        last = _Last()
        saver._started.put(Started(Batch(0), [], [last]))
        assert last.reached.wait(60)


class _Last:
    """An event that says that a thread came to it."""

    def __init__(self) -> None:
        self.reached = threading.Event()

    def query(self) -> bool:
        return self.reached.is_set()

    def synchronize(self) -> None:
        self.reached.set()


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

        def make(
            connect: Any = daemon.connect, cache_config: Any = None, kind: Any = None, **options: Any
        ) -> GpuEngine:
            del kind
            options["extra"] = {"gpu_load": variant, "gpu_store": variant} | (options.get("extra") or {})
            made.append(GpuEngine(device, make_config(model_folder, **options), connect, cache_config))
            return made[-1]

        return make

    yield on
    for one in made:
        one.close()
    torch.set_num_threads(threads)
