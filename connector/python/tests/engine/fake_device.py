"""A device within the test that is as late as a device may be.

What a stream is given is only noted, and done at some time later: whenever
somebody waits or asks, and then, by chance, some of what may be done in any
order that streams and events allow. So whatever rests on an order that nobody
asked for goes wrong here.
"""

from __future__ import annotations

import ctypes
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from larder.vllm.rows import Rows, Table
from larder.vllm.rows_reference import HostMover


class FakeEvent:
    """A point in a stream."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self.passed = False

    def query(self) -> bool:
        """Whether it is passed; time goes by."""
        self._device.run(self._device.chance.randrange(3))
        return self.passed

    def synchronize(self) -> None:
        """Until it is passed."""
        self._device.waits += 1
        while not self.passed:
            if not self._device.run(1) and not self.passed:
                self._device.until_released()


class FakeStream:
    """Work in order."""

    def __init__(self) -> None:
        self.work: deque[Callable[[], object] | FakeEvent] = deque()


class FakeDevice:
    """A larder.vllm.device.Device over host memory. seed: of its whims."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)  # noqa: S311
        self.compute = FakeStream()
        self._streams = [self.compute]
        self._current = threading.local()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        # Streams other than the engine's stand still.
        self._held = False
        # What was uploaded: nobody else holds it until it is used.
        self._kept: list[Any] = []
        self.covered = True
        self.launches = 0
        self.waits = 0
        self.copies = 0
        self.unregistered = 0

    def give(self, stream: FakeStream, work: Callable[[], object]) -> None:
        """Notes work of a stream."""
        with self._lock:
            stream.work.append(work)

    def run(self, most: int) -> int:
        """Does up to so many things; returns how many there were."""
        done = 0
        while done < most:
            with self._lock:
                streams = [self.compute] if self._held else self._streams
                ready = [s for s in streams if s.work and (not isinstance(w := s.work[0], FakeEvent) or w.passed)]
                if not ready:
                    break
                work = self.chance.choice(ready).work.popleft()
                if not isinstance(work, FakeEvent):
                    work()
            done += 1
        return done

    def hold(self) -> None:
        """Nothing but the engine's stream goes on until release."""
        self._held = True

    def release(self) -> None:
        """The opposite."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def until_released(self) -> None:
        """Waits while the device is held; it must be, for somebody who waits for
        what cannot be done now."""
        with self._changed:
            busy = any(s.work and not isinstance(s.work[0], FakeEvent) for s in self._streams)
            assert self._held or busy, "the device waits for what never comes"
            self._changed.wait_for(lambda: not self._held, 60)

    # -- Device ----------------------------------------------------------------

    def bind(self) -> None:
        """Nothing to do."""

    def driver(self) -> FakeDevice:
        """Nothing is mapped here; what counts as registered is `covered`."""
        return self

    def register(self, address: int, size: int, *, writable: bool) -> str:
        """See larder.registered.Driver."""
        del address, size, writable
        return ""

    def unregister(self, address: int) -> None:
        """See larder.registered.Driver."""

    def mover(self, rows: Rows) -> FakeMover:
        """The reference, later."""
        return FakeMover(self, rows)

    def stream(self) -> FakeStream:
        """One more."""
        stream = FakeStream()
        with self._lock:
            self._streams.append(stream)
        return stream

    def current_stream(self) -> FakeStream:
        """The engine's, outside of `on`."""
        return getattr(self._current, "stream", self.compute)

    @contextmanager
    def on(self, stream: FakeStream) -> Iterator[None]:
        """As torch.cuda.stream."""
        before = self.current_stream()
        self._current.stream = stream
        try:
            yield
        finally:
            self._current.stream = before

    def record(self, stream: FakeStream) -> FakeEvent:
        """An event at the end of what it has."""
        event = FakeEvent(self)
        self.give(stream, lambda: setattr(event, "passed", True))
        return event

    def wait(self, stream: Any, event: Any) -> None:
        """Not before the event."""
        with self._lock:
            stream.work.append(event)

    def memory(self, size: int) -> npt.NDArray[np.uint8]:
        """Memory, with rubbish in it."""
        return np.full(size, 0x5A, np.uint8)

    def address(self, memory: npt.NDArray[Any]) -> int:
        """Where it lies."""
        return int(memory.ctypes.data)

    def upload(self, table: Table) -> Table:
        """A copy, which is right once the stream is there."""
        there = np.full_like(table, -1)
        source = table.copy()
        with self._lock:
            self._kept.append(there)
        self.give(self.current_stream(), lambda: np.copyto(there, source))
        return there

    def pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """Memory like any other."""
        return np.full(size, 0x5A, np.uint8)

    def to_device(self, stream: FakeStream, target: int, source: int, size: int, *, registered: bool) -> None:
        """Later."""
        self._copy(stream, target, source, size, registered)

    def to_host(self, stream: FakeStream, target: int, source: int, size: int, *, registered: bool) -> None:
        """Later."""
        self._copy(stream, target, source, size, registered)

    def copy_all(self, stream: FakeStream, copies: Sequence[tuple[int, int, int]], *, to_host: bool) -> None:
        """Later, one by one."""
        del to_host
        for target, source, size in copies:
            self._copy(stream, target, source, size, True)

    def _copy(self, stream: FakeStream, target: int, source: int, size: int, registered: bool) -> None:
        self.copies += 1
        self.unregistered += not registered
        self.give(stream, lambda: ctypes.memmove(target, source, size))


class FakeMover:
    """Moves rows on the current stream."""

    def __init__(self, device: FakeDevice, rows: Rows) -> None:
        self._device = device
        self._mover = HostMover(rows)

    def move(self, addresses: int, jobs: int, job_count: int, heads: int, *, to_parts: bool) -> None:
        """As rows_kernel.Mover.move."""
        device, mover = self._device, self._mover
        device.launches += 1
        device.give(device.current_stream(), lambda: mover.move(addresses, jobs, job_count, heads, to_parts=to_parts))
