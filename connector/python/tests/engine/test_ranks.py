"""Contract, lines 5 and 8: several ranks store and load together, each its own part of every chunk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from fake_device import FakeDevice
from hybrid_engine import make_hybrid
from simulated_config import DIM, HEADS, make_config
from simulated_engine import MakePrompt, check_chunk, expected_output, kv_of, larder, prefix_hashes
from simulated_ranks import HybridRanks, LatentEngine, LatentGpuEngine, LopsidedEngine, MakeRanks, RankedEngine
from stub_daemon import StubClient, StubDaemon

from larder.errors import CorruptError, LarderError
from larder.load import FailedPart, LeasedPart
from larder.namespace import GroupKind, NamespaceDescriptor, diff
from larder.options import Options
from larder.vllm import layout_choice, layout_choice_gpu
from larder.vllm.epochs import Epochs
from larder.vllm.metadata import Handshake


@pytest.fixture
def ranks(model_folder: Path, daemon: StubDaemon) -> Iterator[MakeRanks]:
    """Makes engines of several ranks: ranks(tensor=2), ranks(tensor=4), ...; further arguments as make_config's."""
    made: list[RankedEngine] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def make(
        tensor: int = 1,
        pipeline: int = 1,
        kind: Any = RankedEngine,
        connect: Any = None,
        data: int = 0,
        cache_config: Any = None,
        **more: Any,
    ) -> Any:
        config = make_config(model_folder, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline, **more)
        # As the engine does where it is one of several.
        config.kv_transfer_config.engine_id += f"_dp{data}"
        config.parallel_config.data_parallel_index = data
        made.append(kind(config, connect or daemon.connect, cache_config))
        return made[-1]

    yield make
    for one in made:
        one.close()
    torch.set_num_threads(threads)


class OnRank(StubClient):
    """A worker's client for whom chunks are damaged, and whose loads wait for a gate, by tensor-parallel rank."""

    def __init__(
        self,
        daemon: StubDaemon,
        options: Options,
        damaged: Mapping[int, set[int]] = MappingProxyType({}),
        gates: Mapping[int, threading.Event] = MappingProxyType({}),
    ) -> None:
        super().__init__(daemon, options)
        worker = options.role == "worker"
        self.damaged = damaged.get(options.ranks.tensor, set()) if worker else set()
        self.gate = gates.get(options.ranks.tensor) if worker else None

    def load(self, *args: Any, **more: Any) -> Any:
        if self.gate is not None:
            assert self.gate.wait(60)
        found: Any = super().load(*args, **more)
        batches = found.batches

        def some(deadline_s: float) -> Iterator[list[LeasedPart]]:
            for batch in batches(deadline_s):
                bad = [part for part in batch if part.chunk in self.damaged]
                found.failed += [FailedPart(part.chunk, part.part, CorruptError("flipped")) for part in bad]
                yield [part for part in batch if part.chunk not in self.damaged]

        found.batches = some
        return found


def check_daemon(daemon: StubDaemon, tokens: list[int], chunks: int, spans: int = 1) -> None:
    """Fails unless the daemon has the first chunks of a prompt, whole and right."""
    hashes = prefix_hashes(tokens)
    keys = {ordinal: key for key, _, ordinal, _ in daemon.commits}
    for ordinal in range(chunks):
        parts = daemon.chunks[keys[ordinal]]
        assert sorted(parts) == list(range(spans * HEADS))
        check_chunk(parts, hashes, ordinal, spans=spans)


@pytest.mark.parametrize(("writers", "readers"), [(2, 1), (1, 2), (4, 2), (2, 4), (2, 2)])
def test_engines_of_any_number_of_ranks_share_chunks(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt, writers: int, readers: int
) -> None:
    w = ranks(writers)
    assert w.generate("w", prompt(300)) == expected_output(prompt(300), 4)
    check_daemon(daemon, prompt(300), 4)
    r = ranks(readers)
    assert r.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert r.external["r"] == 256
    assert r.received_by_all("r")
    # Every rank brings its own heads, and those that share a head each bring it.
    assert {worker.stats.chunks_loaded for worker in r.workers.values()} == {4}
    assert len(daemon.loaded) == 4 * max(HEADS, readers)


def test_where_ranks_share_a_head_the_lowest_writes_it(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = ranks(4)
    e.generate("r", prompt(300), max_tokens=1)
    assert [worker.stats.chunks_stored for worker in e.workers.values()] == [4, 0, 4, 0]
    assert len(daemon.commits) == 8


def test_a_chunk_that_one_rank_did_not_store_is_no_hit(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = ranks(2)
    second = larder(e.workers[0, 1]).worker_half._client
    assert isinstance(second, StubClient)
    second.closed = True
    e.generate("w", prompt(300), max_tokens=1)
    # Half of each is there; those that were dropped on one rank are tried again.
    assert all(sorted(parts) == [0] for parts in daemon.chunks.values())
    assert e.connector.stats.stores_dropped > 0
    r = ranks(1)
    assert r.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert r.external["r"] == 0
    check_daemon(daemon, prompt(300), 4)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("chunk", [0, 2])
def test_what_one_rank_could_not_load_is_computed_by_all(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt, rank: int, chunk: int
) -> None:
    ranks(2).generate("w", prompt(300), max_tokens=1)
    e = ranks(2, connect=partial(OnRank, daemon, damaged={rank: {chunk}}))
    free = e.free_blocks()
    # Pages are compared before each step, so both ranks have computed what one did not have.
    assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert e.checked_tokens >= 64 * chunk
    assert e.received_by_all("r")
    stats = [worker.stats for worker in e.workers.values()]
    assert [s.loads_failed for s in stats] == [int(r == rank) for r in range(2)]
    assert stats[1 - rank].chunks_loaded == 4
    assert e.connector.stats.loads_failed == 1
    assert e.free_blocks() == free
    assert not daemon.holds


def test_a_load_fails_on_both_ranks_in_different_steps(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    ranks(2).generate("w", prompt(300), max_tokens=1)
    gates = {1: threading.Event()}
    e = ranks(2, connect=partial(OnRank, daemon, damaged={0: {3}, 1: {2}}, gates=gates))
    e.add("r", prompt(300))
    step_until(e, lambda: e.received()[0, 0] == ["r"])
    assert e.connector.stats.loads_failed == 1
    assert not e.ended
    gates[1].set()
    steps = e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert e.received_by_all("r")
    # One load, of which the rank that got least decides how much counts.
    assert e.connector.stats.loads_failed == 1
    assert sum(step.scheduled.get("r", 0) for step in steps) == 300 - 128 + 3


def step_until(e: RankedEngine, done: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if done():
            return
        e.step()
    raise AssertionError("it does not come to this")


def test_a_load_has_ended_when_its_slowest_rank_says_so(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    ranks(2).generate("w", prompt(300), max_tokens=1)
    gates = {0: threading.Event(), 1: threading.Event()}
    gates[0].set()
    e = ranks(2, connect=partial(OnRank, daemon, gates=gates))
    e.add("r", prompt(300))
    step_until(e, lambda: e.received()[0, 0] == ["r"])
    # Others go on meanwhile.
    assert e.generate_beside("o", prompt(100, seed=1)) == expected_output(prompt(100, seed=1), 4)
    assert not e.outputs["r"]
    gates[1].set()
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert e.external["r"] == 256
    assert e.received_by_all("r")


def test_a_rank_that_loads_nothing_does_not_keep_the_others(ranks: MakeRanks) -> None:
    loader = larder(ranks(2).worker).worker_half._loader
    assert loader is not None
    waiting = threading.Thread(target=loader.wait, args=(3600.0,), daemon=True)
    waiting.start()
    waiting.join(60)
    assert not waiting.is_alive()


def test_an_abort_while_one_rank_loads(ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt) -> None:
    ranks(2).generate("w", prompt(300), max_tokens=1)
    gates = {1: threading.Event()}
    e = ranks(2, connect=partial(OnRank, daemon, gates=gates))
    free = e.free_blocks()
    e.add("r", prompt(300))
    step_until(e, lambda: e.received()[0, 0] == ["r"])
    e.abort("r")
    e.step()
    # The slower rank may still write.
    assert e.free_blocks() < free
    gates[1].set()
    e.run()
    assert e.received_by_all("r")
    assert e.free_blocks() == free
    assert not daemon.holds


def test_a_load_without_a_daemon_on_one_rank(ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt) -> None:
    ranks(2).generate("w", prompt(300), max_tokens=1)
    e = ranks(2)
    half = larder(e.workers[0, 1]).worker_half
    assert isinstance(half._client, StubClient)
    half._client.closed = True
    assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert e.external["r"] == 0
    assert e.received_by_all("r")


def test_ranks_that_do_not_agree_are_refused_by_name(ranks: MakeRanks) -> None:
    e, other = ranks(2), ranks(2, extra={"weights_epoch": 1})
    said = [e.workers[0, 0].get_handshake_metadata(), other.workers[0, 1].get_handshake_metadata()]
    assert all(isinstance(one, Handshake) for one in said)
    fresh = ranks(2)
    half = larder(fresh.connector).scheduler_half
    half.epochs = Epochs(keep=False)
    with pytest.raises(LarderError, match="weights_epoch"):
        half.start(said)


@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (1, 2)])
def test_all_ranks_go_over_to_another_namespace(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt, tensor: int, pipeline: int
) -> None:
    e = ranks(tensor, pipeline)
    e.generate("r", prompt(300), max_tokens=1)
    e.load_weights(7)
    assert e.reset()
    e.generate("again", prompt(300), max_tokens=1)
    assert not e.external["again"]
    e.drop_own_cache()
    e.generate("loads", prompt(300), max_tokens=1)
    assert e.external["loads"] == 256
    assert e.received_by_all("loads")
    assert len(daemon.chunks) == 8


def test_the_daemon_is_told_where_a_rank_stands(ranks: MakeRanks) -> None:
    e = ranks(2)
    clients = [larder(worker).worker_half._client for worker in e.workers.values()]
    told = [client.options for client in clients if isinstance(client, StubClient)]
    assert [(o.ranks.tensor, o.ranks.tensor_size) for o in told] == [(0, 2), (1, 2)]
    assert len({o.instance_id for o in told}) == 1


def test_data_parallel_engines_share_chunks(ranks: MakeRanks, prompt: MakePrompt) -> None:
    first, second = ranks(2, data=0), ranks(2, data=1)
    first.generate("w", prompt(300), max_tokens=1)
    assert second.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert second.external["r"] == 256
    told = [larder(e.workers[0, 1]).worker_half._client for e in (first, second)]
    options = [client.options for client in told if isinstance(client, StubClient)]
    assert [(o.ranks.data, o.ranks.data_size, o.ranks.tensor) for o in options] == [(0, 1, 1), (1, 2, 1)]
    assert options[0].instance_id != options[1].instance_id


# -- pipeline stages -------------------------------------------------------------

Engine = tuple[int, int, int]
"""Tensor-parallel ranks, stages, and the setting layer_spans."""


@pytest.mark.parametrize(
    ("writer", "reader"),
    [((1, 2, 0), (1, 1, 2)), ((1, 1, 2), (1, 2, 0)), ((2, 2, 0), (1, 2, 2)), ((1, 1, 2), (2, 2, 2))],
)
def test_stages_share_chunks_with_engines_of_the_same_spans(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt, writer: Engine, reader: Engine
) -> None:
    tensor, pipeline, spans = writer
    w = ranks(tensor, pipeline, extra={"layer_spans": spans})
    assert w.generate("w", prompt(300)) == expected_output(prompt(300), 4)
    check_daemon(daemon, prompt(300), 4, spans=2)
    assert {worker.stats.chunks_stored for worker in w.workers.values()} == {4}
    tensor, pipeline, spans = reader
    r = ranks(tensor, pipeline, extra={"layer_spans": spans})
    assert r.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert r.external["r"] == 256
    assert r.received_by_all("r")
    assert {worker.stats.chunks_loaded for worker in r.workers.values()} == {4}
    assert len(daemon.loaded) == 4 * 2 * HEADS


def test_engines_of_other_spans_share_nothing_and_the_field_is_named(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    two, one = ranks(pipeline=2), ranks()
    two.generate("w", prompt(300), max_tokens=1)
    assert one.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert one.external["r"] == 0
    assert len(daemon.chunks) == 8
    spaces = [NamespaceDescriptor.decode(e.worker.get_handshake_metadata().namespace) for e in (two, one)]
    assert [d.field for d in diff(*spaces)] == ["spans"]
    assert [space.groups[0].layers for space in spaces] == [(0, 1), (0, 1)]


def test_a_stage_that_fails_to_load_has_the_request_computed_by_all(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    ranks(pipeline=2).generate("w", prompt(300), max_tokens=1)
    e = ranks(pipeline=2)
    half = larder(e.workers[1, 0]).worker_half
    assert isinstance(half._client, StubClient)
    half._client.closed = True
    steps_before = e.steps
    assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert e.steps > steps_before
    assert e.received_by_all("r")
    assert [worker.stats.loads_failed for worker in e.workers.values()] == [0, 1]


def test_a_stage_with_nothing_to_store_or_load(ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt) -> None:
    ranks(2).generate("w", prompt(300), max_tokens=1)
    e = ranks(2, 2, kind=LopsidedEngine)
    longer = prompt(300) + prompt(100, seed=1)
    assert e.generate("r", longer) == expected_output(longer, 4)
    assert e.external["r"] == 256
    # It says that its loads have ended, as the others do.
    assert e.received_by_all("r")
    assert [worker.stats.bytes_loaded for worker in e.workers.values()] == [4 * 16384] * 2 + [0] * 2
    assert [worker.stats.chunks_stored for worker in e.workers.values()] == [2] * 2 + [0] * 2
    check_daemon(daemon, longer, 6)


def test_a_stage_with_a_piece_of_a_span_is_refused(ranks: MakeRanks) -> None:
    with pytest.raises(LarderError, match=r"layer_spans.*1.*begin at layer 1"):
        ranks(pipeline=2, extra={"layer_spans": 1})


def test_the_daemon_is_told_the_stage(ranks: MakeRanks) -> None:
    e = ranks(pipeline=2)
    clients = [larder(worker).worker_half._client for worker in e.workers.values()]
    told = [client.options.ranks for client in clients if isinstance(client, StubClient)]
    assert [(r.pipeline, r.pipeline_size) for r in told] == [(0, 2), (1, 2)]


@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (1, 2)])
def test_after_a_reset_all_ranks_have_another_namespace(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt, tensor: int, pipeline: int
) -> None:
    e = ranks(tensor, pipeline)
    e.generate("r", prompt(300), max_tokens=1)
    e.load_weights(7)
    assert e.reset()
    # Pages are compared: KV of before would be wrong.
    e.generate("again", prompt(300), max_tokens=1)
    assert e.external["again"] == 0
    assert len(daemon.chunks) == 8
    e.drop_own_cache()
    e.generate("and again", prompt(300), max_tokens=1)
    assert e.external["and again"] == 256
    assert e.received_by_all("and again")
    assert {worker.stats.chunks_stored for worker in e.workers.values()} == {8}


# -- several KV cache groups -----------------------------------------------------

GEMMA = ((16, 0, 32), (16, 128, 32), (16, 128, 32))
BLOCKS = ((16, 0, 64), (32, 96, 32))


@pytest.mark.parametrize("groups", [GEMMA, BLOCKS], ids=["gemma", "blocks of two sizes"])
@pytest.mark.parametrize(("writer", "reader"), [((2, 1), (1, 1)), ((1, 1), (2, 1)), ((2, 2), (1, 2)), ((1, 2), (2, 2))])
def test_hybrid_models_of_several_ranks(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt, groups: Any, writer: Any, reader: Any
) -> None:
    options = {"kind": HybridRanks, "block": groups[0][0], "blocks": 128}
    w: Any = ranks(*writer, cache_config=make_hybrid(128, *groups), **options)
    w.generate("w", prompt(300), max_tokens=1)
    keys = {ordinal: key for key, _, ordinal, _ in daemon.commits}
    for ordinal in range(4):
        w.check_chunk(daemon.chunks[keys[ordinal]], prefix_hashes(prompt(300)), ordinal)
    r = ranks(*reader, cache_config=make_hybrid(128, *groups), **options)
    assert r.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert r.external["r"] == 256
    assert r.received_by_all("r")
    assert all(worker.stats.bytes_loaded for worker in r.workers.values())


def test_a_hybrid_model_begins_anew_where_one_rank_could_not_load(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    options = {"kind": HybridRanks, "block": 16, "blocks": 128}
    ranks(2, cache_config=make_hybrid(128, *GEMMA), **options).generate("w", prompt(300), max_tokens=1)
    damaged = partial(OnRank, daemon, damaged={1: {3}})
    e = ranks(2, cache_config=make_hybrid(128, *GEMMA), connect=damaged, **options)
    free = e.free_blocks()
    assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert e.received_by_all("r")
    assert [worker.stats.loads_failed for worker in e.workers.values()] == [0, 1]
    assert e.connector.stats.loads_failed == 1
    assert e.free_blocks() == free
    assert not daemon.holds


# -- latent KV -------------------------------------------------------------------


@pytest.mark.parametrize(("writers", "readers"), [(1, 2), (2, 1), (4, 2)])
def test_latent_kv_is_written_by_the_lowest_rank_and_loaded_by_all(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt, writers: int, readers: int
) -> None:
    w = ranks(writers, kind=LatentEngine)
    assert w.generate("w", prompt(300)) == expected_output(prompt(300), 4)
    assert [worker.stats.chunks_stored for worker in w.workers.values()] == [4] + [0] * (writers - 1)
    assert {sum(chunk[3] for chunk in daemon.commits)} == {4}
    r = ranks(readers, kind=LatentEngine)
    assert r.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert r.external["r"] == 256
    assert r.received_by_all("r")
    assert [worker.stats.chunks_loaded for worker in r.workers.values()] == [4] * readers
    space = NamespaceDescriptor.decode(r.worker.get_handshake_metadata().namespace)
    (group,) = space.groups
    assert (group.kind, group.kv_heads, group.dk, group.dv) == (GroupKind.LATENT, 1, 2 * DIM, 0)


def test_latent_kv_of_pipeline_stages(ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt) -> None:
    ranks(2, 2, kind=LatentEngine).generate("w", prompt(300), max_tokens=1)
    assert {len(parts) for parts in daemon.chunks.values()} == {2}
    r = ranks(1, 2, kind=LatentEngine)
    assert r.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert r.external["r"] == 256
    assert r.received_by_all("r")


def test_latent_kv_in_the_canonical_layout(
    ranks: MakeRanks, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = LatentGpuEngine.device = FakeDevice()

    def write(k: Any, _: Any, cache: Any, slots: Any) -> None:
        cache.flatten(0, 1)[slots] = k[:, 0]

    monkeypatch.setattr(layout_choice, "device_of", lambda _: device)
    monkeypatch.setattr(layout_choice_gpu, "backend_write", lambda _: write)
    ranks(2, kind=LatentGpuEngine).generate("w", prompt(300), max_tokens=1)
    hashes = prefix_hashes(prompt(300))
    assert len(daemon.commits) == 4
    for ordinal, (key, *_) in enumerate(daemon.commits):
        (part,) = daemon.chunks[key].values()
        vectors = kv_of(hashes[ordinal * 64 : ordinal * 64 + 64], 0)[:, 0]
        assert part[: len(part) // 2] == vectors.contiguous().view(torch.uint8).numpy().tobytes()
    for tensor in (1, 4):
        r = ranks(tensor, kind=LatentGpuEngine)
        assert r.generate("r", prompt(300)) == expected_output(prompt(300), 4)
        assert r.external["r"] == 256
        assert r.received_by_all("r")
        space = NamespaceDescriptor.decode(r.worker.get_handshake_metadata().namespace)
        assert (space.layout.name, space.groups[0].kind) == ("canonical/1", GroupKind.LATENT)
