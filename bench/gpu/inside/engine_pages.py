"""What a worker says about its pages; vLLM adds it to the worker's class."""

from __future__ import annotations

import hashlib
from typing import Any

PageDigests = tuple[int, int, list[str]]
"""Layer, KV head of the model, of each block"""


class Pages:
    """Reads and writes pages with plain indexing, without anything of Larder's."""

    model_runner: Any
    vllm_config: Any

    def page_digests(self, blocks: list[list[int]]) -> list[PageDigests]:
        """SHA-256 of pages of this rank, by layer and KV head of the model: in each a block's
        tokens in their order, K before V. blocks: of each KV cache group; "" for the null page."""
        import torch
        from vllm.distributed.parallel_state import get_tp_group

        found: list[PageDigests] = []
        for ids, names in zip(blocks, self._groups(), strict=True):
            for name in names:
                whole = self._by_head(name, ids).contiguous().view(torch.uint8).cpu().numpy()
                heads = whole.shape[1]
                for head in range(heads):
                    digests = [
                        hashlib.sha256(whole[i, head].tobytes()).hexdigest() if block else ""
                        for i, block in enumerate(ids)
                    ]
                    found.append((_number(name), get_tp_group().rank_in_group * heads + head, digests))
        return found

    def overwrite_pages(self, value: float) -> None:
        """Fills every page, so that nothing right is left in any of them."""
        for cache in self._caches():
            cache.fill_(value)

    def page_form(self) -> str:
        """Of each KV cache group, its kind, its layers, and shape and strides of a layer's pages."""
        forms = []
        for group, names in zip(self.model_runner.kv_cache_config.kv_cache_groups, self._groups(), strict=True):
            spec, cache = group.kv_cache_spec, self._cache(names[0]) if names else None
            one = f"{tuple(cache.shape)} strides {cache.stride()} {cache.dtype}" if cache is not None else "none"
            forms.append(f"{type(spec).__name__} of {spec.block_size}: {len(names)} x {one}")
        return ", ".join(forms)

    def larder_counts(self) -> dict[str, Any]:
        """The counters of this rank's half of Larder's connector; empty without one."""
        import dataclasses

        from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group

        connector = get_kv_transfer_group() if has_kv_transfer_group() else None
        stats: Any = getattr(connector, "stats", None)
        return {} if stats is None else dataclasses.asdict(stats)

    def larder_ready(self) -> bool:
        """Whether this rank's half has a connection, and at least half of the slots that it keeps
        granted ahead: what a step fills beyond them is not stored."""
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        connector: Any = get_kv_transfer_group()
        client = connector.worker_half._client
        if client is None or not client.ready:
            return False
        pool = client._present().pool
        return all(2 * len(pool._idle[length]) > kept for length, kept in pool._kept.items())

    def _groups(self) -> list[list[str]]:
        """The layers of this rank in each KV cache group."""
        groups = self.model_runner.kv_cache_config.kv_cache_groups
        return [sorted(group.layer_names, key=_number) for group in groups]

    def _cache(self, name: str) -> Any:
        return self.vllm_config.compilation_config.static_forward_context[name].kv_cache

    def _by_head(self, name: str, ids: list[int]) -> Any:
        """Blocks of a layer as (block, head, bytes of its tokens)."""
        cache = self._cache(name)
        if cache.dim() == 5:
            # K and V apart, before the blocks or after: blocks, heads, tokens, K and V.
            if cache.shape[0] == 2 and cache.shape[1] != 2:
                cache = cache.transpose(0, 1)
            cache = cache.permute(0, 3, 2, 1, 4).flatten(3)
        elif cache.dim() == 3:
            cache = cache.unsqueeze(1)
        # The attention's own blocks may be parts of the engine's.
        blocks = cache.unflatten(0, (self.model_runner.kv_cache_config.num_blocks, -1))[ids]
        return blocks.transpose(1, 2).flatten(2)

    def _caches(self) -> list[Any]:
        return [self._cache(name) for names in self._groups() for name in names]


def _number(name: str) -> int:
    return next(int(word) for word in name.split(".") if word.isdigit())
