"""What a request may do, and what goes into its keys besides tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from larder.keys import MAX_SALT, Extra, ExtraKind
from larder.vllm.settings import LEVELS

# What a hash of content looks like. Names that users give to their images are
# not good enough: the same name may mean another image tomorrow, or elsewhere.
_DIGEST = re.compile(r"[0-9a-f]{40,128}")
_KNOWN = ("skip_load", "skip_store", "salt", "lowest_level", "priority", "tenant", "pin")
_MOST_PRIORITY = 1 << 31


@dataclass(frozen=True)
class RequestPolicy:
    """How one request is treated.

    uncached: why it is neither loaded nor stored, "" if it is. salt: the
    request's secret. adapter: the LoRA adapter's digest, None without one.
    worst_quality: the worst that it takes (api/PART.md), never worse than the
    engine; of a request that is not cached, too, since the engine's own cache
    serves it. priority: whose loads go first, the lowest. pin: whether the
    prompt's chunks are to be pinned.
    """

    uncached: str = ""
    skip_load: bool = False
    skip_store: bool = False
    salt: bytes = b""
    adapter: bytes | None = None
    extras: tuple[Extra, ...] = ()
    worst_quality: int = 0
    priority: int = 0
    pin: bool = False


class Uncached(Exception):  # noqa: N818 - no error: a decision, with its reason
    """The request is not cached."""


def policy_of(
    request: Any,
    adapter_digest: Callable[[Any], bytes | None],
    warn: Callable[[str], None],
    worst_quality: int = 0,
    tenant: str = "",
) -> RequestPolicy:
    """Returns the policy of a vLLM request.

    adapter_digest: the digest of a LoRA request, None if it is not known.
    warn: takes a text for the operator; may be called again with the same.
    worst_quality, tenant: the engine's.
    """
    # Whatever a request that cannot be understood wants, exact is good enough.
    quality = 0
    try:
        params = _params(request, warn)
        quality = min(_quality(params, worst_quality), worst_quality)
        _check(request)
        _check_tenant(params, tenant)
        adapter = None
        if request.lora_request is not None:
            adapter = adapter_digest(request.lora_request)
            if adapter is None:
                raise Uncached("adapter not identified")
        return RequestPolicy(
            skip_load=_flag(params, "skip_load") or request.skip_reading_prefix_cache,
            skip_store=_flag(params, "skip_store"),
            salt=_salt(request.cache_salt, params.get("salt")),
            adapter=adapter,
            extras=_extras(request),
            worst_quality=quality,
            priority=_priority(params, request.priority),
            pin=_flag(params, "pin"),
        )
    except Uncached as reason:
        return RequestPolicy(uncached=str(reason), worst_quality=quality)


def _params(request: Any, warn: Callable[[str], None]) -> Mapping[str, Any]:
    given = request.kv_transfer_params
    params = given.get("larder") if isinstance(given, Mapping) else None
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise Uncached("kv_transfer_params.larder is no mapping")
    for key in params:
        if key not in _KNOWN:
            warn(f"kv_transfer_params.larder.{str(key)[:64]} is unknown and ignored")
    return params


def _check(request: Any) -> None:
    if request.prompt_embeds is not None:
        # Hashing them would take the scheduler milliseconds.
        raise Uncached("prompt embeddings")
    if request.resumable:
        raise Uncached("streaming input")
    if request.pooling_params is not None:
        raise Uncached("pooling")


def _check_tenant(params: Mapping[str, Any], own: str) -> None:
    tenant = params.get("tenant")
    if tenant is None:
        return
    if not isinstance(tenant, str):
        raise Uncached("kv_transfer_params.larder.tenant is no string")
    if tenant != own:
        # The engine's sessions act for one tenant, and nothing may be stored
        # for, or loaded from, another.
        raise Uncached("kv_transfer_params.larder.tenant is not the tenant of this engine")


def _quality(params: Mapping[str, Any], worst: int) -> int:
    level = params.get("lowest_level")
    if level is None:
        return worst
    if level not in LEVELS:
        raise Uncached(f"kv_transfer_params.larder.lowest_level is none of {', '.join(LEVELS)}")
    return LEVELS.index(level)


def _priority(params: Mapping[str, Any], priority: Any) -> int:
    value = params.get("priority")
    if value is None:
        # The engine's has no bounds of its own.
        return max(-_MOST_PRIORITY, min(int(priority), _MOST_PRIORITY))
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _MOST_PRIORITY:
        raise Uncached("kv_transfer_params.larder.priority is no integer of 32 bits")
    return value


def _flag(params: Mapping[str, Any], name: str) -> bool:
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise Uncached(f"kv_transfer_params.larder.{name} is no boolean")
    return value


def _salt(cache_salt: str | None, salt: Any) -> bytes:
    """Both secrets in one; a zero byte is in neither, so none looks like both."""
    if salt is not None and not isinstance(salt, str):
        raise Uncached("kv_transfer_params.larder.salt is no string")
    given = [s.encode("utf-8", "surrogatepass") for s in (cache_salt, salt) if s]
    if any(b"\0" in s for s in given):
        raise Uncached("a salt with a zero byte")
    joined = b"\0".join(given)
    if len(joined) > MAX_SALT:
        raise Uncached("a salt too long")
    return joined


def _extras(request: Any) -> tuple[Extra, ...]:
    extras = []
    for feature in request.mm_features or ():
        content = feature.mm_hash or feature.identifier
        if not _DIGEST.fullmatch(content or ""):
            raise Uncached("multimodal content without a hash")
        position = feature.mm_position
        extras.append(Extra(ExtraKind.MULTIMODAL, position.offset, position.length, content.encode()))
    return tuple(extras)
