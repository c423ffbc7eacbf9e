"""Contract, lines 2, 3, 5 and 16: loads, their ends, and who waits for them."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from simulated_engine import MakeEngine, MakePrompt, Step, expected_output
from stub_daemon import StubDaemon
from vllm.v1.request import RequestStatus

from larder.vllm.metadata import LoadOp, StepMetadata, WorkerReport


@pytest.fixture
def stored(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> list[bytes]:
    """A prompt of 300 tokens, 4 chunks of which are stored; their keys in order."""
    engine().generate("stored", prompt(300), max_tokens=1)
    return [key for key, *_ in daemon.commits]


def received(steps: list[Step]) -> list[str]:
    return [r for s in steps for r in s.output.finished_recving or ()]


def invalid(steps: list[Step]) -> set[int]:
    return set().union(*(s.output.invalid_block_ids for s in steps))


@pytest.mark.usefixtures("stored")
def test_pages_are_those_that_the_engine_would_have_computed(engine: MakeEngine, prompt: MakePrompt) -> None:
    e = engine()
    e.generate("r", prompt(300))
    assert e.external["r"] == 256
    # The simulated engine compares pages before each step; this many of them.
    assert e.checked_tokens == 256 + 3 * 288
    assert e.worker.stats.bytes_loaded == 4 * 32768


@pytest.mark.usefixtures("stored")
def test_every_load_is_received_once(engine: MakeEngine, prompt: MakePrompt) -> None:
    e = engine()
    e.add("r", prompt(300))
    steps = e.run()
    assert received(steps) == ["r"]
    assert not invalid(steps)


@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.usefixtures("stored")
def test_a_local_hit_that_ends_inside_a_chunk(engine: MakeEngine, prompt: MakePrompt, block: int) -> None:
    e = engine(block=block)
    # 100 tokens of it are computed here, and stay in the engine's cache.
    e.generate("local", prompt(100), max_tokens=1, params={"larder": {"skip_load": True}})
    local = 100 // block * block
    before = {n: c.clone() for n, c in e.pages.items()}
    e.add("r", prompt(300))
    (step, *_) = e.run()
    assert e.external["r"] == 256 - local
    (op,) = step.metadata.loads
    assert op.first_chunk == local // 64
    (blocks,) = op.blocks
    assert len(blocks) == (256 - local) // block
    kept = set(blocks)
    for name, cache in e.pages.items():
        for b in range(1, local // block + 1):
            assert b not in kept
            assert torch.equal(cache[b].view(torch.int16), before[name][b].view(torch.int16))
    assert e.outputs["r"] == expected_output(prompt(300), 4)


def test_stored_by_one_block_size_loaded_by_another(engine: MakeEngine, prompt: MakePrompt) -> None:
    engine(block=64).generate("r", prompt(300))
    for block in (32, 16):
        e = engine(block=block)
        assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
        assert e.external["r"] == 256


@pytest.mark.usefixtures("stored")
def test_a_longer_prompt_loads_what_it_shares(engine: MakeEngine, prompt: MakePrompt) -> None:
    e = engine()
    longer = prompt(200) + prompt(150, seed=5)
    assert e.generate("r", longer) == expected_output(longer, 4)
    assert e.external["r"] == 192


@pytest.mark.usefixtures("stored")
def test_concurrent_requests_load_a_prefix_once(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine(blocks=256)
    for i in range(8):
        e.add(f"r{i}", prompt(300))
    e.run()
    assert len(daemon.loaded) == 8  # 4 chunks of 2 parts
    assert e.worker.stats.loads == 1
    assert e.connector.stats.waits_for_load >= 7
    for i in range(8):
        assert e.outputs[f"r{i}"] == expected_output(prompt(300), 4)


@pytest.mark.usefixtures("stored")
def test_concurrent_requests_with_a_common_prefix_load_it_once(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine(blocks=256)
    prompts = [prompt(280) + prompt(40, seed=i) for i in range(6)]
    for i, tokens in enumerate(prompts):
        e.add(f"r{i}", tokens)
    e.run()
    assert len(daemon.loaded) == 8
    for i, tokens in enumerate(prompts):
        assert e.outputs[f"r{i}"] == expected_output(tokens, 4)


@pytest.mark.usefixtures("stored")
def test_waiting_requests_go_on_when_the_loading_one_is_aborted(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine(blocks=256)
    daemon.stuck = True
    for i in range(3):
        e.add(f"r{i}", prompt(300))
    e.step()
    loading = [r for r in e.scheduler.requests.values() if r.status == RequestStatus.WAITING_FOR_REMOTE_KVS]
    assert [r.request_id for r in loading] == ["r0"]
    e.abort("r0")
    daemon.stuck = False
    e.run()
    for i in (1, 2):
        assert e.outputs[f"r{i}"] == expected_output(prompt(300), 4)
    assert not daemon.holds


@pytest.mark.usefixtures("stored")
def test_an_abort_during_the_load_frees_pages_only_after_it(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine()
    free = e.free_blocks()
    daemon.stuck = True
    e.add("r", prompt(300))
    e.step()
    e.abort("r")
    # The scheduler keeps the pages, since they may still be written.
    assert e.free_blocks() < free
    daemon.stuck = False
    steps = e.run()
    assert received(steps) == ["r"]
    assert e.free_blocks() == free
    assert not daemon.holds
    assert not e.connector.scheduler_half._inflight


@pytest.mark.usefixtures("stored")
def test_an_abort_right_after_the_load(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    free = e.free_blocks()
    e.add("r", prompt(300))
    while "r" not in e.scheduler.finished_recving_kv_req_ids:
        e.step()
    e.abort("r")
    assert received(e.run()) == []
    assert e.free_blocks() == free
    assert not daemon.holds


@pytest.mark.parametrize("bad", range(4))
def test_a_damaged_chunk_is_recomputed_from_there_on(
    engine: MakeEngine, daemon: StubDaemon, stored: list[bytes], prompt: MakePrompt, bad: int
) -> None:
    daemon.corrupt.add(stored[bad])
    e = engine()
    e.add("r", prompt(300))
    steps = e.run()
    assert received(steps) == ["r"]
    # In the very step in which the load is reported.
    assert [bool(s.output.invalid_block_ids) for s in steps if s.output.finished_recving] == [True]
    assert len(invalid(steps)) == (4 - bad) * 4
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert e.connector.stats.loads_failed == 1
    assert e.worker.stats.blocks_invalid == (4 - bad) * 4


def test_what_was_recomputed_is_stored_again(
    engine: MakeEngine, daemon: StubDaemon, stored: list[bytes], prompt: MakePrompt
) -> None:
    daemon.corrupt.add(stored[2])
    e = engine()
    # The daemon drops what it found damaged.
    daemon.evict(stored[2])
    e.add("r", prompt(300))
    daemon.corrupt.clear()
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert stored[2] in daemon.chunks


def test_a_chunk_evicted_under_the_load_is_recomputed(
    engine: MakeEngine, daemon: StubDaemon, stored: list[bytes], prompt: MakePrompt
) -> None:
    e = engine()
    e.add("r", prompt(300))
    daemon.evict(stored[1])
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert stored[1] in daemon.chunks
    assert e.worker.stats.chunks_loaded == 1


@pytest.mark.usefixtures("stored")
def test_leases_that_are_not_confirmed_do_not_count(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    daemon.unconfirmed = 1
    e = engine()
    e.add("r", prompt(300))
    steps = e.run()
    assert len(invalid(steps)) == 16
    assert e.worker.stats.bytes_loaded == 0
    assert e.outputs["r"] == expected_output(prompt(300), 4)


@pytest.mark.usefixtures("stored")
def test_a_load_ends_at_its_deadline(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    daemon.stuck = True
    e = engine(extra={"load_deadline_ms": 50})
    e.add("r", prompt(300))
    steps = e.run()
    assert received(steps) == ["r"]
    assert e.outputs["r"] == expected_output(prompt(300), 4)


@pytest.mark.usefixtures("stored")
def test_a_daemon_gone_during_the_load(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.add("r", prompt(300))
    daemon.up = False
    request = e.scheduler.requests["r"]
    assert e.connector.get_num_new_matched_tokens(request, 0) == (0, False)
    daemon.up = True
    assert e.connector.get_num_new_matched_tokens(request, 0) == (256, True)
    output = e.scheduler.schedule

    def gone() -> Any:
        scheduled = output()
        daemon.up = False
        return scheduled

    e.scheduler.schedule = gone
    steps = [e.step()]
    e.scheduler.schedule = output
    steps += e.run()
    assert received(steps) == ["r"]
    assert e.outputs["r"] == expected_output(prompt(300), 4)


def test_many_waiting_requests_do_not_load_a_broken_chunk_one_after_the_other(
    engine: MakeEngine, daemon: StubDaemon, stored: list[bytes], prompt: MakePrompt
) -> None:
    daemon.corrupt.add(stored[1])
    e = engine(blocks=256)
    for i in range(6):
        e.add(f"r{i}", prompt(300))
    e.run()
    assert e.worker.stats.loads_failed == 1
    for i in range(6):
        assert e.outputs[f"r{i}"] == expected_output(prompt(300), 4)


def test_loads_longer_than_one_message_may_be(
    engine: MakeEngine, daemon: StubDaemon, stored: list[bytes], prompt: MakePrompt
) -> None:
    daemon.max_parts = 3  # one chunk of two parts for each load
    e = engine()
    assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert e.worker.stats.chunks_loaded == 4
    daemon.corrupt.add(stored[2])
    e = engine()
    e.add("r", prompt(300))
    assert len(invalid(e.run())) == 8
    assert e.outputs["r"] == expected_output(prompt(300), 4)


@pytest.mark.usefixtures("stored")
def test_a_second_allocation_and_another_connectors_load_start_nothing(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine()
    request = e.add("r", prompt(300))
    assert e.connector.get_num_new_matched_tokens(request, 0) == (256, True)
    assert len(daemon.holds) == 1
    blocks = e.scheduler.kv_cache_manager.create_kv_cache_blocks(
        (e.scheduler.kv_cache_manager.block_pool.get_new_blocks(19),)
    )
    # Real pages, nothing external: a connector beside this one was chosen.
    e.connector.update_state_after_alloc(request, blocks, 0)
    assert not e.connector.scheduler_half._starting
    assert not daemon.holds


@pytest.mark.usefixtures("stored")
def test_a_load_without_a_hold_fails_and_is_recomputed(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine()
    e.add("r", prompt(300))
    half = e.connector.scheduler_half
    claimed = half.matched_tokens

    def without_hold(request: Any, local: int) -> Any:
        claim = claimed(request, local)
        daemon.holds.clear()
        return claim

    half.matched_tokens = without_hold
    steps = e.run()
    assert received(steps) == ["r"]
    assert e.outputs["r"] == expected_output(prompt(300), 4)


@pytest.mark.usefixtures("stored")
def test_a_rank_without_parts_receives_too(engine: MakeEngine, daemon: StubDaemon) -> None:
    e = engine()
    worker = e.worker.worker_half
    worker._loader._parts = {}
    worker.start_loads(StepMetadata(loads=[LoadOp("r", 1, 0, 4, (0,), (tuple(range(16)),), time.monotonic() + 60)]))
    ended: list[str] = []
    until = time.monotonic() + 60
    while not ended and time.monotonic() < until:
        worker.idle(StepMetadata(idle_wait_s=0.01))
        ended += worker.finished(set()) or ()
    worker.idle(StepMetadata(idle_wait_s=0.01))
    ended += worker.finished(set()) or ()
    assert ended == ["r"]
    assert not worker.load_errors()
    assert not daemon.loaded


def test_reports_of_ranks_add_up() -> None:
    one = WorkerReport({("a", 1)}, {"r": 3, "s": 1})
    other = WorkerReport({("a", 2)}, {"r": 2})
    both = one.aggregate(other)
    assert both.dropped == {("a", 1), ("a", 2)}
    assert both.failed == {"r": 2, "s": 1}
