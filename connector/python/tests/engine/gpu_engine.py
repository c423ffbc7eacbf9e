"""A simulated engine whose pages lie on a device that is late: a step's
computation is under way while the next steps are prepared, as with asynchronous
scheduling."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from fake_device import FakeDevice
from gpu_pages import NHD
from simulated_engine import DIM, HEADS, Hashes, SimulatedEngine, Step, larder

from larder.vllm.gpu_saver import GpuSaver, Started
from larder.vllm.layout_proof import Write
from larder.vllm.saver import Batch


def write(k: Any, v: Any, cache: Any, slots: Any) -> None:
    """What stands for the backend's own operation."""
    block = cache.shape[2]
    for target, source in zip(NHD.kv(cache, DIM), (k, v), strict=True):
        target[slots // block, slots % block] = source


class GpuEngine(SimulatedEngine):
    """As SimulatedEngine."""

    def __init__(self, device: FakeDevice, *args: Any) -> None:
        self.device = device
        self.wrong: list[AssertionError] = []
        # Whether copies stand still now and then, for some steps.
        self.holds = False
        super().__init__(*args)
        larder(self.connector)._on_device = True

    def _make_pages(self, blocks: int) -> torch.Tensor:
        return torch.zeros(blocks, self.block, HEADS, 2 * DIM, dtype=torch.bfloat16).transpose(1, 2)

    def _make_write(self) -> Write:
        return write

    def step(self) -> Step:
        """As SimulatedEngine.step; some of what the device has to do is done."""
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
        """As SimulatedEngine.run; stores are over, too."""
        steps = super().run(most)
        self.device.release()
        while self.device.run(1000):
            pass
        await_stores(self.worker)
        self._judge()
        return steps

    def close(self) -> None:
        """As SimulatedEngine.close."""
        self.device.release()
        super().close()

    def _put(self, blocks: Sequence[int], hashes: Hashes, begin: int, end: int) -> None:
        self.device.give(self.device.compute, partial(super()._put, list(blocks), hashes, begin, end))

    def _check(self, request_id: str, blocks: Sequence[int], hashes: Hashes, past: int) -> None:
        check = super()._check

        def judge() -> None:
            try:
                check(request_id, list(blocks), hashes, past)
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
