"""CUDA's runtime, as far as torch does not show it or is slow: a copy through a
tensor takes 40 us of the processor where the bus needs 76 for a part of 4 MiB."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from larder.errors import InvalidError

# cudaHostRegisterReadOnly: of memory that this process may only read.
_READ_ONLY = 8
# cudaMemcpyKind.
_TO_DEVICE = 1
_TO_HOST = 2
# cudaMemcpySrcAccessOrderStream.
_STREAM_ORDER = 1
_BATCHES_SINCE = 13000
_WORTH_A_BATCH = 4


class CudaDriver:
    """larder.registered.Driver by torch's binding of the runtime."""

    def __init__(self, index: int) -> None:
        self._index = index

    def bind(self) -> None:
        """See Driver."""
        torch.cuda.set_device(self._index)

    def register(self, address: int, size: int, *, writable: bool) -> str:
        """See Driver."""
        error = torch.cuda.cudart().cudaHostRegister(address, size, 0 if writable else _READ_ONLY)
        return "" if int(error) == 0 else f"cudaHostRegister: {error}"

    def unregister(self, address: int) -> None:
        """See Driver."""
        # Called at the end of things, where nobody could do more about an error.
        torch.cuda.cudart().cudaHostUnregister(address)


class CudaCopier:
    """cudaMemcpyAsync of the runtime that torch uses, and cudaMemcpyBatchAsync
    where it is of CUDA 13 or later (12.8 has another one): many copies by one call
    take a quarter of the processor's time."""

    def __init__(self) -> None:
        torch.cuda.init()
        path = _runtime()
        # To start a copy of registered memory takes less time than to get the
        # interpreter back from another thread.
        quick = ctypes.PyDLL(path)
        self._quick = _function(quick)
        self._batch = _batch_function(quick)
        self._waiting = _function(ctypes.CDLL(path))

    def copy(self, stream: int, target: int, source: int, size: int, *, to_host: bool, registered: bool) -> None:
        """Starts a copy on a stream; RuntimeError where CUDA refuses."""
        call = self._quick if registered else self._waiting
        error = call(target, source, size, _TO_HOST if to_host else _TO_DEVICE, stream)
        if error:
            raise RuntimeError(f"cudaMemcpyAsync of {size} bytes: error {error}")

    def copy_all(self, stream: int, copies: Sequence[tuple[int, int, int]], *, to_host: bool) -> None:
        """Starts copies (target, source, bytes) of registered memory on a stream;
        RuntimeError where CUDA refuses."""
        if self._batch is None or len(copies) < _WORTH_A_BATCH:
            for target, source, size in copies:
                self.copy(stream, target, source, size, to_host=to_host, registered=True)
            return
        # Read before the call returns.
        table = np.array(copies, np.uint64).T.copy()
        at, each = int(table.ctypes.data), table.strides[0]
        how, first = _BatchAttributes(_STREAM_ORDER), ctypes.c_size_t(0)
        error = self._batch(
            at, at + each, at + 2 * each, len(copies), ctypes.byref(how), ctypes.byref(first), 1, stream
        )
        if error:
            raise RuntimeError(f"cudaMemcpyBatchAsync of {len(copies)} copies: error {error}")


class _BatchAttributes(ctypes.Structure):
    """cudaMemcpyAttributes; locations are hints that are left out."""

    _fields_ = (
        ("order", ctypes.c_int),
        ("source", ctypes.c_int * 2),
        ("target", ctypes.c_int * 2),
        ("flags", ctypes.c_uint),
    )


def _batch_function(library: ctypes.PyDLL) -> Any:
    version = ctypes.c_int(0)
    if library.cudaRuntimeGetVersion(ctypes.byref(version)) or version.value < _BATCHES_SINCE:
        return None
    function = getattr(library, "cudaMemcpyBatchAsync", None)
    if function is not None:
        pointers, size = [ctypes.c_void_p] * 3, ctypes.c_size_t
        function.argtypes = [*pointers, size, ctypes.c_void_p, ctypes.c_void_p, size, ctypes.c_void_p]
        function.restype = ctypes.c_int
    return function


def _function(library: ctypes.CDLL) -> Any:
    function = library.cudaMemcpyAsync
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    function.restype = ctypes.c_int
    return function


def _runtime() -> str:
    """The file of the runtime in this process."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            file = line.rstrip("\n").partition("/")[2]
            if file.rpartition("/")[2].startswith("libcudart.so"):
                return "/" + file
    raise InvalidError("torch has no CUDA runtime of its own in this process", "libcudart.so")
