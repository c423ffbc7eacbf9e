"""The proof that an adapter and a backend agree on where KV lies in a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from larder.load import Bytes
from larder.vllm.layout import Geometry, LayoutAdapter, PartHeads, by_block
from larder.vllm.memory import tensor

Write = Callable[[Any, Any, Any, Any], None]
"""(k, v, cache, slots): the backend's own operation; k and v are (tokens,
heads, dim), cache is one layer's tensor, slots are positions in it."""


def prove(make: Callable[[Geometry], LayoutAdapter], geometry: Geometry, write: Write, heads: int) -> str:
    """Sends known values both ways through the adapter that make returns, on
    scratch pages of the same form. heads: KV heads of a part.

    Returns what went wrong, or "" if nothing did.
    """
    chunk_blocks = geometry.chunk_blocks
    blocks = 2 * chunk_blocks + 3
    scratch = replace(geometry, tensors=tuple(_like(t, blocks, geometry) for t in geometry.tensors[:2]))
    pages = [by_block(t, geometry) for t in scratch.tensors]
    adapter = make(scratch)
    random = torch.Generator().manual_seed(1)
    # Pages far apart and out of order.
    here = [2 * i + 1 for i in reversed(range(chunk_blocks))]
    there = [2 * i + 2 for i in range(chunk_blocks)]
    known = []
    for cache in scratch.tensors:
        kv = torch.randn(geometry.chunk_tokens, geometry.heads, geometry.dk + geometry.dv, generator=random).to(
            cache.dtype
        )
        there_kv, slots = kv.to(cache.device), _slots(here, geometry.block_tokens).to(cache.device)
        write(there_kv[..., : geometry.dk], there_kv[..., geometry.dk :], cache, slots)
        known.append(kv)
    written = [cache[here].clone() for cache in pages]
    # (layer, head, token, K and V)
    expected = torch.stack(known).transpose(1, 2).contiguous()

    parts = [
        (PartHeads(first, heads), _empty(expected[:, first : first + heads]))
        for first in range(0, geometry.heads, heads)
    ]
    adapter.gather(here, parts)
    for part, view in parts:
        want = expected[:, part.first : part.first + part.count]
        if not torch.equal(tensor(view, torch.uint8), want.contiguous().view(torch.uint8).flatten()):
            return "values read from pages differ from those that the backend wrote"

    for part, view in parts:
        adapter.scatter(there, 0, part, view)
    for cache, want in zip(pages, written, strict=True):
        if not _same(cache[there], want) or not _same(cache[here], want):
            return "pages written differ from those that the backend wrote"

    for cache in scratch.tensors:
        cache.zero_()
    skip = chunk_blocks // 2
    for part, view in parts:
        adapter.scatter(there[skip:], skip, part, view)
    for cache, want in zip(pages, written, strict=True):
        if not _same(cache[there[skip:]], want[skip:]):
            return "the tail of a chunk is not written where it belongs"
        cache[there[skip:]] = 0
        if cache.any():
            return "writing the tail of a chunk changes other pages"
    return ""


def _like(cache: Any, blocks: int, geometry: Geometry) -> Any:
    """Zeroed pages of the same form; strides count, and the backend may not
    be the one that made the cache."""
    have = by_block(cache, geometry).shape[0]
    count = next(i for i, size in enumerate(cache.shape) if size % have == 0)
    shape, stride = list(cache.shape), list(cache.stride())
    shape[count] = shape[count] // have * blocks
    for i in range(count):
        # K and V before the blocks: they lie nearer to each other, with fewer.
        if stride[i] > stride[count]:
            stride[i] = stride[i] // have * blocks
    return torch.empty_strided(shape, stride, dtype=cache.dtype, device=cache.device).zero_()


def _slots(blocks: list[int], block_tokens: int) -> Any:
    return (torch.tensor(blocks).unsqueeze(1) * block_tokens + torch.arange(block_tokens)).flatten()


def _empty(like: Any) -> Bytes:
    return np.empty(like.numel() * like.element_size(), np.uint8)


def _same(a: Any, b: Any) -> bool:
    return bool(torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8)))
