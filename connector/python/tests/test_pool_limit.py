"""The pool of credits under a daemon that allows fewer than are wanted."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import larder.pool
from larder.credits import Credit, CreditState
from larder.errors import FullError
from larder.leases import Leases
from larder.pending import Pending
from larder.pool import CreditPool, fitting
from larder.stats import Counters
from larder.v1 import engine_pb2, part_pb2

PAGE = 4096
LEASE_S = 10.0
TARGETS = st.dictionaries(st.sampled_from([PAGE, 2 * PAGE - 100, 3 * PAGE]), st.integers(1, 40), min_size=1)


def size(length: int) -> int:
    return -(-length // PAGE) * PAGE


class World:
    """A pool, its clock, and a daemon that answers at once; limit: bytes that the
    session may have, 0 for any; free: bytes that the arena has left for it."""

    def __init__(self, now: list[float], targets: dict[int, int], limit: int, free: int = 1 << 40) -> None:
        self._now = now
        self.limit, self.free = limit, free
        self.asked = 0
        self.granted: dict[tuple[int, int, int], part_pb2.Slot] = {}
        self.deadlines: dict[tuple[int, int, int], float] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self.hello = SimpleNamespace(
            limits=engine_pb2.Limits(max_parts=1024, max_credits=4096, lease_ms=int(LEASE_S * 1000))
        )
        self.alive = True
        self.leases = Leases(lambda slots, _: self.return_slots(slots))
        self.stats = Counters()
        world: Any = self
        self.pool = CreditPool(world, world, world, self.stats, targets, lambda: 1.0)
        self.pool.start()

    @property
    def now(self) -> float:
        return self._now[0]

    # What the pool calls: timers, arena, session.
    def at(self, when: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._numbers), callback))

    def writing(self, slot: part_pb2.Slot, length: int) -> Any:
        assert slot.length >= length
        return np.empty(0, np.uint8)

    def return_slots(self, slots: Any) -> None:
        for slot in slots:
            self._gone((slot.segment, slot.offset, slot.generation))

    def ask(self, body: dict[str, Any], pick: Any, name: str, late: Any) -> Pending[Any]:
        del pick, name, late
        self.asked += 1
        reply = engine_pb2.CreditsReply(limit_bytes=self.limit)
        wanted = 0
        for want in body["credits"].want:
            for _ in range(want.count):
                wanted += 1
                room = self.free - self.used
                if self.limit:
                    room = min(room, self.limit - self.used)
                if size(want.length) <= room:
                    self._grant(reply, size(want.length))
        if not reply.granted and (not self.limit or self.used < self.limit):
            return Pending.failed(FullError("no room", "credits"))
        return Pending.of(reply)

    def _grant(self, reply: engine_pb2.CreditsReply, length: int) -> None:
        slot = part_pb2.Slot(offset=next(self._numbers), length=length, generation=1)
        key = (0, slot.offset, 1)
        self.granted[key] = slot
        self.deadlines[key] = self.now + LEASE_S
        reply.granted.add(slot=slot, deadline_ns=int(self.deadlines[key] * 1e9))

    def _gone(self, key: tuple[int, int, int]) -> None:
        self.granted.pop(key, None)
        self.deadlines.pop(key, None)

    @property
    def used(self) -> int:
        return sum(slot.length for slot in self.granted.values())

    # What happens.
    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, callback = heapq.heappop(self._timers)
            self._now[0] = max(self.now, when)
            self._expire()
            callback()
        self._now[0] = end
        self._expire()

    def _expire(self) -> None:
        late = [self.granted[key] for key, deadline in self.deadlines.items() if deadline < self.now]
        if late:
            self.pool.lost(self.leases.revoke(late, ()))

    def commit(self, credits_: list[Credit]) -> None:
        self.leases.committed([self._committing(c) for c in credits_])
        for credit in credits_:
            self._gone(credit.key)
        self.pool.committed(None)

    def _committing(self, credit: Credit) -> Credit:
        credit.state = CreditState.COMMITTING
        return credit

    def fresh(self) -> Counter[int]:
        """Credits at hand that a store would get."""
        margin = LEASE_S / 4
        found: Counter[int] = Counter()
        for length, idle in self.pool._idle.items():
            found[length] = sum(
                c.state is CreditState.GRANTED and c.deadline_ns / 1e9 - self.now >= margin for c in idle
            )
        return found


@contextlib.contextmanager
def within(targets: dict[int, int], limit: int) -> Iterator[World]:
    """A world whose time is the pool's."""
    now = [1000.0]
    time = SimpleNamespace(monotonic=lambda: now[0], monotonic_ns=lambda: int(now[0] * 1e9))
    with mock.patch.object(larder.pool, "time", time):
        yield World(now, targets, limit)


@given(targets=TARGETS, limit=st.integers(0, 200 * PAGE))
def test_what_is_kept_fits_with_what_replaces_it(targets: dict[int, int], limit: int) -> None:
    kept = fitting(targets, limit)
    assert kept.keys() == targets.keys()
    assert all(1 <= kept[length] <= targets[length] for length in targets)
    need = sum(size(length) * (count + max(1, count // 4)) for length, count in kept.items())
    if limit:
        assert need <= limit or set(kept.values()) == {1}
    whole = sum(size(length) * (count + max(1, count // 4)) for length, count in targets.items())
    if limit == 0 or whole <= limit:
        assert kept == targets
    elif set(kept.values()) != {1}:
        # Not less than there is room for, but for rounding: one of each.
        assert need + 2 * sum(map(size, targets)) >= limit * 9 // 10


@settings(max_examples=60, deadline=None)
@given(targets=TARGETS, chunks=st.integers(2, 30), seconds=st.floats(0, 40))
def test_an_idle_pool_is_more_than_half_full_at_any_moment(
    targets: dict[int, int], chunks: int, seconds: float
) -> None:
    limit = chunks * sum(map(size, targets))
    with within(targets, limit) as world:
        _stay_idle(world, fitting(targets, limit), limit, seconds)


def _stay_idle(world: World, kept: dict[int, int], limit: int, seconds: float) -> None:
    # The first answer may have more of one length than is kept, and less of another.
    world.pass_time(1)
    assert all(2 * world.fresh()[length] > count for length, count in kept.items())
    for _ in range(40):
        world.pass_time(seconds / 40)
        assert all(2 * world.fresh()[length] > count for length, count in kept.items())
        assert world.used <= limit
    # One for each eighth of a quarter of a lease, while some are due.
    assert world.asked <= 4 + 2 * seconds / (LEASE_S / 4 / 8)
    refused = world.stats.snapshot().credits_refused
    world.pass_time(60)
    assert world.stats.snapshot().credits_refused == refused


STEPS = st.one_of(
    st.tuples(st.just("store"), st.integers(1, 40)),
    st.tuples(st.just("limit"), st.integers(2, 60)),
    st.tuples(st.just("room"), st.integers(0, 60)),
    st.tuples(st.just("time"), st.floats(0, 12)),
)


@settings(max_examples=150, deadline=None)
@given(targets=TARGETS, chunks=st.integers(2, 60), steps=st.lists(STEPS, max_size=30))
def test_whatever_is_allowed_is_used_and_no_more_is_asked_for(
    targets: dict[int, int], chunks: int, steps: list[tuple[str, Any]]
) -> None:
    with within(targets, chunks * sum(map(size, targets))) as world:
        _live(world, targets, steps)


def _live(world: World, targets: dict[int, int], steps: list[tuple[str, Any]]) -> None:
    chunk = sum(map(size, targets))
    for what, value in steps:
        before, start = world.asked, world.now
        taken: list[Credit] = []
        if what == "store":
            for length, _ in itertools.product(targets, range(value)):
                credit = world.pool.take(length)
                if credit is not None:
                    taken.append(credit)
            world.commit(taken)
        elif what == "limit":
            world.limit = value * chunk
        elif what == "room":
            world.free = value * chunk
        else:
            world.pass_time(value)
        # Each credit that was taken, each renewal and each pause asks at most once
        # or twice: nothing spins.
        assert world.asked - before <= 6 + 2 * len(taken) + 2 * (world.now - start) / (LEASE_S / 4 / 8)
    # Once there is room, and the pool had its pause and a lease, it has what it may.
    world.free = 1 << 40
    world.pass_time(LEASE_S + 3)
    kept = fitting(targets, world.limit)
    for length, count in kept.items():
        assert 2 * world.fresh()[length] >= count
    assert world.used <= world.limit
    # Stores that follow each other at once find slots again and again.
    for _ in range(5):
        found = [credit for length in targets if (credit := world.pool.take(length)) is not None]
        assert len(found) == len(targets)
        world.commit(found)
