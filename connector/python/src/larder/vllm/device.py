"""What GPU copies need of the device: streams, events, memory, launches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from larder.load import Bytes
from larder.registered import Driver
from larder.vllm.cuda import CudaCopier, CudaDriver
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
        """Copies a table to device memory on the current stream."""
        ...

    def pinned(self, size: int) -> Bytes:
        """Page-locked host memory."""
        ...

    def to_device(self, stream: Any, target: int, source: int, size: int, *, registered: bool) -> None:
        """Copies host memory, which lives until that is done. registered: or
        page-locked; else the driver makes a staged copy, for which the calling
        thread waits without the interpreter's lock."""
        ...

    def to_host(self, stream: Any, target: int, source: int, size: int, *, registered: bool) -> None:
        """The same in the other direction."""
        ...

    def copy_all(self, stream: Any, copies: Sequence[tuple[int, int, int]], *, to_host: bool) -> None:
        """Copies (target, source, bytes), all of whose host memory is registered."""
        ...


class CudaDevice:
    """A Device by torch."""

    def __init__(self, device: Any) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        self._copier = CudaCopier()

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
        return torch.from_numpy(table).to(self._device)

    def pinned(self, size: int) -> Bytes:
        """See Device."""
        made: Bytes = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        return made

    def to_device(self, stream: Any, target: int, source: int, size: int, *, registered: bool) -> None:
        """See Device."""
        self._copier.copy(stream.cuda_stream, target, source, size, to_host=False, registered=registered)

    def to_host(self, stream: Any, target: int, source: int, size: int, *, registered: bool) -> None:
        """See Device."""
        self._copier.copy(stream.cuda_stream, target, source, size, to_host=True, registered=registered)

    def copy_all(self, stream: Any, copies: Sequence[tuple[int, int, int]], *, to_host: bool) -> None:
        """See Device."""
        self._copier.copy_all(stream.cuda_stream, copies, to_host=to_host)


def wait_all(events: Sequence[Event]) -> None:
    """Waits for events; raises what the device says of its work."""
    for event in events:
        event.synchronize()


def device_of(cache: Any) -> Device | None:
    """The device that pages lie on; None for pages that the processor copies."""
    return CudaDevice(cache.device) if cache.device.type == "cuda" else None
