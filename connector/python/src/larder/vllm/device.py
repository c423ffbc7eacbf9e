"""What GPU copies need of the device: streams, events, memory, launches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from larder.registered import Driver
from larder.vllm.cuda import CudaDriver
from larder.vllm.memory import memory_at
from larder.vllm.rows import Rows, Table


class Event(Protocol):
    """A point in a stream's work."""

    def query(self) -> bool:
        """Whether the device has passed it."""
        ...

    def synchronize(self) -> None:
        """Waits for it without the interpreter's lock."""
        ...


class RowMover(Protocol):
    """rows_kernel.Mover, or its reference."""

    def move(self, addresses: int, jobs: int, job_count: int, heads: int, *, to_parts: bool) -> None:
        """Moves jobs on the current stream."""
        ...


class Device(Protocol):
    """One GPU, used on several threads. Work of one stream is done in order;
    between streams only events order anything."""

    def bind(self) -> None:
        """Makes it the calling thread's device."""
        ...

    def mover(self, rows: Rows) -> RowMover:
        """What moves rows of pages that lie there."""
        ...

    def driver(self) -> Driver:
        """What lets it touch the host's memory."""
        ...

    def stream(self) -> Any:
        """A new stream."""
        ...

    def current_stream(self) -> Any:
        """The stream that the calling thread's computation goes to."""
        ...

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """What is started inside goes to this stream."""
        ...

    def record(self, stream: Any) -> Event:
        """An event after everything that the stream has been given so far."""
        ...

    def wait(self, stream: Any, event: Event) -> None:
        """What the stream is given from now on starts after the event; the
        calling thread does not wait."""
        ...

    def memory(self, size: int) -> Any:
        """Device memory, bytes; freed with its last reference."""
        ...

    def address(self, memory: Any) -> int:
        """Where device memory lies."""
        ...

    def upload(self, table: Table) -> Any:
        """Copies a table to device memory on the current stream. What comes
        back may be dropped once all that reads it was started there."""
        ...

    def to_device(self, memory: Any, offset: int, source: int, size: int) -> None:
        """Copies host memory on the current stream; it lives until that is done."""
        ...

    def to_host(self, memory: Any, offset: int, target: int, size: int) -> None:
        """The same in the other direction."""
        ...


class CudaDevice:
    """A Device by torch."""

    def __init__(self, device: Any) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)

    def bind(self) -> None:
        """See Device."""
        torch.cuda.set_device(self._device)

    def mover(self, rows: Rows) -> RowMover:
        """See Device."""
        # Triton is there where the engine has a GPU, and is slow to import.
        from larder.vllm.rows_kernel import Mover

        return Mover(rows)

    def driver(self) -> Driver:
        """See Device."""
        return CudaDriver(int(self._device.index))

    def stream(self) -> Any:
        """See Device."""
        return torch.cuda.Stream(self._device)

    def current_stream(self) -> Any:
        """See Device."""
        return torch.cuda.current_stream(self._device)

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """See Device."""
        return torch.cuda.stream(stream)  # type: ignore[no-any-return]

    def record(self, stream: Any) -> Event:
        """See Device."""
        # Blocking: a thread that spins would take a processor from the engine.
        event = torch.cuda.Event(blocking=True)
        event.record(stream)
        return event  # type: ignore[no-any-return]

    def wait(self, stream: Any, event: Event) -> None:
        """See Device."""
        stream.wait_event(event)

    def memory(self, size: int) -> Any:
        """See Device."""
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def address(self, memory: Any) -> int:
        """See Device."""
        return int(memory.data_ptr())

    def upload(self, table: Table) -> Any:
        """See Device."""
        # Page-locked memory of torch's cache is not reused before the copy is done.
        return torch.from_numpy(table).pin_memory().to(self._device, non_blocking=True)

    def to_device(self, memory: Any, offset: int, source: int, size: int) -> None:
        """See Device. Of memory that is not registered the driver itself makes
        a staged copy, and the call lasts until the source was read."""
        memory[offset : offset + size].copy_(memory_at(source, size), non_blocking=True)

    def to_host(self, memory: Any, offset: int, target: int, size: int) -> None:
        """See Device."""
        memory_at(target, size).copy_(memory[offset : offset + size], non_blocking=True)


def wait_all(events: Sequence[Event]) -> None:
    """Waits for events; raises what the device says of its work."""
    for event in events:
        event.synchronize()


def device_of(cache: Any) -> Device | None:
    """The device that pages lie on; None for pages that the processor copies."""
    return CudaDevice(cache.device) if cache.device.type == "cuda" else None
