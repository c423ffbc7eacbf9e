"""What one session may touch in the arena, and who is touching it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from larder.credits import Credit, CreditState, SlotKey
from larder.errors import LarderError
from larder.v1 import part_pb2

# In these states a credit's owner may still touch its slot, or get it back.
_IN_USE = (CreditState.WRITING, CreditState.COMMITTING)


class RevocableLoad(Protocol):
    """A load as the revoke rules see it."""

    def revoke(self) -> bool:
        """Marks it revoked; True if nobody is between its first batch and its
        release, so that the revoke may be answered at once."""
        ...

    def lose(self, error: LarderError) -> None:
        """Its connection is gone."""
        ...


class Leases:
    """Loads and credits of one session, and the sections in which an engine
    reads or writes slots. A slot is only given up (a revoke answered, a
    session's token declared as ended) outside of every section that may
    touch it."""

    def __init__(self, answer: Callable[[Sequence[part_pb2.Slot], Sequence[int]], None]) -> None:
        self.lock = threading.Lock()
        self._idle = threading.Condition(self.lock)
        self._answer = answer
        self._credits: dict[SlotKey, Credit] = {}
        self._loads: dict[int, RevocableLoad] = {}
        self._sections = 0
        # Threads in wait_idle: a notification costs more than a section.
        self._waiting = 0
        self._lost = False

    def enter(self) -> None:
        """A section begins; the lock is held."""
        self._sections += 1

    def leave(self) -> None:
        """A section has ended; the lock is held."""
        self._sections -= 1
        if self._waiting and self._sections == 0:
            self._idle.notify_all()

    @property
    def busy(self) -> bool:
        """Whether anybody may be touching a slot."""
        return self._sections > 0

    @property
    def quiet(self) -> bool:
        """Whether nobody touches a slot and no load is under way."""
        return not self._sections and not self._loads

    def wait_idle(self, until: float) -> bool:
        """Waits until no section is open, at most until `until`
        (time.monotonic() seconds)."""
        with self.lock:
            self._waiting += 1
            try:
                while self._sections:
                    left = until - time.monotonic()
                    if left <= 0 or not self._idle.wait(left):
                        return not self._sections
                return True
            finally:
                self._waiting -= 1

    def add_credits(self, fresh: Sequence[Credit]) -> None:
        """Slots were granted."""
        with self.lock:
            for credit in fresh:
                if self._lost:
                    credit.state = CreditState.LOST
                else:
                    self._credits[credit.key] = credit

    def drop_credit(self, credit: Credit, state: CreditState) -> None:
        """A usable credit was committed or given back; the lock is held."""
        credit.state = state
        self._credits.pop(credit.key, None)

    def committed(self, sent: Sequence[Credit]) -> None:
        """Their commit is on its way: nobody touches the slots any more. Where a
        revoke came meanwhile, the commit is an answer to it."""
        with self.lock:
            for credit in sent:
                if credit.state is CreditState.COMMITTING:
                    self.drop_credit(credit, CreditState.COMMITTED)

    def restore(self, unsent: Sequence[Credit]) -> None:
        """Their commit could not be sent: they are as before, and a revoke that
        came meanwhile is answered."""
        revoked: list[Credit] = []
        with self.lock:
            for credit in unsent:
                if credit.state is CreditState.COMMITTING:
                    credit.state = CreditState.REVOKED if credit.revoke_waits else CreditState.GRANTED
                    if credit.revoke_waits:
                        revoked.append(credit)
        for credit in revoked:
            self.answer(credit)

    def add_load(self, load_id: int, load: RevocableLoad) -> None:
        """A load was asked for."""
        with self.lock:
            self._loads[load_id] = load

    def drop_load(self, load_id: int) -> None:
        """A load was released; the lock is held."""
        self._loads.pop(load_id, None)

    def answer(self, credit: Credit) -> None:
        """The section that kept a credit's revoke waiting has ended."""
        with self.lock:
            self._credits.pop(credit.key, None)
            lost = self._lost
        if not lost and credit.slot is not None:
            self._answer([credit.slot], ())

    def answer_load(self, load_id: int) -> None:
        """The section that kept a load's revoke waiting has ended."""
        if not self._lost:
            self._answer((), [load_id])

    def revoke(self, slots: Sequence[part_pb2.Slot], load_ids: Sequence[int]) -> list[Credit]:
        """The daemon wants slots back. Answers at once for all that nobody
        touches, also for what is unknown here (it was given up before); the
        rest answers at the end of its section. Returns the dead credits."""
        now_slots: list[part_pb2.Slot] = []
        now_loads: list[int] = []
        dead: list[Credit] = []
        with self.lock:
            for slot in slots:
                key = (slot.segment, slot.offset, slot.generation)
                credit = self._credits.get(key)
                if credit is not None and credit.state in _IN_USE:
                    credit.revoke_waits = True
                    continue
                if credit is not None:
                    self.drop_credit(credit, CreditState.REVOKED)
                    dead.append(credit)
                now_slots.append(slot)
            loads = [(load_id, self._loads.get(load_id)) for load_id in load_ids]
        for load_id, load in loads:
            if load is None or load.revoke():
                now_loads.append(load_id)
        if now_slots or now_loads:
            self._answer(now_slots, now_loads)
        return dead

    def lose(self, error: LarderError) -> None:
        """The connection is gone: loads and credits are dead."""
        with self.lock:
            self._lost = True
            for credit in self._credits.values():
                credit.state = CreditState.LOST
            self._credits.clear()
            loads = list(self._loads.values())
            self._loads.clear()
        for load in loads:
            load.lose(error)
