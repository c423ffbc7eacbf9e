"""What else the engine does to its connectors: policies, other connectors, several groups."""

from __future__ import annotations

import pickle
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from other_connector import CLAIM
from simulated_config import make_cache_config
from simulated_engine import (
    MakeEngine,
    MakePrompt,
    SimulatedEngine,
    check_chunk,
    expected_output,
    larder,
    prefix_hashes,
)
from stub_daemon import TENANT_KEY, StubDaemon
from vllm.config import KVTransferConfig
from vllm.v1.kv_cache_interface import KVCacheGroupSpec, MambaSpec

from larder.errors import LarderError
from larder.keys import chunk_keys, root_key
from larder.vllm.epochs import Epochs
from larder.vllm.failure_policy import set_recompute
from larder.vllm.metadata import Handshake, LoadOp, StepMetadata, StoreOp
from larder.vllm.page_groups import PageGroup, PageGroups, RequestPages
from larder.vllm.stats import Summary
from larder.vllm.unproven import Unproven


def test_a_failed_load_is_recomputed_whatever_the_engine_was_told(engine: MakeEngine) -> None:
    e = engine()
    assert KVTransferConfig().kv_load_failure_policy == "fail"
    assert e.config.kv_transfer_config.kv_load_failure_policy == "recompute"
    assert e.scheduler.recompute_kv_load_failures


def test_an_engine_that_cannot_recompute_is_refused() -> None:
    with pytest.raises(LarderError, match="kv_load_failure_policy"):
        set_recompute(object())


def test_beside_states_nothing_is_claimed_and_nothing_stored(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    config = make_cache_config(16, 64)
    config.kv_cache_groups.append(
        KVCacheGroupSpec(
            ["model.layers.0.mixer"],
            MambaSpec(block_size=16, shapes=((2, 64),), dtypes=(torch.bfloat16,)),
        )
    )
    e = engine(cache_config=config)
    assert "MambaSpec (states)" in e.worker.get_handshake_metadata().off
    request = e.add("r", prompt(300))
    assert e.connector.get_num_new_matched_tokens(request, 0) == (0, False)
    output = e.scheduler.schedule()
    assert output.kv_connector_metadata == StepMetadata()
    e.worker.bind_connector_metadata(output.kv_connector_metadata)
    e.worker.start_load_kv(None)
    e.worker.wait_for_save()
    assert e.worker.get_finished(set()) == (None, None)
    assert not daemon.matches


def test_metadata_is_small_and_plain() -> None:
    key = bytes(32)
    step = StepMetadata(
        [LoadOp("request", 1, 0, 125, (0,), (tuple(range(2000)),), 1.0)],
        [StoreOp("request", i, key, key, (tuple(range(16)),)) for i in range(125)],
    )
    # A prompt of 32k tokens in blocks of 16, loaded and stored in one step.
    assert len(pickle.dumps(step)) < 32768
    assert pickle.loads(pickle.dumps(step)) == step  # noqa: S301


def test_ranks_must_agree_on_the_namespace(engine: MakeEngine) -> None:
    half = engine().connector.scheduler_half
    said = half._client.options.namespace.encode()
    other = engine()
    fresh = other.connector.scheduler_half
    fresh.epochs = Epochs(keep=False)
    with pytest.raises(LarderError, match="chunk_tokens"):
        fresh.start([Handshake(said), Handshake(said.replace(b"\x40\0\0\0", b"\x80\0\0\0", 1))])


class TestBesideAnotherConnector:
    """Under MultiConnector, which asks in order and loads from the first that has something."""

    def test_the_policy_of_the_whole_engine_is_set(self, both: MakeEngine) -> None:
        e = both("larder", "other")
        assert e.config.kv_transfer_config.kv_load_failure_policy == "recompute"
        assert e.scheduler.recompute_kv_load_failures

    @pytest.mark.parametrize("order", [("larder", "other"), ("other", "larder")])
    def test_stores_and_loads(
        self, both: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, order: tuple[str, ...]
    ) -> None:
        both(*order).generate("r", prompt(300))
        assert len(daemon.chunks) == 4
        e = both(*order)
        assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
        assert e.external["r"] == 256
        assert not daemon.holds

    def test_starts_nothing_where_the_other_loads(
        self, both: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both("larder", "other").generate("r", prompt(300))
        e = both("other", "larder")
        monkeypatch.setitem(CLAIM, "tokens", 64)
        e.add("r", prompt(300))
        output = e.scheduler.schedule()
        assert output.num_scheduled_tokens == {"r": 256 - 20}
        assert larder(e.connector).stats.loads == 0
        assert not daemon.holds
        assert not output.kv_connector_metadata.metadata[1].loads

    def test_what_the_other_one_fails_to_bring_is_not_stored(
        self, both: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # It says so in the same step, after the pages were computed on.
        e = both("other", "larder")
        for key, value in {"tokens": 128, "fails": 1}.items():
            monkeypatch.setitem(CLAIM, key, value)
        check, e.check = e.check, lambda *_: None  # type: ignore[method-assign]
        e.add("first", prompt(300), max_tokens=8)
        e.add("beside", prompt(200), max_tokens=8)
        e.step()
        e.check = check  # type: ignore[method-assign]
        monkeypatch.setitem(CLAIM, "tokens", 0)
        e.run()
        for name, tokens in (("first", 300), ("beside", 200)):
            assert e.outputs[name] == expected_output(prompt(tokens), 8)
        e.generate("other", prompt(200, seed=1))
        right = check_chunks(e, daemon, prompt(300), prompt(200, seed=1))
        # Of the first one nothing that the other one claimed, nor what rests on it.
        assert right == {1: {0, 1, 2}}

    def test_nor_what_the_engine_keeps_of_it(
        self, both: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        e = both("other", "larder")
        for key, value in {"tokens": 128, "fails": 1}.items():
            monkeypatch.setitem(CLAIM, key, value)
        e.check = lambda *_: None  # type: ignore[method-assign]
        e.add("first", prompt(300))
        e.step()
        e.abort("first")
        monkeypatch.setitem(CLAIM, "tokens", 0)
        # A local hit, whose pages nobody filled.
        e.generate("second", prompt(300))
        assert e.checked_tokens == 0
        assert not daemon.chunks

    def test_what_the_other_one_brings_within_a_step_is_stored_after_it(
        self, both: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        e = both("other", "larder")
        e.others_bring = True
        monkeypatch.setitem(CLAIM, "tokens", 128)
        e.add("r", prompt(300))
        stored = [[op.ordinal for op in step.metadata.metadata[1].stores] for step in e.run()]
        assert not stored[0]
        assert sorted(chain.from_iterable(stored)) == [0, 1, 2, 3]
        assert check_chunks(e, daemon, prompt(300)) == {0: {0, 1, 2, 3}}


def test_pages_are_unproven_until_the_output_of_their_step() -> None:
    def step(*new: tuple[str, int, list[int]]) -> Any:
        requests = [SimpleNamespace(req_id=r, num_computed_tokens=n, block_ids=(ids,)) for r, n, ids in new]
        cached = SimpleNamespace(req_ids=[], new_block_ids=[], num_computed_tokens=[], resumed_req_ids=set())
        return SimpleNamespace(scheduled_new_reqs=requests, scheduled_cached_reqs=cached)

    states: Any = {
        "brings": SimpleNamespace(local=16, external=0), "loads": SimpleNamespace(local=0, external=64),
    }  # fmt: skip

    def first(*ids: int) -> int | None:
        pages = RequestPages()
        pages.set([ids])
        return unproven.first(pages)

    # Two steps are scheduled before the first one's output comes.
    unproven = Unproven(PageGroups((PageGroup(16),), 16), under_way=2)
    unproven.scan(step(("loads", 64, [1, 2, 3, 4])), states)
    assert first(1, 2, 3, 4) is None
    unproven.scan(step(("brings", 48, [5, 6, 7, 8]), ("unknown", 48, [9])), states)
    assert first(5, 6, 7, 8) == 16
    unproven.scan(step(), states)
    # Of any request that has one of them.
    assert first(1, 2, 7) == 32
    unproven.scan(step(), states)
    assert first(5, 6, 7, 8) is None


def check_chunks(engine: SimulatedEngine, daemon: StubDaemon, *prompts: list[int]) -> dict[int, set[int]]:
    """Fails unless every stored chunk holds the KV of its tokens; which chunks of which prompt are stored."""
    root = root_key(larder(engine.connector).scheduler_half._fingerprint, TENANT_KEY)
    found: dict[int, set[int]] = {}
    for number, tokens in enumerate(prompts):
        keys = chunk_keys(root, tokens, 64)
        for ordinal in range(len(keys) // 32):
            parts = daemon.chunks.get(keys[32 * ordinal : 32 * ordinal + 32])
            if parts is not None:
                check_chunk(parts, prefix_hashes(tokens), ordinal)
                found.setdefault(number, set()).add(ordinal)
    return found


def test_the_log_is_told_now_and_then() -> None:
    summary = Summary(60.0)
    assert not summary.due(0.0, (0, 0))
    assert summary.due(1.0, (1, 0))
    assert not summary.due(30.0, (2, 0))
    assert summary.due(61.0, (2, 0))
    assert not summary.due(200.0, (2, 0))
