"""What the GPU decoder reaches: GB/s of decoded bytes, one JSON row per line.

    PYTHONPATH=connector/python/src python3 bench/gpu/decode.py FILE...

FILEs are what `larder codec encode` wrote: objects one after the other. The
source buffer holds copies of a file's objects until their rows fill --gib of
output, far more than any cache; source and output are device memory. After three
runs for warmth, each of --runs runs is timed from the launch to the end of the
last kernel, by the host's clock around a synchronisation; a row's value is their
median, low and high the quartiles. Rows named .verified also check the checksums
of all layers on the device. Not in the figures: reading headers and laying out
(prepare_s, once for each job), and the way to the device. The first copy's and
the last copy's bytes must equal the numpy decoder's for the first object, and no
stream's status may be set; else the run ends with an error.

ceiling_gbs is what a copy from device memory to device memory reaches for the
bytes that it writes, in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from larder import codec
from larder.gpu.decoder import Decoder, Options, source
from larder.gpu.driver import Device
from larder.gpu.layout import Source


def objects(file: Path) -> list[bytes]:
    data, out = file.read_bytes(), []
    while data:
        size = int.from_bytes(data[32:40], "little")
        out.append(data[:size])
        data = data[size:]
    return out


def quartiles(device: Device, runs: int, run: Callable[[], None]) -> tuple[float, float, float]:
    times = []
    for i in range(runs + 3):
        device.synchronize()
        start = time.perf_counter()
        run()
        device.synchronize()
        if i >= 3:
            times.append(time.perf_counter() - start)
    low, middle, high = statistics.quantiles(times, n=4)
    return low, middle, high


def measure(device: Device, file: Path, level: int, options: Options, args: argparse.Namespace) -> list[dict[str, Any]]:
    coded = objects(file)
    parsed = [codec.parse(data, 1 << 32, verify=False) for data in coded]
    first = parsed[0]
    size = first.layers * first.heads * first.tokens * sum(f.width for f in first.fields)
    copies = max(1, int(args.gib * 2**30) // (size * len(coded)))
    offsets = np.concatenate([[0], np.cumsum([len(data) for data in coded])])
    one = b"".join(coded)
    start = time.perf_counter()
    sources = [
        Source(o, level, c * len(one) + int(offsets[i]), (c * len(coded) + i) * size)
        for c in range(copies)
        for i, o in enumerate(parsed)
    ]
    total = size * len(sources)
    job = Decoder(device, options).prepare(sources, len(one) * copies, total)
    prepared = time.perf_counter() - start
    stored = device.allocate(len(one) * copies)
    out = device.allocate(total)
    try:
        for c in range(copies):
            device.upload(stored + c * len(one), np.frombuffer(one, np.uint8))
        want = codec.decode(coded[0], level, size)
        rows = []
        read = sum(int(o.starts[(o.coarsest - level + 1) * o.units]) for o in parsed)
        for verify in (False, True):
            low, middle, high = quartiles(device, args.runs, partial(job.run, stored, out, verify=verify))
            job.check()
            for at in (0, len(coded) * (copies - 1)):
                got = np.empty(size, np.uint8)
                device.download(out + at * size, got)
                if got.tobytes() != want:
                    raise SystemExit(f"{file} level {level}: other bytes than the numpy decoder's")
            rows.append(
                {
                    "name": f"gpu.decode.{file.stem}.L{level}" + (".verified" if verify else ""),
                    "value": round(total / middle / 1e9, 1),
                    "unit": "GB/s",
                    "low": round(total / high / 1e9, 1),
                    "high": round(total / low / 1e9, 1),
                    "n": args.runs,
                    "bytes": total,
                    "ratio": round(size * len(coded) / read, 3),
                    "kernels": job.kernels(),
                    "prepare_s": round(prepared, 3),
                }
            )
        return rows
    finally:
        job.close()
        device.free(stored)
        device.free(out)


def ceiling(device: Device, runs: int) -> float:
    size = 2 << 30
    a, b = device.allocate(size), device.allocate(size)
    try:
        return size / quartiles(device, runs, lambda: device.copy(b, a, size))[1] / 1e9
    finally:
        device.free(a)
        device.free(b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--shared-warps", type=int, default=Options.shared_warps)
    parser.add_argument("--most-warps", type=int, default=Options.most_warps)
    parser.add_argument("--device-warps", type=int, default=Options.device_warps)
    args = parser.parse_args()
    start = time.perf_counter()
    device = Device(source())
    compiled = time.perf_counter() - start
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    card = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    options = Options(args.shared_warps, args.most_warps, args.device_warps)
    common = {"card": card, "nvrtc": device.nvrtc, "ceiling_gbs": round(ceiling(device, args.runs), 1)}
    print(json.dumps({"name": "gpu.start", "value": round(compiled, 2), "unit": "s", **common}), flush=True)
    for file in args.files:
        o = codec.parse(objects(file)[0], 1 << 32, verify=False)
        for level in range(o.finest, o.coarsest + 1):
            for row in measure(device, file, level, options, args):
                print(json.dumps({**row, **common}), flush=True)
    device.close()


if __name__ == "__main__":
    main()
