"""larder.namespace against the known answers and against api/NAMESPACE.md."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_vectors import load

from larder.errors import InvalidError, LarderError
from larder.namespace import (
    LAYOUT_OPAQUE,
    ConfigField,
    Group,
    GroupKind,
    Layout,
    NamespaceDescriptor,
    diff,
)

VECTORS = load("namespaces")


def build(v: dict[str, Any]) -> NamespaceDescriptor:
    return NamespaceDescriptor(
        weights_id=bytes.fromhex(v["weights_id"]),
        config=tuple(ConfigField(*pair) for pair in v["config"]),
        kv_dtype=v["kv_dtype"],
        quantization=v["quantization"],
        scales_digest=bytes.fromhex(v["scales_digest"]),
        groups=tuple(
            Group(**(g | {"kind": GroupKind[g["kind"].upper()], "layers": tuple(g["layers"])})) for g in v["groups"]
        ),
        chunk_tokens=v["chunk_tokens"],
        spans=tuple(v["spans"]),
        layout=Layout(*v["layout"]),
        weights_epoch=v["weights_epoch"],
    )


BY_NAME = {v["name"]: build(v["descriptor"]) for v in VECTORS["namespaces"]}


@pytest.mark.parametrize("v", VECTORS["namespaces"], ids=lambda v: v["name"])
def test_vector(v: dict[str, Any]) -> None:
    d = BY_NAME[v["name"]]
    assert d.encode().hex() == v["encoding"]
    assert d.fingerprint().hex() == v["fingerprint"]
    assert hashlib.sha256(bytes.fromhex(v["encoding"])).hexdigest() == v["fingerprint"]
    assert NamespaceDescriptor.decode(d.encode()) == d
    assert d.chunk_bytes() == v["chunk_bytes"]
    assert [d.default_head_group(i) for i in range(len(d.groups))] == v["default_head_groups"]
    assert [g.head_group for g in d.with_default_head_groups().groups] == v["default_head_groups"]
    parts = [
        {
            "group": p.group,
            "span": p.span,
            "head_group": p.head_group,
            "first_head": p.first_head,
            "heads": p.heads,
            "layers": [p.layers[0], p.layers[-1], len(p.layers)],
            "raw_length": p.raw_length,
        }
        for p in d.parts()
    ]
    assert parts == v["parts"]


@pytest.mark.parametrize("v", VECTORS["invalid"], ids=lambda v: v["name"])
def test_invalid(v: dict[str, str]) -> None:
    with pytest.raises(LarderError) as e:
        NamespaceDescriptor.decode(bytes.fromhex(v["encoding"]))
    assert str(e.value.kind) == v["kind"]
    assert e.value.field == v["field"]


@pytest.mark.parametrize("v", VECTORS["differences"], ids=lambda v: f"{v['a']} {v['b']}")
def test_differences(v: dict[str, Any]) -> None:
    got = diff(BY_NAME[v["a"]], BY_NAME[v["b"]])
    assert [[d.field, d.a, d.b] for d in got] == v["fields"]


FULL = NamespaceDescriptor(
    weights_id=b"\x01" * 32,
    config=(ConfigField("architecture", "LlamaForCausalLM"), ConfigField("rope.theta", "500000")),
    kv_dtype="float8_e4m3fn",
    quantization="static",
    scales_digest=b"\x02" * 32,
    groups=(
        Group(GroupKind.FULL, (0, 2), kv_heads=8, dk=128, dv=64, head_group=2),
        Group(GroupKind.SLIDING, (1, 3), kv_heads=4, dk=64, dv=64, head_group=4, window=512),
    ),
    spans=(0, 2),
    weights_epoch=7,
)
OPAQUE = replace(
    FULL,
    layout=Layout(LAYOUT_OPAQUE, "vllm-0.26.0", "CPU_ATTN", "vec"),
    groups=tuple(replace(g, block_tokens=128, block_bytes=4096) for g in FULL.groups),
)


def group(base: NamespaceDescriptor, i: int, **changes: Any) -> NamespaceDescriptor:
    groups = list(base.groups)
    groups[i] = replace(groups[i], **changes)
    return replace(base, groups=tuple(groups))


# One change for each field, by the name that diff() gives it.
FIELD_CHANGES: tuple[tuple[str, NamespaceDescriptor, Callable[[NamespaceDescriptor], NamespaceDescriptor]], ...] = (
    ("weights_id", FULL, lambda d: replace(d, weights_id=b"\x01" * 31 + b"\x02")),
    ("config.rope.theta", FULL, lambda d: replace(d, config=(d.config[0], ConfigField("rope.theta", "10000")))),
    ("config.rope.z", FULL, lambda d: replace(d, config=(*d.config, ConfigField("rope.z", "1")))),
    ("config.architecture", FULL, lambda d: replace(d, config=d.config[1:])),
    ("kv_dtype", FULL, lambda d: replace(d, kv_dtype="float8_e5m2")),
    ("quantization", OPAQUE, lambda d: replace(d, quantization="per_token_head")),
    ("scales_digest", FULL, lambda d: replace(d, scales_digest=b"\x03" * 32)),
    ("groups[0].kind", OPAQUE, lambda d: group(d, 0, kind=GroupKind.STATE, dk=0, dv=0)),
    ("groups[0].layers", FULL, lambda d: group(d, 0, layers=(0, 4))),
    ("groups[0].kv_heads", FULL, lambda d: group(d, 0, kv_heads=6)),
    ("groups[0].dk", FULL, lambda d: group(d, 0, dk=64)),
    ("groups[0].dv", FULL, lambda d: group(d, 0, dv=128)),
    ("groups[0].tokens_per_entry", OPAQUE, lambda d: group(d, 0, tokens_per_entry=4)),
    ("groups[1].window", FULL, lambda d: group(d, 1, window=513)),
    ("groups[0].head_group", FULL, lambda d: group(d, 0, head_group=1)),
    ("groups[0].block_tokens", OPAQUE, lambda d: group(d, 0, block_tokens=64)),
    ("groups[0].block_bytes", OPAQUE, lambda d: group(d, 0, block_bytes=8192)),
    ("chunk_tokens", FULL, lambda d: replace(d, chunk_tokens=512)),
    ("spans", FULL, lambda d: replace(d, spans=(0,))),
    ("layout.name", FULL, lambda _: OPAQUE),
    ("layout.engine", OPAQUE, lambda d: replace(d, layout=replace(d.layout, engine="vllm-0.26.1"))),
    ("layout.backend", OPAQUE, lambda d: replace(d, layout=replace(d.layout, backend="FLASH_ATTN"))),
    ("layout.isa", OPAQUE, lambda d: replace(d, layout=replace(d.layout, isa="amx"))),
    ("weights_epoch", FULL, lambda d: replace(d, weights_epoch=8)),
)


@pytest.mark.parametrize(("field", "base", "change"), FIELD_CHANGES, ids=[c[0] for c in FIELD_CHANGES])
def test_every_field_changes_the_fingerprint(
    field: str, base: NamespaceDescriptor, change: Callable[[NamespaceDescriptor], NamespaceDescriptor]
) -> None:
    other = change(base)
    assert other.fingerprint() != base.fingerprint()
    assert field in [d.field for d in diff(base, other)]
    assert all(d.a != d.b for d in diff(base, other))
    assert NamespaceDescriptor.decode(other.encode()) == other


def test_the_table_above_has_every_field() -> None:
    names = {name.replace("[1]", "[0]") for name, _, _ in FIELD_CHANGES}
    assert {n.replace("[1]", "[0]") for n in OPAQUE.fields()} <= names
    group_fields = {f.name for f in dataclasses.fields(Group)}
    assert {n.removeprefix("groups[0].") for n in names if n.startswith("groups[0].")} == group_fields


def test_numbers_out_of_their_type() -> None:
    for change in (
        {"weights_id": b"\x01" * 31},
        {"scales_digest": bytes(32)},
        {"weights_epoch": -1},
        {"weights_epoch": 1 << 64},
        {"spans": (0, 1 << 32)},
        {"chunk_tokens": -256},
    ):
        with pytest.raises(InvalidError) as e:
            replace(FULL, **change).encode()
        assert e.value.field == f"namespace.{next(iter(change))}"
    for name in ("kv_heads", "dk", "dv", "window", "head_group"):
        with pytest.raises(InvalidError) as e:
            group(FULL, 1, **{name: -1}).encode()
        assert e.value.field == f"namespace.groups[1].{name}"


TINY = NamespaceDescriptor(
    weights_id=b"\x01" * 32,
    config=(),
    kv_dtype="bfloat16",
    groups=(Group(GroupKind.FULL, (0,), kv_heads=1, dk=1, dv=1, head_group=1),),
    chunk_tokens=64,
)
TINY_OPAQUE = replace(
    TINY,
    layout=Layout(LAYOUT_OPAQUE, "e", "b", "i"),
    groups=(replace(TINY.groups[0], block_tokens=64, block_bytes=1),),
)


def tiny(**changes: Any) -> NamespaceDescriptor:
    return group(TINY, 0, **changes)


def configured(*pairs: tuple[str, str]) -> NamespaceDescriptor:
    return replace(TINY, config=tuple(ConfigField(*p) for p in pairs))


def opaque(name: str, more: int) -> NamespaceDescriptor:
    return replace(TINY_OPAQUE, layout=replace(TINY_OPAQUE.layout, **{name: "x" * (64 + more)}))


def largest_part(more: int, heads: int = 1) -> NamespaceDescriptor:
    """64 MiB = 1024 tokens x 32768 elements x 2 bytes."""
    return replace(tiny(dk=16384, dv=16384 + more, kv_heads=heads), chunk_tokens=1024)


def one_more(d: NamespaceDescriptor, more: int) -> NamespaceDescriptor:
    return replace(d, groups=d.groups + TINY.groups * more)


# Descriptors at a limit, with more = 0, and past it.
LIMITS: tuple[tuple[str, Callable[[int], NamespaceDescriptor]], ...] = (
    ("config", lambda more: configured(*((f"n{i:04}", "v") for i in range(1024 + more)))),
    ("config", lambda more: configured(*((f"n{i:07}", "v" * (4088 + more * (i == 0))) for i in range(128)))),
    ("config", lambda more: configured(("n" * (128 + more), "v"))),
    ("config.n", lambda more: configured(("n", "v" * (4096 + more)))),
    ("kv_dtype", lambda more: replace(TINY_OPAQUE, kv_dtype="x" * (64 + more))),
    ("quantization", lambda more: replace(TINY_OPAQUE, quantization="x" * (64 + more))),
    ("quantization", lambda more: replace(TINY_OPAQUE, quantization="x" * (1 - more))),
    ("layout.engine", lambda more: opaque("engine", more)),
    ("layout.backend", lambda more: opaque("backend", more)),
    ("layout.isa", lambda more: opaque("isa", more)),
    ("chunk_tokens", lambda more: replace(TINY, chunk_tokens=64 - more)),
    ("chunk_tokens", lambda more: replace(TINY, chunk_tokens=1024 + more)),
    ("groups", lambda more: replace(TINY, groups=TINY.groups * (16 + more))),
    (
        "groups[1].layers",
        lambda more: group(
            replace(TINY, groups=TINY.groups + tiny(layers=tuple(range(24 + more))).groups),
            0,
            layers=tuple(range(1000)),
        ),
    ),
    ("groups[0].layers", lambda more: tiny(layers=(0, 1023 + more))),
    ("groups[0].kv_heads", lambda more: tiny(kv_heads=1024 + more)),
    ("groups[0].kv_heads", lambda more: tiny(kind=GroupKind.LATENT, dv=0, kv_heads=1 + more)),
    ("groups[0].dk", lambda more: tiny(dk=65536 + more)),
    ("groups[0].dv", lambda more: tiny(dv=65536 + more)),
    ("groups[0].dk", lambda more: group(TINY_OPAQUE, 0, kind=GroupKind.STATE, dk=more, dv=0)),
    ("groups[0].window", lambda more: tiny(kind=GroupKind.SLIDING, window=(1 << 30) + more)),
    ("groups[0].window", lambda more: tiny(kind=GroupKind.LATENT, dv=0, window=(1 << 30) + more)),
    ("groups[0].block_bytes", lambda more: group(TINY_OPAQUE, 0, block_bytes=(64 << 20) + more)),
    ("groups[0].tokens_per_entry", lambda more: group(TINY_OPAQUE, 0, tokens_per_entry=64 + more)),
    ("groups[0].tokens_per_entry", lambda more: group(TINY_OPAQUE, 0, tokens_per_entry=1 - more)),
    ("spans", lambda more: replace(tiny(layers=tuple(range(1000))), spans=tuple(range(256 + more)))),
    ("", lambda more: one_more(replace(tiny(layers=(0, 1, 2, 3), kv_heads=1024), spans=(0, 1, 2, 3)), more)),
    ("groups[0]", largest_part),
    ("", lambda more: one_more(largest_part(0, heads=16), more)),
)


@pytest.mark.parametrize(("field", "make"), LIMITS)
def test_limits_may_be_reached_and_not_passed(field: str, make: Callable[[int], NamespaceDescriptor]) -> None:
    at = make(0)
    assert NamespaceDescriptor.decode(at.encode()) == at
    with pytest.raises(InvalidError) as e:
        make(1).encode()
    assert e.value.field == f"namespace.{field}".removesuffix(".")


@pytest.mark.parametrize(
    ("want", "data"),
    [
        ("field 1 is missing", b""),
        ("ends inside a length", FULL.encode()[:3]),
        ("a length of 4 reaches past the end", FULL.encode()[:8]),
        ("field 2 expected, found 11", FULL.encode()[:9] + b"\x0b"),
        ("field 1 has 0 bytes instead of 4", b"\x01\0\0\0\0"),
        ("1 bytes follow the last field", FULL.encode() + b"\0"),
        (r"unknown format version \(value 2, limit 1\)", b"\x01\x04\0\0\0\x02\0\0\0"),
    ],
)
def test_decode_says_what_is_wrong(want: str, data: bytes) -> None:
    """The reader itself, before the encoding is compared."""
    with pytest.raises(InvalidError, match=want):
        NamespaceDescriptor.decode(data)


def test_too_long() -> None:
    with pytest.raises(InvalidError, match=r"too long \(value 1048577, limit 1048576\)"):
        NamespaceDescriptor.decode(bytes((1 << 20) + 1))
    with pytest.raises(InvalidError, match="field 1 expected"):
        NamespaceDescriptor.decode(bytes(1 << 20))


def test_default_head_group_is_that_of_the_smallest_part() -> None:
    d = group(FULL, 0, layers=(0, 1, 4), dk=2048, dv=2048)
    assert d.default_head_group(0) == 1
    assert group(d, 0, dk=1024, dv=1024).default_head_group(0) == 2
    # A span without layers of the group has no part to be too small.
    assert group(d, 0, layers=(0, 1), dk=1024, dv=1024).default_head_group(0) == 1
    assert OPAQUE.default_head_group(0) == 2


@given(st.data())
def test_damaged_encodings_are_refused_or_canonical(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([d.encode() for d in BY_NAME.values()]))
    b = bytearray(good)
    at = data.draw(st.integers(0, len(b) - 1))
    b[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        d = NamespaceDescriptor.decode(bytes(b))
    except InvalidError:
        return
    assert d.encode() == b
    assert (d.fingerprint() == hashlib.sha256(good).digest()) == (good == b)
