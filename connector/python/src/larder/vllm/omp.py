"""OpenMP's threads, for one thread of ours.

The engine's operations split their work over as many threads as the engine has
cores, and meet at barriers. That is right for the engine's own thread; beside
it, those that copy would wait for cores that compute, and the engine for them:
on two busy cores a load took 28 to 300 ms so, and 22 ms with one thread for
each copy. torch.set_num_threads would change the whole process.
"""

from __future__ import annotations

import contextlib
import ctypes

import torch

_RUNTIMES = ("libgomp", "libiomp5", "libomp")


def use_one_thread() -> None:
    """Makes what the calling thread runs from now on run in it alone."""
    # torch sets a thread's number when it first asks; not after this any more.
    torch.get_num_threads()
    with contextlib.suppress(OSError, AttributeError):
        for path in _runtimes():
            ctypes.CDLL(path).omp_set_num_threads(1)


def _runtimes() -> set[str]:
    """Files of the OpenMP runtimes in this process, of which there may be several."""
    with open("/proc/self/maps") as maps:
        files = {line.rstrip("\n").partition("/")[2] for line in maps}
    return {"/" + file for file in files if file.rpartition("/")[2].startswith(_RUNTIMES)}
