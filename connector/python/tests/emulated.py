"""A device without a GPU: the kernels of larder.gpu, compiled for the CPU.

Memory lies between guards, so that a write beside it is found when it is freed.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larder.gpu.decoder import source

_FOLDER = Path(__file__).parent / "emulation"
_GUARD = 64
_PATTERN = 0xC3


def build(folder: Path) -> Path:
    """Compile the kernels; needs g++."""
    (folder / "kernels.cu").write_bytes(source())
    library = folder / "emulated.so"
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    # What NVRTC knows to be set, or defined elsewhere, and g++ does not.
    flags += ["-Wno-maybe-uninitialized", "-Wno-sign-compare", "-Wno-unused"]
    kernels = f'-DKERNELS="{folder / "kernels.cu"}"'
    subprocess.run(
        ["g++", *flags, kernels, "-o", str(library), str(_FOLDER / "emulate.cc")],  # noqa: S607 - the C++ compiler there is
        check=True,
    )
    return library


class Device:
    """As larder.gpu.driver.Device."""

    multiprocessors = 2
    shared_limit = 227 << 10

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._memory: dict[int, NDArray[np.uint8]] = {}

    def allocate(self, size: int) -> int:
        whole = np.full(size + 2 * _GUARD + 16, _PATTERN, np.uint8)
        pointer = -(-(whole.ctypes.data + _GUARD) // 16) * 16
        start = pointer - whole.ctypes.data
        self._memory[pointer] = whole[start - _GUARD : start + size + _GUARD]
        return pointer

    def free(self, pointer: int) -> None:
        memory = self._memory.pop(pointer)
        for guard in (memory[:_GUARD], memory[-_GUARD:]):
            assert (guard == _PATTERN).all(), "a kernel wrote beside its memory"

    def held(self) -> int:
        return len(self._memory)

    def upload(self, pointer: int, data: NDArray[Any]) -> None:
        data = np.ascontiguousarray(data)
        ctypes.memmove(pointer, data.ctypes.data, data.nbytes)

    def download(self, pointer: int, data: NDArray[Any], stream: int = 0) -> None:
        del stream  # launches are over when they return
        ctypes.memmove(data.ctypes.data, pointer, data.nbytes)

    def resident(self, name: str, threads: int, shared: int) -> int:
        del name, threads, shared
        return 1

    def launch(self, name: str, grid: int, threads: int, shared: int, args: Sequence[Any], stream: int = 0) -> None:
        del stream
        pointers = (ctypes.c_void_p * len(args))(*(ctypes.addressof(a) for a in args))
        assert self._library.launch(name.encode(), grid, threads, shared, pointers) == 0, f"no kernel {name}"
