"""What this version serves: the kind of engine, and each request."""

from __future__ import annotations

from typing import Any

from vllm.v1.kv_cache_interface import FullAttentionSpec, KVQuantMode, MLAAttentionSpec, SlidingWindowSpec

from larder._namespace_limits import MAX_GROUPS
from larder.errors import InvalidError
from larder.vllm import compat

# The kinds of KV that are handled. Not what derives from them, whose pages or
# whose windows are others.
_KINDS = (FullAttentionSpec, SlidingWindowSpec, MLAAttentionSpec)
_OTHER_KINDS = {
    "MambaSpec": "states",
    "ChunkedLocalAttentionSpec": "chunked local attention",
    "CrossAttentionSpec": "cross attention",
    "EncoderOnlyAttentionSpec": "an encoder",
    "UniformTypeKVCacheSpecs": "layers of different shape in one group",
}

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
    specs = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
    if not 1 <= len(specs) <= MAX_GROUPS:
        return f"{len(specs)} KV cache groups, where this version handles 1 to {MAX_GROUPS}"
    for spec in specs:
        reason = _off_for(spec, vllm_config.cache_config.cache_dtype)
        if reason:
            return reason
    if len({spec.dtype for spec in specs}) > 1:
        return "KV cache groups of different types of elements"
    m = vllm_config.model_config
    if getattr(m, "is_mm_prefix_lm", False) or m.attn_type != "decoder":
        return "attention that is not causal, so KV depends on later tokens"
    speculative = vllm_config.speculative_config
    if speculative is not None and speculative.method not in _PLAIN_DRAFTS:
        return f"speculative decoding by {speculative.method}, whose drafts have KV of their own"
    return ""


def publishes_events(vllm_config: Any) -> bool:
    """Whether the engine publishes KV cache events."""
    events = getattr(vllm_config, "kv_events_config", None)
    return events is not None and bool(events.enable_kv_cache_events)


def _off_for(spec: Any, cache_dtype: str) -> str:
    """Why a group of this kind is not handled, or ""."""
    if type(spec) not in _KINDS:
        name = type(spec).__name__
        what = _OTHER_KINDS.get(name)
        kind = f"{name} ({what})" if what else name
        return f"KV of the kind {kind}, where this version handles full attention and sliding windows"
    if type(spec) is MLAAttentionSpec and (compat.compressed(spec) or spec.cache_dtype_str == "fp8_ds_mla"):
        return "compressed or packed latents"
    if spec.kv_quant_mode != KVQuantMode.NONE:
        return f"quantized KV ({cache_dtype})"
    if spec.head_size_v != spec.head_size and not compat.latent_without_v(spec):
        return f"K and V of different size ({spec.head_size} and {spec.head_size_v})"
    if spec.page_size_bytes != spec.real_page_size_bytes:
        return "padded pages"
    if getattr(spec, "non_causal", False):
        return "attention that is not causal, so KV depends on later tokens"
    return compat.unknown_pages(spec)
