"""Which adapter an engine on a GPU gets."""

from __future__ import annotations

from typing import Any

from vllm.logger import init_logger

from larder.vllm.device import Device
from larder.vllm.layout import Geometry, canonical, opaque
from larder.vllm.layout_gpu import GpuAdapter
from larder.vllm.layout_proof import Write, prove
from larder.vllm.rows import canonical_rows, opaque_rows

logger = init_logger("vllm.larder.layout")


def choose_gpu(
    vllm_config: Any, device: Device, engine: str, backend: str, layer: str, geometry: Geometry, heads: int, wanted: str
) -> GpuAdapter:
    """As layout_choice.choose. layer: the name of any of the group's."""
    if wanted == "auto":
        rows = canonical_rows(geometry)
        write = backend_write(vllm_config.compilation_config.static_forward_context.get(layer))
        if rows is None:
            reason = f"no adapter for pages of shape {tuple(geometry.tensors[0].shape)}"
        elif write is None:
            reason = f"the attention backend {backend} has no operation that writes pages"
        else:
            reason = prove(lambda scratch: _canonical(scratch, device), geometry, write, heads)
            if not reason:
                logger.info("Larder: canonical layout for %s, proven", backend)
                return GpuAdapter(device, rows, canonical())
        logger.warning("Larder: pages are stored as they are (%s); only the same engine shares them", reason)
    return GpuAdapter(device, opaque_rows(geometry), opaque(engine, backend, "cuda"))


def _canonical(geometry: Geometry, device: Device) -> GpuAdapter:
    rows = canonical_rows(geometry)
    if rows is None:
        raise ValueError(f"no rows in pages of shape {tuple(geometry.tensors[0].shape)}")
    return GpuAdapter(device, rows, canonical())


def backend_write(layer: Any) -> Write | None:
    """The operation by which a layer's attention writes its KV into pages, as
    the backend itself calls it; None for a layer that shows none."""
    impl = getattr(layer, "impl", None)
    update = getattr(impl, "do_kv_cache_update", None)
    if update is None:
        return None
    latent = getattr(layer, "kv_lora_rank", None)
    if latent is None:

        def write(k: Any, v: Any, cache: Any, slots: Any) -> None:
            update(layer, k.contiguous(), v.contiguous(), cache, slots)

        return write

    def write_latent(k: Any, v: Any, cache: Any, slots: Any) -> None:  # noqa: ARG001
        # One vector for each token: the latent, then the rotated part of the key.
        rotated = k[..., latent:].contiguous()
        update(k[:, 0, :latent].contiguous(), rotated, cache, slots, layer.kv_cache_dtype, layer._k_scale)

    return write_latent
