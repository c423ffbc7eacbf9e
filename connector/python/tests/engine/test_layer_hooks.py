"""The hooks that the engine calls for each layer, on which nothing depends.

Claims are asynchronous but for a request that is alone (test_in_step.py): a synchronous
one lets a slow load hold up every request of a step, and where it fails the engine keeps
the unfilled pages in its prefix cache.
What the hooks are used for on GPUs is tested in test_loads_ahead.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from other_connector import CLAIM
from simulated_engine import MakeEngine, MakePrompt, expected_output
from stub_daemon import StubDaemon
from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiConnector

from larder.vllm import LarderConnector


def test_a_load_holds_up_its_own_request_only(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    engine().generate("cold", prompt(300))
    e = engine()
    daemon.stuck = True
    e.add("warm", prompt(300))
    assert e.generate_beside("other", prompt(200, seed=1), 8) == expected_output(prompt(200, seed=1), 8)
    assert "warm" not in e.ended
    daemon.stuck = False
    e.run()
    assert e.outputs["warm"] == expected_output(prompt(300), 4)
    assert e.external["warm"] == 256


def test_claims_are_asynchronous_whatever_is_left_to_compute(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    engine().generate("cold", prompt(320))
    e = engine()
    for tokens in (300, 257, 256, 130):
        request = e.add(f"of {tokens}", prompt(320)[:tokens])
        claim = tokens // 64 * 64
        assert e.connector.get_num_new_matched_tokens(request, 0) == (claim, True)
        # The engine's own hit takes whole blocks off the front.
        assert e.connector.get_num_new_matched_tokens(request, 48) == (claim - 48, True)
        e.abort(request.request_id)
    e.run()
    assert not daemon.holds


def test_full_graphs_are_allowed_since_no_layer_is_waited_for() -> None:
    # Under full CUDA graphs the hooks for layers are not called.
    assert not LarderConnector.requires_piecewise_for_cudagraph({})
    own: dict[str, Any] = {"kv_connector": "LarderConnector", "kv_connector_module_path": "larder.vllm"}
    own["kv_role"] = "kv_both"
    assert not MultiConnector.requires_piecewise_for_cudagraph({"connectors": [own]})


def test_without_the_hooks_for_layers_everything_is_there(
    engine: MakeEngine, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wait_for_layer_load", "save_kv_layer"):
        monkeypatch.delattr(LarderConnector, name)
        monkeypatch.setattr(LarderConnector, name, lambda *_: pytest.fail("not under full graphs"), raising=False)
    monkeypatch.setattr("simulated_engine.SimulatedEngine.layer_hooks", False)
    engine().generate("cold", prompt(300))
    e = engine()
    assert e.generate("warm", prompt(300)) == expected_output(prompt(300), 4)
    assert e.external["warm"] == 256


def test_the_engine_keeps_what_a_synchronous_load_did_not_fill(
    both: MakeEngine, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the engine, not of Larder: should this fail, larder.vllm.in_step has less to take back."""
    e = both("other", "larder")
    monkeypatch.setitem(CLAIM, "tokens", 128)
    monkeypatch.setitem(CLAIM, "fails", 1)
    check, e.check = e.check, lambda *_: None  # type: ignore[method-assign]
    e.scheduler.recompute_kv_load_failures = True
    e.add("first", prompt(300))
    e.step()
    assert e.scheduler.requests["first"].num_computed_tokens == 0, "it is to be recomputed"
    monkeypatch.setitem(CLAIM, "tokens", 0)
    e.abort("first")
    e.check = check  # type: ignore[method-assign]
    e.add("second", prompt(300))
    with pytest.raises(AssertionError, match="wrong KV in blocks"):
        e.step()
