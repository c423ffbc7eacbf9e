"""Threads that copy, each for itself.

torch would split every copy over as many threads as the engine has cores, with
a barrier after each: fine on idle cores, ruinous on busy ones, where each
barrier waits for a core (42 MiB took 30 to 1800 ms so, on two cores with other
work). Whole chunks and parts go to single threads here instead, and only their
end is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, Protocol

import torch

from larder.vllm.omp import use_one_thread


class Copy(Protocol):
    """A copy under way; a Future is one."""

    def exception(self) -> BaseException | None:
        """Waits for its end, and returns what went wrong."""
        ...

    def result(self) -> None:
        """Waits for its end, and raises what went wrong."""
        ...


class Copiers:
    """A pool of so many threads, started when first needed."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, name, initializer=use_one_thread)

    def start(self, copy: Callable[..., None], *args: Any) -> Future[None]:
        """Starts a copy; its end is the future's."""
        return self._pool.submit(_run, copy, args)

    def close(self) -> None:
        """Starts no more; copies under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _run(copy: Callable[..., None], args: tuple[Any, ...]) -> None:
    # Pages are made in inference mode, which is a thread's own.
    with torch.inference_mode():
        copy(*args)


def end(copies: Sequence[Copy]) -> None:
    """Waits until every copy has ended, whatever came of it."""
    for copy in copies:
        with suppress(CancelledError):
            copy.exception()


def wait_for(copies: list[Future[None]]) -> None:
    """Waits until every copy has ended, and only then raises what any raised."""
    wait(copies)
    for copy in copies:
        copy.result()
