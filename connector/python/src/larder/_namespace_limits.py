"""What a namespace may hold: limits, kinds and validate() (api/NAMESPACE.md)."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING

from larder.errors import InvalidError

if TYPE_CHECKING:
    from larder.namespace import Group, NamespaceDescriptor

LAYOUT_CANONICAL = "canonical/1"
LAYOUT_OPAQUE = "opaque/1"
QUANTIZATION_NONE = "none"
QUANTIZATION_STATIC = "static"

MAX_ENCODED = 1 << 20
MAX_CONFIG_FIELDS = 1024
MAX_CONFIG_NAME = 128
MAX_CONFIG_VALUE = 4096
MAX_CONFIG_BYTES = 512 << 10
MAX_GROUPS = 16
MAX_LAYERS = 1024
MAX_KV_HEADS = 1024
MAX_DIM = 1 << 16
MAX_WINDOW = 1 << 30
MAX_SPANS = 256
MAX_PARTS = 4096
MIN_CHUNK_TOKENS = 64
MAX_CHUNK_TOKENS = 1024
MAX_PART_BYTES = 64 << 20
MAX_CHUNK_BYTES = 1 << 30
MAX_TOKEN = 64

ELEMENT_BYTES = {
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
}
"""Bytes of the element types that the canonical layout knows, by torch name."""

_ZERO = bytes(32)
_NAME = re.compile(r"[a-z0-9_.-]{1,128}")
_PRINTABLE = re.compile(r"[\x21-\x7e]*")
_U32 = 0xFFFFFFFF


class GroupKind(IntEnum):
    """What an entry of KV in a group is and what a hit needs."""

    FULL = 1
    """Attention over everything before."""
    SLIDING = 2
    """Attention over the last window tokens."""
    LATENT = 3
    """One compressed vector instead of K and V."""
    STATE = 4
    """A recurrent state at the end of a block."""

    def __str__(self) -> str:
        return self.name.lower()


_KINDS = frozenset(GroupKind)


def validate(d: NamespaceDescriptor) -> None:
    """Raise INVALID, naming field, value and limit, unless usable."""
    if len(d.weights_id) != 32 or d.weights_id == _ZERO:
        raise _bad("weights_id", "32 bytes, not all zero", d.weights_id.hex())
    if d.scales_digest and (len(d.scales_digest) != 32 or d.scales_digest == _ZERO):
        raise _bad("scales_digest", "32 bytes, not all zero, or none", d.scales_digest.hex())
    if not 0 <= d.weights_epoch < 1 << 64:
        raise _bad("weights_epoch", "0..2^64-1", d.weights_epoch)
    _config(d)
    opaque = d.layout.name == LAYOUT_OPAQUE
    _layout(d, opaque)
    _dtype(d, opaque)
    if not MIN_CHUNK_TOKENS <= d.chunk_tokens <= MAX_CHUNK_TOKENS:
        raise _bad("chunk_tokens", f"{MIN_CHUNK_TOKENS}..{MAX_CHUNK_TOKENS}", d.chunk_tokens)
    _groups(d, opaque)
    _spans(d)
    _parts(d)


def _config(d: NamespaceDescriptor) -> None:
    if len(d.config) > MAX_CONFIG_FIELDS:
        raise _bad("config", f"at most {MAX_CONFIG_FIELDS} fields", len(d.config))
    size = sum(len(f.name) + len(f.value) for f in d.config)
    if size > MAX_CONFIG_BYTES:
        raise _bad("config", f"names and values of at most {MAX_CONFIG_BYTES} characters", size)
    last = ""
    for f in d.config:
        if not _NAME.fullmatch(f.name):
            raise _bad("config", "a name is 1 to 128 of a-z 0-9 _ . -", ascii(f.name[:200]))
        if f.name <= last:
            raise _bad(f"config.{f.name}", "names ascend without repeats", f.name)
        last = f.name
        if not _printable(f.value, 1, MAX_CONFIG_VALUE):
            want = "1 to 4096 printable ASCII characters without space"
            raise _bad(f"config.{f.name}", want, ascii(f.value[:200]))


def _layout(d: NamespaceDescriptor, opaque: bool) -> None:
    la = d.layout
    if la.name != LAYOUT_CANONICAL and not opaque:
        raise _bad("layout.name", f"{LAYOUT_CANONICAL}, {LAYOUT_OPAQUE}", ascii(la.name[:80]))
    least, most = (1, MAX_TOKEN) if opaque else (0, 0)
    for name, value in (("engine", la.engine), ("backend", la.backend), ("isa", la.isa)):
        if not _printable(value, least, most):
            want = f"{least} to {most} printable ASCII characters in this layout"
            raise _bad(f"layout.{name}", want, ascii(value[:80]))


def _dtype(d: NamespaceDescriptor, opaque: bool) -> None:
    for name, value in (("kv_dtype", d.kv_dtype), ("quantization", d.quantization)):
        if not _printable(value, 1, MAX_TOKEN):
            raise _bad(name, "1 to 64 printable ASCII characters", ascii(value[:80]))
    if not opaque:
        size = ELEMENT_BYTES.get(d.kv_dtype)
        if size is None:
            raise _bad("kv_dtype", f"one of {', '.join(ELEMENT_BYTES)}", d.kv_dtype)
        want = QUANTIZATION_STATIC if size == 1 else QUANTIZATION_NONE
        if d.quantization != want:
            raise _bad("quantization", f"{want} for {d.kv_dtype}", d.quantization)
    # Other modes, of an opaque layout, may have either.
    if d.quantization == (QUANTIZATION_NONE if d.scales_digest else QUANTIZATION_STATIC):
        raise _bad("scales_digest", "with static scales always, without quantization never", d.scales_digest.hex())


def _groups(d: NamespaceDescriptor, opaque: bool) -> None:
    if not 1 <= len(d.groups) <= MAX_GROUPS:
        raise _bad("groups", f"1..{MAX_GROUPS}", len(d.groups))
    total = 0
    for i, g in enumerate(d.groups):
        at = f"groups[{i}]."
        total += len(g.layers)
        if not g.layers or total > MAX_LAYERS:
            raise _bad(at + "layers", f"1 or more, together at most {MAX_LAYERS}", total)
        last = -1
        for layer in g.layers:
            if not last < layer < MAX_LAYERS:
                raise _bad(at + "layers", f"ascending, below {MAX_LAYERS}", layer)
            last = layer
        _shape(d, g, at, opaque)


def _shape(d: NamespaceDescriptor, g: Group, at: str, opaque: bool) -> None:
    if g.kind not in (_KINDS if opaque else _KINDS - {GroupKind.STATE}):
        raise _bad(at + "kind", "full, sliding, latent; state in an opaque layout", int(g.kind))
    attends = g.kind in (GroupKind.FULL, GroupKind.SLIDING)
    window = {GroupKind.SLIDING: (1, MAX_WINDOW), GroupKind.LATENT: (0, MAX_WINDOW)}
    for name, value, low, high in (
        ("kv_heads", g.kv_heads, 1, 1 if g.kind == GroupKind.LATENT else MAX_KV_HEADS),
        ("dk", g.dk, *((0, 0) if g.kind == GroupKind.STATE else (1, MAX_DIM))),
        ("dv", g.dv, *((1, MAX_DIM) if attends else (0, 0))),
        ("window", g.window, *window.get(g.kind, (0, 0))),
    ):
        if not low <= value <= high:
            raise _bad(at + name, f"{low}..{high} for {GroupKind(g.kind)}", value)
    if g.head_group < 1 or g.kv_heads % g.head_group:
        raise _bad(at + "head_group", f"a divisor of kv_heads {g.kv_heads}", g.head_group)
    if not opaque:
        for name, value, want in (
            ("tokens_per_entry", g.tokens_per_entry, 1),
            ("block_tokens", g.block_tokens, 0),
            ("block_bytes", g.block_bytes, 0),
        ):
            if value != want:
                raise _bad(at + name, f"{want} in {LAYOUT_CANONICAL}", value)
        return
    if g.block_tokens < 1 or d.chunk_tokens % g.block_tokens:
        raise _bad(at + "block_tokens", f"a divisor of chunk_tokens {d.chunk_tokens}", g.block_tokens)
    if g.tokens_per_entry < 1 or g.block_tokens % g.tokens_per_entry:
        want_entry = f"a divisor of block_tokens {g.block_tokens}"
        raise _bad(at + "tokens_per_entry", want_entry, g.tokens_per_entry)
    if not 1 <= g.block_bytes <= MAX_PART_BYTES:
        raise _bad(at + "block_bytes", f"1..{MAX_PART_BYTES}", g.block_bytes)


def _spans(d: NamespaceDescriptor) -> None:
    if not 1 <= len(d.spans) <= MAX_SPANS:
        raise _bad("spans", f"1..{MAX_SPANS}", len(d.spans))
    for s, first in enumerate(d.spans):
        if (s == 0 and first != 0) or (s > 0 and not d.spans[s - 1] < first <= _U32):
            raise _bad("spans", "ascending from layer 0", first)
        if not any(d.layers_in(g, s) for g in d.groups):
            raise _bad("spans", "every span holds a layer of some group", first)


def _parts(d: NamespaceDescriptor) -> None:
    parts = total = 0
    for s in range(len(d.spans)):
        for i, g in enumerate(d.groups):
            raw = len(d.layers_in(g, s)) * d.layer_bytes(g, g.head_group)
            if raw > MAX_PART_BYTES:
                raise _bad(f"groups[{i}]", f"a part has at most {MAX_PART_BYTES} bytes", raw)
            if raw:
                parts += g.kv_heads // g.head_group
                total += g.kv_heads // g.head_group * raw
    if parts > MAX_PARTS:
        raise InvalidError("a chunk has too many parts", "namespace", str(parts), str(MAX_PARTS))
    if total > MAX_CHUNK_BYTES:
        raise InvalidError("a chunk has too many bytes", "namespace", str(total), str(MAX_CHUNK_BYTES))


def _printable(text: str, least: int, most: int) -> bool:
    return least <= len(text) <= most and _PRINTABLE.fullmatch(text) is not None


def _bad(field: str, want: str, value: object) -> InvalidError:
    return InvalidError("not allowed here", f"namespace.{field}", str(value), want)
