"""Larder beside vLLM's own connectors under MultiConnector: the real scheduler, the real other connectors.

The simulated engine compares all pages with what belongs there before every step,
whoever brought them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_versions import own_tensor
from simulated_config import make_cache_config
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine, expected_output, larder
from stub_daemon import StubDaemon
from test_engine_metrics import FrontEnd
from test_kv_events import ON, Router
from vllm.distributed.kv_events import BlockStored

OWN: dict[str, Any] = {}
OFFLOADING: dict[str, Any] = {
    "kv_connector": "OffloadingConnector", "kv_role": "kv_both",
    "kv_connector_extra_config": {
        "spec_name": "PlainSpec", "spec_module_path": "offloading_spec", "cpu_bytes_to_use": 64 << 20,
        "self_describing_kv_events": True,
    },
}  # fmt: skip


def example(folder: Path) -> dict[str, Any]:
    """vLLM's ExampleConnector, which loads in the step that it is asked in, and does not support HMA."""
    return {
        "kv_connector": "ExampleConnector", "kv_role": "kv_both",
        "kv_connector_extra_config": {"shared_storage_path": str(folder)},
    }  # fmt: skip


def loads(engine: SimulatedEngine) -> tuple[int, int]:
    """Loads of Larder, and chunks that they brought."""
    return larder(engine.connector).stats.loads, larder(engine.worker).stats.chunks_loaded


class TestOffloadingConnector:
    """Which loads asynchronously, as Larder does."""

    @pytest.fixture
    def engine(self, engine: MakeEngine) -> MakeEngine:
        """Engines that say how large their pages are, as it wants to know."""

        def make(blocks: int = 64, **options: Any) -> SimulatedEngine:
            cache = make_cache_config(16, blocks)
            (group,) = cache.kv_cache_groups
            cache.kv_cache_tensors = [
                own_tensor(name, group.kv_cache_spec.page_size_bytes, blocks) for name in group.layer_names
            ]
            return engine(cache_config=cache, blocks=blocks, **options)

        return make

    def test_both_store_and_the_first_one_loads(
        self, engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
    ) -> None:
        for order, ours in (([OFFLOADING, OWN], 0), ([OWN, OFFLOADING], 4)):
            daemon.chunks.clear()
            e = engine(others=order)
            e.generate("cold", prompt(300))
            assert len(daemon.chunks) == 4
            e.drop_own_cache()
            assert e.generate("warm", prompt(300)) == expected_output(prompt(300), 4)
            assert e.external["warm"] >= 256
            assert loads(e) == (int(ours > 0), ours)
            assert not daemon.holds

    def test_larder_loads_what_the_other_one_lacks(
        self, engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
    ) -> None:
        engine(others=[OFFLOADING, OWN]).generate("cold", prompt(300))
        # In another process only Larder has anything.
        e = engine(others=[OFFLOADING, OWN])
        assert e.generate("warm", prompt(300)) == expected_output(prompt(300), 4)
        assert e.external["warm"] == 256
        assert loads(e) == (1, 4)
        # The other one kept what Larder brought.
        e.drop_own_cache()
        assert e.generate("again", prompt(300)) == expected_output(prompt(300), 4)
        assert e.external["again"] >= 256
        assert loads(e) == (1, 4)
        assert not daemon.holds

    def test_many_requests_on_few_pages(self, engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
        prompts = [prompt(150, seed=i) for i in range(6)]
        cold = engine(others=[OFFLOADING, OWN])
        for i, tokens in enumerate(prompts[:3]):
            cold.generate(f"r{i}", tokens)
        e = engine(others=[OFFLOADING, OWN], blocks=42)
        for i, tokens in enumerate(prompts * 2):
            e.add(f"r{i}", tokens, max_tokens=60)
        e.run()
        for i, tokens in enumerate(prompts * 2):
            assert e.outputs[f"r{i}"] == expected_output(tokens, 60)
        assert e.preemptions > 0
        assert loads(e)[1] > 0
        assert not daemon.holds
        assert e.free_blocks() == 41

    def test_a_failed_load_of_larders_is_recomputed(
        self, engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
    ) -> None:
        engine(others=[OFFLOADING, OWN]).generate("cold", prompt(300))
        e = engine(others=[OFFLOADING, OWN])
        daemon.corrupt.add(daemon.commits[1][0])
        assert e.generate("warm", prompt(300)) == expected_output(prompt(300), 4)
        assert loads(e) == (1, 1)
        assert larder(e.connector).stats.loads_failed == 1

    def test_metrics_of_both(self, engine: MakeEngine, prompt: MakePrompt) -> None:
        engine().generate("cold", prompt(300))
        e = engine(others=[OFFLOADING, OWN])
        front = FrontEnd(e.config)
        front.watch(e)
        e.generate("warm", prompt(300))
        assert front.value("tokens_loaded") == 256
        assert front.value("load_seconds", suffix="_count") == 1
        lines: list[str] = []
        front.log.kv_connector_logging.log(lambda text, *more: lines.append(text % more))
        assert "LarderConnector" in lines[0]
        assert "'tokens_loaded': 256" in lines[0]

    def test_metrics_within_one_process(self, engine: MakeEngine, prompt: MakePrompt) -> None:
        # Nothing is serialized there, and MultiConnector reads stats as if it were.
        engine().generate("cold", prompt(300))
        e = engine(others=[OWN])
        front = FrontEnd(e.config)
        e.front_end = lambda stats: front.prometheus.record(stats, None)
        e.generate("warm", prompt(300))
        assert front.value("tokens_loaded") == 256

    def test_events_of_both(self, engine: MakeEngine, prompt: MakePrompt) -> None:
        e = engine(others=[OFFLOADING, OWN], **ON, extra={"event_medium": "CPU_TIER1"})
        router = Router(e)
        router.blocks["CPU_TIER1"] = {}
        e.generate("r", prompt(300), max_tokens=8)
        assert len(router.blocks["CPU_TIER1"]) == 16
        # The other one announces by the same names.
        assert set(router.blocks["CPU"]) >= set(router.blocks["CPU_TIER1"])
        assert router.of("CPU", BlockStored)


class TestExampleConnector:
    """Which loads synchronously."""

    def test_larder_supports_hma_and_the_engine_goes_by_all_of_them(self, engine: MakeEngine, tmp_path: Path) -> None:
        assert engine(others=[OWN]).connector._all_support_hma
        e = engine(others=[OWN, example(tmp_path)])
        assert not e.connector._all_support_hma
        assert e.config.scheduler_config.disable_hybrid_kv_cache_manager

    @pytest.mark.parametrize("first", ["larder", "example"])
    def test_both_store_and_the_first_one_loads(
        self, engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, tmp_path: Path, first: str
    ) -> None:
        order = [OWN, example(tmp_path)] if first == "larder" else [example(tmp_path), OWN]
        # The other one keeps prompts that are computed in one step only.
        engine(others=order, budget=512).generate("cold", prompt(300))
        assert len(daemon.chunks) == 4
        assert len(list(tmp_path.iterdir())) == 1
        e = engine(others=order, budget=512)
        assert e.generate("warm", prompt(300)) == expected_output(prompt(300), 4)
        assert e.external["warm"] == (256 if first == "larder" else 288)
        assert loads(e) == ((1, 4) if first == "larder" else (0, 0))
        assert e.checked_tokens >= 256
        assert not daemon.holds
        assert not larder(e.connector).scheduler_half._states
