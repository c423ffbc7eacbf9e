"""Layout adapters against the engine's own cache operation, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from larder.load import Bytes
from larder.vllm.layout import Geometry, PartHeads, opaque
from larder.vllm.layout_choice import cpu_write
from larder.vllm.layout_cpu import CpuAdapter
from larder.vllm.layout_opaque import OpaqueAdapter
from larder.vllm.layout_proof import prove
from larder.vllm.memory import tensor
from larder.vllm.omp import use_one_thread

CHUNK = 256
# Every order that the CPU backend has on x86, also on machines that would not choose it.
FORMS = [
    ("vec", 128, 128, torch.bfloat16),
    ("vec", 32, 64, torch.bfloat16),
    ("vec", 64, 128, torch.float32),
    ("vec", 128, 64, torch.float16),
    ("vec16", 16, 128, torch.bfloat16),
    ("vec16", 16, 80, torch.float32),
]


def amx_forms() -> list[tuple[str, int, int, torch.dtype]]:
    return [("amx", 128, 128, torch.bfloat16), ("amx", 32, 64, torch.bfloat16), ("amx", 64, 256, torch.bfloat16)]


def forms() -> list[tuple[str, int, int, torch.dtype]]:
    return FORMS + (amx_forms() if torch.cpu._is_amx_tile_supported() else [])


def geometry(
    block: int, dim: int, dtype: Any, heads: int = 2, layers: int = 3, chunk: int = CHUNK, chunks: int = 4
) -> Geometry:
    blocks = chunks * chunk // block + 2
    tensors = tuple(torch.zeros(blocks, heads, block, 2 * dim, dtype=dtype) for _ in range(layers))
    return Geometry(tensors, heads, dim, dim, block, chunk)


def fill(g: Geometry, isa: str, blocks: Sequence[int], seed: int = 0) -> torch.Tensor:
    """Writes random KV of one chunk the engine's way; returns it as (layer, head, token, K and V)."""
    write = cpu_write(isa)
    generator = torch.Generator().manual_seed(seed)
    slots = (torch.tensor(blocks)[:, None] * g.block_tokens + torch.arange(g.block_tokens)).flatten()
    out = []
    for cache in g.tensors:
        kv = torch.randn(g.chunk_tokens, g.heads, 2 * g.dk, generator=generator).to(cache.dtype)
        write(kv[..., : g.dk].contiguous(), kv[..., g.dk :].contiguous(), cache, slots)
        out.append(kv.transpose(0, 1))
    return torch.stack(out)


def parts_of(g: Geometry, unit: int) -> list[tuple[PartHeads, Bytes]]:
    size = len(g.tensors) * unit * g.chunk_tokens * 2 * g.dk * g.tensors[0].element_size()
    return [(PartHeads(h, unit), np.empty(size, np.uint8)) for h in range(0, g.heads, unit)]


def as_tensor(g: Geometry, unit: int, view: Bytes) -> torch.Tensor:
    return tensor(view, g.tensors[0].dtype).view(len(g.tensors), unit, g.chunk_tokens, 2 * g.dk)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8)))


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize(("isa", "block", "dim", "dtype"), forms())
def test_parts_are_layer_head_token_kv(isa: str, block: int, dim: int, dtype: Any, unit: int) -> None:
    g = geometry(block, dim, dtype)
    blocks = list(range(1, 1 + g.chunk_blocks))[::-1]
    known = fill(g, isa, blocks)
    parts = parts_of(g, unit)
    CpuAdapter(g, isa).gather(blocks, parts)
    for heads, view in parts:
        assert same_bits(as_tensor(g, unit, view), known[:, heads.first : heads.first + unit])


@pytest.mark.parametrize(("isa", "block", "dim", "dtype"), forms())
def test_every_form_is_proven(isa: str, block: int, dim: int, dtype: Any) -> None:
    g = geometry(block, dim, dtype)
    for unit in (1, 2):
        assert prove(lambda scratch: CpuAdapter(scratch, isa), g, cpu_write(isa), unit) == ""


@pytest.mark.parametrize(("wrong", "right"), [("vec", "vec16"), ("vec16", "vec")])
def test_same_order_under_another_name_is_proven(wrong: str, right: str) -> None:
    # vec and vec16 differ in which blocks they take, not in the order.
    g = geometry(32, 64, torch.float32)
    assert prove(lambda scratch: CpuAdapter(scratch, wrong), g, cpu_write(right), 1) == ""


def test_a_wrong_order_is_not_proven() -> None:
    g = geometry(32, 64, torch.bfloat16)
    transposed = prove(lambda scratch: CpuAdapter(scratch, "amx"), g, cpu_write("vec"), 1)
    assert "read from pages differ" in transposed


def test_an_adapter_that_writes_too_much_is_not_proven() -> None:
    class Careless(CpuAdapter):
        def scatter(self, blocks: Sequence[int], skip: int, heads: PartHeads, part: Bytes) -> None:  # noqa: ARG002
            super().scatter(blocks, 0, heads, part)

    g = geometry(32, 64, torch.float32)
    assert "tail of a chunk" in prove(lambda scratch: Careless(scratch, "vec"), g, cpu_write("vec"), 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_stored_with_one_block_size_loaded_with_others(dtype: Any) -> None:
    amx = torch.cpu._is_amx_tile_supported() and dtype == torch.bfloat16
    isa = "amx" if amx else "vec"
    source = geometry(128, 128, dtype)
    known = fill(source, isa, [3, 1])
    parts = parts_of(source, 1)
    CpuAdapter(source, isa).gather([3, 1], parts)
    for block, other in ((32, isa), (16, "vec16"), (64, isa)):
        target = geometry(block, 128, dtype)
        adapter = CpuAdapter(target, other)
        blocks = [2 * i + 1 for i in range(target.chunk_blocks)]
        for heads, view in parts:
            adapter.scatter(blocks, 0, heads, view)
        # The pages are those that this engine would have written itself.
        own = geometry(block, 128, dtype)
        fresh = fill(own, other, blocks)
        assert same_bits(fresh, known)
        for a, b in zip(target.tensors, own.tensors, strict=True):
            assert same_bits(a, b)


def test_only_the_wanted_pages_and_heads_are_written() -> None:
    g = geometry(32, 64, torch.float32)
    fill(g, "vec", list(range(1, 9)), seed=1)
    parts = parts_of(g, 1)
    CpuAdapter(g, "vec").gather(list(range(1, 9)), parts)
    target = geometry(32, 64, torch.float32)
    CpuAdapter(target, "vec").scatter([10, 11, 12], 5, *parts[1])
    for cache, original in zip(target.tensors, g.tensors, strict=True):
        assert same_bits(cache[10:13, 1], original[6:9, 1])
        cache[10:13, 1] = 0
        assert not cache.any()


def test_opaque_pages_come_back_as_they_were() -> None:
    g = geometry(16, 64, torch.bfloat16, heads=3)
    for cache in g.tensors:
        cache.view(torch.int16).random_(-(1 << 15), 1 << 15)
    adapter = OpaqueAdapter(g, opaque("vllm/0", "CPU_ATTN", "x"))
    blocks = list(range(5, 5 + g.chunk_blocks))
    view = np.empty(adapter.block_bytes * g.chunk_blocks * len(g.tensors), np.uint8)
    adapter.gather(blocks, [(PartHeads(0, 3), view)])
    target = geometry(16, 64, torch.bfloat16, heads=3)
    OpaqueAdapter(target, adapter.layout).scatter(blocks[4:], 4, PartHeads(0, 3), view)
    for cache, original in zip(target.tensors, g.tensors, strict=True):
        assert same_bits(cache[9:21], original[9:21])
        cache[9:21] = 0
        assert not cache.any()


def test_opaque_refuses_pages_that_are_not_runs_of_bytes() -> None:
    cache = torch.zeros(6, 16, 2, 128).transpose(1, 2)
    with pytest.raises(Exception, match="not runs of bytes"):
        OpaqueAdapter(Geometry((cache,), 2, 64, 64, 16, CHUNK), opaque("vllm/0", "X", "cpu"))


def test_a_copying_thread_runs_alone_and_leaves_the_engine_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1, initializer=use_one_thread) as pool:
            assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
