"""Pages on a real GPU: kernels, streams, registered memory.

    PYTHONPATH=<site with vllm> python3 -m pytest bench/gpu/test_pages.py

Needs a GPU, torch, Triton and vLLM's Python, and fails without them: it is no
part of CI, where the same cases run over a device that is late
(tests/engine/test_gpu_copies.py) and the kernel under Triton's interpreter.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "connector/python/src"), str(REPOSITORY / "connector/python/tests/engine")]

from gpu_pages import FORMS, Form, fill  # noqa: E402

from larder.arena import Segment  # noqa: E402
from larder.registered import RegisteredMemory  # noqa: E402
from larder.vllm.device import CudaDevice, wait_all  # noqa: E402
from larder.vllm.gpu_copies import Lanes, PageCopies, Variant, ends, part_copy  # noqa: E402
from larder.vllm.layout import Geometry, PartHeads, canonical, opaque  # noqa: E402
from larder.vllm.layout_gpu import GpuAdapter  # noqa: E402
from larder.vllm.layout_proof import prove  # noqa: E402
from larder.vllm.memory import tensor  # noqa: E402
from larder.vllm.rows import canonical_rows, opaque_rows  # noqa: E402

MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module")
def device() -> CudaDevice:
    return CudaDevice(torch.device("cuda", 0))


@pytest.fixture
def registered(device: CudaDevice) -> Iterator[RegisteredMemory]:
    memory = RegisteredMemory(device.driver())
    yield memory
    memory.close()


def segment(size: int, *, writable: bool = True) -> Segment:
    fd = os.memfd_create("arena")
    os.ftruncate(fd, size)
    try:
        return Segment(fd, size, writable=writable, prefault=False)
    finally:
        os.close(fd)


def adapter(device: CudaDevice, geometry: Geometry) -> GpuAdapter:
    rows = canonical_rows(geometry)
    assert rows is not None
    return GpuAdapter(device, rows, canonical())


def raw(t: Any) -> Any:
    return t.cpu().contiguous().view(torch.uint8).flatten()


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_every_form_is_proven(device: CudaDevice, form: Form) -> None:
    for unit in {1, form.heads}:
        g = form.geometry(50, device="cuda")
        assert prove(lambda scratch: adapter(device, scratch), g, form.write, unit) == ""


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_parts_are_layer_head_token_kv(device: CudaDevice, form: Form) -> None:
    g = form.geometry(11, device="cuda")
    blocks = [9, 2, 7, 4][: g.chunk_blocks]
    known = fill(form, g, blocks)
    view = np.zeros(known.numel() * known.element_size(), np.uint8)
    adapter(device, g).gather(blocks, [(PartHeads(0, form.heads), view)])
    assert torch.equal(tensor(view, torch.uint8), raw(known))


@pytest.mark.parametrize("form", [f for f in FORMS if f.name != "layers in one tensor"], ids=lambda f: f.name)
def test_opaque_pages_come_back_as_they_were(device: CudaDevice, form: Form) -> None:
    g, target = form.geometry(11, device="cuda"), form.geometry(11, device="cuda")
    blocks = [9, 2, 7, 4][: g.chunk_blocks]
    fill(form, g, blocks)
    one = GpuAdapter(device, opaque_rows(g), opaque("vllm/0", "X", "cuda"))
    view = np.zeros(one.block_bytes * g.chunk_blocks * 2, np.uint8)
    one.gather(blocks, [(PartHeads(0, form.heads), view)])
    GpuAdapter(device, opaque_rows(target), one.layout).scatter(blocks, 0, PartHeads(0, form.heads), view)
    for t, want in zip(target.tensors, g.tensors, strict=True):
        assert torch.equal(raw(t), raw(want))


def test_memory_is_registered_and_given_back(registered: RegisteredMemory) -> None:
    one = segment(64 << 20)
    registered.mapped(one)
    assert registered.settled(30)
    assert registered.covers(one.address, 64 << 20)
    assert not registered.covers(one.address + 1, 64 << 20)
    assert tensor(one.read, torch.uint8).is_pinned()
    address = one.address
    del one
    assert not registered.covers(address, 1)
    assert f"{address:x}-" not in MAPS.read_text()


def test_a_paused_registration_waits(registered: RegisteredMemory) -> None:
    registered.pause()
    one = segment(1 << 20)
    registered.mapped(one)
    assert not registered.settled(0.2)
    assert not registered.covers(one.address, 1)
    registered.resume()
    assert registered.settled(30)
    assert registered.covers(one.address, 1 << 20)


class Path8B:
    """Pages of an 8B-shaped model and an arena, for one measurement."""

    LAYERS, HEADS, DIM, CHUNK, BLOCKS = 32, 8, 128, 256, 4096

    def __init__(self, device: CudaDevice, memory: Any, order: str, count: int = 32) -> None:
        shape = (self.BLOCKS, 16, self.HEADS, 2 * self.DIM)
        if order == "HND":
            shape = (self.BLOCKS, self.HEADS, 16, 2 * self.DIM)
        self.pages = [
            torch.randint(-99, 99, shape, dtype=torch.int16, device="cuda").view(torch.bfloat16)
            for _ in range(self.LAYERS)
        ]
        tensors = tuple(p.transpose(1, 2) if order == "NHD" else p for p in self.pages)
        self.g = Geometry(tensors, self.HEADS, self.DIM, self.DIM, 16, self.CHUNK)
        rows = canonical_rows(self.g)
        assert rows is not None
        self.device, self.rows = device, rows
        self.size = rows.part_bytes(1)
        ids = np.random.default_rng(1).permutation(self.BLOCKS)[: count * 16].tolist()
        self.ids = ids
        # Slots as they come: a chunk's parts are not in order.
        slots = np.random.default_rng(2).permutation(count * self.HEADS)
        self.copies = [
            part_copy(tuple(ids[16 * c : 16 * c + 16]), 0, PartHeads(h, 1), memory[s * self.size : (s + 1) * self.size])
            for (c, h), s in zip([(c, h) for c in range(count) for h in range(self.HEADS)], slots.tolist(), strict=True)
        ]
        self.total = self.size * count * self.HEADS

    def both(self, covers: Callable[[int, int], bool], variant: Variant) -> tuple[PageCopies, PageCopies]:
        mover = self.device.mover(self.rows)
        made = []
        for to_parts in (True, False):
            lanes = Lanes(self.device, self.size)
            made.append(PageCopies(self.device, self.rows, mover, lanes, covers, variant, to_parts=to_parts))
        return made[0], made[1]


@pytest.mark.parametrize("order", ["NHD", "HND"])
@pytest.mark.parametrize("variant", ["staged", "zero_copy", "unregistered"])
def test_speed(device: CudaDevice, registered: RegisteredMemory, variant: str, order: str) -> None:
    """1 GiB each way; the figures are printed (-s)."""
    one = segment(1 << 30)
    registered.mapped(one)
    assert registered.settled(60)
    assert one.write is not None
    p = Path8B(device, one.write, order)
    covers = (lambda *_: False) if variant == "unregistered" else registered.covers
    if variant == "unregistered":
        registered.close()
    store, load = p.both(covers, "zero_copy" if variant == "zero_copy" else "staged")
    before = [t.clone() for t in p.pages]

    def timed(copies: PageCopies) -> tuple[float, float]:
        took, launch = [], []
        for _ in range(6):
            torch.cuda.synchronize()
            start = time.perf_counter()
            events = ends(copies.start(p.copies, []))
            launch.append(time.perf_counter() - start)
            wait_all(events)
            took.append(time.perf_counter() - start)
        return p.total / sorted(took[1:])[2] / 1e9, sorted(launch)[2] * 1e3

    saved, save_launch = timed(store)
    for t in p.pages:
        t.zero_()
    loaded, load_launch = timed(load)
    ids = torch.tensor(p.ids, device="cuda")
    for t, want in zip(p.pages, before, strict=True):
        assert torch.equal(t[ids].view(torch.int16), want[ids].view(torch.int16))
        t[ids] = 0
        assert not t.view(torch.int16).any()
    print(
        f"\n{order} {variant}: store {saved:.1f} GB/s (launch {save_launch:.2f} ms), "
        f"load {loaded:.1f} GB/s (launch {load_launch:.2f} ms), {p.total >> 20} MiB"
    )


@pytest.mark.parametrize("variant", ["staged", "zero_copy"])
def test_stores_beside_a_computation(device: CudaDevice, registered: RegisteredMemory, variant: Variant) -> None:
    """Pages are read after what wrote them, and overwritten after they were read,
    although nobody waits for the device."""
    one = segment(256 << 20)
    registered.mapped(one)
    assert registered.settled(60)
    assert one.write is not None
    p = Path8B(device, one.write, "NHD", count=8)
    store, load = p.both(registered.covers, variant)
    busy = torch.randn(4096, 4096, device="cuda")
    for round_ in range(5):
        for _ in range(4):
            busy = torch.tanh(busy @ busy)
        for t in p.pages:
            t.view(torch.int16).fill_(round_ + 1)
        events = ends(store.start(p.copies, [device.record(device.current_stream())]))
        for event in events:
            device.wait(device.current_stream(), event)
        for t in p.pages:
            t.view(torch.int16).fill_(-1)
        wait_all(events)
        for copy in p.copies:
            assert (copy.view.view(np.int16) == round_ + 1).all()
        # A load waits for what was started before it.
        after = [device.record(device.current_stream())]
        wait_all(ends(load.start(p.copies, after)))
        ids = torch.tensor(p.ids, device="cuda")
        for t in p.pages:
            assert (t[ids].view(torch.int16) == round_ + 1).all()


def test_read_only_memory_is_loaded_from(device: CudaDevice, registered: RegisteredMemory) -> None:
    fd = os.memfd_create("arena")
    os.ftruncate(fd, 64 << 20)
    writer = Segment(fd, 64 << 20, writable=True, prefault=False)
    reader = Segment(fd, 64 << 20, writable=False, prefault=False)
    os.close(fd)
    registered.mapped(reader)
    assert registered.settled(30)
    assert registered.covers(reader.address, 64 << 20), "read-only memory is not registered"
    assert writer.write is not None
    writer.write[:] = 7
    for variant in ("staged", "zero_copy"):
        p = Path8B(device, reader.read, "NHD", count=2)
        _, load = p.both(registered.covers, variant)
        wait_all(ends(load.start(p.copies, [])))
        ids = torch.tensor(p.ids, device="cuda")
        assert all((t[ids].view(torch.int16) == 0x0707).all() for t in p.pages)
