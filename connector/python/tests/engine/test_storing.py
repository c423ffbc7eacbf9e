"""Contract, lines 4, 6 and the storing part of 12: what is stored, when, and what is not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from simulated_config import HEADS
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine, check_chunk, expected_output, prefix_hashes
from stub_daemon import TENANT_KEY, StubDaemon
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher

from larder.errors import FullError
from larder.keys import chunk_keys, root_key
from larder.vllm import worker
from larder.vllm.matching import Match


def ordinals(daemon: StubDaemon) -> list[int]:
    return [ordinal for _, _, ordinal, _ in daemon.commits]


def check_bytes(daemon: StubDaemon, tokens: Sequence[int]) -> None:
    """Every stored chunk is one of the prompt, and holds exactly its tokens' KV."""
    for key, _, ordinal, parts in daemon.commits:
        assert parts == HEADS
        check_chunk(daemon.chunks[key], prefix_hashes(tokens), ordinal)


@pytest.mark.parametrize("block", [16, 32, 64])
def test_chunks_are_canonical_whatever_the_block(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, block: int
) -> None:
    engine(block=block).generate("r", prompt(300), max_tokens=1)
    assert ordinals(daemon) == [0, 1, 2, 3]
    check_bytes(daemon, prompt(300))


def test_keys_are_those_of_the_format(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.generate("r", prompt(300), max_tokens=1)
    half = e.connector.scheduler_half
    root = root_key(half._fingerprint, TENANT_KEY)
    keys = chunk_keys(root, prompt(300), 64)
    assert [key for key, *_ in daemon.commits] == [keys[i : i + 32] for i in range(0, len(keys), 32)]
    assert [parent for _, parent, *_ in daemon.commits] == [root] + [keys[i : i + 32] for i in range(0, 96, 32)]


def test_engines_with_other_hashes_share_chunks(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    """Another algorithm for blocks, and another seed: the engine draws one where PYTHONHASHSEED is not set."""
    names = []
    for i, algorithm in enumerate(("sha256", "sha256_cbor")):
        e = engine()
        e._hasher = get_request_block_hasher(e.block, get_hash_fn_by_name(algorithm))
        e.add(str(i), prompt(300))
        names.append(e.scheduler.requests[str(i)].block_hashes[0])
        e.run()
        assert e.external[str(i)] == 256 * i
    assert len(set(names)) == 2


def test_chunked_prefill_stores_what_each_step_computed(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine(budget=100)
    e.add("r", prompt(300), max_tokens=1)
    stored = [[op.ordinal for op in step.metadata.stores] for step in e.run()]
    assert stored[:3] == [[0], [1, 2], [3]]
    check_bytes(daemon, prompt(300))


def test_generation_completes_chunks(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    out = e.generate("r", prompt(100), max_tokens=100)
    assert out == expected_output(prompt(100), 100)
    # The last token's KV is never computed: 199 tokens are 3 chunks.
    assert ordinals(daemon) == [0, 1, 2]
    check_bytes(daemon, prompt(100) + out)
    other = engine()
    other.generate("next", prompt(100) + out)
    assert other.external["next"] == 192


def test_generated_chunks_are_an_option(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    engine(extra={"store_generated": False}).generate("r", prompt(100), max_tokens=100)
    assert ordinals(daemon) == [0]


def test_what_the_daemon_has_is_not_stored_again(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    engine().generate("r", prompt(300), max_tokens=1)
    e = engine()
    e.generate("r", prompt(300), max_tokens=1)
    e.generate("again", prompt(300), max_tokens=1)
    assert len(daemon.commits) == 4
    assert e.worker.stats.chunks_duplicate == 0


def test_a_local_hit_that_the_daemon_lacks_is_stored(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine()
    e.generate("r", prompt(300), max_tokens=1)
    for key, *_ in list(daemon.commits)[1:]:
        daemon.evict(key)
    e.generate("again", prompt(300), max_tokens=1)
    assert ordinals(daemon) == [0, 1, 2, 3, 1, 2, 3]
    assert e.external["again"] == 0
    check_bytes(daemon, prompt(300))


def test_a_request_of_one_step_waits_a_little_for_what_to_store(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = engine()
    e.generate("r", prompt(300), max_tokens=1, params={"larder": {"skip_store": True, "skip_load": True}})
    daemon.silent = True
    seen = []

    def wait(_: Any, seconds: float) -> None:
        seen.append(seconds)
        daemon.answer()

    monkeypatch.setattr(Match, "wait", wait)
    e.generate("again", prompt(300), max_tokens=1)
    assert ordinals(daemon) == [0, 1, 2, 3]
    # Not where it is known that the daemon has it all.
    e.generate("once more", prompt(300), max_tokens=1)
    assert seen == [300e-6]


def test_a_long_local_hit_is_stored_over_several_steps(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine(extra={"backfill_chunks": 2})
    e.generate("r", prompt(300), max_tokens=1, params={"larder": {"skip_store": True}})
    e.add("again", prompt(300), max_tokens=4)
    stored = [[op.ordinal for op in step.metadata.stores] for step in e.run()]
    assert [s for s in stored if s] == [[0, 1], [2, 3]]
    check_bytes(daemon, prompt(300))


def test_equal_prompts_in_one_step_are_stored_once(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine(blocks=256, budget=2048)
    for i in range(4):
        e.add(f"r{i}", prompt(300), max_tokens=2)
    e.run()
    assert ordinals(daemon) == [0, 1, 2, 3]


def test_an_answer_too_late_for_the_load_still_spares_the_store(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    engine().generate("r", prompt(300), max_tokens=1)
    e = engine()
    e.generate("fill", prompt(300), max_tokens=1, params={"larder": {"skip_store": True, "skip_load": True}})
    daemon.silent = True
    e.add("r", prompt(300), max_tokens=6)
    e.step()
    daemon.answer()
    e.run()
    assert len(daemon.commits) == 4


def test_without_credits_stores_are_dropped_and_tried_again(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    daemon.credits = 4  # two chunks
    e = engine()
    e.add("r", prompt(300), max_tokens=6)
    e.step()
    e.worker.worker_half.settle()
    assert ordinals(daemon) == [0, 1]
    assert e.worker.stats.dropped_no_credit == 2
    daemon.credits = None
    e.run()
    assert ordinals(daemon) == [0, 1, 2, 3]
    check_bytes(daemon, prompt(300))


def test_a_store_is_not_tried_for_ever(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    daemon.credits = 0
    e = engine()
    e.generate("r", prompt(300), max_tokens=20)
    assert e.connector.stats.stores_planned == 12
    assert e.connector.stats.stores_dropped == 12
    assert daemon.credits == 0


def large(engine: MakeEngine, **extra: Any) -> SimulatedEngine:
    """An engine whose step fills 64 chunks of 32 KiB."""
    return engine(budget=4096, model_len=8192, blocks=1024, extra=extra)


def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(worker.logger, "warning", lambda text, *values: said.append(text % values))
    return said


def test_a_step_larger_than_its_slots_is_stored_in_later_steps(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = warnings(monkeypatch)
    daemon.ahead = True
    e = large(engine, credit_mib=1)
    e.add("r", prompt(4000), max_tokens=8)
    e.step()
    e.worker.worker_half.settle()
    assert ordinals(daemon) == list(range(32))
    assert e.worker.stats.dropped_no_credit == 30
    e.run()
    # From head to tail, so that what is there is of use at any time.
    assert ordinals(daemon) == list(range(62))
    check_bytes(daemon, prompt(4000))
    assert len(said) == 1
    assert "credit_mib lets 32 be granted ahead, and two steps fill 130; raise it, or leave it out" in said[0]
    other = large(engine)
    other.generate("r", prompt(4000), max_tokens=1)
    assert other.external["r"] == 62 * 64


def test_a_step_finds_slots_for_all_that_it_fills(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = warnings(monkeypatch)
    daemon.ahead = True
    e = large(engine)
    for i in range(3):
        e.add(f"r{i}", prompt(4090, seed=i), max_tokens=1)
    e.run()
    assert len(daemon.commits) == 3 * 63
    assert (e.worker.stats.dropped_no_credit, said) == (0, [])
    other = large(engine)
    other.generate("r", prompt(4090, seed=2), max_tokens=1)
    assert other.external["r"] == 63 * 64


def test_a_chunk_that_cannot_be_stored_takes_those_behind_it_along(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    daemon.ahead = True
    daemon.credits = 2 * HEADS
    e = engine(blocks=512, budget=2048)
    e.generate("r", prompt(1290), max_tokens=20)
    # 20 chunks of which two are stored; the third is tried in three steps.
    assert ordinals(daemon) == [0, 1]
    assert e.connector.stats.stores_planned == 20 + 16 + 16
    daemon.credits = None
    e.generate("again", prompt(1290), max_tokens=2)
    assert ordinals(daemon) == list(range(20))


def test_credits_of_an_incomplete_chunk_go_back(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    daemon.credits = 3
    e = engine()
    e.generate("r", prompt(70), max_tokens=1)
    assert daemon.credits == 1
    e.generate("s", prompt(70, seed=2), max_tokens=1)
    assert daemon.credits == 1


def test_a_refused_commit_is_counted_and_nothing_else(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    daemon.refuse_commit = FullError("no room", "commit")
    e = engine()
    assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert e.worker.stats.dropped_failed >= 4
    assert not daemon.chunks
    daemon.refuse_commit = None
    e.generate("again", prompt(300))
    assert len(daemon.chunks) == 4


def test_a_daemon_that_goes_drops_stores(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.add("r", prompt(300), max_tokens=30)
    e.step()
    daemon.up = False
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 30)
    daemon.up = True
    e.generate("s", prompt(200, seed=4))
    assert e.outputs["s"] == expected_output(prompt(200, seed=4), 4)


def slowly(engine: SimulatedEngine) -> SimulatedEngine:
    """Makes an engine's reads of pages take their time."""
    adapter = engine.worker.worker_half._saver._adapters[0, 0]
    gather = adapter.gather

    def slow(*arguments: Any) -> None:
        time.sleep(0.05)
        gather(*arguments)

    adapter.gather = slow
    return engine


@pytest.mark.parametrize("how", ["computed", "loaded"])
def test_pages_are_not_given_away_while_they_are_read(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, how: str
) -> None:
    if how == "loaded":
        engine().generate("first", prompt(220, seed=2), max_tokens=1)
        daemon.commits.clear()
    # Pages for 240 tokens: whoever comes next gets those of the last one.
    e = slowly(engine(blocks=16))
    e.add("r", prompt(220), max_tokens=1)
    e.step()
    assert "r" in e.ended
    e.add("s", prompt(220, seed=2), max_tokens=1, params={"larder": {"skip_store": True}})
    e.run()
    assert e.external["s"] == (192 if how == "loaded" else 0)
    assert ordinals(daemon) == [0, 1, 2]
    check_bytes(daemon, prompt(220))


def test_a_shutdown_ends_the_reads_first(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = slowly(engine())
    e.add("r", prompt(300), max_tokens=1)
    e.step()
    e.worker.shutdown()
    assert ordinals(daemon) == [0, 1, 2, 3]


def test_skip_store_and_skip_load(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.generate("a", prompt(300), params={"larder": {"skip_store": True}})
    assert not daemon.chunks
    e.drop_own_cache()
    e.generate("b", prompt(300))
    assert len(daemon.chunks) == 4
    e.drop_own_cache()
    e.generate("c", prompt(300), params={"larder": {"skip_load": True}})
    assert e.external["c"] == 0
    assert not daemon.holds
    # It did ask what the daemon has, so as not to store it again.
    assert len(daemon.commits) == 4
    e.drop_own_cache()
    e.generate("d", prompt(300))
    assert e.external["d"] == 256
    assert not daemon.holds


def test_nothing_is_read_after_a_failed_computation(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.add("r", prompt(300))
    output = e.scheduler.schedule()
    worker = e.worker
    worker.bind_connector_metadata(output.kv_connector_metadata)
    assert output.kv_connector_metadata.stores
    try:
        raise RuntimeError("the model failed")
    except RuntimeError:
        # vLLM's context manager calls it on the way out.
        worker.wait_for_save()
    worker.worker_half.settle()
    assert not daemon.commits


def test_a_producer_does_not_load_and_a_consumer_does_not_store(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    consumer = engine(role="kv_consumer")
    consumer.generate("r", prompt(300))
    assert not daemon.chunks
    producer = engine(role="kv_producer")
    producer.generate("r", prompt(300))
    assert len(daemon.chunks) == 4
    other = engine(role="kv_producer")
    other.generate("r", prompt(300))
    assert other.external["r"] == 0
    consumer.drop_own_cache()
    consumer.generate("s", prompt(300))
    assert consumer.external["s"] == 256


def test_preemption_keeps_pages_and_stores_right(engine: MakeEngine, prompt: MakePrompt) -> None:
    # 3 requests of up to 300 tokens on pages for 480.
    e = engine(blocks=31, budget=512)
    for i in range(3):
        e.add(f"r{i}", prompt(120, seed=i), max_tokens=150)
    e.run()
    preempted = e.connector.stats.matches - 3
    assert preempted > 0, "the test is about preemption"
    for i in range(3):
        assert e.outputs[f"r{i}"] == expected_output(prompt(120, seed=i), 150)
    fresh = engine(blocks=128)
    for i in range(3):
        tokens = prompt(120, seed=i) + e.outputs[f"r{i}"]
        assert fresh.generate(f"r{i}", tokens) == expected_output(tokens, 4)
        assert fresh.external[f"r{i}"] == 256


def test_a_preempted_request_loads_what_it_lost(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine(blocks=31, budget=512)
    for i in range(3):
        e.add(f"r{i}", prompt(120, seed=i), max_tokens=150)
    e.run()
    assert e.worker.stats.chunks_loaded > 0
    assert not daemon.holds
