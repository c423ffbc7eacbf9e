"""GPU pages as rows, and copies on streams, over a device that is late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from fake_device import FakeDevice
from gpu_pages import CHUNK, FORMS, NHD, Form, fill

from larder.errors import LarderError
from larder.load import Bytes
from larder.vllm.gpu_copies import Lanes, PageCopies, PartCopy, Variant, ends, part_copy
from larder.vllm.layout import Geometry, PartHeads, canonical, opaque
from larder.vllm.layout_gpu import GpuAdapter
from larder.vllm.layout_proof import prove
from larder.vllm.memory import tensor
from larder.vllm.rows import Rows, canonical_rows, opaque_rows


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # So small tensors gain nothing from two threads, and lose much on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def adapter(device: FakeDevice, geometry: Geometry) -> GpuAdapter:
    rows = canonical_rows(geometry)
    assert rows is not None
    return GpuAdapter(device, rows, canonical())


def parts_of(form: Form, unit: int, layers: int = 2) -> list[tuple[PartHeads, Bytes]]:
    size = layers * unit * CHUNK * (form.dk + form.dv) * form.dtype.itemsize
    return [(PartHeads(h, unit), np.full(size, 0x77, np.uint8)) for h in range(0, form.heads, unit)]


def raw(t: Any) -> Any:
    return t.contiguous().view(torch.uint8).flatten()


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_parts_are_layer_head_token_kv(form: Form) -> None:
    for unit in {1, form.heads}:
        g = form.geometry(11)
        blocks = [9, 2, 7, 4][: g.chunk_blocks]
        known = fill(form, g, blocks)
        parts = parts_of(form, unit)
        one = adapter(FakeDevice(1), g)
        one.gather(blocks, parts)
        for heads, view in parts:
            assert torch.equal(tensor(view, torch.uint8), raw(known[:, heads.first : heads.first + unit]))
        before = [t.clone() for t in g.tensors]
        for t in g.tensors:
            t.zero_()
        for heads, view in parts:
            one.scatter(blocks[1:], 1, heads, view)
        one.scatter(blocks[:1], 0, *parts[-1])
        for t, want in zip(g.tensors, before, strict=True):
            missing = form.geometry(11, 1).tensors[0]
            k, v = form.kv(missing, form.dk)
            wanted_k, wanted_v = form.kv(want, form.dk)
            last = slice(form.heads - unit, form.heads)
            for block in range(11 * form.split):
                which = slice(None) if block // form.split in blocks[1:] else last
                if block // form.split in blocks:
                    k[block, :, which], v[block, :, which] = wanted_k[block, :, which], wanted_v[block, :, which]
            assert torch.equal(raw(t), raw(missing))


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_every_form_is_proven(form: Form) -> None:
    device = FakeDevice(2)
    for unit in {1, form.heads}:
        assert prove(lambda g: adapter(device, g), form.geometry(50), form.write, unit) == ""


def test_a_wrong_order_is_not_proven() -> None:
    other = FORMS[1]

    def transposed(k: Any, v: Any, cache: Any, slots: Any) -> None:
        other.write(k.flip(1), v, cache, slots)

    assert "read from pages differ" in prove(lambda g: adapter(FakeDevice(), g), other.geometry(9), transposed, 1)


def test_pages_without_rows_have_no_adapter() -> None:
    form = FORMS[1]
    g = form.geometry(9)
    apart = torch.zeros(9, form.heads, form.block, 4 * form.dk)[..., ::2]
    assert canonical_rows(Geometry((apart,), form.heads, form.dk, form.dv, form.block, CHUNK)) is None
    assert canonical_rows(Geometry(g.tensors, form.heads + 1, form.dk, form.dv, form.block, CHUNK)) is None
    unlike = (g.tensors[0], g.tensors[1][:, :, :, : form.dk])
    assert canonical_rows(Geometry(unlike, form.heads, form.dk, form.dv, form.block, CHUNK)) is None
    with pytest.raises(LarderError, match="not runs of bytes"):
        opaque_rows(Geometry((apart,), form.heads, form.dk, form.dv, form.block, CHUNK))


@pytest.mark.parametrize("form", [f for f in FORMS if f.name != "layers in one tensor"], ids=lambda f: f.name)
def test_opaque_pages_come_back_as_they_were(form: Form) -> None:
    g, target = form.geometry(11), form.geometry(11)
    blocks = [9, 2, 7, 4][: g.chunk_blocks]
    fill(form, g, blocks)
    device = FakeDevice(3)
    one = GpuAdapter(device, opaque_rows(g), opaque("vllm/0", "X", "cuda"))
    assert one.block_bytes == sum(t.numel() for t in g.tensors) * form.dtype.itemsize // 22
    view = np.zeros(one.block_bytes * g.chunk_blocks * 2, np.uint8)
    one.gather(blocks, [(PartHeads(0, form.heads), view)])
    other = GpuAdapter(device, opaque_rows(target), one.layout)
    other.scatter(blocks[1:], 1, PartHeads(0, form.heads), view)
    other.scatter(blocks[:1], 0, PartHeads(0, form.heads), view)
    for t, want in zip(target.tensors, g.tensors, strict=True):
        assert torch.equal(raw(t), raw(want))


class Transfer:
    """Copies of several chunks at once, both ways, compared with what belongs there."""

    def __init__(self, device: FakeDevice, variant: Variant, covered: bool, stage: int) -> None:
        self.device = device
        self.form = NHD
        self.g = NHD.geometry(40)
        rows = canonical_rows(self.g)
        assert rows is not None
        self.rows = rows
        size = rows.part_bytes(1)
        # Parts of two chunks beside each other, as slots are.
        self.memory = np.zeros(16 * size, np.uint8)
        self.slots = [self.memory[i * size : (i + 1) * size] for i in range(16)]
        mover = device.mover(rows)

        def registered(address: int, length: int) -> bool:
            del address, length
            return covered

        self.lanes = Lanes(device, size, stage)
        self.store, self.load = (
            PageCopies(device, rows, mover, self.lanes, registered, variant, to_parts=to_parts)
            for to_parts in (True, False)
        )

    def copies(self, chunks: Sequence[Sequence[int]]) -> list[PartCopy]:
        order = [5, 6, 7, 0, 1, 2, 9, 8, 3, 12, 13, 14, 15, 4, 10]
        return [
            part_copy(blocks, 0, PartHeads(head, 1), self.slots[order[3 * i + head]])
            for i, blocks in enumerate(chunks)
            for head in range(3)
        ]


@pytest.mark.parametrize("stage", [1, 60_000, 1 << 20])
@pytest.mark.parametrize(("variant", "covered"), [("staged", True), ("zero_copy", True), ("zero_copy", False)])
def test_many_chunks_at_once(variant: Variant, covered: bool, stage: int) -> None:
    for seed in range(2):
        device = FakeDevice(seed)
        t = Transfer(device, variant, covered, stage)
        chunks = [[3, 5, 1, 8], [20, 22, 21, 23], [30, 10, 12, 35], [2, 4, 6, 0], [39, 38, 37, 36]]
        known = [fill(t.form, t.g, blocks, i) for i, blocks in enumerate(chunks)]
        before, dma = device.launches, device.copies - device.launches
        copies, waits = t.copies(chunks), device.waits
        events = ends(t.store.start(copies, []))
        assert device.waits == waits, "nothing waits for the device"
        for event in events:
            event.synchronize()
        for copy, want in zip(copies, [k[:, h : h + 1] for k in known for h in range(3)], strict=True):
            assert torch.equal(tensor(copy.view, torch.uint8), raw(want))
        direct = variant == "zero_copy" and covered
        assert (device.copies - device.launches == dma) == direct
        if direct or stage == 1 << 20:
            assert device.launches - before == 1, "one launch for all"
        pages = [p.clone() for p in t.g.tensors]
        for p in t.g.tensors:
            p.zero_()
        for event in ends(t.load.start(copies, [])):
            event.synchronize()
        for p, want in zip(t.g.tensors, pages, strict=True):
            assert torch.equal(raw(p), raw(want))


@pytest.mark.parametrize("variant", ["staged", "zero_copy"])
def test_copies_begin_after_what_they_are_told(variant: Variant) -> None:
    for seed in range(8):
        _between_computations(FakeDevice(seed), variant)


def _between_computations(device: FakeDevice, variant: Variant) -> None:
    t = Transfer(device, variant, True, 60_000)
    computed: list[Any] = []
    blocks = [3, 5, 1, 8]
    device.give(device.compute, lambda: computed.append(fill(t.form, t.g, blocks)))
    copies, compute = t.copies([blocks]), device.record(device.compute)
    events = ends(t.store.start(copies, [compute]))
    # What comes after the events on the engine's stream may overwrite pages.
    for event in events:
        device.wait(device.compute, event)
    for pages in t.g.tensors:
        device.give(device.compute, partial(pages.fill_, -1))
    device.record(device.compute).synchronize()
    for copy, head in zip(copies, range(3), strict=True):
        assert torch.equal(tensor(copy.view, torch.uint8), raw(computed[0][:, head : head + 1]))


def test_stop_waits_for_everything() -> None:
    device = FakeDevice(4)
    t = Transfer(device, "staged", True, 60_000)
    known = fill(t.form, t.g, [3, 5, 1, 8])
    copies = t.copies([[3, 5, 1, 8]])
    t.store.start(copies, [])
    t.lanes.stop()
    assert torch.equal(tensor(copies[0].view, torch.uint8), raw(known[:, :1]))


def test_nothing_to_copy() -> None:
    device = FakeDevice()
    t = Transfer(device, "staged", True, 1 << 20)
    assert t.store.start([], []) == []
    before = device.launches
    for event in ends(t.load.start([part_copy((), 4, PartHeads(0, 1), t.slots[0])], [])):
        event.synchronize()
    assert device.launches == before


def test_rows_say_how_they_lie() -> None:
    rows = canonical_rows(NHD.geometry(9))
    assert rows is not None
    assert (rows.planes, rows.layers, rows.width, rows.page_row, rows.page_head) == (1, 2, 128, 384, 128)
    assert rows.alignment == 16
    old = canonical_rows(FORMS[6].geometry(9))
    assert old is not None
    assert (old.planes, old.width, old.part_plane, old.part_row) == (2, 64, 64, 128)
    odd = canonical_rows(FORMS[4].geometry(9))
    assert isinstance(odd, Rows)
    assert odd.alignment == 2
