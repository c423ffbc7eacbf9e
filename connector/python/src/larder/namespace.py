"""Namespaces: everything that must be equal for KV bytes to be interchangeable
(api/NAMESPACE.md).

A NamespaceDescriptor has exactly one encoding; its SHA-256 is the fingerprint.
larder.model_config and larder.weights make the fields of a model.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace

from larder import _namespace_limits as limits
from larder._namespace_limits import (
    ELEMENT_BYTES,
    LAYOUT_CANONICAL,
    LAYOUT_OPAQUE,
    QUANTIZATION_NONE,
    QUANTIZATION_STATIC,
    GroupKind,
)
from larder._tagged import Reader, field, item, u32
from larder.errors import InvalidError

__all__ = [
    "ELEMENT_BYTES",
    "LAYOUT_CANONICAL",
    "LAYOUT_OPAQUE",
    "QUANTIZATION_NONE",
    "QUANTIZATION_STATIC",
    "ConfigField",
    "FieldDifference",
    "Group",
    "GroupKind",
    "Layout",
    "NamespaceDescriptor",
    "PartSpec",
    "diff",
]

FORMAT_VERSION = 1

_ZERO = bytes(32)
_MIN_DEFAULT_PART_BYTES = 1 << 20


@dataclass(frozen=True)
class ConfigField:
    """One setting in canonical text (larder.model_config.canonical_value)."""

    name: str
    value: str


@dataclass(frozen=True)
class Group:
    """A set of layers that share one kind and shape of KV.

    layers: model layer ids, ascending; a layer with several caches appears in
    several groups. kv_heads: over all ranks; latent 1; state: the number of
    shards. dk, dv: elements of K and V for a head and token; latent dk and 0;
    state 0 and 0. head_group: KV heads in one part, a divisor of kv_heads.
    window: tokens, 0 = none. block_tokens, block_bytes: 0 in the canonical
    layout; opaque: the tokens of one engine block, and its bytes for one layer
    and one head group, padding included.
    """

    kind: GroupKind
    layers: tuple[int, ...]
    kv_heads: int
    dk: int
    dv: int
    head_group: int
    window: int = 0
    tokens_per_entry: int = 1
    block_tokens: int = 0
    block_bytes: int = 0


@dataclass(frozen=True)
class Layout:
    """How a part's bytes are arranged; the last three bind an opaque layout
    and are empty in the canonical."""

    name: str = LAYOUT_CANONICAL
    engine: str = ""
    backend: str = ""
    isa: str = ""


@dataclass(frozen=True)
class PartSpec:
    """One part that every full chunk of a namespace consists of.

    The bytes of the i-th of layers (ids, ascending) are
    [i * layer_bytes, (i + 1) * layer_bytes). KV heads are
    [first_head, first_head + heads).
    """

    group: int
    span: int
    head_group: int
    first_head: int
    heads: int
    layers: tuple[int, ...]
    layer_bytes: int

    @property
    def raw_length(self) -> int:
        """Bytes of the part, unencoded."""
        return self.layer_bytes * len(self.layers)


@dataclass(frozen=True)
class FieldDifference:
    """One field that differs; "" where one side does not have it."""

    field: str
    a: str
    b: str


@dataclass(frozen=True)
class NamespaceDescriptor:
    """A namespace; validate() and api/NAMESPACE.md have the limits.

    weights_id: 32 bytes. config: ascending by name. scales_digest: 32 bytes,
    or empty where there are no static scales. spans: the first layer id of
    each layer span, ascending from 0.
    """

    weights_id: bytes
    config: tuple[ConfigField, ...]
    kv_dtype: str
    groups: tuple[Group, ...]
    chunk_tokens: int = 256
    quantization: str = QUANTIZATION_NONE
    scales_digest: bytes = b""
    spans: tuple[int, ...] = (0,)
    layout: Layout = Layout()
    weights_epoch: int = 0

    def encode(self) -> bytes:
        """Return the canonical encoding; INVALID if a field is."""
        self.validate()
        config = b"".join(item(f.name.encode()) + item(f.value.encode()) for f in self.config)
        layout = self.layout
        return (
            field(1, u32(FORMAT_VERSION))
            + field(2, self.weights_id)
            + field(3, config)
            + field(4, self.kv_dtype.encode())
            + field(5, self.quantization.encode())
            + field(6, self.scales_digest)
            + field(7, b"".join(item(_encode_group(g)) for g in self.groups))
            + field(8, u32(self.chunk_tokens))
            + field(9, b"".join(map(u32, self.spans)))
            + field(
                10,
                field(1, layout.name.encode())
                + field(2, layout.engine.encode())
                + field(3, layout.backend.encode())
                + field(4, layout.isa.encode()),
            )
            + field(11, self.weights_epoch.to_bytes(8, "little"))
        )

    def fingerprint(self) -> bytes:
        """Return the SHA-256 of the encoding, 32 bytes."""
        return hashlib.sha256(self.encode()).digest()

    @classmethod
    def decode(cls, data: bytes) -> NamespaceDescriptor:
        """Read a canonical encoding; anything else is INVALID."""
        if len(data) > limits.MAX_ENCODED:
            raise InvalidError("the encoding is too long", "namespace", str(len(data)), str(limits.MAX_ENCODED))
        r = Reader(data, "namespace")
        version = r.u32(1)
        if version != FORMAT_VERSION:
            raise InvalidError("unknown format version", "namespace.format", str(version), "1")
        weights_id = r.fixed(2, 32)
        inner = Reader(r.field(3), "namespace.config")
        config = []
        while inner.left:
            config.append(ConfigField(inner.text(inner.item()), inner.text(inner.item())))
        kv_dtype = r.text(r.field(4))
        quantization = r.text(r.field(5))
        scales = r.field(6)
        if len(scales) not in (0, 32) or scales == _ZERO:
            raise InvalidError("a digest has 32 bytes, not all zero, or none", "namespace")
        inner = Reader(r.field(7), "namespace.groups")
        groups: list[Group] = []
        while inner.left:
            groups.append(_decode_group(inner.item(), len(groups)))
        chunk_tokens = r.u32(8)
        spans = r.u32s(9)
        inner = Reader(r.field(10), "namespace.layout")
        layout = Layout(*(inner.text(inner.field(tag)) for tag in (1, 2, 3, 4)))
        inner.end()
        epoch = int.from_bytes(r.fixed(11, 8), "little")
        r.end()
        d = cls(
            weights_id=weights_id,
            config=tuple(config),
            kv_dtype=kv_dtype,
            groups=tuple(groups),
            chunk_tokens=chunk_tokens,
            quantization=quantization,
            scales_digest=scales,
            spans=spans,
            layout=layout,
            weights_epoch=epoch,
        )
        if d.encode() != data:
            raise InvalidError("the encoding is not canonical", "namespace")
        return d

    def parts(self) -> tuple[PartSpec, ...]:
        """Return every part of a full chunk, ordered by span, group and head
        group. Loads and commits name parts by their index here."""
        out = []
        for s in range(len(self.spans)):
            for i, g in enumerate(self.groups):
                layers = self.layers_in(g, s)
                if not layers:
                    continue
                size = self.layer_bytes(g, g.head_group)
                out += [
                    PartSpec(i, s, h, h * g.head_group, g.head_group, layers, size)
                    for h in range(g.kv_heads // g.head_group)
                ]
        return tuple(out)

    def chunk_bytes(self) -> int:
        """Return the sum of raw_length over parts()."""
        return sum(p.raw_length for p in self.parts())

    def default_head_group(self, group: int) -> int:
        """Return the head group to use for a group: the smallest number of KV
        heads, dividing them, with which every part is at least 1 MiB; all heads
        where none is. Opaque: what the descriptor says."""
        g = self.groups[group]
        if self.layout.name == LAYOUT_OPAQUE:
            return g.head_group
        counts = [len(self.layers_in(g, s)) for s in range(len(self.spans))]
        fewest = min(n for n in counts if n)
        for heads in range(1, g.kv_heads):
            if g.kv_heads % heads == 0 and self.layer_bytes(g, heads) * fewest >= _MIN_DEFAULT_PART_BYTES:
                return heads
        return g.kv_heads

    def with_default_head_groups(self) -> NamespaceDescriptor:
        """Return the descriptor with default_head_group() in every group."""
        groups = tuple(replace(g, head_group=self.default_head_group(i)) for i, g in enumerate(self.groups))
        return replace(self, groups=groups)

    def validate(self) -> None:
        """Raise INVALID, naming field, value and limit, unless usable."""
        limits.validate(self)

    def fields(self) -> dict[str, str]:
        """Return every field, printed, under its dotted name."""
        out = {"weights_id": self.weights_id.hex()}
        out |= {f"config.{f.name}": f.value for f in self.config}
        out["kv_dtype"] = self.kv_dtype
        out["quantization"] = self.quantization
        out["scales_digest"] = self.scales_digest.hex() or "none"
        for i, g in enumerate(self.groups):
            at = f"groups[{i}]."
            out[at + "kind"] = str(g.kind)
            out[at + "layers"] = _ranges(g.layers)
            for name, value in _group_numbers(g):
                out[at + name] = str(value)
        out["chunk_tokens"] = str(self.chunk_tokens)
        out["spans"] = _ranges(self.spans)
        out["layout.name"] = self.layout.name
        out["layout.engine"] = self.layout.engine
        out["layout.backend"] = self.layout.backend
        out["layout.isa"] = self.layout.isa
        out["weights_epoch"] = str(self.weights_epoch)
        return out

    def layers_in(self, g: Group, span: int) -> tuple[int, ...]:
        """Return the ids of a group's layers in a span."""
        lo = bisect_left(g.layers, self.spans[span])
        if span + 1 == len(self.spans):
            return g.layers[lo:]
        return g.layers[lo : bisect_left(g.layers, self.spans[span + 1])]

    def layer_bytes(self, g: Group, heads: int) -> int:
        """Return the bytes of one layer of a part with so many heads."""
        if self.layout.name == LAYOUT_OPAQUE:
            return self.chunk_tokens // g.block_tokens * g.block_bytes
        entries = self.chunk_tokens // g.tokens_per_entry
        return heads * entries * (g.dk + g.dv) * ELEMENT_BYTES[self.kv_dtype]


def diff(a: NamespaceDescriptor, b: NamespaceDescriptor) -> tuple[FieldDifference, ...]:
    """Name every field in which a and b differ ("config.rope.theta",
    "groups[0].dk"); empty if and only if the encodings are equal."""
    fa, fb = a.fields(), b.fields()
    names = [*fa, *(n for n in fb if n not in fa)]
    return tuple(FieldDifference(n, fa.get(n, ""), fb.get(n, "")) for n in names if fa.get(n, "") != fb.get(n, ""))


def _group_numbers(g: Group) -> tuple[tuple[str, int], ...]:
    """The u32 fields of a group from tag 3 on, in the order of the tags."""
    return (
        ("kv_heads", g.kv_heads),
        ("dk", g.dk),
        ("dv", g.dv),
        ("tokens_per_entry", g.tokens_per_entry),
        ("window", g.window),
        ("head_group", g.head_group),
        ("block_tokens", g.block_tokens),
        ("block_bytes", g.block_bytes),
    )


def _encode_group(g: Group) -> bytes:
    out = field(1, bytes([g.kind])) + field(2, b"".join(map(u32, g.layers)))
    for tag, (_, value) in enumerate(_group_numbers(g), start=3):
        out += field(tag, u32(value))
    return out


def _decode_group(data: bytes, index: int) -> Group:
    r = Reader(data, "namespace.groups")
    kind = r.fixed(1, 1)[0]
    layers = r.u32s(2)
    heads, dk, dv, per_entry, window, head_group, block_tokens, block_bytes = (r.u32(t) for t in range(3, 11))
    r.end()
    if kind not in frozenset(GroupKind):
        raise InvalidError("unknown kind", f"namespace.groups[{index}].kind", str(kind), "1..4")
    return Group(
        kind=GroupKind(kind),
        layers=layers,
        kv_heads=heads,
        dk=dk,
        dv=dv,
        head_group=head_group,
        window=window,
        tokens_per_entry=per_entry,
        block_tokens=block_tokens,
        block_bytes=block_bytes,
    )


def _ranges(values: Iterable[int]) -> str:
    """Print ascending numbers as "0-3,5"."""
    runs: list[list[int]] = []
    for v in values:
        if runs and v == runs[-1][1] + 1:
            runs[-1][1] = v
        else:
            runs.append([v, v])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
