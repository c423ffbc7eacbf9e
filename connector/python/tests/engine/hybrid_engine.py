"""The simulated engine with several KV cache groups, of full attention and of sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from simulated_config import HEADS
from simulated_engine import Hashes, Shadow, SimulatedEngine, kv_of, larder
from vllm.v1.core.kv_cache_utils import resolve_kv_cache_block_sizes
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, SlidingWindowSpec

from larder.namespace import NamespaceDescriptor
from larder.vllm.layout_choice import cpu_write
from larder.vllm.layout_proof import Write
from larder.vllm.memory import tensor


def make_hybrid(blocks: int, *groups: tuple[int, int, int], layers: int = 2) -> Any:
    """What the engine tells its connectors about groups of so many layers: (block, window, head size), window 0 for
    full attention. Pages have the same size in all groups, as the engine sees to."""
    assert len({block * dim for block, _, dim in groups}) <= 1
    specs = []
    for i, (block, window, dim) in enumerate(groups):
        shape = {"block_size": block, "num_kv_heads": HEADS, "head_size": dim, "dtype": torch.bfloat16}
        spec = SlidingWindowSpec(**shape, sliding_window=window) if window else FullAttentionSpec(**shape)
        names = [f"model.layers.{layer * len(groups) + i}.self_attn.attn" for layer in range(layers)]
        specs.append(KVCacheGroupSpec(names, spec))
    return KVCacheConfig(blocks, [], specs)


@dataclass
class Layer:
    """The pages of one layer. window: tokens that attention reads, 0: all."""

    cache: torch.Tensor
    number: int
    group: int
    block: int
    dim: int
    window: int
    write: Write

    def put(self, cache: torch.Tensor, blocks: Sequence[int], hashes: Hashes, begin: int, end: int) -> None:
        """Writes K and V of tokens [begin, end) as the engine does, into pages of this form."""
        positions = torch.arange(begin, end)
        slots = torch.tensor(blocks)[positions // self.block] * self.block + positions % self.block
        kv = kv_of(hashes[begin:end], self.number, self.dim)
        self.write(kv[..., : self.dim].contiguous(), kv[..., self.dim :].contiguous(), cache, slots)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(a.view(torch.int16), b.view(torch.int16)))


class HybridEngine(SimulatedEngine):
    """As SimulatedEngine. A request's pages are lists, one for each group."""

    def _make_workers(self, connect: Any) -> dict[tuple[int, int], Any]:
        self.layers = self._make_layers(self.cache_config.num_blocks)
        self.pages = {name: layer.cache for name, layer in self.layers.items()}
        return super()._make_workers(connect)

    def _make_layers(self, blocks: int) -> dict[str, Layer]:
        """As the engine's allocation: groups share memory, layer by layer, since no two have the same page."""
        from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

        raw: list[torch.Tensor] = []
        found = {}
        for i, group in enumerate(self.cache_config.kv_cache_groups):
            spec = group.kv_cache_spec
            block, dim, window = spec.block_size, spec.head_size, getattr(spec, "sliding_window", None) or 0
            write = cpu_write(str(_get_attn_isa(torch.bfloat16, block, dim, "auto")))
            for j, name in enumerate(group.layer_names):
                if j == len(raw):
                    raw.append(torch.zeros(blocks, HEADS * block * 2 * dim, dtype=torch.bfloat16))
                cache = raw[j].view(blocks, HEADS, block, 2 * dim)
                found[name] = Layer(cache, int(name.split(".")[2]), i, block, dim, window, write)
        return found

    def _block_sizes(self) -> tuple[int, int]:
        unit, hashed = resolve_kv_cache_block_sizes(self.cache_config, self.config)
        return int(unit), int(hashed)

    def _remember(self, output: Any) -> None:
        for new in output.scheduled_new_reqs:
            self._shadows[new.req_id] = Shadow([list(ids) for ids in new.block_ids], [])
        cached = output.scheduled_cached_reqs
        for request_id, blocks in zip(cached.req_ids, cached.new_block_ids, strict=True):
            shadow = self._shadows[request_id]
            if request_id in cached.resumed_req_ids:
                shadow.blocks = [[] for _ in shadow.blocks]
            for have, more in zip(shadow.blocks, blocks or (), strict=blocks is not None):
                have.extend(more)

    def _put(self, blocks: Any, hashes: Hashes, begin: int, end: int) -> None:
        for layer in self.layers.values():
            layer.put(layer.cache, blocks[layer.group], hashes, begin, end)

    def check(self, request_id: str, hashes: Hashes, past: int) -> None:
        """Fails unless the pages hold K and V of the first `past` tokens, as far as attention looks back from there."""
        self._check(request_id, self._shadows[request_id].blocks, hashes, past)

    def _check(self, request_id: str, pages: Any, hashes: Hashes, past: int) -> None:
        for name, layer in self.layers.items():
            whole = past // layer.block
            first = max(0, past - layer.window + 1) // layer.block if layer.window else 0
            blocks = pages[layer.group][first:whole]
            assert 0 not in blocks, f"{request_id}: no page for what attention reads in {name}"
            assert not layer.cache[0].any(), f"something was written into the null page of {name}"
            if not blocks:
                continue
            own = torch.zeros(len(blocks), *layer.cache.shape[1:], dtype=layer.cache.dtype)
            layer.put(own, range(-first, len(blocks)), hashes, first * layer.block, whole * layer.block)
            have = layer.cache[blocks]
            wrong = [i for i, (a, b) in enumerate(zip(have, own, strict=True), first) if not same_bits(a, b)]
            assert not wrong, f"{request_id}: wrong KV in blocks {wrong} of {name}, {past} tokens computed"
        self.checked_tokens += past // self.block * self.block

    def namespace(self) -> NamespaceDescriptor:
        """The engine's."""
        return NamespaceDescriptor.decode(larder(self.worker).worker_half.handshake().namespace)

    def check_chunk(self, parts: dict[int, bytes], hashes: Hashes, ordinal: int) -> None:
        """Fails unless the parts of a chunk are all there, and hold the canonical bytes of its tokens' KV."""
        made = self.namespace()
        chunk = made.chunk_tokens
        part = hashes[ordinal * chunk : (ordinal + 1) * chunk]
        dims = {layer.number: layer.dim for layer in self.layers.values()}
        assert sorted(parts) == list(range(len(made.parts())))
        for i, spec in enumerate(made.parts()):
            dim, heads = dims[spec.layers[0]], slice(spec.first_head, spec.first_head + spec.heads)
            known = torch.stack([kv_of(part, layer, dim).transpose(0, 1)[heads] for layer in spec.layers])
            have = tensor(np.frombuffer(parts[i], np.uint8), torch.int16).view(known.shape)
            assert torch.equal(have, known.view(torch.int16)), f"chunk {ordinal}, {spec}"
