"""larder.keys against the known answers and against api/KEYS.md."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_vectors import formula, load

from larder.errors import InvalidError
from larder.keys import MAX_EXTRAS, Chain, Extra, ExtraKind, chunk_keys, root_key, tenant_key

VECTORS = load("keys")


def extras_of(vector: dict[str, Any]) -> list[Extra]:
    return [
        Extra(ExtraKind(e["kind"]), e["start"], e["count"], bytes.fromhex(e["content"]))
        for e in vector.get("extras") or ()
    ]


@pytest.mark.parametrize("v", VECTORS["tenants"], ids=lambda v: v["tenant"])
def test_tenant(v: dict[str, str]) -> None:
    assert tenant_key(bytes.fromhex(v["secret"]), v["tenant"]).hex() == v["key"]


@pytest.mark.parametrize("name", VECTORS["invalid_tenants"])
def test_invalid_tenant(name: str) -> None:
    with pytest.raises(InvalidError, match="tenant"):
        tenant_key(bytes(32), name)


@pytest.mark.parametrize("v", VECTORS["roots"], ids=lambda v: v["name"])
def test_root(v: dict[str, str]) -> None:
    got = root_key(
        bytes.fromhex(v["fingerprint"]),
        bytes.fromhex(v["tenant_key"]),
        bytes.fromhex(v["salt"]),
        bytes.fromhex(v["adapter"]) or None,
    )
    assert got.hex() == v["root"]


@pytest.mark.parametrize("v", VECTORS["chains"], ids=lambda v: v["name"])
def test_chain(v: dict[str, Any]) -> None:
    tokens = v.get("tokens") or formula(v["seed"], v["count"])
    root, per, extras = bytes.fromhex(v["root"]), v["chunk_tokens"], extras_of(v)
    keys = chunk_keys(root, tokens, per, extras)
    assert len(keys) == 32 * v["chunks"]
    assert keys[:32].hex() == v.get("first", "")
    assert keys[-32:].hex() == v.get("last", "")
    assert hashlib.sha256(keys).hexdigest() == v["digest"]
    # In pieces, and with extras in another order.
    chain, got, at = Chain(root, per, reversed(extras)), b"", 0
    for size in (1, 0, per - 1, per, 3 * per + 1, len(tokens)):
        got += chain.append(tokens[at : at + size])
        at = min(at + size, len(tokens))
    got += chain.append(tokens[at:])
    assert got == keys
    assert chain.chunks == v["chunks"]
    assert chain.pending == len(tokens) % per
    assert chain.last == (keys[-32:] or root)


@pytest.mark.parametrize("v", VECTORS["invalid_extras"], ids=lambda v: v["name"])
def test_invalid_extras(v: dict[str, Any]) -> None:
    extras = [Extra(e["kind"], e["start"], e["count"], bytes.fromhex(e["content"])) for e in v["extras"]]
    with pytest.raises(InvalidError) as e:
        Chain(bytes(32), 256, extras)
    assert e.value.field == v["field"]


token = st.integers(0, (1 << 32) - 1)
extra = st.builds(
    Extra, st.sampled_from(ExtraKind), st.integers(0, 50), st.integers(1, 50), st.binary(min_size=1, max_size=2)
)


@given(st.integers(1, 9), st.lists(token, max_size=60), st.lists(extra, max_size=6, unique=True))
def test_extras_enter_every_chunk_that_they_overlap(per: int, tokens: list[int], extras: list[Extra]) -> None:
    key, want = bytes(32), b""
    for at in range(0, len(tokens) - per + 1, per):
        message = (
            b"\x10" + struct.pack("<I", 32) + key + b"\x11" + struct.pack(f"<I{per}I", 4 * per, *tokens[at : at + per])
        )
        for e in sorted(extras, key=lambda e: (e.kind, e.start, e.count, e.content)):
            if e.start < at + per and e.start + e.count > at:
                message += bytes([e.kind]) + struct.pack("<III", 8 + len(e.content), e.start, e.count) + e.content
        key = hashlib.sha256(message).digest()
        want += key
    assert chunk_keys(bytes(32), tokens, per, extras) == want


def test_long_extras_cost_nothing_without_tokens() -> None:
    """4096 of them, as long as they can be, in chunks of one token."""
    extras = [Extra(ExtraKind.MULTIMODAL, 1, (1 << 32) - 1, i.to_bytes(2, "big")) for i in range(MAX_EXTRAS)]
    tracemalloc.start()
    try:
        chain = Chain(bytes(32), 1, extras)
        assert len(chain.append([1, 2])) == 64
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_message_by_hand() -> None:
    root = bytes(range(32))
    message = b"\x10" + struct.pack("<I", 32) + root + b"\x11" + struct.pack("<III", 8, 5, 0xFFFFFFFF)
    message += b"\x30" + struct.pack("<III", 10, 1, 9) + b"xy"
    extra = Extra(ExtraKind.MULTIMODAL, 1, 9, b"xy")
    assert chunk_keys(root, [5, 0xFFFFFFFF], 2, [extra]) == hashlib.sha256(message).digest()


@pytest.mark.parametrize("bad", [-1, 1 << 32, 1 << 70, 1.5, "1", None, [1], np.array([1, 2])])
def test_bad_token_is_named_and_nothing_is_taken(bad: object) -> None:
    chain = Chain(bytes(32), 2)
    chain.append([1])
    with pytest.raises(InvalidError, match="token 3 is no unsigned 32-bit integer") as e:
        chain.append([1, 2, 3, bad])  # type: ignore[list-item]
    assert e.value.field == "tokens"
    assert (chain.chunks, chain.pending) == (0, 1)
    assert chain.append([2]) == chunk_keys(bytes(32), [1, 2], 2)


@pytest.mark.parametrize("tokens", [b"abcd", bytearray(4), "abcd"])
def test_bytes_are_no_tokens(tokens: Any) -> None:
    with pytest.raises(InvalidError, match="sequence of ints"):
        chunk_keys(bytes(32), tokens, 1)


def test_any_sequence_of_ints() -> None:
    want = chunk_keys(bytes(32), [1, 2, 3], 1)
    for tokens in ((1, 2, 3), range(1, 4), array("q", [1, 2, 3]), array("I", [1, 2, 3])):
        assert chunk_keys(bytes(32), tokens, 1) == want


def test_bad_input() -> None:
    for call in (
        lambda: tenant_key(bytes(31), "a"),
        lambda: root_key(bytes(31), bytes(32)),
        lambda: root_key(bytes(32), bytes(33)),
        lambda: root_key(bytes(32), bytes(32), bytes(4097)),
        lambda: root_key(bytes(32), bytes(32), adapter=b""),
        lambda: root_key(bytes(32), bytes(32), adapter=bytes(32)),
        lambda: Chain(bytes(31), 256),
        lambda: Chain(bytes(32), 0),
        lambda: Chain(bytes(32), 1025),
        lambda: Chain(bytes(32), 256, [Extra(ExtraKind.MULTIMODAL, i, 1, b"x") for i in range(MAX_EXTRAS + 1)]),
        lambda: Chain(bytes(32), 256, [Extra(ExtraKind.MULTIMODAL, -1, 2, b"x")]),
        lambda: Chain(bytes(32), 256, [Extra(ExtraKind.MULTIMODAL, 0, 1 << 32, b"x")]),
    ):
        with pytest.raises(InvalidError):
            call()


def test_a_prompt_ends_at_2_to_32() -> None:
    chain = Chain(bytes(32), 1024)
    chain._chunks = (1 << 22) - 1
    with pytest.raises(InvalidError, match="too long"):
        chain.append([0] * 1025)
    assert len(chain.append([0] * 1024)) == 32
