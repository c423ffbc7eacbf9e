"""Host memory for vLLM's in-tree OffloadingConnector on CPU, where its own kind needs a GPU: its manager, and plain
copies instead of its worker."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.kv_offload.base import OffloadingWorker, TransferResult
from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec


class PlainWorker(OffloadingWorker):
    """Every copy is over when it is asked for."""

    def __init__(self, tensors: list[torch.Tensor], blocks: int) -> None:
        self._pages = tensors
        self._kept = [torch.zeros(blocks, *t.shape[1:], dtype=t.dtype) for t in tensors]
        self._done: list[TransferResult] = []

    def submit_store(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        for pages, kept in zip(self._pages, self._kept, strict=True):
            kept[dst_spec.block_ids] = pages[src_spec.block_ids]
        return self._ended(job_id)

    def submit_load(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        for pages, kept in zip(self._pages, self._kept, strict=True):
            pages[dst_spec.block_ids] = kept[src_spec.block_ids]
        return self._ended(job_id)

    def get_finished(self) -> list[TransferResult]:
        done, self._done = self._done, []
        return done

    def wait(self, job_ids: set[int]) -> None: ...

    def _ended(self, job_id: int) -> bool:
        self._done.append(TransferResult(job_id, success=True, transfer_size=1, transfer_time=1e-6))
        return True


class PlainSpec(CPUOffloadingSpec):
    """The in-tree manager with PlainWorker."""

    def get_worker(self, kv_caches: Any) -> OffloadingWorker:
        # 0.32 counts chunks, of one block here.
        kept = self.num_chunks if hasattr(self, "num_chunks") else self.num_blocks
        return PlainWorker([t.tensor for t in kv_caches.tensors], kept)
