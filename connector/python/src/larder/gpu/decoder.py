"""Decodes coded objects on a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from larder.codec import parse
from larder.errors import CorruptError, InvalidError
from larder.gpu.checksum import powers
from larder.gpu.layout import FAULTS, Layout, Source, Work, lay_out

SOURCES = ("coder.cu", "rows.cu", "digits.cu", "decode.cu", "checksum.cu")
_CHECKSUM_THREADS = 64
_CHECKSUM_BLOCKS = 16  # for each multiprocessor


def source() -> bytes:
    """Return the source of the kernels."""
    return b"".join((Path(__file__).parent / name).read_bytes() for name in SOURCES)


@dataclass(frozen=True)
class Options:
    """shared_warps: a unit's stage is in shared memory if at least so many warps
    find room in a multiprocessor's; more is slower where the stage could have
    been near, fewer leaves the multiprocessor idle.
    scratch: bytes of device memory for other stages; less means fewer warps at
    once. A single unit may need more, up to 1.2 GB."""

    shared_warps: int = 3
    most_warps: int = 16
    device_warps: int = 8
    scratch: int = 1 << 30


class _Device(Protocol):
    multiprocessors: int
    shared_limit: int

    def allocate(self, size: int) -> int: ...
    def free(self, pointer: int) -> None: ...
    def upload(self, pointer: int, data: NDArray[Any]) -> None: ...
    def download(self, pointer: int, data: NDArray[Any], stream: int = 0) -> None: ...
    def resident(self, name: str, threads: int, shared: int) -> int: ...
    def launch(self, name: str, grid: int, threads: int, shared: int, args: Sequence[Any], stream: int = 0) -> None: ...


class _Args(ctypes.Structure):
    """Args of decode.cu."""

    _fields_ = [
        *((n, ctypes.c_uint64) for n in ("source", "out", "units", "groups", "tasks", "tables", "contexts")),
        *((n, ctypes.c_uint64) for n in ("levels", "scratch", "status", "scratch_size")),
        *((n, ctypes.c_uint32) for n in ("task_count", "table_slots", "context_count", "stage_size", "dims", "tokens")),
    ]


@dataclass(frozen=True)
class _Launch:
    kernel: str
    grid: int
    threads: int
    shared: int
    args: _Args


class Job:
    """Objects that are laid out, with what the kernels need of them in device
    memory: it can be run any number of times. Close it to free that memory."""

    def __init__(self, device: _Device, layout: Layout, options: Options) -> None:
        self._device, self._layout, self._memory = device, layout, list[int]()
        try:
            self._prepare(options)
        except BaseException:
            self.close()
            raise

    def _prepare(self, options: Options) -> None:
        layout = self._layout
        self._status_size = len(layout.units) + len(layout.ranges)
        self._status = self._allocate(4 * self._status_size)
        self._ranges, self._powers = self._upload(layout.ranges), self._upload(powers())
        common = {
            name: self._upload(getattr(layout, name)) for name in ("units", "groups", "tables", "contexts", "levels")
        }
        launches = [self._launch(w, options) for w in layout.work]
        scratch = self._allocate(
            max((launch.grid * launch.threads // 32 * launch.args.scratch_size for launch in launches), default=0)
        )
        for launch in launches:
            launch.args.status, launch.args.scratch = self._status, scratch
            for name, pointer in common.items():
                setattr(launch.args, name, pointer)
        self._launches = launches

    def _launch(self, w: Work, options: Options) -> _Launch:
        kernel, warps, shared, scratch = w.kind, options.device_warps, 0, w.active
        if w.kind == "exact":
            kernel = "exact_rows"
        else:
            near = min((self._device.shared_limit - w.shared) // (w.fixed + w.stage), options.most_warps)
            if near >= options.shared_warps:
                kernel, warps, shared = w.kind + "_shared", near, w.shared + near * (w.fixed + w.stage)
            else:
                scratch += w.stage
                room = (self._device.shared_limit - w.shared) // w.fixed
                warps = max(1, min(warps, room, options.scratch // scratch))
                kernel, shared = w.kind + "_device", w.shared + warps * w.fixed
        tasks = w.tasks(warps)
        blocks = self._device.multiprocessors * max(1, self._device.resident(kernel, 32 * warps, shared))
        if scratch:
            blocks = max(1, min(blocks, options.scratch // (scratch * warps)))
        args = _Args(
            tasks=self._upload(tasks),
            task_count=len(tasks),
            scratch_size=scratch,
            table_slots=256 * w.classes,
            context_count=-(-w.contexts // 4) * 4,
            stage_size=w.stage,
            dims=w.dims,
            tokens=w.tokens if w.active else 0,
        )
        return _Launch(kernel, min(blocks, len(tasks)), 32 * warps, shared, args)

    def _allocate(self, size: int) -> int:
        pointer = self._device.allocate(size)
        self._memory.append(pointer)
        return pointer

    def _upload(self, data: NDArray[Any]) -> int:
        pointer = self._allocate(data.nbytes)
        self._device.upload(pointer, data)
        return pointer

    def run(self, source: int, out: int, stream: int = 0, *, verify: bool = True) -> None:
        """Start decoding from and to device memory, whose sizes are those that
        the job was prepared for. source is aligned to 16 bytes, out to 8. verify
        also checks the checksums of all layers."""
        if source % 16 or out % 8:
            raise InvalidError("not aligned", "source" if source % 16 else "out", str(source if source % 16 else out))
        for launch in self._launches:
            launch.args.source, launch.args.out = source, out
            self._device.launch(launch.kernel, launch.grid, launch.threads, launch.shared, [launch.args], stream)
        self._verified = verify
        if verify and len(self._layout.ranges):
            values = [ctypes.c_uint64(source), ctypes.c_uint64(self._ranges), ctypes.c_uint32(len(self._layout.ranges))]
            status = ctypes.c_uint64(self._status + 4 * len(self._layout.units))
            grid = min(len(self._layout.ranges), _CHECKSUM_BLOCKS * self._device.multiprocessors)
            self._device.launch(
                "checksum", grid, _CHECKSUM_THREADS, 0, [*values, status, ctypes.c_uint64(self._powers)], stream
            )

    def check(self, stream: int = 0) -> None:
        """Wait for the last run. CORRUPT if a stream was damaged: then the output
        holds anything."""
        units = len(self._layout.units)
        status = np.empty(self._status_size if self._verified else units, np.uint32)
        self._device.download(self._status, status, stream)
        wrong = np.flatnonzero(status)
        if not len(wrong):
            return
        first = int(wrong[0])
        what = [text for bit, text in FAULTS.items() if int(status[first]) & bit]
        if first < units:
            number, place = self._layout.names[first]
            where = f"object[{number}].unit[{place}]"
        else:
            number, place = self._layout.ranges_of[first - units]
            where = f"object[{number}].layer[{place}]"
        raise CorruptError("; ".join(what), where, f"{len(wrong)} of {len(status)} streams")

    def kernels(self) -> list[str]:
        """Say what a run launches: kernel, blocks x warps, bytes of shared memory."""
        return [f"{x.kernel} {x.grid}x{x.threads // 32} {x.shared}" for x in self._launches]

    def close(self) -> None:
        while self._memory:
            self._device.free(self._memory.pop())

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Decoder:
    """Decodes on one device; not safe for concurrent use."""

    def __init__(self, device: _Device, options: Options | None = None) -> None:
        self._device, self._options = device, options or Options()

    def prepare(self, sources: Sequence[Source], source_size: int, out_size: int) -> Job:
        """Check objects whose bytes are, or will be, in a device buffer of
        source_size bytes. Errors are those of larder.codec.decode, for what the
        headers and the heads of the streams say."""
        return Job(self._device, lay_out(sources, source_size, out_size), self._options)

    def decode(self, data: bytes, level: int, max_bytes: int) -> bytes:
        """As larder.codec.decode, by way of the device."""
        layout = lay_out([Source(parse(data, max_bytes, verify=False), level)], len(data), max_bytes)
        stored = np.frombuffer(data, np.uint8)
        size = layout.out_size
        with Job(self._device, layout, self._options) as job:
            source, out = self._device.allocate(len(data)), self._device.allocate(size)
            try:
                self._device.upload(source, stored)
                job.run(source, out)
                job.check()
                result = np.empty(size, np.uint8)
                self._device.download(out, result)
            finally:
                self._device.free(source)
                self._device.free(out)
        return result.tobytes()
