"""Which adapter an engine gets."""

from __future__ import annotations

from typing import Any

from vllm.logger import init_logger

from larder.errors import InvalidError
from larder.vllm import compat
from larder.vllm.device import device_of
from larder.vllm.layout import Geometry, LayoutAdapter, opaque
from larder.vllm.layout_choice_gpu import choose_gpu
from larder.vllm.layout_cpu import ISAS, CpuAdapter
from larder.vllm.layout_opaque import OpaqueAdapter
from larder.vllm.layout_proof import Write, prove

logger = init_logger("vllm.larder.layout")


def choose(
    vllm_config: Any, engine: str, layers: list[str], geometry: Geometry, heads: int, wanted: str
) -> LayoutAdapter:
    """Returns the adapter of a group of full-attention layers.

    engine: name and version, which bind an opaque layout. layers: names, in
    the order of geometry.tensors. heads: KV heads of a canonical part. wanted:
    auto or opaque.
    """
    backends = compat.attention_backends(vllm_config, layers)
    backend = backends[0].get_name()
    if len(backends) > 1:
        raise InvalidError(
            "the layers of one group have several attention backends",
            "layout.backend",
            ", ".join(b.get_name() for b in backends),
        )
    device = device_of(geometry.tensors[0])
    if device is not None:
        return choose_gpu(vllm_config, device, engine, backend, layers[0], geometry, heads, wanted)
    isa = _cpu_isa(vllm_config, geometry) if backend == "CPU_ATTN" and geometry.dv else ""
    if wanted == "auto":
        reason = f"no adapter for the attention backend {backend}"
        if isa:
            reason = _prove_cpu(geometry, isa, heads)
            if not reason:
                logger.info("Larder: canonical layout for %s, %s, proven", backend, isa)
                return CpuAdapter(geometry, isa)
        logger.warning("Larder: pages are stored as they are (%s); only the same engine shares them", reason)
    return OpaqueAdapter(geometry, opaque(engine, backend, isa or geometry.tensors[0].device.type))


def _cpu_isa(vllm_config: Any, geometry: Geometry) -> str:
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    isa: str = _get_attn_isa(
        geometry.tensors[0].dtype, geometry.block_tokens, geometry.dk, vllm_config.cache_config.cache_dtype
    )
    return isa


def _prove_cpu(geometry: Geometry, isa: str, heads: int) -> str:
    if isa not in ISAS:
        return f"no adapter for the instruction set {isa}"
    return prove(lambda g: CpuAdapter(g, isa), geometry, cpu_write(isa), heads)


def cpu_write(isa: str) -> Write:
    """Returns the CPU backend's operation, called as its attention calls it."""
    from vllm import _custom_ops as ops

    def write(k: Any, v: Any, cache: Any, slots: Any) -> None:
        k_cache, v_cache = cache.view(*cache.shape[:2], cache.shape[2] * 2, -1).chunk(2, dim=2)
        ops.cpu_attn_reshape_and_cache(k, v, k_cache, v_cache, slots, isa)

    return write
