"""The pool of credits, refilled in the background."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from larder.arena import Arena
from larder.credits import Credit, CreditState
from larder.errors import LarderError
from larder.pending import Pending
from larder.session import Session
from larder.stats import Counters
from larder.timers import Timers
from larder.v1 import engine_pb2, part_pb2

_Want = Sequence[engine_pb2.CreditRequest]

# After an answer with fewer than wanted the next question waits this long,
# doubled each time that there were none.
_PAUSE_MIN_S = 0.05
_PAUSE_MAX_S = 2.0

# Slots lie on pages of the arena.
_PAGE = 4096


class CreditPool:
    """Keeps slots granted ahead, so that a store neither asks nor waits.

    The oldest credit goes out first, so that a pool in use stays young. Those
    that lie idle are replaced at half of their time: the new ones are here
    before the old ones go back, so that a store finds the pool full at any
    moment, also after a pause. One question at most is under way, for all
    lengths together, asked when some length has fallen to half of what is kept
    or some of its credits are due.

    Where the daemon allows fewer bytes than all targets take, about four fifths
    of them are kept, each length its part: so there is room for what replaces
    a quarter, and nothing is asked for that would be refused. Each answer says
    what is allowed as of then; what is too many goes back."""

    def __init__(
        self,
        session: Session,
        arena: Arena,
        timers: Timers,
        counters: Counters,
        targets: Mapping[int, int],
        random01: Callable[[], float] = random.random,
    ) -> None:
        self._session = session
        self._arena = arena
        self._timers = timers
        self._counters = counters
        self._random01 = random01
        limits = session.hello.limits
        self._max_parts = limits.max_parts or 1024
        self._max_credits = limits.max_credits or 1024
        # A credit with less than the margin left is not worth handing out, one
        # with less than twice as much is replaced.
        self._margin_ns = limits.lease_ms * 1_000_000 // 4
        self._lock = threading.Lock()
        self._targets = dict(targets)
        # As the daemon's last answer says, bytes; 0: as many as wanted.
        self._limit = 0
        self._kept = dict(targets)
        # In the order of their deadlines.
        self._idle: dict[int, deque[Credit]] = {length: deque() for length in targets}
        self._renewal_planned = False
        self._asking = False
        # The last answer had fewer than wanted.
        self._short = False
        self._pause_s = 0.0
        self._not_before = 0.0
        self._closed = False

    def start(self) -> None:
        """Fills the pool for the first time."""
        self._refill()

    def keep(self, length: int, count: int) -> None:
        """Sets how many credits of a length are kept."""
        with self._lock:
            self._targets[length] = count
            self._idle.setdefault(length, deque())
            self._fit()
        self._refill()

    def committed(self, answered: object) -> None:
        """The daemon took over what was committed: there may be others in its
        place."""
        del answered
        if self._short:
            with self._lock:
                self._short = False
                self._pause_s = self._not_before = 0.0
            self._refill()

    def _fit(self) -> None:
        """Works out how many of each length are kept; the lock is held."""
        self._kept = fitting(self._targets, self._limit)

    def take(self, length: int) -> Credit | None:
        """A credit, or None where none is at hand; never waits."""
        now = time.monotonic_ns()
        stale: list[Credit] = []
        found: Credit | None = None
        with self._lock:
            idle = self._idle.get(length)
            while idle:
                credit = idle.popleft()
                if credit.state is not CreditState.GRANTED:
                    continue
                if credit.deadline_ns and credit.deadline_ns - now < self._margin_ns:
                    stale.append(credit)
                    continue
                found = credit
                break
            low = idle is not None and 2 * len(idle) <= self._kept[length]
        if stale:
            self.give_back(stale)
        if low:
            self._refill()
        return found

    def give_back(self, unused: list[Credit]) -> None:
        """Returns credits to the daemon."""
        leases = self._session.leases
        slots: list[part_pb2.Slot] = []
        with leases.lock:
            for credit in unused:
                if credit.state is CreditState.GRANTED and credit.slot is not None:
                    leases.drop_credit(credit, CreditState.RETURNED)
                    slots.append(credit.slot)
        if slots:
            self._session.return_slots(slots)

    def lost(self, dead: list[Credit]) -> None:
        """A revoke took credits, idle ones among them."""
        if dead:
            with self._lock:
                for length in {credit.length for credit in dead} & self._idle.keys():
                    self._idle[length] = deque(c for c in self._idle[length] if c.state is CreditState.GRANTED)
            self._refill()

    def flush(self) -> None:
        """Gives every idle credit back and asks for new ones."""
        with self._lock:
            unused = [credit for idle in self._idle.values() for credit in idle]
            for idle in self._idle.values():
                idle.clear()
        self.give_back(unused)
        self._refill()

    def close(self) -> None:
        """Gives every idle credit back and asks for no more."""
        with self._lock:
            self._closed = True
        self.flush()

    def end(self) -> None:
        """The connection is gone: nothing here maps its arena any more."""
        with self._lock:
            self._closed = True
            for idle in self._idle.values():
                idle.clear()

    def _refill(self, *, renew: bool = False) -> None:
        with self._lock:
            if self._asking or self._closed or time.monotonic() < self._not_before:
                return
            want = self._deficit(renew)
            if not want:
                return
            self._asking = True
        asked = self._session.ask(
            {"credits": engine_pb2.Credits(want=want)},
            lambda reply: reply.credits,
            "credits",
            late=lambda reply: self._late(reply, want),
        )
        asked.add_callback(lambda pending: self._answered(pending, want))

    def _deficit(self, renew: bool) -> list[engine_pb2.CreditRequest]:
        room = min(self._max_parts, self._max_credits - sum(len(idle) for idle in self._idle.values()))
        want: list[engine_pb2.CreditRequest] = []
        for length, target in self._kept.items():
            idle = self._idle[length]
            count = target - len(idle) if 2 * len(idle) <= target else 0
            if renew and not count:
                # Some at a time: they and the new ones both take memory.
                count = min(sum(map(self._due, idle)), _renewed(target))
            count = min(count, room)
            if count > 0:
                want.append(engine_pb2.CreditRequest(length=length, count=count))
                room -= count
        return want

    def _answered(self, pending: Pending[engine_pb2.CreditsReply], want: _Want) -> None:
        wanted = sum(w.count for w in want)
        got = 0
        reply = None if pending.error is not None else pending.poll()
        if reply is not None:
            got = self._admit(reply, want)
        self._counters.add(credits_refused=wanted - got)
        with self._lock:
            self._asking = False
            self._short = got < wanted
            if got >= wanted:
                self._pause_s = 0.0
            else:
                self._pause_s = _PAUSE_MIN_S if got else min(max(2 * self._pause_s, _PAUSE_MIN_S), _PAUSE_MAX_S)
                self._not_before = time.monotonic() + self._pause_s * (0.5 + self._random01() / 2)
            again = self._not_before
        if got < wanted and self._session.alive:
            self._timers.at(again, self._refill)
        elif got:
            self._refill()

    def _late(self, reply: engine_pb2.SessionResponse, want: _Want) -> None:
        if reply.WhichOneof("body") == "credits":
            self._admit(reply.credits, want)

    def _admit(self, reply: engine_pb2.CreditsReply, want: _Want) -> int:
        """Takes granted slots in; how many."""
        left = {w.length: w.count for w in want}
        leases = self._session.leases
        fresh: list[Credit] = []
        for granted in reply.granted:
            slot = granted.slot
            length = _length_for(slot.length, left)
            try:
                view = self._arena.writing(slot, length)
            except LarderError as error:
                self._session.abort(error)
                break
            fresh.append(Credit(leases, slot, length, view, granted.deadline_ns))
        leases.add_credits(fresh)
        replaced: list[Credit] = []
        with self._lock:
            closed = self._closed
            if not closed:
                if reply.limit_bytes != self._limit:
                    self._limit = reply.limit_bytes
                    self._counters.credit_limit(self._limit)
                    self._fit()
                for credit in fresh:
                    self._idle.setdefault(credit.length, deque()).append(credit)
                replaced = self._surplus()
                self._plan_renewal()
        self._counters.add(credits_granted=len(fresh))
        self.give_back(fresh if closed else replaced)
        return len(fresh)

    def _surplus(self) -> list[Credit]:
        """Takes out the oldest that are too many: they have been replaced, or the
        daemon allows fewer than before; the lock is held."""
        surplus: list[Credit] = []
        for length, idle in self._idle.items():
            while len(idle) > self._kept.get(length, 0):
                surplus.append(idle.popleft())
        return surplus

    def _due(self, credit: Credit) -> bool:
        left = credit.deadline_ns - time.monotonic_ns()
        return credit.deadline_ns > 0 and left < 2 * self._margin_ns

    def _plan_renewal(self) -> None:
        """Sees to it that somebody looks when the next credit is due, and then
        often enough to replace all of them before the margin; the lock is
        held."""
        if self._renewal_planned:
            return
        deadline = min((idle[0].deadline_ns for idle in self._idle.values() if idle), default=0)
        if deadline:
            self._renewal_planned = True
            at = max(deadline - 2 * self._margin_ns, time.monotonic_ns() + self._margin_ns // 8)
            self._timers.at(at / 1e9, self._renew)

    def _renew(self) -> None:
        with self._lock:
            self._renewal_planned = False
            if self._closed or not self._session.alive:
                return
            self._plan_renewal()
        self._refill(renew=True)


def _renewed(kept: int) -> int:
    """How many of a length are replaced at once."""
    return max(1, kept // 4)


def scaled(targets: Mapping[int, int], most: int) -> dict[int, int]:
    """As many of each length as take most bytes together, at least one."""
    total = sum(length * count for length, count in targets.items())
    if total <= most:
        return dict(targets)
    return {length: max(1, count * most // total) for length, count in targets.items()}


def fitting(targets: Mapping[int, int], limit: int) -> dict[int, int]:
    """How many of each length can be kept within limit bytes, at least one, with
    room for those that replace some; 0: all."""
    sizes = {length: -(-length // _PAGE) * _PAGE for length in targets}
    total = most = sum(sizes[length] * count for length, count in targets.items())
    kept = dict(targets)
    while limit and any(count > 1 for count in kept.values()):
        if sum(sizes[length] * (count + _renewed(count)) for length, count in kept.items()) <= limit:
            break
        most = min(most, limit) * 49 // 50
        kept = {length: max(1, count * most // total) for length, count in targets.items()}
    return kept


def _length_for(usable: int, left: dict[int, int]) -> int:
    """What a slot was granted for, out of what is left of the lengths asked
    for: slots come in size classes and the daemon may grant fewer than asked
    for, so it shows in the size only."""
    length = usable
    if not left.get(length):
        length = max((n for n, count in left.items() if n <= usable and count > 0), default=usable)
    left[length] = left.get(length, 1) - 1
    return length


class StreamPool:
    """The pool of a connection without shared memory: buffers of this process,
    as many as the options name and their bytes allow, used again once their
    commit was sent."""

    def __init__(self, session: Session, targets: Mapping[int, int], most: int) -> None:
        self._session = session
        self._targets = dict(targets)
        self._most = most
        self._kept = scaled(self._targets, most)
        self._out: dict[int, int] = {}
        self._lock = threading.Lock()

    def keep(self, length: int, count: int) -> None:
        """Sets how many buffers of a length may be out."""
        with self._lock:
            self._targets[length] = count
            self._kept = scaled(self._targets, self._most)

    def take(self, length: int) -> Credit | None:
        """A buffer, or None where all of them are out."""
        with self._lock:
            out = self._out.get(length, 0)
            if out >= self._kept.get(length, 0):
                return None
            self._out[length] = out + 1
        credit = Credit(self._session.leases, None, length, np.empty(length, np.uint8), 0)
        self._session.leases.add_credits([credit])
        return credit

    def give_back(self, unused: list[Credit]) -> None:
        """Takes buffers back that were not committed."""
        leases = self._session.leases
        back: list[Credit] = []
        with leases.lock:
            for credit in unused:
                if credit.state is CreditState.GRANTED:
                    leases.drop_credit(credit, CreditState.RETURNED)
                    back.append(credit)
        self.done(back)

    def done(self, credits_: list[Credit]) -> None:
        """Committed buffers were sent."""
        with self._lock:
            for credit in credits_:
                self._out[credit.length] -= 1
