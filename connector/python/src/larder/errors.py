"""The closed vocabulary of reasons for which Larder says no.

Callers branch on the kind, people read the text. The numbers equal
larder.v1.ErrorKind. Every error that larder raises on purpose is a LarderError;
the subclasses exist so that ``except MissError`` reads well.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Kind(IntEnum):
    """Why Larder says no; values as in larder.v1.ErrorKind."""

    MISS = 1
    """What was asked for is not here. Expected; recompute."""
    BUSY = 2
    """A bounded queue is full for the moment."""
    FULL = 3
    """No room that may be taken. Nothing was lost."""
    CORRUPT = 4
    """Stored bytes do not match their checksums."""
    UNAVAILABLE = 5
    """The daemon is starting, draining or gone, or time is over."""
    INVALID = 6
    """The request is wrong and will be wrong again."""
    DENIED = 7
    """The caller may not do this."""

    def __str__(self) -> str:
        return self.name.lower()


class LarderError(Exception):
    """An error with a kind, in the shape of larder.v1.Error.

    message is one sentence without the other attributes; field names the
    offending field by its API name; value and limit are printed values, never
    secrets. The last three may be empty.
    """

    def __init__(self, kind: Kind, message: str, field: str = "", value: str = "", limit: str = "") -> None:
        super().__init__(kind, message, field, value, limit)
        self.kind = kind
        self.message = message
        self.field = field
        self.value = value
        self.limit = limit

    @property
    def text(self) -> str:
        """Message, value and limit, without kind and field."""
        facts = []
        if self.value:
            facts.append(f"value {self.value}")
        if self.limit:
            facts.append(f"limit {self.limit}")
        return f"{self.message} ({', '.join(facts)})" if facts else self.message

    def __str__(self) -> str:
        return ": ".join(s for s in (str(self.kind), self.field, self.text) if s)

    def __reduce__(self) -> tuple[object, ...]:
        # Engines send exceptions between processes; the subclasses take other
        # arguments than this class.
        return (error, (self.kind, self.message, self.field, self.value, self.limit))


class _OneKindError(LarderError):
    _kind: ClassVar[Kind]

    def __init__(self, message: str, field: str = "", value: str = "", limit: str = "") -> None:
        super().__init__(self._kind, message, field, value, limit)


class MissError(_OneKindError):
    """Kind.MISS."""

    _kind = Kind.MISS


class BusyError(_OneKindError):
    """Kind.BUSY."""

    _kind = Kind.BUSY


class FullError(_OneKindError):
    """Kind.FULL."""

    _kind = Kind.FULL


class CorruptError(_OneKindError):
    """Kind.CORRUPT."""

    _kind = Kind.CORRUPT


class UnavailableError(_OneKindError):
    """Kind.UNAVAILABLE."""

    _kind = Kind.UNAVAILABLE


class InvalidError(_OneKindError):
    """Kind.INVALID."""

    _kind = Kind.INVALID


class DeniedError(_OneKindError):
    """Kind.DENIED."""

    _kind = Kind.DENIED


_CLASSES: dict[int, type[_OneKindError]] = {
    c._kind: c for c in (MissError, BusyError, FullError, CorruptError, UnavailableError, InvalidError, DeniedError)
}


def error(kind: int, message: str, field: str = "", value: str = "", limit: str = "") -> LarderError:
    """Return the error of a kind, as it comes from the wire.

    A kind that this version does not know becomes UNAVAILABLE: the daemon said
    no, and the caller goes on without it.
    """
    return _CLASSES.get(kind, UnavailableError)(message, field, value, limit)
