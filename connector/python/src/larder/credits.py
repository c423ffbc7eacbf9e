"""Credits: slots granted ahead, to write parts into."""

from __future__ import annotations

import enum
import threading
import time
from types import TracebackType
from typing import Protocol

from larder.errors import InvalidError, MissError
from larder.load import Bytes
from larder.v1 import part_pb2

SlotKey = tuple[int, int, int]


class CreditState(enum.Enum):
    """The life of a credit."""

    GRANTED = "granted"
    WRITING = "being written"
    # Its commit is being put together; it may still come back.
    COMMITTING = "being committed"
    COMMITTED = "committed"
    RETURNED = "returned"
    REVOKED = "revoked"
    LOST = "lost with its connection"


class CreditKeeper(Protocol):
    """What a credit needs of the connection that it came over."""

    lock: threading.Lock

    def enter(self) -> None:
        """A section of access begins; called with the lock held."""

    def leave(self) -> None:
        """It has ended; called with the lock held."""

    def answer(self, credit: Credit) -> None:
        """Answers the credit's revoke; called without the lock."""


class Credit:
    """The right to write one part of `length` bytes."""

    __slots__ = ("_keeper", "_key", "_view", "deadline_ns", "length", "revoke_waits", "slot", "state")

    def __init__(
        self, keeper: CreditKeeper, slot: part_pb2.Slot | None, length: int, view: Bytes, deadline_ns: int
    ) -> None:
        self._keeper = keeper
        self._view = view
        # None on a connection without shared memory.
        self.slot = slot
        self._key = (-1, id(self), 0) if slot is None else (slot.segment, slot.offset, slot.generation)
        self.length = length
        # time.monotonic_ns() at which the daemon asks for the slot back.
        self.deadline_ns = deadline_ns
        # Guarded by the keeper's lock.
        self.state = CreditState.GRANTED
        self.revoke_waits = False

    @property
    def view(self) -> Bytes:
        """The slot's bytes. Writes belong into a `writing` section."""
        return self._view

    @property
    def key(self) -> SlotKey:
        """What names the slot at this moment of its life."""
        return self._key

    def writing(self) -> Writing:
        """A section in which the slot may be written:

            with credit.writing() as view:
                view[:] = ...

        Entering raises LarderError MISS where the credit is no longer good
        (revoked, past its deadline, or its connection is gone), INVALID where
        it was committed or returned. A revoke that arrives in the section is
        answered at its end, and then the credit is dead."""
        return Writing(self, self._keeper)


class Writing:
    """The context that Credit.writing makes."""

    __slots__ = ("_credit", "_keeper")

    def __init__(self, credit: Credit, keeper: CreditKeeper) -> None:
        self._credit = credit
        self._keeper = keeper

    def __enter__(self) -> Bytes:
        credit = self._credit
        keeper = self._keeper
        now = time.monotonic_ns()
        with keeper.lock:
            if credit.state is not CreditState.GRANTED:
                check_usable(credit)
            if credit.deadline_ns and now >= credit.deadline_ns:
                raise MissError("the credit's deadline has passed; take another")
            credit.state = CreditState.WRITING
            keeper.enter()
        return credit.view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        credit = self._credit
        with self._keeper.lock:
            revoked = credit.revoke_waits
            if credit.state is CreditState.WRITING:
                credit.state = CreditState.REVOKED if revoked else CreditState.GRANTED
            self._keeper.leave()
        if revoked:
            self._keeper.answer(credit)


def check_usable(credit: Credit, *, twice: bool = False) -> None:
    """Raises where the credit can be neither written nor committed, or where
    one commit names it twice. The keeper's lock is held."""
    if twice:
        raise InvalidError("a credit can be committed once", "credit", f"{credit.length} bytes, named twice")
    if credit.state is CreditState.GRANTED:
        return
    if credit.state in (CreditState.REVOKED, CreditState.LOST):
        raise MissError("the credit is no longer good; take another", "credit", credit.state.value)
    raise InvalidError("the credit is in use or used up", "credit", credit.state.value)
