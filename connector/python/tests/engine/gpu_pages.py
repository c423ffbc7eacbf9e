"""Pages in every form that vLLM's attention on GPUs has, on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from larder.vllm.layout import Geometry

CHUNK = 64


@dataclass(frozen=True)
class Form:
    """One form. kv: (cache, dk) to K and V as (blocks, token, head, dim), views
    of the attention's own blocks."""

    name: str
    make: Callable[[int, int, int, int, int, Any, Any], Any]
    kv: Callable[[Any, int], tuple[Any, Any]]
    heads: int = 3
    block: int = 16
    dk: int = 32
    dv: int = 32
    split: int = 1
    dtype: Any = torch.bfloat16

    def geometry(self, blocks: int, layers: int = 2, device: Any = "cpu") -> Geometry:
        """Pages full of zeros; blocks of the engine's."""
        make = self.make
        tensors = tuple(
            make(blocks * self.split, self.heads, self.block, self.dk, self.dv, self.dtype, device)
            for _ in range(layers)
        )
        return Geometry(tensors, self.heads, self.dk, self.dv, self.block * self.split, CHUNK)

    def write(self, k: Any, v: Any, cache: Any, slots: Any) -> None:
        """As the backend's operation."""
        for target, source in zip(self.kv(cache, self.dk), (k, v), strict=True):
            target[slots // self.block, slots % self.block] = source


def _packed(order: str) -> Callable[..., Any]:
    def make(blocks: int, heads: int, block: int, dk: int, dv: int, dtype: Any, device: Any) -> Any:
        if order == "HND":
            return torch.zeros(blocks, heads, block, dk + dv, dtype=dtype, device=device)
        return torch.zeros(blocks, block, heads, dk + dv, dtype=dtype, device=device).transpose(1, 2)

    return make


def _layers_between(blocks: int, heads: int, block: int, dk: int, dv: int, dtype: Any, device: Any) -> Any:
    """One of four layers that share a tensor, block by block."""
    return torch.zeros(blocks, 4, block, heads, dk + dv, dtype=dtype, device=device)[:, 1].transpose(1, 2)


def _old(order: str) -> Callable[..., Any]:
    def make(blocks: int, heads: int, block: int, dk: int, dv: int, dtype: Any, device: Any) -> Any:
        if order == "NHD":
            return torch.zeros(blocks, 2, block, heads, dk, dtype=dtype, device=device)
        return torch.zeros(blocks, 2, heads, block, dk, dtype=dtype, device=device).transpose(2, 3)

    return make


def _oldest(blocks: int, heads: int, block: int, dk: int, dv: int, dtype: Any, device: Any) -> Any:
    return torch.zeros(2, blocks, block, heads, dk, dtype=dtype, device=device)


def _latent(blocks: int, heads: int, block: int, dk: int, dv: int, dtype: Any, device: Any) -> Any:
    return torch.zeros(blocks, block, dk, dtype=dtype, device=device)


def _split(cache: Any, dk: int) -> tuple[Any, Any]:
    tokens = cache.transpose(1, 2)
    return tokens[..., :dk], tokens[..., dk:]


def _pair(cache: Any, dk: int) -> tuple[Any, Any]:
    return cache[:, 0], cache[:, 1]


def _one(cache: Any, dk: int) -> tuple[Any, Any]:
    return cache.unsqueeze(2), cache.unsqueeze(2)[..., dk:]


NHD = Form("packed NHD", _packed("NHD"), _split)
FORMS = [
    NHD,
    Form("packed HND", _packed("HND"), _split),
    Form("packed, odd dimension, float32", _packed("NHD"), _split, dk=20, dv=20, dtype=torch.float32),
    Form("packed, K longer than V", _packed("HND"), _split, dk=24, dv=8),
    Form("packed, two-byte rows", _packed("HND"), _split, heads=1, dk=3, dv=4),
    Form("layers in one tensor", _layers_between, _split),
    Form("K and V in a block, NHD", _old("NHD"), _pair),
    Form("K and V in a block, HND", _old("HND"), _pair, dk=40, dv=40),
    Form("K and V before the blocks", _oldest, lambda c, _: (c[0], c[1])),
    Form("latent", _latent, _one, heads=1, dk=72, dv=0),
    replace(NHD, name="packed, small blocks of the attention", split=2, block=8),
    Form("latent, small blocks of the attention", _latent, _one, heads=1, dk=72, dv=0, block=4, split=4),
]


def fill(form: Form, geometry: Geometry, blocks: Sequence[int], seed: int = 0) -> Any:
    """Writes random KV of one chunk the backend's way; returns it as (layer, head, token, K and V)."""
    generator = torch.Generator().manual_seed(seed)
    slots = (torch.tensor(blocks)[:, None] * geometry.block_tokens + torch.arange(geometry.block_tokens)).flatten()
    out = []
    for cache in geometry.tensors:
        kv = torch.randn(geometry.chunk_tokens, form.heads, form.dk + form.dv, generator=generator).to(form.dtype)
        there = kv.to(cache.device)
        form.write(there[..., : form.dk], there[..., form.dk :], cache, slots.to(cache.device))
        out.append(kv.transpose(0, 1))
    return torch.stack(out).contiguous()
