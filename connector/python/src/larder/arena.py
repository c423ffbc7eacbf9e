"""The arena as this process sees it: mapped segments, views without copies."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence

from larder.errors import InvalidError, LarderError, UnavailableError
from larder.load import Bytes
from larder.mapping import map_shared
from larder.v1 import engine_pb2, part_pb2

# Slots of grants in guarded mode lie in the session's own write segment.
WRITE_SEGMENT = 65535

_Inode = tuple[int, int, bool]


class Segment:
    """One mapping; it lasts as long as any view into it."""

    __slots__ = ("__weakref__", "before_unmap", "read", "size", "write")

    def __init__(self, fd: int, size: int, *, writable: bool, prefault: bool) -> None:
        have = os.fstat(fd).st_size
        if size < 1 or have < size:
            raise InvalidError("a segment is smaller than announced", "arena.segment_bytes", str(have), str(size))
        self.size = size
        # What a device must undo.
        self.before_unmap: list[Callable[[], None]] = []
        array = map_shared(fd, size, writable=writable, prefault=prefault, before_unmap=self.before_unmap)
        self.write: Bytes | None = array if writable else None
        self.read: Bytes = array[:]
        self.read.flags.writeable = False

    @property
    def address(self) -> int:
        """Where it lies."""
        return int(self.read.ctypes.data)


class Mappings:
    """Segments mapped by this process, found again by inode: a connection to
    a daemon that had been there before reuses them, with their page tables
    and whatever a device has registered."""

    def __init__(self, *, prefault: bool, mapped: Callable[[Segment], None] | None = None) -> None:
        """mapped: told of each new mapping."""
        self._prefault = prefault
        self._mapped = mapped
        self._segments: weakref.WeakValueDictionary[_Inode, Segment] = weakref.WeakValueDictionary()

    def segment(self, fd: int, size: int, *, writable: bool) -> Segment:
        """The mapping of a descriptor, which the caller still owns."""
        stat = os.fstat(fd)
        key = (stat.st_dev, stat.st_ino, writable)
        segment = self._segments.get(key)
        if segment is None or segment.size != size:
            segment = Segment(fd, size, writable=writable, prefault=self._prefault)
            self._segments[key] = segment
            if self._mapped is not None:
                self._mapped(segment)
        return segment


class Arena:
    """The segments of one session."""

    def __init__(self, info: engine_pb2.ArenaInfo, fds: Sequence[int], mappings: Mappings) -> None:
        guarded = info.mode == engine_pb2.ARENA_MODE_GUARDED
        self._segments = [
            mappings.segment(fd, size, writable=not guarded) for fd, size in zip(fds, info.segment_bytes, strict=False)
        ]
        self._ended = False
        self._own: Segment | None = None
        if guarded and info.write_segment_bytes:
            self._own = mappings.segment(fds[-1], info.write_segment_bytes, writable=True)

    def end(self) -> None:
        """Lets go of the segments, whose memory lasts as long as it is mapped
        here, that of a dead daemon too. Timers and errors may refer to the
        connection for long, so this does not wait for the garbage collector."""
        self._ended = True
        self._segments = []
        self._own = None

    @property
    def segments(self) -> Sequence[Segment]:
        """The arena's segments in the order of the hand-over: what a device
        registers. The write segment is `own`."""
        return self._segments

    @property
    def own(self) -> Segment | None:
        """The session's write segment in guarded mode."""
        return self._own

    def reading(self, slot: part_pb2.Slot, length: int) -> Bytes:
        """A view of a leased slot. Raises LarderError INVALID where the slot
        does not lie in the arena, UNAVAILABLE after its end."""
        # Called for each part of each load, hence few attribute accesses.
        index, offset = slot.segment, slot.offset
        end = offset + length
        segments = self._segments
        if index >= len(segments) or length > slot.length:
            raise self._outside(slot, length)
        segment = segments[index]
        if end > segment.size:
            raise self._outside(slot, length)
        return segment.read[offset:end]

    def writing(self, slot: part_pb2.Slot, length: int) -> Bytes:
        """A view of the first length bytes of a granted slot, writable."""
        index, offset = slot.segment, slot.offset
        end = offset + length
        segments = self._segments
        segment = self._own if index == WRITE_SEGMENT else None
        if segment is None and index < len(segments):
            segment = segments[index]
        if segment is None or segment.write is None or length > slot.length or end > segment.size:
            raise self._outside(slot, length)
        return segment.write[offset:end]

    def _outside(self, slot: part_pb2.Slot, length: int) -> LarderError:
        if self._ended:
            return UnavailableError("the connection is gone")
        place = f"segment {slot.segment} offset {slot.offset} length {slot.length}"
        return InvalidError("the slot lies outside of the arena", "slot", place, f"{length} bytes to touch")


def announced(info: engine_pb2.ArenaInfo) -> int:
    """Segments that the hand-over will bring."""
    guarded = info.mode == engine_pb2.ARENA_MODE_GUARDED and info.write_segment_bytes > 0
    return len(info.segment_bytes) + (1 if guarded else 0)
