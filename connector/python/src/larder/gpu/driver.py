"""The CUDA driver and NVRTC through ctypes: what the decoder needs and no more.

Nothing is linked and no toolkit is needed: libcuda comes with the driver, and
libnvrtc with PyTorch's wheels, a toolkit or the wheel nvidia-cuda-nvrtc. What
is missing is an UnavailableError that says so.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larder.errors import UnavailableError

_MULTIPROCESSORS = 16
_SHARED_OPTIN = 97
_MAJOR, _MINOR = 75, 76
_DYNAMIC_SHARED = 8
_OLDEST = 80  # cp.async, bf16 conversions and warp reductions

_DRIVER = "libcuda.so.1"
_POINTER = ctypes.c_uint64


def _nvrtc_files() -> Iterator[str]:
    """Yield where libnvrtc may be: wheels first, which PyTorch has chosen."""
    for folder in [*sys.path, "/usr/local"]:
        for pattern in (
            "nvidia/cuda_nvrtc/lib/libnvrtc.so.*",
            "nvidia/cu*/lib/libnvrtc.so.*",
            "cuda*/lib64/libnvrtc.so.*",
        ):
            # The largest name is the newest; .alt builds are for other uses.
            yield from sorted((str(p) for p in Path(folder or ".").glob(pattern) if ".alt" not in p.name), reverse=True)
    found = ctypes.util.find_library("nvrtc")
    if found:
        yield found


def _load(names: Iterator[str], what: str) -> ctypes.CDLL:
    reasons = []
    for name in names:
        # NVRTC opens its builtins by a bare name: they are found if they are
        # loaded already.
        for builtins in sorted(Path(name).parent.glob("libnvrtc-builtins.so.*")) if "/" in name else ():
            if ".alt" not in builtins.name:
                ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
        try:
            return ctypes.CDLL(name)
        except OSError as e:
            reasons.append(str(e))
    raise UnavailableError(f"{what} cannot be loaded: {'; '.join(reasons) or 'not found'}", "gpu")


def compile_source(source: bytes, architecture: str) -> tuple[bytes, str]:
    """Compile CUDA C++ for an architecture such as sm_90. Returns the machine
    code and NVRTC's version."""
    nvrtc = _load(_nvrtc_files(), "libnvrtc (wheel nvidia-cuda-nvrtc, or a CUDA toolkit)")
    program, size = ctypes.c_void_p(), ctypes.c_size_t()

    def text(of: str) -> bytes:
        getattr(nvrtc, f"nvrtcGet{of}Size")(program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{of}")(program, data)
        return data.raw

    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"larder.cu", 0, None, None):
        raise UnavailableError("NVRTC does not work", "gpu")
    try:
        options = (ctypes.c_char_p * 2)(b"--std=c++17", f"--gpu-architecture={architecture}".encode())
        if nvrtc.nvrtcCompileProgram(program, len(options), options):
            log = text("ProgramLog").rstrip(b"\0").decode(errors="replace")
            raise UnavailableError("NVRTC cannot compile the kernels: " + log[-2000:], "gpu", architecture)
        major, minor = ctypes.c_int(), ctypes.c_int()
        nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return text("CUBIN"), f"{major.value}.{minor.value}"
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


class Device:
    """A GPU, and the kernels of one source on it. Not safe for concurrent use.

    It uses the device's primary context, which PyTorch uses too: pointers and
    streams of both can be mixed."""

    def __init__(self, source: bytes, number: int = 0) -> None:
        self._cuda = _load(iter((_DRIVER,)), "libcuda (NVIDIA's driver)")
        self._call("cuInit", 0)
        self._device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(self._device), number)
        self._context = ctypes.c_void_p()
        capability = self._attribute(_MAJOR) * 10 + self._attribute(_MINOR)
        if capability < _OLDEST:
            raise UnavailableError("the GPU is too old", "gpu", f"sm_{capability}", f"sm_{_OLDEST}")
        self.multiprocessors = self._attribute(_MULTIPROCESSORS)
        self.shared_limit = self._attribute(_SHARED_OPTIN)
        code, self.nvrtc = compile_source(source, f"sm_{capability}")
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self._call("cuCtxSetCurrent", self._context)
        self._module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(self._module), code)
        self._kernels: dict[str, ctypes.c_void_p] = {}

    def close(self) -> None:
        if self._context.value:
            self._call("cuModuleUnload", self._module)
            self._call("cuDevicePrimaryCtxRelease", self._device)
            self._context = ctypes.c_void_p()

    def _call(self, name: str, *args: Any) -> None:
        code = getattr(self._cuda, name)(*args)
        if code:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorName(code, ctypes.byref(text))
            raise UnavailableError(f"{name} failed", "gpu", (text.value or str(code).encode()).decode())

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def allocate(self, size: int) -> int:
        pointer = _POINTER()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 16)))
        return pointer.value

    def free(self, pointer: int) -> None:
        self._call("cuMemFree_v2", _POINTER(pointer))

    def upload(self, pointer: int, data: NDArray[Any]) -> None:
        data = np.ascontiguousarray(data)
        if data.nbytes:
            self._call(
                "cuMemcpyHtoD_v2", _POINTER(pointer), ctypes.c_void_p(data.ctypes.data), ctypes.c_size_t(data.nbytes)
            )

    def copy(self, to: int, pointer: int, size: int, stream: int = 0) -> None:
        """Start a copy within the device."""
        args = (_POINTER(to), _POINTER(pointer), ctypes.c_size_t(size), ctypes.c_void_p(stream))
        self._call("cuMemcpyDtoDAsync_v2", *args)

    def synchronize(self, stream: int = 0) -> None:
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def download(self, pointer: int, data: NDArray[Any], stream: int = 0) -> None:
        """Wait for the stream, and fill data."""
        self.synchronize(stream)
        if data.nbytes:
            self._call(
                "cuMemcpyDtoH_v2", ctypes.c_void_p(data.ctypes.data), _POINTER(pointer), ctypes.c_size_t(data.nbytes)
            )

    def _kernel(self, name: str, shared: int) -> ctypes.c_void_p:
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = self._kernels[name] = ctypes.c_void_p()
            self._call("cuModuleGetFunction", ctypes.byref(kernel), self._module, name.encode())
        self._call("cuFuncSetAttribute", kernel, _DYNAMIC_SHARED, shared)
        return kernel

    def resident(self, name: str, threads: int, shared: int) -> int:
        """Return how many blocks of a kernel a multiprocessor runs at once."""
        blocks = ctypes.c_int()
        kernel = self._kernel(name, shared)
        self._call(
            "cuOccupancyMaxActiveBlocksPerMultiprocessor",
            ctypes.byref(blocks),
            kernel,
            threads,
            ctypes.c_size_t(shared),
        )
        return blocks.value

    def launch(self, name: str, grid: int, threads: int, shared: int, args: Sequence[Any], stream: int = 0) -> None:
        """Start a kernel; args are ctypes values."""
        pointers = (ctypes.c_void_p * len(args))(*(ctypes.addressof(a) for a in args))
        kernel = self._kernel(name, shared)
        self._call("cuLaunchKernel", kernel, grid, 1, 1, threads, 1, 1, shared, ctypes.c_void_p(stream), pointers, None)
