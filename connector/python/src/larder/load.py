"""Loads: parts of held chunks, readable for a while."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from larder.errors import LarderError
from larder.pending import Pending

Bytes = npt.NDArray[np.uint8]


class LeasedPart(NamedTuple):
    """One part that may be read until its load is released. (A tuple: making
    a frozen dataclass takes three times as long, for each of many parts.)"""

    # Index of the chunk in the hold.
    chunk: int
    # Index into hello.parts.
    part: int
    # The part's bytes; not writable.
    view: Bytes


class FailedPart(NamedTuple):
    """One part that cannot be had: MISS or CORRUPT, as a rule."""

    chunk: int
    part: int
    error: LarderError


class Load(abc.ABC):
    """Parts on their way to an engine. One thread uses it, as a context:

        with client.load(hold, 0, chunks) as load:
            for batch in load.batches(0.5):
                ...copy...
            counts = load.release()

    From the first batch asked for until release the daemon does not reuse the
    slots, whatever happens; so every access to a view ends before release.
    The copies count only if release answers True.
    """

    # Parts that will not come, filled while batches runs.
    failed: list[FailedPart]

    @abc.abstractmethod
    def batches(self, deadline_s: float) -> Iterator[list[LeasedPart]]:
        """Yields parts as they become readable, chunk by chunk, and ends when
        every part was either yielded or put into `failed`.

        deadline_s: seconds from now. Raises LarderError: MISS where the hold
        is gone or the load was revoked before the first batch, UNAVAILABLE at
        the deadline, on a lost connection, or on a revoke while it waits."""

    @abc.abstractmethod
    def release_nowait(self) -> Pending[bool]:
        """release, without waiting for the daemon's answer."""

    def release(self) -> bool:
        """Ends the load, after the last access to any of its views. True only
        if every byte read counts: the deadline had not passed and the daemon
        confirmed every lease. Waits for its answer at most call_timeout_s;
        never raises. A second call repeats the answer of the first."""
        try:
            return self.release_nowait().result()
        except LarderError:
            return False

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release_nowait()
