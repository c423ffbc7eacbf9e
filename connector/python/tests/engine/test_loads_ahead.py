"""Loads to GPUs that are reported before their bytes are there: what uses the
pages, or gets them next, waits on the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fake_device import FakeDevice, FakeEvent
from gpu_engine import MakeGpuEngine
from gpu_pages import fill
from simulated_engine import MakePrompt, SimulatedEngine, expected_output
from stub_daemon import StubDaemon
from test_gpu_copies import Transfer, raw
from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiConnector

from larder.errors import InvalidError
from larder.vllm import LarderConnector, gpu_loader
from larder.vllm.arrivals import Arrivals
from larder.vllm.gpu_copies import Piece, ends
from larder.vllm.gpu_path import Order
from larder.vllm.landing import Rate
from larder.vllm.layer_waits import LayerWaits
from larder.vllm.settings import Settings


def until(engine: SimulatedEngine, done: Callable[[Any], bool]) -> None:
    """Steps until one of which this holds."""
    end = time.monotonic() + 60
    while not done(engine.step()):
        assert time.monotonic() < end


def reported(request_id: str) -> Callable[[Any], bool]:
    return lambda step: request_id in (step.output.finished_recving or ())


def scheduled(request_id: str) -> Callable[[Any], bool]:
    return lambda step: step.scheduled.get(request_id, 0) > 0


def loader(engine: SimulatedEngine) -> Any:
    return engine.worker.worker_half._loader


@pytest.mark.parametrize(("layers", "hooks"), [("off", True), ("auto", True), ("auto", False)])
def test_a_request_goes_on_before_its_bytes_are_there(
    gpu: MakeGpuEngine, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch, layers: str, hooks: bool
) -> None:
    # All copies start once everything has come, so they go by layer where asked to.
    monkeypatch.setattr(gpu_loader, "_WINDOW_BYTES", -1)
    tokens = prompt(300)
    gpu(FakeDevice())().generate("stored", tokens)
    device = FakeDevice(8)
    e = gpu(device)(extra={"load_layers": layers})
    # Under full graphs none is called.
    e.layer_hooks = hooks
    e.generate("other", prompt(40, seed=3))
    device.hold()
    e.add("a", tokens)
    until(e, scheduled("a"))
    device.run(1000)
    assert device.compute.work, "the computation waits for the copies"
    assert [one.reported for one in loader(e)._landings] == [True]
    work, copies = list(device.compute.work), {id(piece.event) for piece in loader(e)._landings[0].pieces}
    begins = next(i for i, one in enumerate(work) if not isinstance(one, FakeEvent))
    waits = [i for i, one in enumerate(work) if id(one) in copies]
    assert (max(waits) > begins) == (layers == "auto" and hooks), "where it waits for the last layers"
    e.run()
    assert e.outputs["a"] == expected_output(tokens, 4)
    assert e.external["a"] == e.worker.stats.chunks_loaded * 64 == 256
    assert e.worker.stats.loads_failed == 0


@pytest.mark.parametrize("why", ["much is left", "not wanted", "another connector"])
def test_it_does_not_beside_others(gpu: MakeGpuEngine, prompt: MakePrompt, why: str) -> None:
    tokens, other = prompt(300), prompt(100, seed=3)
    gpu(FakeDevice())().generate("stored", tokens)
    device = FakeDevice(9)
    e = gpu(device)(extra={"load_ahead_ms": 0} if why == "not wanted" else {})
    if why == "much is left":
        loader(e)._rate._rate = 1e-3
    elif why == "another connector":
        path = e.worker.worker_half._path
        path._order = Order.OTHERS
        assert e.worker.worker_half._ahead_s(path) == 0
        return
    device.hold()
    e.add("a", tokens)
    assert e.generate_beside("other", other, 8) == expected_output(other, 8)
    assert e.scheduler.requests["a"].num_output_tokens == 0
    device.release()
    e.run()
    assert e.outputs["a"] == expected_output(tokens, 4)
    assert e.external["a"] == 256


def test_pages_of_an_aborted_request_go_to_the_next_one(gpu: MakeGpuEngine, prompt: MakePrompt) -> None:
    tokens, other = prompt(257), prompt(250, seed=3)
    gpu(FakeDevice())(blocks=40).generate("stored", tokens)
    device = FakeDevice(10)
    e = gpu(device)(blocks=19, budget=256)
    device.hold()
    e.add("a", tokens)
    until(e, reported("a"))
    e.abort("a")
    e.add("b", other, 16)
    for _ in range(6):
        e.step()
        device.run(1000)
    device.release()
    device.run(1000)
    e.run()
    assert e.outputs["b"] == expected_output(other, 16)
    assert e.worker.stats.chunks_loaded == 4
    assert not e.worker.worker_half._path.arrivals.unheard


def test_a_daemon_that_goes_after_the_report(gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    tokens = prompt(300)
    gpu(FakeDevice())().generate("stored", tokens)
    device = FakeDevice(11)
    e = gpu(device)()
    device.hold()
    e.add("a", tokens)
    until(e, reported("a"))
    daemon.up = False
    e.run()
    assert e.outputs["a"] == expected_output(tokens, 4)
    assert e.external["a"] == 256
    assert e.worker.stats.loads_failed == 0


def test_the_next_load_begins_while_copies_of_one_are_under_way(gpu: MakeGpuEngine, prompt: MakePrompt) -> None:
    prompts = [prompt(300, seed=1), prompt(300, seed=2)]
    first = gpu(FakeDevice())()
    for i, tokens in enumerate(prompts):
        first.generate(f"stored {i}", tokens)
    device = FakeDevice(12)
    e = gpu(device)(blocks=200)
    device.hold()
    for i, tokens in enumerate(prompts):
        e.add(str(i), tokens)
    until(e, lambda _: len(loader(e)._landings) == 2)
    device.release()
    e.run()
    assert [e.outputs[str(i)] for i in range(2)] == [expected_output(tokens, 4) for tokens in prompts]
    assert e.worker.stats.chunks_loaded == 8
    assert not loader(e).busy


def test_a_reset_while_copies_are_under_way(gpu: MakeGpuEngine, prompt: MakePrompt) -> None:
    tokens = prompt(300)
    gpu(FakeDevice())().generate("stored", tokens)
    device = FakeDevice(13)
    e = gpu(device)()
    half = e.worker.worker_half
    device.hold()
    e.add("a", tokens)
    until(e, reported("a"))
    e.reset()
    e.step()
    assert half._ending, "its leases are not given up yet"
    e.run()
    e.step()
    assert e.outputs["a"] == expected_output(tokens, 4)
    until(e, lambda _: not half._ending)


def test_how_fast_copies_are_is_learnt_from_many_bytes() -> None:
    rate = Rate()
    before = rate.seconds(1 << 30)
    rate.observe(1 << 20, 1e-9)
    assert rate.seconds(1 << 30) == before
    for _ in range(20):
        rate.observe(1 << 30, 0.02)
    assert rate.seconds(1 << 30) == pytest.approx(0.02, rel=0.01)


class Waits:
    """A step's waits, as numbers of layers whose copies are waited for."""

    def __init__(self) -> None:
        self.device = FakeDevice()
        self.device.hold()
        self.arrivals = Arrivals(self.device)
        self.layers = LayerWaits(self.arrivals, {f"layer {i}": i for i in range(12)})
        self.side = self.device.stream()
        self.numbers: dict[int, int] = {}

    def step(self, mode: str, writes: list[int] | None, *, computes: bool = True) -> None:
        self.device.compute.work.clear()
        pieces = [Piece(self.device.record(self.side), 1, layer) for layer in (0, 0, 0, 4, 8)]
        self.numbers = {id(piece.event): piece.layer for piece in pieces}
        self.arrivals.reported("a", pieces, [5, 6])
        self.arrivals.heard(["other"], writes)
        self.arrivals.heard(["a"], writes)
        self.layers.begin(SimpleNamespace(attn_metadata={} if computes else None, cudagraph_runtime_mode=mode))

    def now(self) -> list[int]:
        return [self.numbers[id(work)] for work in self.device.compute.work if isinstance(work, FakeEvent)]

    def compute(self, layers: int = 12) -> None:
        for i in range(layers):
            self.layers.layer(f"layer {i}")
        self.layers.end()


def test_each_layer_is_waited_for_when_it_comes() -> None:
    waits = Waits()
    waits.step("PIECEWISE", [1])
    assert waits.now() == [0, 0, 4, 8], "nobody knows yet whether the hooks are called"
    waits.compute()
    waits.step("PIECEWISE", [1])
    assert waits.now() == [0, 0], "two streams take turns, so the last two of the first three"
    waits.layers.layer("layer 3")
    assert waits.now() == [0, 0]
    waits.layers.layer("layer 4")
    assert waits.now() == [0, 0, 4]
    waits.layers.end()
    assert waits.now() == [0, 0, 4, 8]
    assert not waits.arrivals.due


def test_layers_are_not_waited_for_one_by_one_where_hooks_may_be_missing() -> None:
    waits = Waits()
    waits.step("NONE", [1])
    waits.compute(11)
    waits.step("NONE", [1])
    assert waits.now() == [0, 0, 4, 8], "one layer's was not called"
    waits.compute()
    for mode, writes, computes in (
        ("FULL", [1], True),
        ("NONE", [5], True),
        ("NONE", None, True),
        ("NONE", [1], False),
    ):
        waits.step(mode, writes, computes=computes)
        assert waits.now() == [0, 0, 4, 8], (mode, writes, computes)
        waits.layers.end()
    waits.step("NONE", [1])
    assert waits.now() == [0, 0]
    waits.layers.layer("another")
    assert waits.now() == [0, 0, 4, 8]


@pytest.mark.parametrize("covered", [True, False])
@pytest.mark.parametrize("variant", ["staged", "zero_copy"])
def test_copies_go_through_the_layers(variant: Any, covered: bool) -> None:
    t = Transfer(FakeDevice(3), variant, covered, 60_000)
    chunks = [[3, 5, 1, 8], [20, 22, 21, 23], [30, 10, 12, 35]]
    for i, blocks in enumerate(chunks):
        fill(t.form, t.g, blocks, i)
    copies = t.copies(chunks)
    for event in ends(t.store.start(copies, [])):
        event.synchronize()
    pages = [p.clone() for p in t.g.tensors]
    for p in t.g.tensors:
        p.zero_()
    t.load.cut(2)
    pieces = t.load.start(copies, [], by_layer=True)
    assert sorted({piece.layer for piece in pieces}) == [0, 1]
    for event in ends([piece for piece in pieces if piece.layer == 0]):
        event.synchronize()
    assert bool((raw(t.g.tensors[0]) == raw(pages[0])).all()), "the first layer is there"
    for event in ends(pieces):
        event.synchronize()
    for p, want in zip(t.g.tensors, pages, strict=True):
        assert bool((raw(p) == raw(want)).all())
    assert sum(piece.size for piece in pieces) == sum(copy.view.nbytes for copy in copies)


def test_full_graphs_are_given_up_only_on_demand() -> None:
    for value, needs in (("off", False), ("auto", False), ("piecewise", True)):
        assert LarderConnector.requires_piecewise_for_cudagraph({"load_layers": value}) is needs
    own = {"kv_connector": "LarderConnector", "kv_connector_module_path": "larder.vllm", "kv_role": "kv_both"}
    extra = {"kv_connector_extra_config": {"load_layers": "piecewise"}}
    assert MultiConnector.requires_piecewise_for_cudagraph({"connectors": [own | extra]})
    with pytest.raises(InvalidError, match="load_layers"):
        Settings.parse({"load_layers": "always"})
