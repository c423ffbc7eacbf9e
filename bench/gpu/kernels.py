"""GB/s between KV pages on a GPU and parts in host memory, as the connector copies.

    PYTHONPATH=connector/python/src python3 bench/gpu/kernels.py --json FILE

Pages are those of an 8B Llama on one card (32 layers, 8 KV heads, 128 for K and
128 for V, bf16, blocks of 16), in vLLM's two orders (NHD and HND); blocks are
random ones of a pool four times as large, each used once. Parts lie in random
order in a shared mapping that is registered with CUDA, as an arena's. One copy
moves --mib, by the connector's own code: job tables, uploads and launches are
inside of the time, which runs from before the call to the end of the last event,
by the host's clock. The raw figure is cudaMemcpyAsync of the same bytes in one
piece, from or to the same memory.

All ways of one direction alternate, --runs rounds, raw twice in each: .again over
raw is the control. Rows: GB/s, median (quartiles), and the ratio to the raw copy
of the same round. Bytes are compared: pages filled with random bytes go out, are
compared with what plain indexing gives, and come back into other blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "connector/python/src"))

from larder.mapping import map_shared
from larder.vllm.cuda import CudaDriver
from larder.vllm.device import CudaDevice, wait_all
from larder.vllm.gpu_copies import STAGE_BYTES, Lanes, PageCopies, PartCopy, ends, part_copy
from larder.vllm.layout import Geometry, PartHeads, canonical
from larder.vllm.layout_gpu import GpuAdapter
from larder.vllm.rows import canonical_rows
from larder.vllm.rows_kernel import PROGRAMS, TILE_BYTES, WARPS, Mover

LAYERS, HEADS, DIM, BLOCK, CHUNK = 32, 8, 128, 16, 256


class Knobs(NamedTuple):
    """Of the copies; the first ones are the connector's."""

    programs: int = PROGRAMS
    warps: int = WARPS
    tile: int = TILE_BYTES
    stage: int = STAGE_BYTES


class Place:
    """Registered host memory, and parts in it."""

    def __init__(self, size: int) -> None:
        fd = os.memfd_create("larder-kernels")
        os.truncate(fd, size)
        self.view = map_shared(fd, size, writable=True, prefault=True)
        os.close(fd)
        self.address = int(self.view.ctypes.data)
        self.size = size
        error = CudaDriver(0).register(self.address, size, writable=True)
        if error:
            raise SystemExit(error)

    def covers(self, address: int, size: int) -> bool:
        """All of it is registered."""
        return self.address <= address and address + size <= self.address + self.size


def pages(order: str, blocks: int) -> list[Any]:
    """A layer's cache each, of random bytes, shaped as vLLM shows it."""
    made = []
    for _ in range(LAYERS):
        if order == "HND":
            t = torch.empty((blocks, HEADS, BLOCK, 2 * DIM), dtype=torch.bfloat16, device="cuda")
        else:
            t = torch.empty((blocks, BLOCK, HEADS, 2 * DIM), dtype=torch.bfloat16, device="cuda").transpose(1, 2)
        t.view(torch.int16).random_(-(2**15), 2**15 - 1)
        made.append(t)
    return made


class Rig:
    """Pages of one order, parts, and the ways to copy between them."""

    def __init__(self, order: str, place: Place, args: argparse.Namespace) -> None:
        self.place = place
        self.heads = args.part_heads
        self.part = LAYERS * self.heads * CHUNK * 2 * DIM * 2
        self.chunks = (args.mib << 20) // (self.part * (HEADS // self.heads))
        self.bytes = self.chunks * self.part * (HEADS // self.heads)
        used = self.chunks * CHUNK // BLOCK
        self.caches = pages(order, 4 * used)
        geometry = Geometry(tuple(self.caches), HEADS, DIM, DIM, BLOCK, CHUNK)
        rows = canonical_rows(geometry)
        if rows is None:
            raise SystemExit(f"no rows for {order}")
        self.device = CudaDevice(self.caches[0].device)
        self.adapter = GpuAdapter(self.device, rows, canonical())
        self.rows = rows
        drawn = random.Random(1)  # noqa: S311 - block numbers
        ids = drawn.sample(range(4 * used), 2 * used)
        self.out, self.back = self._copies(ids[:used], drawn), self._copies(ids[used:], drawn)
        self.ids = ids
        self.flat = torch.empty(self.bytes, dtype=torch.uint8, device="cuda")
        self.host = torch.from_numpy(place.view[: self.bytes])

    def _copies(self, ids: list[int], drawn: random.Random) -> list[PartCopy]:
        per = CHUNK // BLOCK
        parts = HEADS // self.heads
        slots = list(range(self.chunks * parts))
        # The same slots for out and back: drawn from one seed.
        random.Random(2).shuffle(slots)  # noqa: S311
        del drawn
        made = []
        for chunk in range(self.chunks):
            for p in range(parts):
                at = slots[chunk * parts + p] * self.part
                view = self.place.view[at : at + self.part]
                blocks = ids[chunk * per : (chunk + 1) * per]
                made.append(part_copy(blocks, 0, PartHeads(p * self.heads, self.heads), view))
        return made

    def ways(self, knobs: Knobs, *, to_parts: bool) -> dict[str, Callable[[], None]]:
        """What alternates, by name."""
        self.adapter._mover = Mover(self.rows, knobs.programs, knobs.warps, knobs.tile)

        def raw() -> None:
            if to_parts:
                self.host.copy_(self.flat, non_blocking=True)
            else:
                self.flat.copy_(self.host, non_blocking=True)
            torch.cuda.synchronize()

        def way(variant: Any) -> Callable[[], None]:
            lanes = Lanes(self.device, self.part, knobs.stage)
            made: PageCopies = self.adapter.copies(lanes, variant, self.place.covers, self.heads, to_parts=to_parts)
            copies = self.out if to_parts else self.back
            return lambda: wait_all(ends(made.start(copies, [self.device.record(self.device.current_stream())])))

        return {"raw": raw, "staged": way("staged"), "zero_copy": way("zero_copy"), "again": raw}

    def check(self, name: str, run: Callable[[], None], *, to_parts: bool) -> None:
        """One copy, compared with plain indexing."""
        if to_parts:
            self.place.view[:] = 0
        else:
            # The parts have what `out` moved; other blocks get them.
            for cache in self.caches:
                cache[self.ids[len(self.ids) // 2 :]] = 0
            self._fill()
        run()
        torch.cuda.synchronize()
        for copy in self.out if to_parts else self.back:
            want = self._part(copy)
            if not np.array_equal(copy.view, want):
                raise SystemExit(f"{name}: a part differs from its pages")

    def _fill(self) -> None:
        for copy in self.out:
            copy.view[:] = self._part(copy)

    def _part(self, copy: PartCopy) -> Any:
        heads = slice(copy.heads.first, copy.heads.first + copy.heads.count)
        layers = [
            cache[list(copy.blocks)][:, heads].transpose(0, 1).reshape(copy.heads.count, -1) for cache in self.caches
        ]
        return torch.stack(layers).contiguous().view(torch.uint8).flatten().cpu().numpy()


def measure(rig: Rig, order: str, runs: int, knobs: Knobs, *, to_parts: bool) -> list[dict[str, Any]]:
    """Rows of one direction."""
    ways = rig.ways(knobs, to_parts=to_parts)
    for name in ("staged", "zero_copy"):
        rig.check(f"{order} {name}", ways[name], to_parts=to_parts)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(runs + 3):
        for name in [*ways][i % len(ways) :] + [*ways][: i % len(ways)]:
            torch.cuda.synchronize()
            start = time.perf_counter()
            ways[name]()
            took = time.perf_counter() - start
            if i >= 3:
                times[name].append(took)
    rows = []
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        ratios = sorted(r / t for r, t in zip(times["raw"], values, strict=True))
        rows.append(
            {
                "name": f"kernels.{order}.{'store' if to_parts else 'load'}.{name}",
                "value": round(rig.bytes / middle / 1e9, 2),
                "unit": "GB/s",
                "low": round(rig.bytes / high / 1e9, 2),
                "high": round(rig.bytes / low / 1e9, 2),
                "of_raw": round(ratios[len(ratios) // 2], 4),
                "n": len(values),
                **knobs._asdict(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--part-heads", type=int, default=1, help="KV heads of a part")
    parser.add_argument("--knobs", action="append", default=[], metavar="PROGRAMS,WARPS,TILE_KIB,STAGE_MIB",
                        help="instead of the connector's; may come several times")  # fmt: skip
    parser.add_argument("--orders", default="NHD,HND")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    card = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    common = {"card": card, "mib": args.mib, "part_heads": args.part_heads}
    knobs = [Knobs(p, w, t << 10, m << 20) for p, w, t, m in (map(int, k.split(",")) for k in args.knobs)]
    place = Place(args.mib << 20)
    rows = []
    for order in args.orders.split(","):
        rig = Rig(order, place, args)
        for to_parts in (True, False):
            for some in knobs or [Knobs()]:
                for row in measure(rig, order, args.runs, some, to_parts=to_parts):
                    rows.append({**row, **common})
                    print(json.dumps(rows[-1]), flush=True)
        del rig
        torch.cuda.empty_cache()
    if args.json:
        args.json.write_text("\n".join(json.dumps(r) for r in rows) + "\n")


if __name__ == "__main__":
    main()
