"""A GPU against the Go codec's answers and the numpy decoder.

    make build && python3 -m pytest bench/gpu

Needs a GPU, its driver and NVRTC, and fails without them: it is no part of CI,
where the same cases run on an emulation (tests/test_gpu_emulated.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "connector/python/src"), str(REPOSITORY / "connector/python/tests")]

from gpu_cases import OPTIONS, VECTORS, check_case, check_checksum, check_damage, check_vector, random_cases  # noqa: E402

from larder.gpu.decoder import Decoder, source  # noqa: E402
from larder.gpu.driver import Device  # noqa: E402

LARDER = REPOSITORY / "bin" / "larder"


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    device = Device(source())
    yield device
    device.close()


@pytest.fixture(params=OPTIONS)
def decoder(device: Device, request: pytest.FixtureRequest) -> Decoder:
    return Decoder(device, OPTIONS[request.param])


@pytest.mark.parametrize("v", VECTORS, ids=lambda v: v["name"])
def test_vectors(decoder: Decoder, v: dict[str, Any]) -> None:
    check_vector(decoder, v)


def test_random_objects(device: Device, tmp_path: Path) -> None:
    for case in random_cases(LARDER, tmp_path, 30, 1):
        check_case([Decoder(device, o) for o in OPTIONS.values()], case)


def test_damage(decoder: Decoder) -> None:
    check_damage(decoder, 400, 2)


def test_checksum(decoder: Decoder) -> None:
    check_checksum(decoder)
