"""CUDA's runtime, as far as torch does not show it or is slow: a copy through a
tensor takes 40 us of the processor where the bus needs 76 for a part of 4 MiB."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from larder.errors import InvalidError

# cudaHostRegisterReadOnly: of memory that this process may only read.
_READ_ONLY = 8
# cudaMemcpyKind.
_TO_DEVICE = 1
_TO_HOST = 2


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
    """cudaMemcpyAsync of the runtime that torch uses."""

    def __init__(self) -> None:
        torch.cuda.init()
        path = _runtime()
        # To start a copy of registered memory takes less time than to get the
        # interpreter back from another thread.
        self._quick = _function(ctypes.PyDLL(path))
        self._waiting = _function(ctypes.CDLL(path))

    def copy(self, stream: int, target: int, source: int, size: int, *, to_host: bool, registered: bool) -> None:
        """Starts a copy on a stream; RuntimeError where CUDA refuses."""
        call = self._quick if registered else self._waiting
        error = call(target, source, size, _TO_HOST if to_host else _TO_DEVICE, stream)
        if error:
            raise RuntimeError(f"cudaMemcpyAsync of {size} bytes: error {error}")


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
