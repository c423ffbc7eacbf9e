"""larder.coding by the real command, and beside it the decoder of numpy alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from larderd import REPOSITORY

from larder import basis, codec
from larder.coding import Array, Codec, Coding, arrays
from larder.errors import CorruptError, InvalidError, LarderError, MissError, UnavailableError

LIMIT = 1 << 24
BITS: dict[str, Any] = {
    "fp32": np.uint32,
    "fp16": np.uint16,
    "bf16": np.uint16,
    "fp8_e4m3": np.uint8,
    "fp8_e5m2": np.uint8,
}


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("larder") / "larder"
    subprocess.run(
        ["go", "build", "-o", str(binary), "./cmd/larder"],  # noqa: S607 - the Go that made the rest
        cwd=REPOSITORY,
        env={**os.environ, "CGO_ENABLED": "0"},
        check=True,
    )
    return binary


@pytest.fixture(scope="module")
def by_command(command: Path) -> Codec:
    return Codec(command, 300)


def bf16(values: Any) -> Array:
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def numbers(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def cache(layers: int = 2, heads: int = 3, tokens: int = 70, dims: int = 16) -> dict[str, Array]:
    draw = np.random.default_rng(1)
    shape = (layers, heads, tokens, dims)
    return {"k": bf16(draw.normal(3, 1, shape)), "v": bf16(draw.normal(0, 0.1, shape))}


def same(a: dict[str, Array], b: dict[str, Array]) -> None:
    assert list(a) == list(b)
    for kind, array in a.items():
        assert array.dtype == b[kind].dtype
        np.testing.assert_array_equal(array, b[kind])


def test_there_and_back(by_command: Codec) -> None:
    kv = cache()
    data = by_command.encode(kv, Coding(mode="lossless"))
    assert len(data) < sum(a.nbytes for a in kv.values())
    same(by_command.decode(data, LIMIT), kv)
    data = by_command.encode(kv, Coding(sinks=2))
    worst = []
    for level in range(4):
        got = by_command.decode(data, LIMIT, level)
        np.testing.assert_array_equal(got["k"][:, :, :2], kv["k"][:, :, :2])
        worst.append([abs(numbers(got[kind]) - numbers(kv[kind])).max() for kind in kv])
    # Half a step of each level, and what a bf16 rounds.
    steps = np.array([0.05, 0.09 * 0.1])
    assert (np.array(worst) <= 0.55 * steps * 3.0 ** np.arange(4)[:, None] + [0.02, 0.002]).all()
    assert (np.diff(worst, axis=0) > 0).all()
    finer = by_command.encode(kv, Coding(steps={"k": 0.01}))
    assert len(finer) > len(by_command.encode(kv))
    assert len(by_command.encode(kv, Coding(finest=2))) < len(by_command.encode(kv)) / 1.5


def test_order_of_fields_and_memory(by_command: Codec) -> None:
    kv = cache()
    data = by_command.encode(kv, Coding(mode="lossless"))
    turned = {kind: np.asfortranarray(kv[kind]) for kind in ("v", "k")}
    assert by_command.encode(turned, Coding(mode="lossless")) == data
    big = {kind: a.astype(">u2") for kind, a in kv.items()}
    assert by_command.encode(big, Coding(mode="lossless")) == data


def test_calibrated(command: Path, by_command: Codec, folder: Path) -> None:
    kv = cache(layers=1, heads=2, tokens=150)
    raw, file = folder / "raw", folder / "basis"
    raw.write_bytes(codec.decode(by_command.encode(kv, Coding(mode="raw")), 0, LIMIT))
    shape = ["--heads", "2", "--tokens", "150", "--fields", "k:bf16:16,v:bf16:16"]
    subprocess.run([command, "calibrate", file, raw, *shape, "--unit", "bundle", "--pairing", "none"], check=True)
    data = by_command.encode(kv, Coding("calibrated", basis=file))
    for level in range(4):
        got = by_command.decode(data, LIMIT, level, file)
        o = codec.parse(data, LIMIT)
        alone = np.frombuffer(codec.decode(data, level, LIMIT, basis.parse(file.read_bytes())), np.uint8)
        same(arrays(o, alone), got)
        assert got["k"].shape == kv["k"].shape
    assert abs(numbers(got["k"]) - numbers(kv["k"])).max() < 3
    with pytest.raises(MissError):
        by_command.decode(data, LIMIT)
    with pytest.raises(MissError):
        by_command.encode(kv, Coding("calibrated", basis=raw))


@st.composite
def parts(draw: st.DrawFn) -> tuple[dict[str, Array], Coding]:
    """Arrays of any type: noise, rows that repeat, and bits that are no numbers."""
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 63, 64, 65, 130])))
    seed = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    kv: dict[str, Array] = {}
    types = {}
    for kind in draw(st.sampled_from([("k", "v"), ("k",), ("latent", "rope"), ("v", "opaque")])):
        dims = draw(st.integers(1, 40))
        if kind == "opaque":
            kv[kind] = seed.integers(0, 256, (*shape, dims), np.uint8)
            continue
        name = types[kind] = draw(st.sampled_from(sorted(BITS)))
        bits = BITS[name]
        values = seed.normal(seed.normal(0, 2, dims), seed.exponential(1, dims), (*shape, dims))
        match draw(st.sampled_from(["numbers", "numbers", "equal rows", "bits"])):
            case "equal rows":
                values[:] = values[:, :, :1]
            case "bits":
                kv[kind] = seed.integers(0, np.iinfo(bits).max, (*shape, dims), bits, endpoint=True)
        if kind not in kv:
            wide = values.astype(np.float16 if name == "fp16" else np.float32)
            raw: Array = wide.view(np.uint16 if name == "fp16" else np.uint32)
            # The first byte of an fp16 is an fp8_e5m2, and any byte an fp8_e4m3.
            kv[kind] = {
                "fp32": raw,
                "fp16": raw,
                "bf16": raw >> 16,
                "fp8_e4m3": raw >> 20 & 0xFF,
                "fp8_e5m2": values.astype(np.float16).view(np.uint16) >> 8,
            }[name].astype(bits)
        # As numpy has the type, where it has.
        if name in {"fp32", "fp16"}:
            kv[kind] = kv[kind].view(np.float32 if name == "fp32" else np.float16)
    finest, coarsest = sorted(draw(st.tuples(st.integers(0, 3), st.integers(0, 3))))
    mode = draw(st.sampled_from(["raw", "lossless", "plain", "plain"]))
    return kv, Coding(mode, finest, coarsest, draw(st.sampled_from([0, 0, 3])), types=types)


@settings(max_examples=25)
@given(part=parts())
def test_numpy_decodes_what_the_command_decodes(by_command: Codec, part: tuple[dict[str, Array], Coding]) -> None:
    kv, coding = part
    data = by_command.encode(kv, coding)
    o = codec.parse(data, LIMIT)
    for level in range(4):
        ours = codec.decode(data, level, LIMIT)
        theirs = by_command.decode(data, LIMIT, level)
        alone = arrays(o, np.frombuffer(ours, np.uint8))
        assert list(alone) == list(theirs)
        for kind, array in theirs.items():
            assert array.tobytes() == alone[kind].tobytes(), f"{kind} at level {level}"
            if coding.mode != "plain" or kind == "opaque":
                assert array.tobytes() == kv[kind].tobytes()


@pytest.mark.parametrize(
    ("kv", "coding"),
    [
        ({}, Coding()),
        ({"q": np.zeros((1, 1, 1, 1), np.uint16)}, Coding()),
        ({"k": np.zeros((1, 1, 1), np.uint16)}, Coding()),
        ({"k": np.zeros((1, 1, 0, 1), np.uint16)}, Coding()),
        ({"k": np.zeros((1, 1, 1, 2), np.uint16), "v": np.zeros((1, 1, 2, 2), np.uint16)}, Coding()),
        ({"k": np.zeros((1, 1, 1, 2), np.int64)}, Coding()),
        ({"k": np.zeros((1, 1, 1, 2), np.uint8)}, Coding()),
        ({"k": np.zeros((1, 1, 1, 2), np.uint8)}, Coding(types={"k": "bf16"})),
        ({"k": np.zeros((1, 1, 1, 2), np.uint16)}, Coding(types={"k": "int4"})),
        ({"k": np.zeros((1, 1, 1, 2), np.uint16)}, Coding(mode="zip")),
        ({"k": np.zeros((1, 1, 1, 2), np.uint16)}, Coding(finest=3, coarsest=2)),
        ({"k": np.zeros((1, 1, 1, 2), np.uint16)}, Coding(sinks=-1)),
        ({"k": np.zeros((1, 1, 1, 2), np.uint16)}, Coding(mode="calibrated")),
        ({"k": np.zeros((1, 1, 1, 2), np.uint16)}, Coding(steps={"k": 0})),
        ({"k": np.zeros((1, 2000, 1, 1), np.uint16)}, Coding()),
    ],
)
def test_what_is_no_part(by_command: Codec, kv: dict[str, Array], coding: Coding) -> None:
    with pytest.raises(InvalidError):
        by_command.encode(kv, coding)


def test_objects_that_are_wrong(by_command: Codec) -> None:
    data = by_command.encode(cache(), Coding(mode="lossless"))
    with pytest.raises(InvalidError):
        by_command.decode(data, 100)
    with pytest.raises(MissError):
        by_command.decode(data[:4] + b"\2" + data[5:], LIMIT)
    with pytest.raises(CorruptError):
        by_command.decode(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:], LIMIT)
    for n in (0, 47, len(data) // 2, len(data) - 1):
        with pytest.raises(LarderError):
            by_command.decode(data[:n], LIMIT)


def test_without_the_command(folder: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot be started"):
        Codec(folder / "absent").encode(cache())
    with pytest.raises(UnavailableError):  # another program of that name
        Codec("/bin/false").encode(cache())
    slow = folder / "larder"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o700)
    with pytest.raises(UnavailableError, match="too long"):
        Codec(slow, 0.01).encode(cache())
