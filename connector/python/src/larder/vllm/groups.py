"""The KV cache groups of one rank: their pages, and the namespace that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from larder.errors import InvalidError
from larder.namespace import Layout, NamespaceDescriptor
from larder.vllm import identity
from larder.vllm.identity import Shape
from larder.vllm.layout import Geometry, LayoutAdapter, opaque
from larder.vllm.layout_choice import choose
from larder.vllm.layout_opaque import OpaqueAdapter
from larder.vllm.page_groups import PageGroups, window
from larder.vllm.settings import Settings


def identify(
    vllm_config: Any,
    kv_cache_config: Any,
    settings: Settings,
    engine: str,
    caches: Mapping[str, Any],
    tensor_size: int,
) -> tuple[NamespaceDescriptor, tuple[LayoutAdapter, ...]]:
    """Returns the engine's namespace, and the adapter of each of its groups.

    engine: name and version. caches: the engine's KV caches by layer name.
    INVALID where it has no namespace, naming the field."""
    groups = kv_cache_config.kv_cache_groups
    chunk_tokens = settings.chunk_tokens_for(PageGroups.of(kv_cache_config).unit)
    names = [_names(group.layer_names) for group in groups]
    shapes = []
    geometries = []
    for i, (group, ids) in enumerate(zip(groups, names, strict=True)):
        spec = group.kv_cache_spec
        heads = _heads(vllm_config, spec, i, tensor_size)
        dtype = str(spec.dtype).removeprefix("torch.")
        layers = tuple(ids.values())
        shapes.append(Shape(layers, heads, spec.head_size, spec.head_size_v, spec.block_size, dtype, window(spec)))
        geometries.append(
            Geometry(
                _tensors(caches, list(ids), kv_cache_config.num_blocks),
                spec.num_kv_heads,
                spec.head_size,
                spec.head_size_v,
                spec.block_size,
                chunk_tokens,
            )
        )
    canonical = identity.descriptor(vllm_config, settings, shapes)

    def adapters(wanted: str) -> list[LayoutAdapter]:
        return [
            choose(vllm_config, engine, list(ids), geometry, group.head_group, wanted)
            for ids, geometry, group in zip(names, geometries, canonical.groups, strict=True)
        ]

    chosen = adapters(settings.layout)
    if all(adapter.layout == canonical.layout for adapter in chosen):
        return canonical, tuple(chosen)
    if tensor_size > 1:
        raise InvalidError(
            "pages as they are cannot be shared between ranks",
            "tensor_parallel_size",
            str(tensor_size),
            "1 without a canonical layout",
        )
    # One namespace has one layout.
    as_they_are = [a for a in adapters("opaque") if isinstance(a, OpaqueAdapter)]
    sizes = [adapter.block_bytes for adapter in as_they_are]
    return identity.descriptor(vllm_config, settings, shapes, _layout(as_they_are), sizes), tuple(as_they_are)


def _layout(adapters: list[OpaqueAdapter]) -> Layout:
    """One layout for all groups: what binds any of them."""
    layouts = [adapter.layout for adapter in adapters]
    backends = dict.fromkeys(layout.backend for layout in layouts)
    isas = dict.fromkeys(layout.isa for layout in layouts)
    return opaque(layouts[0].engine, "+".join(backends), "+".join(isas))


def _names(layer_names: list[str]) -> dict[str, int]:
    """Layer names and ids of a group, ascending by id."""
    ids = identity.layer_ids(layer_names)
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def _heads(vllm_config: Any, spec: Any, group: int, tensor_size: int) -> int:
    """KV heads of a group over all ranks. Groups of one model may differ in
    them; the model's own number is what ranks are checked against."""
    if tensor_size == 1:
        return int(spec.num_kv_heads)
    heads = int(vllm_config.model_config.get_total_num_kv_heads())
    if spec.num_kv_heads != max(1, heads // tensor_size):
        raise InvalidError(
            "the KV heads of a rank are not those of the model divided by the ranks",
            f"namespace.groups[{group}].kv_heads",
            f"{spec.num_kv_heads} of {heads}",
            f"tensor_parallel_size {tensor_size}",
        )
    return heads


def _tensors(caches: Mapping[str, Any], names: list[str], blocks: int) -> tuple[Any, ...]:
    """The pages of some layers. Layers that read another layer's KV have none
    of their own, and are not among a group's names."""
    missing = [name for name in names if not isinstance(caches.get(name), torch.Tensor)]
    if missing:
        raise InvalidError("the engine shows no pages of this layer", "kv_caches", missing[0])
    tensors = tuple(caches[name] for name in names)
    if any(t.shape[0] != blocks for t in tensors):
        raise InvalidError(
            "the pages are not one for each block", "kv_caches", str(tuple(tensors[0].shape)), f"{blocks} blocks"
        )
    if len({t.data_ptr() for t in tensors}) < len(tensors):
        raise InvalidError("two layers of a group have the same pages", "kv_caches", ", ".join(names[:4]))
    return tensors
