"""Mapping shared memory so that it survives a fork's peculiarities."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Callable

import numpy as np

from larder.load import Bytes

_MAP_FAILED = ctypes.c_void_p(-1).value


def map_shared(
    fd: int, size: int, *, writable: bool, prefault: bool, before_unmap: list[Callable[[], None]] | None = None
) -> Bytes:
    """Maps the first size bytes of a descriptor, which may be closed
    afterwards. They are unmapped when the last view into them is gone, after
    what before_unmap holds then was called. Raises OSError.

    Not by mmap.mmap: its objects unmap their addresses wherever they are freed.
    In a fork's child this mapping does not exist (MADV_DONTFORK: a child must
    not keep pages alive, nor make this process copy on write what a device has
    registered), something else may lie there, and freeing the object would
    tear that out."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if prefault else 0)
    address = libc.mmap(None, size, prot, flags, fd, 0)
    if address in (None, _MAP_FAILED):
        raise _last_error()
    if libc.madvise(address, size, mmap.MADV_DONTFORK) != 0:
        error = _last_error()
        libc.munmap(address, size)
        raise error
    buffer = (ctypes.c_uint8 * size).from_address(address)
    end = weakref.finalize(
        buffer, _unmap, libc, address, size, os.getpid(), [] if before_unmap is None else before_unmap
    )
    # At exit views may still be in use; the kernel unmaps then.
    end.atexit = False
    array: Bytes = np.frombuffer(buffer, dtype=np.uint8)  # type: ignore[call-overload]
    array.flags.writeable = writable
    return array


def _unmap(libc: ctypes.CDLL, address: int, size: int, pid: int, before: list[Callable[[], None]]) -> None:
    if os.getpid() == pid:
        for call in before:
            call()
        libc.munmap(address, size)


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
