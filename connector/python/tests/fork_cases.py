"""What test_fork.py runs in a process of its own: python fork_cases.py CASE SOCKET

gRPC's own fork handlers start threads in the child, which crash now and then;
they are switched off by the environment, before the library is loaded, and no
other test needs to live with that.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_daemon import PATIENCE_S

from larder.client import Client, Options
from larder.errors import InvalidError
from larder.mapping import map_shared

KEYS = b"k" * 32
ROOT = b"r" * 32
MAPS = Path("/proc/self/maps")


def in_child(run: Callable[[], object]) -> None:
    """Forks and runs; the child's failure is ours."""
    with warnings.catch_warnings():
        # Later Pythons warn of forks in a process with threads, rightly.
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run()
            status = 0
        except BaseException:  # noqa: BLE001 - a child must not return into its parent's code
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert status == 0, os.waitstatus_to_exitcode(status)


def refused(call: Callable[[], object]) -> None:
    """The call says that it belongs to another process."""
    with pytest.raises(InvalidError, match="fork"):
        call()


def the_child_is_told(socket: str) -> None:
    client = Client(Options(socket=socket, credits={8192: 1}, call_timeout_s=PATIENCE_S))
    assert client.wait_ready(PATIENCE_S)
    held = client.match(ROOT, KEYS).result()
    assert held.chunks == 1

    def child() -> None:
        assert not client.ready
        assert not client.wait_ready(1.0)
        assert client.take_credit(8192) is None
        client.end_holds([1])
        refused(lambda: client.match(ROOT, KEYS).result())
        refused(lambda: next(iter(client.load(1, 0, 1).batches(1.0))))
        refused(lambda: client.objects)
        client.close()
        assert "memfd:fake " not in MAPS.read_text()

    assert "memfd:fake " in MAPS.read_text()
    in_child(child)
    with client.load(held.hold_id, 0, 1) as load:
        assert sum(len(batch) for batch in load.batches(PATIENCE_S)) == 2
        assert load.release()
    client.close()


def freeing_tears_out_nothing(_: str) -> None:
    size = 1 << 20
    memory = os.memfd_create("memory")
    os.ftruncate(memory, size)
    mapped = [map_shared(memory, size, writable=True, prefault=False)]
    address = mapped[0].ctypes.data
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]

    def child() -> None:
        # Something else takes the hole that the mapping left.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        assert libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) == address
        ctypes.memset(address, 7, size)
        mapped.clear()
        gc.collect()
        assert ctypes.string_at(address, size) == b"\7" * size

    in_child(child)
    assert mapped[0].sum() == 0


def main() -> None:
    cases = {case.__name__: case for case in (the_child_is_told, freeing_tears_out_nothing)}
    cases[sys.argv[1]](sys.argv[2])


if __name__ == "__main__":
    main()
