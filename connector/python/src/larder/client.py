"""The client: one per engine process."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

from larder.arena import Arena
from larder.backoff import Backoff
from larder.breaker import Breaker
from larder.commit import CommitChunk, CommitPart, check_chunks
from larder.committing import commit_slots, count_outcomes
from larder.connection import Connection, Connector
from larder.credits import Credit, CreditState, check_usable
from larder.errors import InvalidError, LarderError, UnavailableError
from larder.leased import ArenaLoad
from larder.load import FailedPart, LeasedPart, Load
from larder.objects import Objects
from larder.options import Options, Ranks, Tls
from larder.pending import Pending
from larder.pinning import pin
from larder.pool import CreditPool
from larder.session import Events
from larder.stats import ClientStats, Counters
from larder.streamed import FailedLoad, StreamedLoad
from larder.supervisor import Supervisor
from larder.timers import Timers
from larder.v1 import admin_pb2, engine_pb2

__all__ = [
    "NO_HOLD", "Client", "ClientStats", "CommitChunk", "CommitPart", "Credit", "FailedPart", "LeasedPart",
    "Load", "Options", "Pending", "Ranks", "Tls",
]  # fmt: skip

# Match.hold_ms: take no hold.
NO_HOLD = (1 << 32) - 1
# Keys of recent holds, kept where loads go over streams.
_KEPT_HOLDS = 1024

T = TypeVar("T")


class Client:
    """A connection to larderd that comes and goes by itself.

    Making one never blocks and never fails for want of a daemon; wrong options
    raise LarderError INVALID. Every call returns at once with a Pending, whose
    LarderError has the kind: UNAVAILABLE while there is no connection, while
    the breaker is open, and at the call's deadline.

    Methods may be called from any thread, but only in the process that made
    the client: threads and mappings do not cross a fork."""

    def __init__(self, options: Options, *, backoff: Backoff | None = None) -> None:
        options.check()
        self._options = options
        self._pid = os.getpid()
        self._closed = False
        self._counters = Counters()
        self._timers = Timers("larder-timer")
        self._breaker = Breaker(
            options.breaker_failures, options.breaker_open_s, lambda: self._counters.add(breaker_opens=1)
        )
        self._epoch: int | None = None
        self._hold_keys: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._hold_lock = threading.Lock()
        self._connector = Connector(options, self._timers, self._breaker, self._counters)
        self._supervisor = Supervisor(
            options,
            self._connector,
            self._breaker,
            self._counters,
            self._events,
            backoff or Backoff(options.backoff_min_s, options.backoff_max_s),
        )
        self._timers.start()
        self._supervisor.start()

    # -- state ---------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a call would be sent now: connected, arena mapped, daemon not
        draining, breaker closed or due for a probe."""
        connection = self._supervisor.connection
        return (
            connection is not None
            and not self._closed
            and not connection.session.draining
            and self._breaker.closed
            and os.getpid() == self._pid
        )

    def wait_ready(self, timeout: float) -> bool:
        """Waits for a connection, where the daemon drains for the one to its
        successor; whether the client is ready then."""
        if os.getpid() != self._pid:
            return False
        self._supervisor.wait_connected(timeout)
        return self.ready

    @property
    def hello(self) -> engine_pb2.HelloReply | None:
        """What the daemon said at the current connection's start: tenant key,
        parts, limits, epoch. None without a connection."""
        connection = self._supervisor.connection
        return None if connection is None else connection.hello

    @property
    def arena(self) -> Arena | None:
        """The mapped arena of the current connection, for registration with a
        device. None where there is none."""
        connection = self._supervisor.connection
        return None if connection is None else connection.arena

    @property
    def epoch(self) -> int | None:
        """The namespace's epoch, as last heard."""
        return self._epoch if self._epoch is not None else (self.hello.epoch if self.hello else None)

    @property
    def generation(self) -> int:
        """Goes up with each connection; loads and credits of an earlier one
        are dead."""
        return self._supervisor.generation

    @property
    def last_error(self) -> LarderError | None:
        """Why there is no connection; None while there is one."""
        return self._supervisor.last_error

    @property
    def stats(self) -> ClientStats:
        """A copy of the counters."""
        return self._counters.snapshot()

    # -- match and holds -----------------------------------------------------

    def match(
        self,
        root: bytes,
        keys: bytes,
        *,
        hold_ms: int = 0,
        worst_quality: int = 0,
        timeout: float | None = None,
    ) -> Pending[engine_pb2.MatchReply]:
        """How many leading chunks of a prompt can be loaded.

        root: 32 bytes; keys: n x 32 bytes in prompt order, of which the first
        limits.max_match_chunks are asked for. hold_ms: how long the matched
        chunks are held, 0 = the daemon's default, NO_HOLD = not at all."""
        try:
            _check_keys(root, keys)
            connection = self._admit()
        except LarderError as error:
            return self._refused(error)
        most = connection.hello.limits.max_match_chunks
        if most and len(keys) > most * 32:
            keys = keys[: most * 32]
        streamed = connection.arena is None and self._options.role != "scheduler"

        def pick(reply: engine_pb2.SessionResponse) -> engine_pb2.MatchReply:
            found = reply.match
            self._counters.add(chunks_matched=found.chunks)
            if streamed and found.hold_id:
                self._keep_keys(found.hold_id, keys, found.quality)
            return found

        def late(reply: engine_pb2.SessionResponse) -> None:
            # Nobody waits for the hold any more.
            if reply.WhichOneof("body") == "match" and reply.match.hold_id:
                connection.session.end_holds([reply.match.hold_id])

        self._counters.add(matches=1, chunks_asked=len(keys) // 32)
        request = engine_pb2.Match(root=root, keys=keys, hold_ms=hold_ms, worst_quality=worst_quality)
        return self._asked(connection.session.ask({"match": request}, pick, "match", timeout, late))

    def renew_hold(
        self, hold_id: int, hold_ms: int = 0, timeout: float | None = None
    ) -> Pending[engine_pb2.RenewHoldReply]:
        """Keeps a hold for another hold_ms from now. MISS: it is gone."""
        try:
            connection = self._admit()
        except LarderError as error:
            return self._refused(error)
        request = engine_pb2.RenewHold(hold_id=hold_id, hold_ms=hold_ms)
        return self._asked(
            connection.session.ask({"renew_hold": request}, lambda r: r.renew_hold, "renew_hold", timeout)
        )

    def end_holds(self, ids: Sequence[int]) -> None:
        """Ends holds; best effort, since they end by themselves too."""
        connection = self._present()
        if connection is not None and ids:
            connection.session.end_holds(ids)

    def skip(self, hold_id: int, first_chunk: int, key: bytes, load_s: float, compute_s: float) -> None:
        """Says that the chunks of a hold from first_chunk on, whose key is given,
        are computed, since loading them would take longer: seconds expected for
        each. The hold keeps those before them. Best effort."""
        connection = self._present()
        if connection is not None:
            request = engine_pb2.Skip(
                hold_id=hold_id,
                first_chunk=first_chunk,
                key=key,
                load_ns=_nanos(load_s),
                compute_ns=_nanos(compute_s),
            )
            connection.session.ask({"skip": request}, lambda _: None, "skip")

    def prefetch(self, root: bytes, keys: bytes, timeout: float | None = None) -> Pending[engine_pb2.PrefetchReply]:
        """Asks for leading chunks to be brought into the host tier."""
        try:
            _check_keys(root, keys)
            connection = self._admit()
        except LarderError as error:
            return self._refused(error)
        request = engine_pb2.Prefetch(root=root, keys=keys)
        return self._asked(connection.session.ask({"prefetch": request}, lambda r: r.prefetch, "prefetch", timeout))

    # -- load ----------------------------------------------------------------

    def load(
        self,
        hold_id: int,
        first_chunk: int,
        chunks: int,
        parts: Sequence[int] = (),
        *,
        keys: bytes | None = None,
        worst_quality: int = 0,
    ) -> Load:
        """Starts loading chunks [first_chunk, first_chunk + chunks) of a hold;
        parts: indexes into hello.parts, none = all. Failures show in
        Load.batches.

        keys: the same n x 32 bytes as in the match, and worst_quality the
        quality that its reply named; needed only on a connection without shared
        memory, where another client matched."""
        try:
            connection = self._admit()
        except LarderError as error:
            self._counters.failure(error.kind)
            return FailedLoad(error)
        try:
            wanted = self._wanted(connection, first_chunk, chunks, parts)
            self._counters.add(loads=1)
            if connection.arena is None:
                return self._load_streamed(connection, hold_id, first_chunk, chunks, wanted, keys, worst_quality)
        except LarderError as error:
            self._breaker.forget()
            self._counters.failure(error.kind)
            return FailedLoad(error)
        load = ArenaLoad(connection.session, connection.arena, self._counters, self._breaker.failure)
        load.start(engine_pb2.Load(hold_id=hold_id, first_chunk=first_chunk, chunks=chunks, parts=parts))
        return load

    def _wanted(self, connection: Connection, first_chunk: int, chunks: int, parts: Sequence[int]) -> Sequence[int]:
        known = len(connection.hello.parts)
        if self._options.role == "scheduler":
            raise InvalidError("a scheduler does not load", "options.role", self._options.role, "worker or client")
        if first_chunk < 0 or chunks < 1:
            raise InvalidError("no chunk to load", "load.chunks", f"{first_chunk}, {chunks}", "at least one")
        for part in parts:
            if not 0 <= part < known:
                raise InvalidError("there is no such part", "load.parts", str(part), f"less than {known}")
        most = connection.hello.limits.max_parts
        total = chunks * (len(parts) or known)
        if most and total > most and connection.arena is not None:
            raise InvalidError("too many parts for one load", "load.parts", str(total), str(most))
        return parts or range(known)

    def _load_streamed(
        self,
        connection: Connection,
        hold_id: int,
        first_chunk: int,
        chunks: int,
        parts: Sequence[int],
        keys: bytes | None,
        worst_quality: int,
    ) -> Load:
        if keys is None:
            with self._hold_lock:
                keys, worst_quality = self._hold_keys.get(hold_id, (None, 0))
        if keys is None:
            raise InvalidError("without shared memory a load needs the keys that were matched", "load.keys", "none")
        if len(keys) < 32 * (first_chunk + chunks):
            raise InvalidError(
                "the hold has fewer chunks", "load.chunks", str(first_chunk + chunks), str(len(keys) // 32)
            )
        wanted = [keys[32 * i : 32 * i + 32] for i in range(first_chunk, first_chunk + chunks)]
        # The stream has its own verdict on the daemon.
        self._breaker.forget()
        return StreamedLoad(
            connection.objects, connection.hello, wanted, first_chunk, parts, self._counters, worst_quality
        )

    def _keep_keys(self, hold_id: int, keys: bytes, quality: int) -> None:
        with self._hold_lock:
            self._hold_keys[hold_id] = keys, quality
            while len(self._hold_keys) > _KEPT_HOLDS:
                self._hold_keys.popitem(last=False)

    # -- store ---------------------------------------------------------------

    def keep_credits(self, length: int, count: int) -> None:
        """Sets how many slots of `length` bytes are kept granted ahead, from
        now on and at every later connection."""
        if length < 1 or count < 1:
            raise InvalidError("no slots to keep", "credits", f"{count} of {length} bytes", "at least 1 of each")
        self._connector.targets[length] = count
        connection = self._present()
        if connection is not None and connection.pool is not None:
            connection.pool.keep(length, count)

    def take_credit(self, length: int) -> Credit | None:
        """A slot to write `length` bytes into, out of the pool; None where none
        is at hand. Never waits. Only lengths named in Options.credits or by
        keep_credits are kept."""
        connection = self._present()
        if connection is None or connection.pool is None or connection.session.draining or not self._breaker.closed:
            return None
        return connection.pool.take(length)

    def return_credit(self, credit: Credit) -> None:
        """Gives a credit back that is not needed after all."""
        connection = self._present()
        if connection is not None and connection.pool is not None:
            connection.pool.give_back([credit])

    def commit(self, chunks: Sequence[CommitChunk], timeout: float | None = None) -> Pending[engine_pb2.CommitReply]:
        """Hands written slots over. The reply has one outcome for each part, in
        the order given; parts whose credit died are REJECTED with MISS. After
        an answer, and after a timeout, the credits are used up; where the
        Pending fails at once with INVALID or BUSY, nothing was sent and they
        are as before."""
        try:
            connection = self._admit()
        except LarderError as error:
            return self._refused(error)
        limit_s = self._options.call_timeout_s if timeout is None else timeout
        try:
            if connection.pool is None:
                raise InvalidError("a scheduler does not store", "options.role", self._options.role)
            self._counters.add(commits=1)
            if connection.commits is None:
                committed = commit_slots(connection.session, self._counters, chunks, limit_s)
                if isinstance(connection.pool, CreditPool):
                    committed.add_callback(connection.pool.committed)
                return self._asked(committed)
            return self._commit_streamed(connection, chunks, limit_s)
        except LarderError as error:
            self._breaker.forget()
            return self._refused(error)

    def _commit_streamed(
        self, connection: Connection, chunks: Sequence[CommitChunk], timeout_s: float
    ) -> Pending[engine_pb2.CommitReply]:
        lengths = check_chunks(chunks, len(connection.hello.parts), connection.hello.limits.max_parts or 1 << 16)
        leases = connection.session.leases
        parts = [part for chunk in chunks for part in chunk.parts]
        with leases.lock:
            for part in parts:
                check_usable(part.credit)
            if len({id(part.credit) for part in parts}) != len(parts):
                raise InvalidError("a credit can be committed once", "credit", "named twice")
            for part in parts:
                leases.drop_credit(part.credit, CreditState.COMMITTED)
        pending: Pending[engine_pb2.CommitReply] = Pending(timeout_s)

        def count(done: Pending[engine_pb2.CommitReply]) -> None:
            reply = None if done.error is not None else done.poll()
            if reply is not None:
                count_outcomes(self._counters, reply, lengths)

        pending.add_callback(count)
        self._breaker.forget()
        if connection.commits is not None:
            connection.commits.commit(pending, chunks)
        return pending

    # -- objects -------------------------------------------------------------

    @property
    def objects(self) -> Objects:
        """Parts and files over streams, on the current connection. Raises
        LarderError UNAVAILABLE without one."""
        connection = self._present()
        if connection is None:
            raise self._absent()
        return connection.objects

    def pin(self, keys: bytes, timeout: float = 60.0) -> admin_pb2.PinResponse:
        """Has the chunks of a prompt, n x 32 bytes, kept on the daemon's disk: those
        of this namespace and tenant. Blocks; pinning.pin has the errors."""
        options = self._options
        fingerprint = b"" if options.namespace is None else options.namespace.fingerprint()
        request = admin_pb2.PinRequest(keys=keys, fingerprint=fingerprint, tenant=options.tenant)
        return pin(self._admit().channel, request, timeout)

    # -- the end -------------------------------------------------------------

    def close(self, timeout: float = 2.0) -> None:
        """Gives idle credits back, ends the session and every thread; takes at
        most timeout seconds. Later calls fail with UNAVAILABLE."""
        if os.getpid() != self._pid or self._closed:
            return
        self._closed = True
        self._supervisor.close(timeout)
        self._timers.close(timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside --------------------------------------------------------------

    def _present(self) -> Connection | None:
        if self._closed or os.getpid() != self._pid:
            return None
        return self._supervisor.connection

    def _absent(self) -> LarderError:
        if os.getpid() != self._pid:
            return InvalidError(
                "a client cannot be used after a fork; make one in the child", "pid", str(os.getpid()), str(self._pid)
            )
        if self._closed:
            return UnavailableError("the client is closed")
        why = self._supervisor.last_error
        return UnavailableError(f"not connected to {self._options.socket}" + (f": {why}" if why else ""))

    def _admit(self) -> Connection:
        """The connection for a new call, or why there can be none."""
        connection = self._present()
        if connection is None:
            raise self._absent()
        if connection.session.draining:
            raise UnavailableError("the daemon is draining")
        if not self._breaker.admit():
            raise UnavailableError("the circuit breaker is open after failed calls")
        return connection

    def _asked(self, pending: Pending[T]) -> Pending[T]:
        if pending.done:
            # Never sent, so no verdict on the daemon.
            self._breaker.forget()
        return pending

    def _refused(self, error: LarderError) -> Pending[T]:
        self._counters.failure(error.kind)
        return Pending.failed(error)

    def _events(self) -> Events:
        """Handlers of one session's events; they find the pool through the
        connection, which is made after the session."""

        def pool() -> CreditPool | None:
            connection = self._supervisor.connection
            found = None if connection is None else connection.pool
            return found if isinstance(found, CreditPool) else None

        def revoked(dead: list[Credit]) -> None:
            if (found := pool()) is not None:
                found.lost(dead)

        def draining() -> None:
            if (found := pool()) is not None:
                found.close()

        def epoch(now: int) -> None:
            self._epoch = now
            if (found := pool()) is not None:
                found.flush()

        self._epoch = None
        return Events(revoked=revoked, draining=draining, epoch=epoch)


def _check_keys(root: bytes, keys: bytes) -> None:
    if len(root) != 32:
        raise InvalidError("the root has another length", "match.root", f"{len(root)} bytes", "32 bytes")
    if not keys or len(keys) % 32:
        raise InvalidError("the keys have another length", "match.keys", f"{len(keys)} bytes", "n x 32 bytes")


def _nanos(seconds: float) -> int:
    """For a uint64 field, which raises at what does not fit."""
    return max(0, min(round(seconds * 1e9), (1 << 64) - 1))
