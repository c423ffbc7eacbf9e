"""What this version serves: the kind of engine, and each request."""

from __future__ import annotations

from typing import Any

from vllm.v1.kv_cache_interface import FullAttentionSpec, KVQuantMode, MLAAttentionSpec

from larder.errors import InvalidError
from larder.vllm import compat

# Speculative decoding whose drafts come from no KV of their own.
_PLAIN_DRAFTS = frozenset({"ngram", "ngram_gpu", "suffix"})

# Ways to spread a model whose ranks hold whole heads of whole layers. Ranks of
# context parallelism hold every nth token.
_PARALLEL = frozenset({"tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"})


def refuse(vllm_config: Any) -> None:
    """Raises INVALID, naming the setting, for an engine whose ranks hold KV in
    a way that this version would get wrong, ways that it does not know included."""
    for name, size in sorted(vars(vllm_config.parallel_config).items()):
        if name.endswith("_parallel_size") and name not in _PARALLEL and isinstance(size, int) and size > 1:
            raise InvalidError("not supported by Larder's connector", name, str(size), "1")


def off(vllm_config: Any, kv_cache_config: Any) -> str:
    """Returns why Larder stores and loads nothing in this engine, or ""."""
    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1:
        return f"{len(groups)} KV cache groups, where this version handles one of full attention"
    spec = groups[0].kv_cache_spec
    if type(spec) not in (FullAttentionSpec, MLAAttentionSpec):
        return f"KV of the kind {type(spec).__name__}, where this version handles full attention"
    if type(spec) is MLAAttentionSpec and (compat.compressed(spec) or spec.cache_dtype_str == "fp8_ds_mla"):
        return "compressed or packed latents"
    if spec.kv_quant_mode != KVQuantMode.NONE:
        return f"quantized KV ({vllm_config.cache_config.cache_dtype})"
    if spec.head_size_v != spec.head_size and not compat.latent_without_v(spec):
        return f"K and V of different size ({spec.head_size} and {spec.head_size_v})"
    if spec.page_size_bytes != spec.real_page_size_bytes:
        return "padded pages"
    unknown = compat.unknown_pages(spec)
    if unknown:
        return unknown
    m = vllm_config.model_config
    if spec.non_causal or getattr(m, "is_mm_prefix_lm", False) or m.attn_type != "decoder":
        return "attention that is not causal, so KV depends on later tokens"
    speculative = vllm_config.speculative_config
    if speculative is not None and speculative.method not in _PLAIN_DRAFTS:
        return f"speculative decoding by {speculative.method}, whose drafts have KV of their own"
    return ""


def publishes_events(vllm_config: Any) -> bool:
    """Whether the engine publishes KV cache events."""
    events = getattr(vllm_config, "kv_events_config", None)
    return events is not None and bool(events.enable_kv_cache_events)
