"""What every device must decode alike: the emulated one and a real GPU."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from identity_vectors import load
from numpy.typing import NDArray

from larder import codec
from larder.errors import CorruptError, Kind, LarderError
from larder.gpu.decoder import Decoder, Options
from larder.part import crc64


def _elements(v: Any) -> bool:
    return all(f["dtype"] != "u8" for f in v["fields"])


# Opaque bytes are left to the host (test_codec_opaque.py).
VECTORS: Any = [v for name in ("codec", "opaque") for v in load(name) if name == "codec" or _elements(v)]

# The stage in shared memory, and, since nothing has room for a thousand warps,
# in device memory.
OPTIONS = {"shared": Options(shared_warps=1, most_warps=3), "device": Options(shared_warps=1000, device_warps=2)}

_DTYPES = {"bf16": 2, "fp16": 2, "fp32": 4, "fp8_e4m3": 1, "fp8_e5m2": 1}


@dataclass(frozen=True)
class Case:
    """An object that `larder codec encode` made of random rows."""

    name: str
    data: bytes
    size: int


def check_vector(decoder: Decoder, v: dict[str, Any]) -> None:
    raw, data = bytes.fromhex(v["raw"]), bytes.fromhex(v["object"])
    for level in range(4):
        assert crc64(decoder.decode(data, level, len(raw))) == v["decoded"][level], f"level {level}"


def check_case(decoders: Iterable[Decoder], case: Case) -> None:
    for level in range(4):
        want = codec.decode(case.data, level, case.size)
        for i, decoder in enumerate(decoders):
            assert decoder.decode(case.data, level, case.size) == want, f"{case.name} at level {level}, decoder {i}"


def random_cases(larder: Path, folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Yield objects of random shapes, types, levels and scales."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        tokens = int(rng.choice([1, 5, 64, 65, 128, 130, 200, 256]))
        layers, heads = int(rng.integers(1, 3)), int(rng.integers(1, 4))
        names = [str(rng.choice(list(_DTYPES))) for _ in range(2)]
        dims = [int(rng.choice([1, 4, 7, 64, 96, 128, 200])) for _ in range(2)]
        rows = [_rows(rng, name, d, (layers, heads, tokens)) for name, d in zip(names, dims, strict=True)]
        raw = np.concatenate(rows, axis=-1).tobytes()
        levels = str(rng.choice(["0", "1", "3", "0-3", "1-2", "0-1"]))
        mode = str(rng.choice(["plain", "plain", "plain", "lossless"]))
        fields = f"k:{names[0]}:{dims[0]},v:{names[1]}:{dims[1]}"
        shape = ("--layers", str(layers), "--heads", str(heads), "--tokens", str(tokens), "--fields", fields)
        how = (
            ("--mode", mode, "--levels", levels, "--sinks", str(int(rng.integers(0, 5))))
            if mode == "plain"
            else ("--mode", mode)
        )
        (folder / "raw").write_bytes(raw)
        subprocess.run(
            [str(larder), "codec", "encode", folder / "raw", folder / "coded", *shape, *how],
            check=True,
            capture_output=True,
        )
        yield Case(f"{i}: {mode} {levels} {' '.join(shape)}", (folder / "coded").read_bytes(), len(raw))


def _rows(rng: np.random.Generator, dtype: str, dims: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Channels of different scales and means, some of them outliers."""
    x = rng.normal(size=(*shape, dims)) * np.exp(rng.normal(size=dims)) + rng.normal(size=dims)
    x = np.where(rng.random(x.shape) < 0.001, 40 * x, x).astype(np.float32)
    if dtype == "fp16":
        return np.asarray(x.astype(np.float16).view(np.uint8))
    if dtype == "fp32":
        return x.view(np.uint8)
    if dtype == "bf16":
        return np.asarray((x.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8))
    # fp8: sign, and bits that are no NaN or infinity.
    code = np.clip(np.abs(x) * 8 + (0x28 if dtype == "fp8_e4m3" else 0x30), 0, 0x70).astype(np.uint8)
    return np.asarray(code | (x < 0).astype(np.uint8) << 7)


def sealed(damaged: bytearray, intact: bytes) -> bytes:
    """Return damaged with the checksums that a forger would give it. intact is
    what it was made of: where its header has them."""
    o = codec.parse(intact, 1 << 30, verify=False)
    size, fields = struct.unpack_from("<I", intact, 8)[0], intact[7]
    runs, tables = struct.unpack_from("<II", intact, 24)
    at = 48 + 8 * fields + 4 * runs + tables + 4 * len(o.lengths)
    per = o.heads * fields
    for i in range(len(o.sums)):
        low, high = int(o.starts[i * per]), int(o.starts[(i + 1) * per])
        struct.pack_into("<Q", damaged, at + 8 * i, crc64(damaged[low:high]))
    struct.pack_into("<Q", damaged, size - 8, crc64(damaged[: size - 8]))
    return bytes(damaged)


def check_damage(decoder: Decoder, count: int, seed: int) -> None:
    """Forge objects: what numpy refuses is refused, with the same kind; what it
    decodes is decoded alike, or refused by a rule that numpy leaves to Go."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    results = {"same": 0, "refused": 0, "stricter": 0}
    for _ in range(count):
        v = rng.choice(VECTORS)
        size, intact = len(v["raw"]) // 2, bytes.fromhex(v["object"])
        damaged = bytearray(intact)
        for _ in range(rng.choice((1, 1, 2, 5))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        data, level = sealed(damaged, intact), rng.randrange(4)
        want = _outcome(codec.decode, data, level, size)
        got = _outcome(decoder.decode, data, level, size)
        if want == got:
            results["same" if isinstance(got, bytes) else "refused"] += 1
        else:
            assert isinstance(want, bytes), f"{v['name']} level {level}: numpy refuses it"
            assert got is Kind.CORRUPT, f"{v['name']} level {level}: other bytes"
            results["stricter"] += 1
    assert results["same"] > 0, results
    assert results["refused"] > 0, results


def _outcome(decode: Callable[[bytes, int, int], bytes], data: bytes, level: int, size: int) -> bytes | Kind:
    try:
        return decode(data, level, size)
    except LarderError as e:
        return e.kind


def check_checksum(decoder: Decoder) -> None:
    """Damage that no rule of the streams finds is found by the checksum."""
    v = next(v for v in VECTORS if v["name"] == "raw and opaque")
    size, data = len(v["raw"]) // 2, bytearray.fromhex(v["object"])
    o = codec.parse(bytes(data), size)
    data[int(o.starts[0])] ^= 1
    with pytest.raises(CorruptError, match="checksum"):
        decoder.decode(bytes(data), 0, size)
