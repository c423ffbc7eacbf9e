"""The kernels of larder.gpu on an emulated device, against the Go codec's answers
and the numpy decoder. On a GPU: bench/gpu/test_gpu.py."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import emulated
import numpy as np
import pytest
from gpu_cases import OPTIONS, VECTORS, check_case, check_checksum, check_damage, check_vector, random_cases, sealed
from larderd import REPOSITORY

from larder import codec
from larder.errors import CorruptError, InvalidError
from larder.gpu.decoder import Decoder
from larder.gpu.layout import Source


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emulated.build(tmp_path_factory.mktemp("emulation"))


@pytest.fixture
def device(library: Path) -> Iterator[emulated.Device]:
    device = emulated.Device(library)
    yield device
    assert device.held() == 0, "memory was not freed"


@pytest.fixture(params=OPTIONS)
def decoder(device: emulated.Device, request: pytest.FixtureRequest) -> Decoder:
    return Decoder(device, OPTIONS[request.param])


@pytest.mark.parametrize("v", VECTORS, ids=lambda v: v["name"])
def test_vectors(decoder: Decoder, v: dict[str, Any]) -> None:
    check_vector(decoder, v)


def test_random_objects(device: emulated.Device, tmp_path: Path) -> None:
    larder = tmp_path / "larder"
    command = ["go", "build", "-o", str(larder), "./cmd/larder"]
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
    decoders = [Decoder(device, o) for o in OPTIONS.values()]
    for case in random_cases(larder, tmp_path, 4, 1):
        check_case(decoders, case)


def test_damage(decoder: Decoder) -> None:
    check_damage(decoder, 40, 2)


def test_checksum(decoder: Decoder) -> None:
    check_checksum(decoder)


def test_a_class_without_a_table(decoder: Decoder) -> None:
    v = VECTORS[0]
    size, intact = len(v["raw"]) // 2, bytes.fromhex(v["object"])
    o = codec.parse(intact, size)
    unit, field = o.heads, o.fields[1]
    assert len(field.plain) == 6, "6 and 7 have no table"
    at = int(o.starts[unit])
    damaged = bytearray(intact)
    damaged[at + 8 + (field.dims * (intact[at + 3] >> 4) + 7) // 8] |= 7
    with pytest.raises(CorruptError, match="class without a table") as e:
        decoder.decode(sealed(damaged, intact), 0, size)
    assert e.value.field == f"object[0].unit[{unit}]"


def test_two_objects_in_one_job(device: emulated.Device) -> None:
    """Of different shapes and levels, in buffers with other bytes around them."""
    picked = [(VECTORS[0], 1), (VECTORS[1], 3), (VECTORS[6], 0)]
    sources, stored, want, at, out = [], bytearray(b"\xff" * 32), b"", 32, 0
    for v, level in picked:
        data, size = bytes.fromhex(v["object"]), len(v["raw"]) // 2
        sources.append(Source(codec.parse(data, size, verify=False), level, at, out))
        stored += data + b"\xff" * (-len(data) % 16)
        pad = -size % 8
        want += codec.decode(data, level, size) + b"\xee" * pad
        at, out = len(stored), out + size + pad
    with Decoder(device).prepare(sources, len(stored), out) as job:
        source, to = device.allocate(len(stored)), device.allocate(out)
        device.upload(source, np.frombuffer(stored, np.uint8))
        device.upload(to, np.full(out, 0xEE, np.uint8))
        job.run(source, to)
        job.check()
        got = np.empty(out, np.uint8)
        device.download(to, got)
        stored[sources[1].at + int(sources[1].object.starts[0]) + 1] ^= 0x40
        device.upload(source, np.frombuffer(stored, np.uint8))
        job.run(source, to)
        with pytest.raises(CorruptError) as e:
            job.check()
        with pytest.raises(InvalidError):
            job.run(source + 8, to)
        device.free(source)
        device.free(to)
    assert got.tobytes() == want
    assert e.value.field.startswith("object[1].")
