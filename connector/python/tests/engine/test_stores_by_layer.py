"""Stores from GPUs that follow a step's computation through the layers (store_layers)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fake_device import FakeDevice
from gpu_engine import MakeGpuEngine, await_stores
from gpu_pages import fill
from hybrid_engine import make_hybrid
from simulated_config import HEADS
from simulated_engine import MakePrompt, SimulatedEngine, check_chunk, expected_output, prefix_hashes
from stub_daemon import StubDaemon
from test_gpu_copies import Transfer, raw
from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiConnector

from larder.errors import InvalidError
from larder.vllm import LarderConnector
from larder.vllm.arrivals import Arrivals
from larder.vllm.gpu_copies import ends
from larder.vllm.gpu_path import GpuPath, Order
from larder.vllm.layer_saves import LayerSaves
from larder.vllm.layer_waits import LayerWaits, layer_hooks
from larder.vllm.settings import Settings

AUTO = {"store_layers": "auto"}
FIRST, LAST = (f"model.layers.{i}.self_attn.attn" for i in range(2))


def proven(gpu: MakeGpuEngine, device: FakeDevice, **options: Any) -> Any:
    """An engine one of whose steps has called every hook."""
    made: Any = gpu(device)(extra=AUTO | options.pop("extra", {}), **options)
    made.generate("before", [5] * 40, 1)
    return made


def drain(device: FakeDevice) -> None:
    while device.run(1000):
        pass


def launches(e: Any, device: FakeDevice) -> list[int]:
    """How many of a step's launches came after each layer's hook, and after all."""
    before, seen = device.launches, []
    e.after_layer = lambda _: seen.append(device.launches - before)
    e.step()
    e.after_layer = lambda _: None
    return [*seen, device.launches - before]


def check_stored(daemon: StubDaemon, tokens: list[int], ordinals: list[int]) -> None:
    stored = [commit for commit in daemon.commits if commit[2] in ordinals]
    assert sorted(ordinal for _, _, ordinal, _ in stored) == ordinals
    for key, _, ordinal, _ in stored:
        check_chunk(daemon.chunks[key], prefix_hashes(tokens), ordinal)


def nothing_open(e: Any) -> bool:
    client = e.worker.worker_half._client
    return not client.sections and not +client.out


@pytest.mark.parametrize(("variant", "covered"), [("staged", True), ("zero_copy", True), ("zero_copy", False)])
def test_stored_and_loaded(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, variant: str, covered: bool
) -> None:
    device = FakeDevice(1)
    device.covered = covered
    e: Any = gpu(device, variant)(extra=AUTO)
    e.generate("before", [5] * 40, 1)
    tokens = prompt(300)
    e.add("a", tokens)
    assert launches(e, device) == [1, 2, 2]
    e.run()
    assert e.outputs["a"] == expected_output(tokens, 4)
    check_stored(daemon, tokens, [0, 1, 2, 3])
    assert nothing_open(e)
    e.drop_own_cache()
    assert e.generate("b", tokens) == expected_output(tokens, 4)
    assert e.external["b"] == 256
    assert e.worker.stats.chunks_loaded == 4


def test_copies_of_a_layer_do_not_wait_for_the_next_one(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    device = FakeDevice(2)
    e = proven(gpu, device)
    over: list[bool] = []

    def after(name: str) -> None:
        if name == FIRST:
            drain(device)
            over.append(all(event.passed for event in e.worker.worker_half._saver._under_way.events))
            device.hold()

    e.after_layer = after
    e.add("a", prompt(256), 1)
    e.step()
    assert over == [True]
    assert not daemon.commits, "a chunk is committed once all of its layers are there"
    e.after_layer = lambda _: None
    device.release()
    e.run()
    check_stored(daemon, prompt(256), [0, 1, 2, 3])


def test_tokens_of_the_same_step_are_stored_right(gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    """Chunks whose last tokens a step computes, in prompts cut into steps and in generation."""
    device = FakeDevice(3)
    e = proven(gpu, device, budget=100)
    tokens = prompt(300)
    out = e.generate("a", tokens, 60)
    check_stored(daemon, tokens + out, [0, 1, 2, 3, 4])


def test_an_unproven_mode_stores_at_the_end(gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    device = FakeDevice(4)
    e: Any = gpu(device)(extra=AUTO)
    tokens, more = prompt(300), prompt(300, seed=2)
    e.add("a", tokens, 1)
    assert launches(e, device) == [0, 0, 1], "no step has called the hooks yet"
    e.step()
    e.add("b", more, 1)
    e._forward_context.cudagraph_runtime_mode = "FULL"
    e.layer_hooks = False
    assert launches(e, device) == [1], "in this mode none does"
    e.run()
    assert e.worker.stats.chunks_stored == 8
    for key, _, ordinal, _ in daemon.commits[:4]:
        check_chunk(daemon.chunks[key], prefix_hashes(tokens), ordinal)
    for key, _, ordinal, _ in daemon.commits[4:]:
        check_chunk(daemon.chunks[key], prefix_hashes(more), ordinal)


@pytest.mark.parametrize("skipped", [FIRST, LAST])
def test_a_layer_whose_hook_is_not_called(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, skipped: str
) -> None:
    device = FakeDevice(5)
    e = proven(gpu, device)
    e.skipped = {skipped}
    e.add("a", prompt(256), 1)
    assert launches(e, device) == ([0, 1] if skipped == FIRST else [1, 2])
    e.run()
    check_stored(daemon, prompt(256), [0, 1, 2, 3])
    assert nothing_open(e)


def test_a_layer_that_is_computed_in_two_pieces(gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    """What was copied after the first of them is not committed."""
    device = FakeDevice(6)
    e = proven(gpu, device)
    worker = e.worker
    e.after_layer = lambda name: name == LAST and worker.save_kv_layer(FIRST, None, None)
    e.add("a", prompt(256), 1)
    launched = device.launches
    e.step()
    assert device.launches - launched == 3, "and all at the end"
    assert worker.worker_half._saver._under_way is None
    e.after_layer = lambda _: None
    e.run()
    check_stored(daemon, prompt(256), [0, 1, 2, 3])
    assert nothing_open(e)


def fail(e: Any, name: str, *, tells: bool) -> None:
    """A step whose computation fails at a layer. tells: the engine calls the hook on the way out."""
    through = e._through_layers

    def failing(puts: Any) -> None:
        try:
            through(puts)
        except RuntimeError:
            e.worker.wait_for_save()
            raise

    e.fails_at = name
    e._through_layers = failing if tells else through
    with pytest.raises(RuntimeError, match="the model failed"):
        e.step()
    e.fails_at, e._through_layers = "", through


@pytest.mark.parametrize("tells", [True, False])
def test_a_computation_that_fails_stores_nothing(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, tells: bool
) -> None:
    device = FakeDevice(7)
    e = proven(gpu, device)
    device.hold()
    e.add("a", prompt(256), 1)
    launched = device.launches
    fail(e, LAST, tells=tells)
    assert device.launches - launched == 1, "the first layer's copies were started"
    assert e.worker.worker_half._client.sections == 4 * HEADS, "the device may still write into the slots"
    e.abort("a")
    e.add("b", prompt(100, seed=3), 1)
    e.step()
    device.release()
    drain(device)
    await_stores(e.worker)
    e.run()
    assert e.outputs["b"] == expected_output(prompt(100, seed=3), 1)
    assert [ordinal for _, _, ordinal, _ in daemon.commits] == [0], "the second request's"
    assert nothing_open(e)


def test_a_computation_that_fails_before_the_first_copies(gpu: MakeGpuEngine, prompt: MakePrompt) -> None:
    device = FakeDevice(8)
    e = proven(gpu, device)
    e.add("a", prompt(256), 1)
    fail(e, FIRST, tells=False)
    assert nothing_open(e), "no slot was taken"


@pytest.mark.parametrize("end", ["shutdown", "reset"])
def test_the_session_ends_after_a_step_that_did_not(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, end: str
) -> None:
    device = FakeDevice(9)
    e = proven(gpu, device)
    client = e.worker.worker_half._client
    saver = e.worker.worker_half._saver
    e.add("a", prompt(256), 1)
    fail(e, LAST, tells=False)
    assert client.sections
    e.abort("a")
    if end == "shutdown":
        e.worker.shutdown()
    else:
        e.reset()
        e.add("b", [1] * 10, 1)
        e.run()
    assert not saver._thread.is_alive()
    assert not client.sections
    assert not +client.out
    assert not daemon.commits


def test_a_request_that_is_aborted_within_the_step(gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    """Its pages go to the next one, which writes them while copies of theirs stand still."""
    device = FakeDevice(10)
    e = proven(gpu, device, blocks=19, budget=256)
    device.hold()
    e.after_layer = lambda name: name == FIRST and e.abort("a")
    e.add("a", prompt(256), 1)
    e.step()
    e.after_layer = lambda _: None
    e.add("b", prompt(250, seed=3), 2)
    for _ in range(3):
        e.step()
        device.run(1000)
    assert device.compute.work, "its computation waits for them"
    device.release()
    e.run()
    assert e.outputs["b"] == expected_output(prompt(250, seed=3), 2)
    for key, _, ordinal, _ in daemon.commits[:4]:
        check_chunk(daemon.chunks[key], prefix_hashes(prompt(256)), ordinal)
    assert nothing_open(e)


def test_preempted_requests(gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    device = FakeDevice(11)
    e = proven(gpu, device, blocks=31, budget=512)
    e.holds = True
    for i in range(3):
        e.add(f"r{i}", prompt(120, seed=i), 150)
    e.run()
    assert e.preemptions
    known = [prefix_hashes(prompt(120, seed=i) + e.outputs[f"r{i}"]) for i in range(3)]
    for i in range(3):
        assert e.outputs[f"r{i}"] == expected_output(prompt(120, seed=i), 150)
    assert len(daemon.chunks) == 12
    for key, _, ordinal, _ in daemon.commits:
        assert any(_is(daemon, key, hashes, ordinal) for hashes in known)
    assert nothing_open(e)


def _is(daemon: StubDaemon, key: bytes, hashes: Any, ordinal: int) -> bool:
    try:
        check_chunk(daemon.chunks[key], hashes, ordinal)
    except AssertionError:
        return False
    return True


def test_without_credits_the_rest_of_the_request_is_dropped(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    device = FakeDevice(12)
    e = proven(gpu, device)
    daemon.credits = 2 * HEADS + 1
    e.add("a", prompt(256), 8)
    e.step()
    assert e.worker.stats.dropped_no_credit == 2
    daemon.credits = None
    e.run()
    assert [ordinal for _, _, ordinal, _ in daemon.commits] == [0, 1, 2, 3], "they were tried again"
    check_stored(daemon, prompt(256), [0, 1, 2, 3])
    assert nothing_open(e)


def test_a_slot_that_is_gone_when_its_copy_would_start(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice(13)
    e = proven(gpu, device)
    client = e.worker.worker_half._client
    take = client.take_credit
    taken: list[Any] = []

    def stale(length: int) -> Any:
        credit = take(length)
        if not taken:
            credit.deadline_ns = 1
        taken.append(credit)
        return credit

    monkeypatch.setattr(client, "take_credit", stale)
    e.add("a", prompt(256), 8)
    e.step()
    assert e.worker.stats.dropped_no_credit == 1
    e.run()
    check_stored(daemon, prompt(256), [0, 1, 2, 3])
    assert nothing_open(e)


@pytest.mark.parametrize("which", [1, 2])
def test_copies_that_do_not_start(
    gpu: MakeGpuEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    device = FakeDevice(14)
    e = proven(gpu, device)
    copies = e.worker.worker_half._path.stores._copies[0, 0]
    start, calls = copies.start, []

    def broken(*args: Any, **options: Any) -> Any:
        calls.append(options["steps"])
        if len(calls) == which:
            raise RuntimeError("no such kernel")
        return start(*args, **options)

    e.add("a", prompt(256), 8)
    with monkeypatch.context() as patch:
        patch.setattr(copies, "start", broken)
        e.step()
    assert len(calls) == which, "the step's stores are given up"
    assert nothing_open(e)
    e.run()
    assert e.outputs["a"] == expected_output(prompt(256), 8)
    check_stored(daemon, prompt(256), [0, 1, 2, 3])


@pytest.mark.parametrize("covered", [True, False])
@pytest.mark.parametrize("variant", ["staged", "zero_copy"])
def test_copies_of_some_layers(variant: Any, covered: bool) -> None:
    t = Transfer(FakeDevice(15), variant, covered, 60_000)
    t.store.cut(4)
    assert t.store.steps == (1, 2), "there are but two layers"
    chunks = [[3, 5, 1, 8], [20, 22, 21, 23]]
    known = [fill(t.form, t.g, blocks, i) for i, blocks in enumerate(chunks)]
    copies = t.copies(chunks)
    for layer in range(2):
        for copy in copies:
            assert (raw_layer(copy, layer) == 0).all(), "not there yet"
        for event in ends(t.store.start(copies, [], by_layer=True, steps=slice(layer, layer + 1))):
            event.synchronize()
        for copy, want in zip(copies, [k[:, h : h + 1] for k in known for h in range(3)], strict=True):
            assert (raw_layer(copy, layer) == raw(want[layer]).numpy()).all()


def raw_layer(copy: Any, layer: int) -> Any:
    return copy.view.reshape(2, -1)[layer]


def saves() -> tuple[LayerSaves, list[Any]]:
    told: list[Any] = []
    layers = {f"layer {i}": i for i in range(12)}
    return LayerSaves(layers, (5, 10, 12), told.append, lambda: told.append("give up")), told


def test_steps_are_reached_in_the_order_of_layers() -> None:
    one, told = saves()
    one.layer("layer 0")
    for _ in range(2):
        told.clear()
        one.begin(follows=True)
        for i in range(12):
            one.layer(f"layer {i}")
            one.layer("a layer without pages")
            assert told == [1, 2, 3][: (i >= 4) + (i >= 9) + (i >= 11)]
    told.clear()
    one.begin(follows=False)
    one.layer("layer 0")
    one.begin(follows=True)
    for i in (0, 1, 2, 3, 5, 4, 6, 7, 8, 9):
        one.layer(f"layer {i}")
    assert not told, "in another order"
    one.begin(follows=True)
    for i in (0, 1, 2, 3, 4, 0, 5):
        one.layer(f"layer {i}")
    assert told == [1, "give up"]


def test_a_mode_whose_steps_call_a_hook_twice_is_not_proven() -> None:
    waits = LayerWaits(Arrivals(FakeDevice()), {"a": 0, "b": 1})
    context = SimpleNamespace(attn_metadata={}, cudagraph_runtime_mode="NONE")

    def step(*names: str) -> bool:
        known = waits.begin(context)
        for name in names:
            waits.layer(name)
        waits.end()
        return known

    assert [step("a", "b", "a"), step("a", "b"), step("a", "b")] == [False, False, True]
    assert not waits.begin(SimpleNamespace(attn_metadata=None, cudagraph_runtime_mode="NONE"))
    assert not waits.begin(None)


def test_where_stores_do_not_follow(gpu: MakeGpuEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def followed(e: SimulatedEngine) -> bool:
        half = e.worker.worker_half
        return half.saves is not None and bool(half._path.stores.steps)

    assert followed(gpu(FakeDevice())(extra=AUTO))
    assert not followed(gpu(FakeDevice())(extra={"store_layers": "off"}))
    groups = make_hybrid(64, (16, 0, 32), (16, 64, 32))
    assert not followed(gpu(FakeDevice())(extra=AUTO, cache_config=groups))
    made: Callable[..., None] = GpuPath.__init__
    for order in (Order.OTHERS, Order.EVERYTHING):

        def ordered(path: GpuPath, *args: Any, order: Order = order, **options: Any) -> None:
            made(path, *args[:5], order, **options)

        monkeypatch.setattr(GpuPath, "__init__", ordered)
        assert not followed(gpu(FakeDevice())(extra=AUTO)), order
    for name in ("enable_dbo", "use_ubatching"):
        assert not layer_hooks(SimpleNamespace(parallel_config=SimpleNamespace(**{name: True})))


def test_full_graphs_are_given_up_only_on_demand() -> None:
    for value, needs in (("off", False), ("auto", False), ("piecewise", True)):
        assert LarderConnector.requires_piecewise_for_cudagraph({"store_layers": value}) is needs
    own = {"kv_connector": "LarderConnector", "kv_connector_module_path": "larder.vllm", "kv_role": "kv_both"}
    extra = {"kv_connector_extra_config": {"store_layers": "piecewise"}}
    assert MultiConnector.requires_piecewise_for_cudagraph({"connectors": [own | extra]})
    with pytest.raises(InvalidError, match="store_layers"):
        Settings.parse({"store_layers": "always"})
