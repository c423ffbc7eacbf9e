"""Takes machine code for other GPUs than Hopper out of vLLM's shared libraries.

    python3 slim.py FILE...

A library holds its kernels in fat binaries: containers of one entry for each
architecture, of which the driver uses the one that fits the card. The bodies of
all other entries are overwritten with zeros, in place: offsets stay, and a
compressor makes nothing of them. Containers without code for 9.0 lose all: in
vLLM 0.26.0 those are kernels of weights in 4 or 8 bits (Marlin, AllSpark, NVFP4,
CUTLASS for older cards) and of Blackwell. The driver loads a container when a
kernel of it is first used, so nobody misses them. Of FlashAttention's kernels
only those for bf16 stay.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = struct.pack("<I", 0xBA55ED50)
_CUBIN, _HOPPER = 2, 90
_FLASH = re.compile(rb"CollectiveMainloopFwd")
_OTHER_TYPES = re.compile(rb"half_t|float_e4m3_t")


@dataclass(frozen=True)
class Entry:
    """One architecture's code: kind, compute capability, and its body's place."""

    kind: int
    capability: int
    begin: int
    end: int


def entries(data: bytes) -> Iterator[Entry]:
    """All entries of a library's fat binaries."""
    at = 0
    while (at := data.find(_MAGIC, at)) >= 0:
        _, version, header, size = struct.unpack_from("<IHHQ", data, at)
        end = at + header + size
        if version != 1 or header != 16 or end > len(data):
            at += 4
            continue
        at += header
        while at < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", data, at)
            (capability,) = struct.unpack_from("<I", data, at + 28)
            yield Entry(kind, capability, at + header, at + header + size)
            at += header + size


def used(data: bytes, e: Entry) -> bool:
    """Whether a Hopper card loads an entry for a model in bf16."""
    if e.kind != _CUBIN or e.capability != _HOPPER:
        return False
    body = data[e.begin : e.end]
    return not (_FLASH.search(body) and _OTHER_TYPES.search(body))


def main() -> None:
    for name in sys.argv[1:]:
        data = Path(name).read_bytes()
        out = bytearray(data)
        found = list(entries(data))
        kept = [e for e in found if used(data, e)]
        for e in set(found) - set(kept):
            out[e.begin : e.end] = bytes(e.end - e.begin)
        Path(name).write_bytes(out)
        sizes = (sum(e.end - e.begin for e in some) >> 10 for some in (kept, found))
        print("{}: {} of {} KiB of device code kept".format(Path(name).name, *sizes))


if __name__ == "__main__":
    main()
