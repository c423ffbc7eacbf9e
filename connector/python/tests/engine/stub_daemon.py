"""A daemon within the test: the client's API over a dictionary.

Everything is answered at once unless a test says otherwise, so what remains is
what the connector does.
"""

# ruff: noqa: ARG002 - the signatures are those of larder.client.Client

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from larder.client import Options
from larder.commit import CommitChunk
from larder.credits import Credit
from larder.errors import CorruptError, FullError, LarderError, MissError, UnavailableError
from larder.load import FailedPart, LeasedPart, Load
from larder.pending import Pending
from larder.stats import ClientStats
from larder.v1 import admin_pb2, engine_pb2, part_pb2

TENANT_KEY = bytes(range(32))


@dataclass
class Hold:
    """A hold and the keys that it pins."""

    keys: list[bytes]
    instance: bytes
    deadline_ns: int


@dataclass
class StubDaemon:
    """What all clients share, and the switches of the tests."""

    chunks: dict[bytes, dict[int, bytes]] = field(default_factory=dict)
    holds: dict[int, Hold] = field(default_factory=dict)
    commits: list[tuple[bytes, bytes, int, int]] = field(default_factory=list)
    # False: every call fails at once, as without a daemon.
    up: bool = True
    # True: matches are not answered until answer().
    silent: bool = False
    # True: loads give no part until this is False, or until their deadline.
    stuck: bool = False
    # Chunk keys whose parts are reported damaged.
    corrupt: set[bytes] = field(default_factory=set)
    # How often release answers False.
    unconfirmed: int = 0
    # Slots of such loads went to others meanwhile, which the arena never allows.
    reuses: bool = True
    # None: as many slots as wanted.
    credits: int | None = None
    # True: a client has no more slots at once than it keeps granted ahead.
    ahead: bool = False
    # Raised by commit, if set.
    refuse_commit: LarderError | None = None
    # Of chunks that are not exact, as they were committed or as a tier made them.
    qualities: dict[bytes, int] = field(default_factory=dict)
    # Where matched chunks lie; None: not said.
    tiers: Callable[[list[bytes]], list[engine_pb2.TierRun]] | None = None
    # What was said to be computed: hold, first chunk, its key, seconds to load and to compute.
    skips: list[tuple[int, int, bytes, float, float]] = field(default_factory=list)
    # Chunks that are pinned; and in place of the next answers, if any.
    pinned: list[bytes] = field(default_factory=list)
    pin_answers: list[LarderError | admin_pb2.PinResponse] = field(default_factory=list)
    # While it is not set, pins are not answered.
    pin_gate: threading.Event = field(default_factory=threading.Event)
    generation: int = 1
    tenant_key: bytes = TENANT_KEY
    max_parts: int = 1024
    hold_ms: int = 10_000
    loaded: list[tuple[bytes, int]] = field(default_factory=list)
    matches: list[tuple[bytes, int]] = field(default_factory=list)
    renewed: int = 0

    def __post_init__(self) -> None:
        self._ids = itertools.count(1)
        self._unanswered: list[Callable[[], None]] = []
        self.lock = threading.Lock()
        self.pin_gate.set()

    def connect(self, options: Options) -> StubClient:
        """A client with these options; the connector's halves take this for Client."""
        return StubClient(self, options)

    def answer(self) -> None:
        """Answers every match that waits."""
        waiting, self._unanswered = self._unanswered, []
        for resolve in waiting:
            resolve()

    def restart(self) -> None:
        """Another daemon: nothing is left."""
        with self.lock:
            self.generation += 1
            self.holds.clear()
            self.chunks.clear()

    def evict(self, key: bytes) -> None:
        """Drops a chunk, whether held or not."""
        self.chunks.pop(key, None)


class StubClient:
    """One process's client."""

    def __init__(self, daemon: StubDaemon, options: Options) -> None:
        self.daemon = daemon
        self.options = options
        assert options.namespace is not None
        self._parts = options.namespace.parts()
        self._limits = engine_pb2.Limits(max_parts=daemon.max_parts, max_match_chunks=4096)
        self.closed = False
        self.lock = threading.Lock()
        # Slots taken and neither committed nor given back, by length.
        self.out: Counter[int] = Counter()
        # In which slots are written.
        self.sections = 0

    # What Credit needs of its connection.
    def enter(self) -> None:
        self.sections += 1

    def leave(self) -> None:
        self.sections -= 1

    def answer(self, credit: Credit) -> None: ...

    @property
    def ready(self) -> bool:
        return self.daemon.up and not self.closed

    @property
    def generation(self) -> int:
        return self.daemon.generation

    @property
    def stats(self) -> ClientStats:
        return ClientStats(connects=self.daemon.generation, credits_granted=sum(self.options.credits.values()))

    @property
    def hello(self) -> engine_pb2.HelloReply | None:
        if not self.daemon.up:
            return None
        return engine_pb2.HelloReply(tenant_key=self.daemon.tenant_key, limits=self._limits)

    def wait_ready(self, timeout: float) -> bool:
        return self.ready

    def close(self, timeout: float = 2.0) -> None:
        self.closed = True

    def match(
        self, root: bytes, keys: bytes, *, hold_ms: int = 0, worst_quality: int = 0, timeout: float | None = None
    ) -> Pending[engine_pb2.MatchReply]:
        if not self.ready:
            return Pending.failed(UnavailableError("no daemon"))
        pending: Pending[engine_pb2.MatchReply] = Pending(1.0)

        def resolve() -> None:
            daemon = self.daemon
            with daemon.lock:
                split = [keys[i : i + 32] for i in range(0, len(keys), 32)]
                count = next((i for i, k in enumerate(split) if not self._matches(k, worst_quality)), len(split))
                worst = max((daemon.qualities.get(k, 0) for k in split[:count]), default=0)
                reply = engine_pb2.MatchReply(chunks=count, quality=worst)
                if daemon.tiers is not None:
                    reply.tiers.extend(daemon.tiers(split[:count]))
                if count and hold_ms != (1 << 32) - 1:
                    reply.hold_id = next(daemon._ids)
                    reply.hold_deadline_ns = time.monotonic_ns() + min(hold_ms, daemon.hold_ms) * 1_000_000
                    daemon.holds[reply.hold_id] = Hold(split[:count], self.options.instance_id, reply.hold_deadline_ns)
                daemon.matches.append((root, count))
            pending.resolve(reply)

        if self.daemon.silent:
            self.daemon._unanswered.append(resolve)
        else:
            resolve()
        return pending

    def _matches(self, key: bytes, worst: int) -> bool:
        return self._complete(key) and self.daemon.qualities.get(key, 0) <= worst

    def _complete(self, key: bytes) -> bool:
        return len(self.daemon.chunks.get(key, ())) == len(self._parts)

    def renew_hold(
        self, hold_id: int, hold_ms: int = 0, timeout: float | None = None
    ) -> Pending[engine_pb2.RenewHoldReply]:
        hold = self.daemon.holds.get(hold_id)
        if hold is None:
            return Pending.failed(MissError("the hold is gone"))
        hold.deadline_ns = time.monotonic_ns() + hold_ms * 1_000_000
        self.daemon.renewed += 1
        return Pending.of(engine_pb2.RenewHoldReply(hold_deadline_ns=hold.deadline_ns))

    def end_holds(self, ids: Sequence[int]) -> None:
        for hold_id in ids:
            self.daemon.holds.pop(hold_id, None)

    def skip(self, hold_id: int, first_chunk: int, key: bytes, load_s: float, compute_s: float) -> None:
        hold = self.daemon.holds.get(hold_id)
        if hold is not None:
            del hold.keys[first_chunk:]
        self.daemon.skips.append((hold_id, first_chunk, key, load_s, compute_s))

    def pin(self, keys: bytes, timeout: float = 60.0) -> admin_pb2.PinResponse:
        daemon = self.daemon
        assert daemon.pin_gate.wait(60)
        if not self.ready:
            raise UnavailableError("no daemon")
        if daemon.pin_answers:
            answer = daemon.pin_answers.pop(0)
            if isinstance(answer, LarderError):
                raise answer
            return answer
        split = [keys[i : i + 32] for i in range(0, len(keys), 32)]
        there = [key for key in split if self._complete(key)]
        daemon.pinned += there
        return admin_pb2.PinResponse(chunks_asked=len(split), chunks=len(there), absent=len(split) - len(there))

    def load(
        self, hold_id: int, first_chunk: int, chunks: int, parts: Sequence[int] = (), *, keys: bytes | None = None
    ) -> StubLoad:
        return StubLoad(self, hold_id, first_chunk, chunks, tuple(parts) or tuple(range(len(self._parts))))

    def take_credit(self, length: int) -> Credit | None:
        daemon = self.daemon
        if not self.ready or daemon.credits == 0:
            return None
        with daemon.lock:
            if daemon.ahead and self.out[length] >= self.options.credits.get(length, 0):
                return None
            self.out[length] += 1
        if daemon.credits is not None:
            daemon.credits -= 1
        slot = part_pb2.Slot(segment=0, offset=4096 * next(daemon._ids), length=length, generation=1)
        return Credit(self, slot, length, np.full(length, 0xA5, np.uint8), 0)

    def return_credit(self, credit: Credit) -> None:
        with self.daemon.lock:
            self.out[credit.length] -= 1
        if self.daemon.credits is not None:
            self.daemon.credits += 1

    def commit(self, chunks: Sequence[CommitChunk], timeout: float | None = None) -> Pending[engine_pb2.CommitReply]:
        daemon = self.daemon
        if not self.ready:
            return Pending.failed(UnavailableError("no daemon"))
        if daemon.refuse_commit is not None:
            return Pending.failed(daemon.refuse_commit)
        reply = engine_pb2.CommitReply()
        with daemon.lock:
            for chunk in chunks:
                if chunk.key not in daemon.chunks or chunk.quality < daemon.qualities.get(chunk.key, 0):
                    daemon.qualities[chunk.key] = chunk.quality
                stored = daemon.chunks.setdefault(chunk.key, {})
                for part in chunk.parts:
                    self.out[part.credit.length] -= 1
                    data = part.credit.view[: part.length].tobytes()
                    assert part.length == self._parts[part.part].raw_length
                    old = stored.get(part.part)
                    if old is None:
                        stored[part.part] = data
                        whole = len(stored) == len(self._parts)
                        reply.outcomes.append(
                            engine_pb2.COMMIT_OUTCOME_PUBLISHED if whole else engine_pb2.COMMIT_OUTCOME_KEPT
                        )
                    elif old == data:
                        reply.outcomes.append(engine_pb2.COMMIT_OUTCOME_DUPLICATE)
                    else:
                        reply.outcomes.append(engine_pb2.COMMIT_OUTCOME_CONFLICT)
                daemon.commits.append((chunk.key, chunk.parent, chunk.ordinal, len(chunk.parts)))
        return Pending.of(reply)


class StubLoad(Load):
    """A load out of the dictionary, chunk by chunk."""

    def __init__(self, client: StubClient, hold_id: int, first: int, chunks: int, parts: Sequence[int]) -> None:
        self._client = client
        self._hold_id = hold_id
        self._range = range(first, first + chunks)
        self._wanted = parts
        self._slots: list[npt.NDArray[np.uint8]] = []
        self.failed = []

    def batches(self, deadline_s: float) -> Iterator[list[LeasedPart]]:
        daemon = self._client.daemon
        if not self._client.ready:
            raise UnavailableError("no daemon")
        hold = daemon.holds.get(self._hold_id)
        if hold is None or hold.instance != self._client.options.instance_id:
            raise MissError("the hold is gone")
        until = time.monotonic() + deadline_s
        for chunk in self._range:
            while daemon.stuck:
                if time.monotonic() >= until:
                    raise UnavailableError("the load was not ready in time")
                time.sleep(0.001)
            batch = []
            key = hold.keys[chunk]
            for part in self._wanted:
                data = daemon.chunks.get(key, {}).get(part)
                if key in daemon.corrupt:
                    self.failed.append(FailedPart(chunk, part, CorruptError("flipped")))
                elif data is None:
                    self.failed.append(FailedPart(chunk, part, MissError("gone")))
                else:
                    slot = np.frombuffer(data, np.uint8).copy()
                    self._slots.append(slot)
                    view = slot.view()
                    view.flags.writeable = False
                    if daemon.unconfirmed and daemon.reuses:
                        # The slot went to another part meanwhile.
                        view = view ^ np.uint8(0x55)
                    batch.append(LeasedPart(chunk, part, view))
                    daemon.loaded.append((key, part))
            if batch:
                yield batch

    def release_nowait(self) -> Pending[bool]:
        daemon = self._client.daemon
        for slot in self._slots:
            # Somebody else's from now on.
            slot.fill(0xEE)
        if not self._client.ready:
            return Pending.of(False)
        if daemon.unconfirmed:
            daemon.unconfirmed -= 1
            return Pending.of(False)
        return Pending.of(True)


FULL = FullError("no room", "credits")
