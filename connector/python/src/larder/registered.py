"""Mapped memory that a device may touch by itself.

A device reads and writes host memory at the speed of its bus only where the
pages are locked and known to its driver. That takes the driver about a second
for a few GiB, touches every page, and disturbs what else it is asked meanwhile;
so it happens on a thread of its own, segment by segment, and only between
resume and pause. Until a segment's turn, and where the driver refuses, its
memory is simply not covered: who copies must have another way.
"""

from __future__ import annotations

import bisect
import logging
import threading
import time
import weakref
from collections import deque
from functools import partial
from typing import Protocol

from larder.arena import Segment

_LOG = logging.getLogger("larder")


class Driver(Protocol):
    """The device's side."""

    def bind(self) -> None:
        """Called once on the thread that registers."""
        ...

    def register(self, address: int, size: int, *, writable: bool) -> str:
        """Locks pages; returns why it could not, or ""."""
        ...

    def unregister(self, address: int) -> None:
        """Undoes register. Nothing of the device touches the memory any more."""
        ...


class RegisteredMemory:
    """Registers each segment that is mapped, and undoes it before it is unmapped."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        # Segments end on whatever thread drops the last view, also on one that is in here.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[weakref.ref[Segment]] = deque()
        self._ranges: list[tuple[int, int]] = []
        self._busy = False
        self._paused = False
        self._closed = False
        self._failed = False
        self._thread: threading.Thread | None = None

    def mapped(self, segment: Segment) -> None:
        """A segment is there; it is registered soon."""
        with self._changed:
            if self._closed:
                return
            self._queue.append(weakref.ref(segment))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="larder-register", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def covers(self, address: int, size: int) -> bool:
        """Whether the device may touch these bytes; they lie in one segment."""
        ranges = self._ranges
        i = bisect.bisect_right(ranges, (address, 1 << 62)) - 1
        return i >= 0 and address + size <= ranges[i][1]

    @property
    def size(self) -> int:
        """Bytes registered."""
        return sum(end - begin for begin, end in self._ranges)

    def settled(self, timeout_s: float) -> bool:
        """Waits until every segment so far had its turn."""
        until = time.monotonic() + timeout_s
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, until - time.monotonic())

    def pause(self, timeout_s: float = 60.0) -> bool:
        """Starts no more until resume; waits for the one under way."""
        with self._changed:
            self._paused = True
            return self._changed.wait_for(lambda: not self._busy, timeout_s)

    def resume(self) -> None:
        """The opposite."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def close(self) -> None:
        """Undoes everything. Nothing of the device touches the memory any more."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(60.0)
        with self._lock:
            ranges, self._ranges = self._ranges, []
        for begin, _ in ranges:
            self._driver.unregister(begin)

    def _run(self) -> None:
        self._driver.bind()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._queue and not self._paused))
                if self._closed:
                    return
                segment = self._queue.popleft()()
                self._busy = segment is not None
            if segment is not None:
                try:
                    self._register(segment)
                except Exception:  # noqa: BLE001
                    # Not covered is all that follows.
                    _LOG.exception("larder: a segment is not registered with the device")
            del segment
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _register(self, segment: Segment) -> None:
        # What this thread holds cannot be unmapped meanwhile.
        begin, size = segment.address, segment.size
        start = time.monotonic()
        error = self._driver.register(begin, size, writable=segment.write is not None)
        if error:
            if not self._failed:
                _LOG.warning("larder: %d bytes are not registered with the device, copies are slower: %s", size, error)
            self._failed = True
            return
        with self._lock:
            gone = self._closed
            if not gone:
                segment.before_unmap.append(partial(self._gone, begin))
                self._ranges = sorted([*self._ranges, (begin, begin + size)])
        if gone:
            self._driver.unregister(begin)
        else:
            _LOG.info("larder: %d bytes registered with the device in %.2f s", size, time.monotonic() - start)

    def _gone(self, begin: int) -> None:
        """A segment is about to be unmapped."""
        with self._lock:
            had = any(b == begin for b, _ in self._ranges)
            self._ranges = [r for r in self._ranges if r[0] != begin]
        if had:
            self._driver.unregister(begin)
