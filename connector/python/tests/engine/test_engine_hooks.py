"""What else the engine does to its connectors: policies, other connectors, several groups, resets."""

from __future__ import annotations

import pickle

import pytest
from other_connector import CLAIM
from simulated_engine import MakeEngine, MakePrompt, expected_output, make_cache_config
from stub_daemon import StubDaemon
from vllm.config import KVTransferConfig

from larder.errors import LarderError
from larder.vllm import LarderConnector
from larder.vllm.failure_policy import set_recompute
from larder.vllm.metadata import Handshake, LoadOp, StepMetadata, StoreOp
from larder.vllm.stats import Summary


def test_a_failed_load_is_recomputed_whatever_the_engine_was_told(engine: MakeEngine) -> None:
    e = engine()
    assert KVTransferConfig().kv_load_failure_policy == "fail"
    assert e.config.kv_transfer_config.kv_load_failure_policy == "recompute"
    assert e.scheduler.recompute_kv_load_failures


def test_an_engine_that_cannot_recompute_is_refused() -> None:
    with pytest.raises(LarderError, match="kv_load_failure_policy"):
        set_recompute(object())


def test_with_several_groups_nothing_is_claimed_and_nothing_stored(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine(cache_config=make_cache_config(16, 64, groups=2))
    assert "2 KV cache groups" in e.worker.get_handshake_metadata().off
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
        [LoadOp("request", 1, 0, 125, 0, tuple(range(2000)), 1.0)],
        [StoreOp("request", i, key, key, tuple(range(16))) for i in range(125)],
    )
    # A prompt of 32k tokens in blocks of 16, loaded and stored in one step.
    assert len(pickle.dumps(step)) < 32768
    assert pickle.loads(pickle.dumps(step)) == step  # noqa: S301


def test_ranks_must_agree_on_the_namespace(engine: MakeEngine) -> None:
    half = engine().connector.scheduler_half
    said = half._client.options.namespace.encode()
    other = engine()
    fresh = other.connector.scheduler_half
    fresh._client = None
    with pytest.raises(LarderError, match="chunk_tokens"):
        fresh.start([Handshake(said), Handshake(said.replace(b"\x40\0\0\0", b"\x80\0\0\0", 1))])


def test_a_reset_of_the_cache_ends_its_use(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    e.generate("r", prompt(300))
    assert len(daemon.chunks) == 4
    # As after an update of the weights: what is stored may be of other weights.
    assert e.scheduler.reset_prefix_cache(reset_connector=True)
    e.generate("again", prompt(300))
    assert e.external["again"] == 0
    e.generate("new", prompt(300, seed=1))
    assert len(daemon.chunks) == 4


def test_a_reset_while_a_load_is_under_way(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    engine().generate("r", prompt(300))
    e = engine()
    e.add("r", prompt(300))
    e.step()
    e.connector.reset_cache()
    e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert not e.connector.scheduler_half._inflight


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
        larder = e.connector._connectors[1]
        assert isinstance(larder, LarderConnector)
        assert larder.stats.loads == 0
        assert not daemon.holds
        assert not output.kv_connector_metadata.metadata[1].loads


def test_the_log_is_told_now_and_then() -> None:
    summary = Summary(60.0)
    assert not summary.due(0.0, (0, 0))
    assert summary.due(1.0, (1, 0))
    assert not summary.due(30.0, (2, 0))
    assert summary.due(61.0, (2, 0))
    assert not summary.due(200.0, (2, 0))
