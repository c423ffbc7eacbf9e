"""The pages of vLLM's CPU attention.

For each (block, head) of 2 * block * D elements, K comes first and V second,
each in an order made for the instruction set, which the tensor's shape
(blocks, heads, block, 2 * D) does not show:

    vec, vec16   K [D][block]                        V [block][D]
    amx          K [block / 16][D / 2][16][2 of D]   V [D / 16][block / 2][16][2 of block]

Pages are written by the engine's own cache operation, which knows the order
whatever it is. They are read by way of a stage that holds a chunk of several
layers: one gathering copy for each layer, then few large strided copies.
Measured for 39 MiB of bf16 (13 chunks of 256 tokens, 12 layers, 2 heads of 128,
block 128) on two cores: reading 18 ms with amx and 13 ms with vec on two
threads (25 and 23 on one), layer by layer 28 and 16; writing 17 ms, on one
thread 22. Strided copies would need 26 ms to write with amx.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from larder.load import Bytes
from larder.vllm.layout import Geometry, PartHeads, canonical
from larder.vllm.memory import tensor

_STAGE_BYTES = 4 << 20
_INTEGER = {2: torch.int16, 4: torch.int32}

ISAS = ("vec", "vec16", "amx")
"""Instruction sets whose order is known."""


class CpuAdapter:
    """Copies between CPU pages and canonical parts."""

    def __init__(self, geometry: Geometry, isa: str) -> None:
        first = geometry.tensors[0]
        self.layout = canonical()
        self._geometry = geometry
        self._isa = isa
        self._dtype = first.dtype
        self._int = _INTEGER[first.element_size()]
        heads, block, dim = geometry.heads, geometry.block_tokens, geometry.dk
        self._half = block * dim
        # Split as the engine's attention does it before it calls the operation.
        self._caches = [t.view(t.shape[0], heads, 2 * block, dim).chunk(2, dim=2) for t in geometry.tensors]
        self._pages = [t.view(self._int).view(t.shape[0], heads, 2 * self._half) for t in geometry.tensors]
        page = 2 * self._half * heads * first.element_size() * geometry.chunk_blocks
        self._step = _divisor(len(geometry.tensors), max(1, _STAGE_BYTES // page))
        self._stages = threading.local()
        self._offsets = torch.arange(block)
        self._cuts: dict[PartHeads, list[tuple[Any, Any]]] = {}

    def gather(self, blocks: Sequence[int], parts: Sequence[tuple[PartHeads, Bytes]]) -> None:
        """See LayoutAdapter."""
        index = torch.tensor(blocks)
        outs = [(heads, self._out(heads, view)) for heads, view in parts]
        stage = self._stage()
        staged = stage.unbind(0)
        for layer in range(0, len(self._pages), self._step):
            for pages, one in zip(self._pages[layer : layer + self._step], staged, strict=True):
                torch.index_select(pages, 0, index, out=one)
            to: list[Any] = []
            source: list[Any] = []
            for heads, out in outs:
                to_part, of_stage = self._orders(stage, heads, out[layer : layer + self._step])
                to += to_part
                source += of_stage
            # One call for all: threads that copy hand the interpreter to each
            # other after every call.
            torch._foreach_copy_(to, source)

    def scatter(self, blocks: Sequence[int], skip: int, heads: PartHeads, part: Bytes) -> None:
        """See LayoutAdapter."""
        from vllm import _custom_ops as ops

        g = self._geometry
        slots = (torch.tensor(blocks).unsqueeze(1) * g.block_tokens + self._offsets).flatten()
        layers = tensor(part, self._dtype).view(len(self._pages), heads.count, g.chunk_tokens, 2 * g.dk)
        begin = skip * g.block_tokens
        # (layer, token, head, dim), as the operation wants it.
        tokens = layers[:, :, begin : begin + len(slots)].transpose(1, 2)
        k_layers, v_layers = tokens[..., : g.dk].unbind(0), tokens[..., g.dk :].unbind(0)
        for (k_cache, v_cache), k, v in zip(self._caches_of(heads), k_layers, v_layers, strict=True):
            ops.cpu_attn_reshape_and_cache(k, v, k_cache, v_cache, slots, self._isa)

    def _caches_of(self, heads: PartHeads) -> list[tuple[Any, Any]]:
        """The caches of some heads, layer by layer; there are few such cuts."""
        found = self._cuts.get(heads)
        if found is None:
            some = slice(heads.first, heads.first + heads.count)
            found = self._cuts[heads] = [(k[:, some], v[:, some]) for k, v in self._caches]
        return found

    def _out(self, heads: PartHeads, view: Bytes) -> Any:
        """A part as (layer, head, block, token, K and V)."""
        g = self._geometry
        shape = (len(self._pages), heads.count, g.chunk_blocks, g.block_tokens, 2 * g.dk)
        return tensor(view, self._int).view(shape)

    def _stage(self) -> Any:
        """This thread's room for the pages of some layers: (layer, block, head, bytes)."""
        stage = getattr(self._stages, "pages", None)
        if stage is None:
            g = self._geometry
            shape = (self._step, g.chunk_blocks, g.heads, 2 * self._half)
            stage = self._stages.pages = torch.empty(shape, dtype=self._int)
        return stage

    def _orders(self, pages: Any, heads: PartHeads, out: Any) -> tuple[list[Any], list[Any]]:
        """Heads of a part, and of the stage, (layer, head, block, token, K and
        V), as tensors of one shape each: K, then V."""
        g = self._geometry
        block, dim = g.block_tokens, g.dk
        stage = pages[:, :, heads.first : heads.first + heads.count]
        lead = stage.shape[:3]
        k, v = stage[..., : self._half], stage[..., self._half :]
        if self._isa != "amx":
            k_stage = k.view(*lead, dim, block).permute(0, 2, 1, 4, 3)
            v_stage = v.view(*lead, block, dim).permute(0, 2, 1, 3, 4)
            return [out[..., :dim], out[..., dim:]], [k_stage, v_stage]
        # Pairs of K stay together, so they move as one element of twice the size.
        k_out = out.view(torch.int32)[..., : dim // 2].unflatten(3, (block // 16, 16))
        pairs = stage.view(torch.int32)[..., : self._half // 2]
        k_stage = pairs.view(*lead, block // 16, dim // 2, 16).permute(0, 2, 1, 3, 5, 4)
        v_out = out[..., dim:].unflatten(3, (block // 2, 2)).unflatten(5, (dim // 16, 16))
        v_stage = v.view(*lead, dim // 16, block // 2, 16, 2).permute(0, 2, 1, 4, 6, 3, 5)
        return [k_out, v_out], [k_stage, v_stage]


def _divisor(n: int, most: int) -> int:
    """Returns the largest divisor of n that is at most most."""
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= most)
