"""The simulated engine with tensor-parallel ranks, pipeline stages, and latent KV.

Each rank has a worker half of its own and pages of its own: of its stage's layers and its
heads, or, where ranks are more than heads, of a copy of one. What they report goes through
the engine's own aggregator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from fake_device import FakeDevice
from gpu_engine import await_stores
from hybrid_engine import HybridEngine
from simulated_config import DIM, HEADS
from simulated_engine import Hashes, SimulatedEngine, Step, kv_of, larder
from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec, MLAAttentionSpec
from vllm.v1.outputs import KVConnectorOutput

from larder.vllm.stages import Place, Said

Rank = tuple[int, int]


class RankedEngine(SimulatedEngine):
    """An engine of as many ranks as its config says. connect: as SimulatedEngine's, or one for each rank."""

    def __init__(self, vllm_config: Any, connect: Any = None, cache_config: Any = None) -> None:
        # What each rank reported, step by step.
        self.reports: list[tuple[Rank, KVConnectorOutput]] = []
        super().__init__(vllm_config, connect, cache_config)

    @property
    def tensor(self) -> int:
        return int(self.config.parallel_config.tensor_parallel_size)

    @property
    def pipeline(self) -> int:
        return int(self.config.parallel_config.pipeline_parallel_size)

    def _make_workers(self, connect: Any) -> dict[Rank, Any]:
        self._copies = max(1, self.tensor // HEADS)
        heads = HEADS * self._copies
        if self._copies > 1:
            self.pages = {n: p.new_zeros(p.shape[0], heads, *p.shape[2:]) for n, p in self.pages.items()}
        self._groups = self.cache_config.kv_cache_groups
        stages = self._stages()
        workers = {}
        for stage, names in enumerate(stages):
            for rank in range(self.tensor):
                workers[stage, rank] = self._make_rank(stage, rank, stages, connect)
                mine = slice(rank * heads // self.tensor, (rank + 1) * heads // self.tensor)
                workers[stage, rank].register_kv_caches({n: self.pages[n][:, mine] for n in names})
        # As the engine does: the scheduler gets what its first rank gets.
        self.cache_config = self._rank_config(stages[0])
        return workers

    def _make_rank(self, stage: int, rank: int, stages: Sequence[list[str]], connect: Any) -> Any:
        worker = self._make_worker(self._rank_config(stages[stage]), connect)
        half = larder(worker).worker_half
        said = [Said(self._ids(names)) for names in stages]

        def tell(own: Said) -> list[Said]:
            assert own == said[stage]
            return said

        half._place = lambda: Place(rank, stage, tell)
        return worker

    def _stages(self) -> list[list[str]]:
        """Layer names, stage by stage."""
        names = sorted(self.pages, key=_number)
        each = len(names) // self.pipeline
        return [names[i * each : (i + 1) * each] for i in range(self.pipeline)]

    def _ids(self, names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(_number(n) for n in group.layer_names if n in names) for group in self._groups)

    def _rank_config(self, names: list[str]) -> KVCacheConfig:
        groups = []
        for group in self._groups:
            spec = replace(group.kv_cache_spec, num_kv_heads=max(1, HEADS // self.tensor))
            groups.append(KVCacheGroupSpec([n for n in group.layer_names if n in names], spec))
        return KVCacheConfig(self.cache_config.num_blocks, [], groups)

    def _kv(self, hashes: Hashes, layer: int) -> torch.Tensor:
        return kv_of(hashes, layer).repeat_interleave(self._copies, dim=1)

    def _report(self, rank: Rank, output: Any) -> KVConnectorOutput:
        report = super()._report(rank, output)
        self.reports.append((rank, report))
        return report

    def received(self) -> dict[Rank, list[str]]:
        """The requests whose loads each rank said to have ended."""
        found: dict[Rank, list[str]] = {rank: [] for rank in self.workers}
        for rank, report in self.reports:
            found[rank] += sorted(report.finished_recving or ())
        return found

    def received_by_all(self, request_id: str) -> bool:
        """Whether every rank has said so of this request, once, and of no other."""
        return all(found == [request_id] for found in self.received().values())


def _number(name: str) -> int:
    return int(name.split(".")[2])


class HybridRanks(HybridEngine, RankedEngine):
    """HybridEngine of several ranks, at most as many as heads."""


class LopsidedEngine(RankedEngine):
    """All layers that have KV are in the first stage."""

    def _stages(self) -> list[list[str]]:
        return [list(self.pages), *[[] for _ in range(1, self.pipeline)]]


class LatentEngine(RankedEngine):
    """KV is one vector for each token, and every rank has all of it, in pages (blocks, block, 2 * DIM)."""

    def _make_workers(self, connect: Any) -> dict[Rank, Any]:
        self.pages = {n: p.new_zeros(self.tensor, p.shape[0], self.block, 2 * DIM) for n, p in self.pages.items()}
        self._groups = self.cache_config.kv_cache_groups
        stages = self._stages()
        workers = {}
        for stage, names in enumerate(stages):
            for rank in range(self.tensor):
                workers[stage, rank] = self._make_rank(stage, rank, stages, connect)
                workers[stage, rank].register_kv_caches({n: self.pages[n][rank] for n in names})
        self.cache_config = self._rank_config(stages[0])
        return workers

    def _rank_config(self, names: list[str]) -> KVCacheConfig:
        spec = MLAAttentionSpec(block_size=self.block, num_kv_heads=1, head_size=2 * DIM, dtype=torch.bfloat16)
        return KVCacheConfig(self.cache_config.num_blocks, [], [KVCacheGroupSpec(list(names), spec)])

    def _put(self, blocks: Sequence[int], hashes: Hashes, begin: int, end: int) -> None:
        slots = self._slots(blocks, begin, end)
        for layer, cache in enumerate(self.pages.values()):
            cache.flatten(1, 2)[:, slots] = kv_of(hashes[begin:end], layer)[:, 0]

    def check(self, request_id: str, hashes: Hashes, past: int) -> None:
        """Fails unless the pages of the first `past` tokens hold their vectors, on every rank."""
        slots = self._slots(self._shadows[request_id].blocks, 0, past)
        for layer, (name, cache) in enumerate(self.pages.items()):
            want = kv_of(hashes[:past], layer)[:, 0].view(torch.int16)
            for rank, pages in enumerate(cache.flatten(1, 2)):
                assert torch.equal(pages[slots].view(torch.int16), want), f"{request_id}: wrong KV, {name}, rank {rank}"
        self.checked_tokens += past


class LatentGpuEngine(LatentEngine):
    """As LatentEngine, with pages on a device that has done all it was given when a step ends."""

    device: FakeDevice

    def step(self) -> Step:
        """As SimulatedEngine.step."""
        done = super().step()
        self._finish()
        return done

    def run(self, most: int = 2000) -> list[Step]:
        """As SimulatedEngine.run; stores are over, too."""
        steps = super().run(most)
        self._finish()
        for worker in self.workers.values():
            await_stores(worker)
        return steps

    def _finish(self) -> None:
        while self.device.run(1000):
            pass


MakeRanks = Callable[..., RankedEngine]
