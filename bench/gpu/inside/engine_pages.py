"""What a worker says about its pages; vLLM adds it to the worker's class."""

from __future__ import annotations

import hashlib
from typing import Any


class Pages:
    """Reads and writes pages with plain indexing, without anything of Larder's."""

    model_runner: Any

    def page_digests(self, blocks: list[int]) -> list[list[str]]:
        """SHA-256 of each block, for each KV head of this rank: all layers, and in a
        layer the block's tokens in their order."""
        import torch

        digests = []
        caches = self._caches()
        heads = caches[0].shape[1] if caches[0].dim() == 4 else 1
        whole = [
            cache[blocks].reshape(len(blocks), heads, -1).contiguous().view(torch.uint8).cpu().numpy()
            for cache in caches
        ]
        for i in range(len(blocks)):
            of_block = []
            for head in range(heads):
                digest = hashlib.sha256()
                for cache in whole:
                    digest.update(cache[i, head].tobytes())
                of_block.append(digest.hexdigest())
            digests.append(of_block)
        return digests

    def overwrite_pages(self, value: float) -> None:
        """Fills every page, so that nothing right is left in any of them."""
        for cache in self._caches():
            cache.fill_(value)

    def page_form(self) -> str:
        """Shape and strides of a layer's pages, and their number."""
        caches = self._caches()
        return f"{len(caches)} x {tuple(caches[0].shape)} strides {caches[0].stride()} {caches[0].dtype}"

    def larder_counts(self) -> dict[str, Any]:
        """The counters of this rank's half of Larder's connector; empty without one."""
        import dataclasses

        from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group

        connector = get_kv_transfer_group() if has_kv_transfer_group() else None
        stats: Any = getattr(connector, "stats", None)
        return {} if stats is None else dataclasses.asdict(stats)

    def _caches(self) -> list[Any]:
        caches: list[Any] = list(self.model_runner.kv_caches)
        return caches
