"""The namespace of an engine (api/NAMESPACE.md), from its configuration.

Whatever changes KV must be in it: two engines that differ in one field never
hit each other, two that agree always may.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

from larder.errors import InvalidError
from larder.model_config import config_fields
from larder.namespace import Group, GroupKind, Layout, NamespaceDescriptor
from larder.options import Ranks
from larder.vllm import compat
from larder.vllm.layout import PartHeads
from larder.vllm.settings import Settings
from larder.vllm.stages import Place
from larder.weights import find_weight_files, named_weights_id, weights_id

# Loaders that read the files which find_weight_files names. Not "pt" and
# "npcache": they read *.bin and *.pt even beside safetensors.
_FILE_LOADERS = frozenset({"auto", "hf", "safetensors", "fastsafetensors", "mistral", "bitsandbytes", "gguf"})
# Settings of a model that take weights from another repository.
_OTHER_REPOSITORIES = ("text_model_id", "audio_model_id")
# RoPE whose factors depend on how long the engine's context is.
_LENGTH_ROPE = frozenset({"dynamic", "longrope", "su", "yarn_dynamic"})


@dataclass(frozen=True)
class Shape:
    """One KV cache group, over all ranks. window: tokens; 0: full attention.
    Latent KV has one head, whose vector is dk long, and dv 0."""

    layers: tuple[int, ...]
    kv_heads: int
    dk: int
    dv: int
    block_tokens: int
    dtype: str
    window: int = 0


def instance_id(vllm_config: Any) -> bytes:
    """Returns what all processes of an engine instance agree on, 16 bytes.

    vLLM draws an engine id at its start and gives it to every process."""
    engine = vllm_config.kv_transfer_config.engine_id
    return hashlib.sha256(b"larder/instance\0" + str(engine).encode()).digest()[:16]


def ranks(vllm_config: Any, here: Place) -> Ranks:
    """Returns where this process stands in its engine, for the daemon."""
    p = vllm_config.parallel_config
    return Ranks(
        data=p.data_parallel_index,
        pipeline=here.pipeline,
        tensor=here.tensor,
        # An engine of a model without experts is told that it is the only one,
        # but keeps its number.
        data_size=max(p.data_parallel_size, p.data_parallel_index + 1),
        pipeline_size=p.pipeline_parallel_size,
        tensor_size=p.tensor_parallel_size,
    )


def descriptor(
    vllm_config: Any,
    settings: Settings,
    shapes: Sequence[Shape],
    layout: Layout | None = None,
    block_bytes: Sequence[int] = (),
    spans: tuple[int, ...] = (0,),
) -> NamespaceDescriptor:
    """Returns the engine's namespace; INVALID where it has none.

    shapes: the engine's groups, in its order, of one dtype. layout: None for
    the canonical one; else opaque, with the bytes of one block of one layer,
    for each group. spans: the first layer of each layer span.
    """
    opaque = layout is not None
    groups = tuple(
        Group(
            _kind(shape),
            shape.layers,
            shape.kv_heads,
            shape.dk,
            shape.dv,
            head_group=shape.kv_heads,
            window=shape.window,
            block_tokens=shape.block_tokens if opaque else 0,
            block_bytes=size,
        )
        for shape, size in zip(shapes, block_bytes or [0] * len(shapes), strict=True)
    )
    made = NamespaceDescriptor(
        weights_id=_weights_id(vllm_config, settings),
        config=_config(vllm_config),
        kv_dtype=shapes[0].dtype,
        groups=groups,
        chunk_tokens=settings.chunk_tokens_for(math.lcm(*(shape.block_tokens for shape in shapes))),
        spans=spans,
        layout=layout or Layout(),
        weights_epoch=settings.weights_epoch,
    ).with_default_head_groups()
    if settings.head_group and not opaque:
        fewer = (replace(group, head_group=min(settings.head_group, group.kv_heads)) for group in made.groups)
        made = replace(made, groups=tuple(fewer))
    made.validate()
    return made


def _kind(shape: Shape) -> GroupKind:
    if not shape.dv:
        return GroupKind.LATENT
    return GroupKind.SLIDING if shape.window else GroupKind.FULL


@dataclass(frozen=True)
class RankPart:
    """A part that a rank holds: its index in the namespace, its KV cache group
    and layer span, the heads counted on the rank, and whether this rank is the
    one that writes it."""

    index: int
    group: int
    span: int
    heads: PartHeads
    writes: bool
    length: int


def rank_parts(
    made: NamespaceDescriptor, tensor_rank: int, tensor_size: int, held: Container[tuple[int, int]]
) -> tuple[RankPart, ...]:
    """Returns the parts of one rank. held: group and span of the layers that it
    has. Where there are fewer KV heads than ranks, the lowest rank of those that
    hold a head writes it. INVALID where a rank would hold a piece of a part."""
    found = []
    for i, p in enumerate(made.parts()):
        group = made.groups[p.group]
        copies = max(1, tensor_size // group.kv_heads)
        local = max(1, group.kv_heads // tensor_size)
        first = tensor_rank // copies * local
        if local % group.head_group:
            raise InvalidError(
                "the KV heads of a rank are not whole parts: set head_group",
                f"namespace.groups[{p.group}].head_group",
                str(group.head_group),
                f"a divisor of {local} with tensor_parallel_size {tensor_size}",
            )
        if (p.group, p.span) in held and first <= p.first_head < first + local:
            heads = PartHeads(p.first_head - first, p.heads)
            found.append(RankPart(i, p.group, p.span, heads, tensor_rank % copies == 0, p.raw_length))
    return tuple(found)


def layer_ids(names: Sequence[str], per_layer: int = 1) -> dict[str, int]:
    """Returns the model's layer id of each attention layer, by its name."""
    from vllm.model_executor.models.utils import extract_layer_index

    try:
        ids = {name: int(extract_layer_index(name, per_layer)) for name in names}
    except AssertionError as e:
        raise InvalidError("an attention layer without a number", "namespace.groups.layers", str(e)) from e
    if len(set(ids.values())) != len(ids):
        raise InvalidError("two attention layers of one number", "namespace.groups.layers", ", ".join(names[:4]))
    return ids


def _config(vllm_config: Any) -> Any:
    m = vllm_config.model_config
    config = m.hf_config.to_dict()
    extra: dict[str, object] = {
        "engine.quantization": m.quantization,
        "engine.attention_dtype": compat.attention_dtype(m),
        "engine.no_sliding_window": m.disable_sliding_window or None,
    }
    extra |= compat.multimodal_fields(m)
    if _rope_kinds(config) & _LENGTH_ROPE:
        extra["engine.max_model_len"] = m.max_model_len
    lora = vllm_config.lora_config
    if lora is not None:
        # Where an adapter applies and how it rounds; its weights are in the keys.
        extra["engine.lora_targets"] = sorted(lora.target_modules) if lora.target_modules else None
        if lora.lora_dtype not in ("auto", m.dtype):
            extra["engine.lora_dtype"] = str(lora.lora_dtype).removeprefix("torch.")
    return config_fields(config, str(m.dtype).removeprefix("torch."), extra)


def _rope_kinds(config: Any) -> set[str]:
    """Every rope_type anywhere in a configuration."""
    found: set[str] = set()
    if isinstance(config, dict):
        for key, value in config.items():
            if key in ("rope_type", "type") and isinstance(value, str):
                found.add(value)
            else:
                found |= _rope_kinds(value)
    return found


def _weights_id(vllm_config: Any, settings: Settings) -> bytes:
    if settings.weights_id:
        return named_weights_id(settings.weights_id)
    loader = str(vllm_config.load_config.load_format)
    model = vllm_config.model_config.model
    elsewhere = _elsewhere(vllm_config.model_config)
    if elsewhere:
        raise InvalidError(
            "what the weights mean is said outside the model's weights and config: set weights_id",
            "kv_connector_extra_config.weights_id",
            elsewhere,
        )
    if loader not in _FILE_LOADERS:
        raise InvalidError(
            "weights from this loader have no files to identify them by: set weights_id",
            "kv_connector_extra_config.weights_id",
            f"load_format {loader}",
        )
    if os.path.isfile(model):
        return weights_id([model])
    return weights_id(find_weight_files(_folder(vllm_config.model_config)))


def _elsewhere(m: Any) -> str:
    """Returns the setting that takes weights, code or their meaning from
    somewhere that is neither hashed nor in the config, or ""."""
    config = m.hf_config.to_dict()
    if getattr(m, "quantization_config", None):
        return "quantization_config"
    if getattr(m.multimodal_config, "mm_encoder_fp8_scale_path", None):
        return "mm_encoder_fp8_scale_path"
    if isinstance(m.hf_overrides, dict) and "quantization_config_file" in m.hf_overrides:
        return "hf_overrides.quantization_config_file"
    if m.trust_remote_code and config.get("auto_map"):
        return "trust_remote_code"
    return next((name for name in _OTHER_REPOSITORIES if config.get(name)), "")


def _folder(model_config: Any) -> str:
    """Returns where the weights lie that the engine has just loaded."""
    if os.path.isdir(model_config.model):
        return str(model_config.model)
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        return str(hub.snapshot_download(model_config.model, revision=model_config.revision, local_files_only=True))
    except (OSError, ValueError) as e:
        raise InvalidError(
            "the model's folder is not known: set weights_id",
            "kv_connector_extra_config.weights_id",
            str(model_config.model),
        ) from e
