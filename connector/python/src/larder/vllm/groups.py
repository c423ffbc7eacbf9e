"""The KV cache groups of one rank: their pages, and the namespace that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch

from larder.errors import InvalidError
from larder.namespace import Layout, NamespaceDescriptor
from larder.vllm import identity
from larder.vllm.identity import Shape
from larder.vllm.layout import Geometry, LayoutAdapter, WholeBlocks, by_block, opaque
from larder.vllm.layout_choice import choose
from larder.vllm.page_groups import PageGroups, window
from larder.vllm.settings import Settings
from larder.vllm.stages import Place, all_layers, layer_spans

GroupSpan = tuple[int, int]
"""A KV cache group, and a layer span."""


def identify(
    vllm_config: Any,
    kv_cache_config: Any,
    settings: Settings,
    engine: str,
    caches: Mapping[str, Any],
    here: Place,
    tensor_size: int,
) -> tuple[NamespaceDescriptor, dict[GroupSpan, LayoutAdapter]]:
    """Returns the engine's namespace, and an adapter for each group and layer
    span of which this rank has layers.

    engine: name and version. caches: the engine's KV caches by layer name.
    INVALID where it has no namespace, naming the field."""
    groups = kv_cache_config.kv_cache_groups
    model_layers, stages = all_layers(here, lambda: tuple(tuple(_names(group.layer_names)) for group in groups))
    spans = layer_spans(vllm_config, stages, settings.layer_spans)
    chunk_tokens = settings.chunk_tokens_for(PageGroups.of(kv_cache_config).unit)
    shapes = []
    pages = []
    for i, (group, layers) in enumerate(zip(groups, model_layers, strict=True)):
        spec = group.kv_cache_spec
        heads = _heads(vllm_config, spec, i, tensor_size)
        dtype = str(spec.dtype).removeprefix("torch.")
        dv = 0 if _latent(spec) else spec.head_size_v
        shapes.append(Shape(layers, heads, spec.head_size, dv, spec.block_size, dtype, window(spec)))
        pages.append(_tensors(caches, list(_names(group.layer_names).values())))
    canonical = identity.descriptor(vllm_config, settings, shapes, spans=spans)

    def adapters(wanted: str) -> dict[GroupSpan, LayoutAdapter]:
        found: dict[GroupSpan, LayoutAdapter] = {}
        for i, (group, shape, tensors) in enumerate(zip(groups, shapes, pages, strict=True)):
            names = _names(group.layer_names)
            described = canonical.groups[i]
            for span in range(len(spans)):
                mine = [names[layer] for layer in canonical.layers_in(described, span) if layer in names]
                if not mine:
                    continue
                geometry = Geometry(
                    tuple(tensors[name] for name in mine),
                    group.kv_cache_spec.num_kv_heads,
                    shape.dk,
                    shape.dv,
                    shape.block_tokens,
                    chunk_tokens,
                )
                _check_blocks(geometry, kv_cache_config.num_blocks)
                found[i, span] = choose(vllm_config, engine, mine, geometry, described.head_group, wanted)
        return found

    chosen = adapters(settings.layout)
    if all(adapter.layout == canonical.layout for adapter in chosen.values()):
        return canonical, chosen
    if tensor_size > 1 and any(shape.dv for shape in shapes):
        raise InvalidError(
            "pages as they are cannot be shared between ranks",
            "tensor_parallel_size",
            str(tensor_size),
            "1 without a canonical layout",
        )
    # One namespace has one layout.
    as_they_are = adapters("opaque")
    # A stage may lack a group; what is wrong then is found when ranks are compared.
    sizes = [group.kv_cache_spec.page_size_bytes for group in groups]
    for (group, _), adapter in as_they_are.items():
        sizes[group] = cast("WholeBlocks", adapter).block_bytes
    made = identity.descriptor(vllm_config, settings, shapes, _layout(list(as_they_are.values())), sizes, spans)
    return made, as_they_are


def _latent(spec: Any) -> bool:
    from vllm.v1.kv_cache_interface import MLAAttentionSpec

    return isinstance(spec, MLAAttentionSpec)


def _layout(adapters: list[LayoutAdapter]) -> Layout:
    """One layout for all groups: what binds any of them."""
    layouts = [adapter.layout for adapter in adapters]
    backends = dict.fromkeys(layout.backend for layout in layouts)
    isas = dict.fromkeys(layout.isa for layout in layouts)
    return opaque(layouts[0].engine, "+".join(backends), "+".join(isas))


def _names(layer_names: list[str]) -> dict[int, str]:
    """The names of a group's layers by id, ascending."""
    ids = identity.layer_ids(layer_names)
    return {layer: name for name, layer in sorted(ids.items(), key=lambda item: item[1])}


def _heads(vllm_config: Any, spec: Any, group: int, tensor_size: int) -> int:
    """KV heads of a group over all ranks. Groups of one model may differ in
    them; the model's own number is what ranks are checked against."""
    if tensor_size == 1 or _latent(spec):
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


def _tensors(caches: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """The pages of some layers. Layers that read another layer's KV have none
    of their own, and are not among a group's names."""
    missing = [name for name in names if not isinstance(caches.get(name), torch.Tensor)]
    if missing:
        raise InvalidError("the engine shows no pages of this layer", "kv_caches", missing[0])
    tensors = {name: caches[name] for name in names}
    if len({t.data_ptr() for t in tensors.values()}) < len(tensors):
        raise InvalidError("two layers of a group have the same pages", "kv_caches", ", ".join(names[:4]))
    return tensors


def _check_blocks(geometry: Geometry, blocks: int) -> None:
    for t in geometry.tensors:
        if by_block(t, geometry).shape[0] != blocks:
            raise InvalidError(
                "the pages are not one for each block", "kv_caches", str(tuple(t.shape)), f"{blocks} blocks"
            )
