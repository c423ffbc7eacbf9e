"""What differs between the versions of vLLM, by what an engine has rather than by its number.

Nothing else in larder.vllm knows that there are several versions. Newer engines
were read up to the newest of TESTED; one that is not among them gets a line in
the log, and is refused only where a hook of the connector's is not what it was.
"""

from __future__ import annotations

import inspect
import re
import time
from typing import Any

import vllm
from vllm.config import set_current_vllm_config
from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backends
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, SupportsHMA
from vllm.forward_context import get_forward_context, is_forward_context_available
from vllm.v1.core import kv_cache_utils
from vllm.v1.kv_cache_interface import MLAAttentionSpec

from larder.errors import InvalidError

TESTED = ("0.25.1", "0.26.0", "0.32.0")
"""Versions whose contract and end-to-end tests pass."""

# Without any of these a connector waits for calls that never come.
_NEEDED = frozenset({
    "register_kv_caches", "get_handshake_metadata", "set_xfer_handshake_metadata", "handle_preemptions",
    "start_load_kv", "wait_for_save", "get_finished", "get_block_ids_with_load_errors", "build_connector_worker_meta",
    "on_new_request", "get_num_new_matched_tokens", "update_state_after_alloc", "build_connector_meta",
    "update_connector_output", "request_finished", "request_finished_all_groups", "reset_cache", "shutdown",
})  # fmt: skip
# Settings of multimodal input that change what is computed, by their names in a namespace.
_MULTIMODAL = {
    "engine.mm_processor": "mm_processor_kwargs",
    "engine.video_pruning": "video_pruning_rate",
    "engine.mm_attention_dtype": "mm_encoder_attn_dtype",
    # 0.32: pixels are normalized on the device, which rounds otherwise.
    "engine.mm_device_normalize": "mm_device_do_normalize",
}


def untested(version: str = vllm.__version__) -> str:
    """Returns a line for the log where this version of vLLM is not among TESTED, else ""."""
    release = re.match(r"[\d.]*\d", version)
    if release is not None and release.group() in TESTED:
        return ""
    return f"vLLM {version} has not been tested with Larder, which knows {', '.join(TESTED)}"


def refuse_hooks(connector: type, bases: tuple[type, ...] = (KVConnectorBase_V1, SupportsHMA)) -> None:
    """INVALID, naming the hook, for an engine whose hooks are not those that the
    connector has: one is gone, takes other arguments, or is new and must be there."""
    missing = sorted(getattr(connector, "__abstractmethods__", ()))
    if missing:
        raise _refused(missing[0], "the engine demands it", "not in the connector")
    for name, hook in sorted(vars(connector).items()):
        found = next((getattr(base, name) for base in bases if hasattr(base, name)), None)
        if found is None and name in _NEEDED:
            raise _refused(name, "the engine has no such hook", f"in vLLM {TESTED[-1]}")
        # Of a class's hook its function.
        ours, theirs = getattr(hook, "__func__", hook), getattr(found, "__func__", found)
        if name.startswith("_") or not inspect.isfunction(ours) or not inspect.isfunction(theirs):
            continue
        if not _takes(ours, theirs):
            raise _refused(name, str(inspect.signature(theirs)), str(inspect.signature(ours)))


def _refused(hook: str, engine: str, connector: str) -> InvalidError:
    return InvalidError(
        f"vLLM {vllm.__version__} calls its connectors in a way that Larder's does not know", hook, engine, connector
    )


def _takes(ours: Any, theirs: Any) -> bool:
    """Whether one function can be called as the other: by position and by name."""
    have = list(inspect.signature(ours).parameters.values())
    open_ended = any(p.kind is p.VAR_KEYWORD for p in have)
    named = [p for p in have if p.kind is p.POSITIONAL_OR_KEYWORD]
    want = [p for p in inspect.signature(theirs).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for i, p in enumerate(want):
        if p.kind is p.KEYWORD_ONLY:
            if not open_ended and p.name not in {q.name for q in have}:
                return False
        elif i >= len(named) or named[i].name != p.name:
            return False
    return all(p.default is not p.empty for p in named[len(want) :])


def can_take_back(scheduler: Any, request: Any) -> bool:
    """Whether take_back can be asked of the engine's scheduler, None where that is
    not known, for a request."""
    known = all(hasattr(scheduler, name) for name in ("_preempt_request", "running", "prev_step_scheduled_req_ids"))
    evicts = hasattr(getattr(scheduler, "kv_cache_manager", None), "evict_blocks")
    return known and evicts and (_drops(scheduler._preempt_request) or hasattr(request, "async_tokens_to_discard"))


def take_back(scheduler: Any, request: Any, sampled: int) -> None:
    """A running request gives its pages back and waits anew, and what steps under
    way sample for it is dropped: as the scheduler itself does with all of them where
    it resets its cache. sampled: tokens of the step whose output it left out."""
    scheduler.running = [other for other in scheduler.running if other is not request]
    preempt = scheduler._preempt_request
    if _drops(preempt):
        preempt(request, time.monotonic(), drop_stale_output=True)
    else:
        preempt(request, time.monotonic())
        # One for each step under way that samples.
        request.async_tokens_to_discard = max(0, request.num_output_placeholders - sampled)
        request.num_output_placeholders = 0
    scheduler.prev_step_scheduled_req_ids.discard(request.request_id)


def _drops(preempt: Any) -> bool:
    """Whether the scheduler itself drops what is under way: from 0.32 on."""
    return "drop_stale_output" in inspect.signature(preempt).parameters


def attention_backends(vllm_config: Any, layers: list[str]) -> list[Any]:
    """Returns the attention backends of some layers. 0.25 wants to be told the
    engine's configuration, as it is where the model's layers are made."""
    with set_current_vllm_config(vllm_config):
        return list(get_current_attn_backends(vllm_config, layers))


def forward_context() -> Any:
    """Returns what the engine says of the computation that begins, None where it
    says nothing. Before 0.32 it comes with start_load_kv, too, which is called
    after the computation from then on."""
    return get_forward_context() if is_forward_context_available() else None


def attention_dtype(model_config: Any) -> str | None:
    """Returns the type that attention computes in where it is not the model's;
    engines from 0.32 on have no such setting."""
    dtype: str | None = getattr(model_config, "override_attention_dtype", None)
    return dtype


def multimodal_fields(model_config: Any) -> dict[str, object]:
    """Returns, by their names in a namespace, the settings of multimodal input
    that change KV.

    They are the multimodal config's. The model config has attributes of the same
    names, but those are arguments of its constructor, and always None."""
    mm = model_config.multimodal_config
    if mm is None:
        return {}
    fields: dict[str, object] = {name: getattr(mm, setting, None) for name, setting in _MULTIMODAL.items()}
    if fields["engine.video_pruning"]:
        fields["engine.video_pruning_method"] = getattr(mm, "video_pruning_method", None)
    return fields


def unknown_pages(spec: Any) -> str:
    """Returns how the pages of an attention layer differ from K and V of every
    head and token, one after the other, or "": 0.32 can say so."""
    for name, usual in (("num_head_slots", None), ("state_content_bytes", None), ("tokens_per_state", 1)):
        value = getattr(spec, name, usual)
        if value != usual:
            return f"pages with {name} {value}"
    return ""


def prefix_match_unit(cache_config: Any) -> int | None:
    """Returns the setting of the tokens of a block hash; 0.25 calls it by another
    name, which from 0.32 on is that of what came of it."""
    name = "prefix_match_unit" if hasattr(cache_config, "prefix_match_unit") else "hash_block_size"
    unit: int | None = getattr(cache_config, name, None)
    return unit


def compressed(spec: Any) -> bool:
    """Whether a latent stands for several tokens, or is one of an indexer's."""
    role = getattr(spec, "cache_role", "sparse")
    return getattr(spec, "compress_ratio", 1) != 1 or getattr(spec, "tokens_per_state", 1) != 1 or role != "sparse"


def latent_without_v(spec: Any) -> bool:
    """Whether a kind of KV has latents alone: 0.32 gives V no size then, older
    engines that of the latent."""
    return isinstance(spec, MLAAttentionSpec) and spec.head_size_v == 0


def event_extra_keys(keys: list[Any]) -> list[Any]:
    """Returns what of each block is in its hash besides tokens, as the engine's own
    events say it: from 0.32 on hashes name the source of each, events do not."""
    convert = getattr(kv_cache_utils, "to_event_extra_keys", None)
    return list(convert(keys)) if convert is not None and keys else keys
