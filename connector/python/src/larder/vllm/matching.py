"""One request's question to the daemon, its answer, and the hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from larder.client import NO_HOLD
from larder.errors import LarderError
from larder.load_or_recompute import Run
from larder.pending import Pending
from larder.stats import ClientStats
from larder.v1 import admin_pb2, engine_pb2, part_pb2


class MatchClient(Protocol):
    """What the scheduler half needs of larder.client.Client."""

    @property
    def stats(self) -> ClientStats:
        """A copy of its counters."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a call would be sent now."""
        ...

    @property
    def hello(self) -> Any:
        """The connection's HelloReply, or None."""
        ...

    @property
    def generation(self) -> int:
        """Goes up with each connection."""
        ...

    def match(
        self, root: bytes, keys: bytes, *, hold_ms: int = 0, worst_quality: int = 0
    ) -> Pending[engine_pb2.MatchReply]:
        """How many leading chunks can be loaded."""
        ...

    def renew_hold(self, hold_id: int, hold_ms: int = 0) -> Pending[engine_pb2.RenewHoldReply]:
        """Keeps a hold longer."""
        ...

    def end_holds(self, ids: list[int]) -> None:
        """Ends holds, best effort."""
        ...

    def skip(self, hold_id: int, first_chunk: int, key: bytes, load_s: float, compute_s: float) -> None:
        """Says that chunks are computed, best effort."""
        ...

    def pin(self, keys: bytes, timeout: float = 60.0) -> admin_pb2.PinResponse:
        """Has chunks kept on the daemon's disk; blocks."""
        ...

    def close(self, timeout: float = 2.0) -> None:
        """Ends the connection."""
        ...


class Match:
    """A match under way or answered. Its hold lives until end, renewed as
    often as keep is called in time."""

    def __init__(
        self,
        client: MatchClient,
        root: bytes,
        keys: bytes,
        hold_ms: int,
        now: float,
        worst_quality: int = 0,
    ) -> None:
        self._client = client
        self._hold_ms = hold_ms
        self._ended = False
        self._renewal: Pending[engine_pb2.RenewHoldReply] | None = None
        self._deadline_ns = 0
        self.asked = now
        # Whether its answer was taken note of.
        self.learnt = False
        self.keys = keys
        self.generation = client.generation
        # Seconds until the answer came; 0 while it has not.
        self.took_s = 0.0
        begun = time.perf_counter()
        self.pending = client.match(root, keys, hold_ms=hold_ms, worst_quality=worst_quality)
        self.pending.add_callback(lambda _: setattr(self, "took_s", time.perf_counter() - begun))

    @property
    def done(self) -> bool:
        """Whether the answer, or the reason of its absence, is there."""
        return self.pending.done

    @property
    def failed(self) -> bool:
        """Whether no answer comes."""
        return self.pending.error is not None

    def wait(self, seconds: float) -> None:
        """Waits a bounded time for the answer."""
        try:
            self.pending.result(timeout=seconds)
        except LarderError:
            return

    @property
    def reply(self) -> engine_pb2.MatchReply | None:
        """The answer; None while it is under way, or where none comes."""
        return None if self.pending.error is not None else self.pending.poll()

    @property
    def chunks(self) -> int:
        """Leading chunks that the daemon has; 0 while that is not known."""
        reply = self.reply
        return 0 if reply is None else reply.chunks

    @property
    def quality(self) -> int:
        """The worst quality among them."""
        reply = self.reply
        return 0 if reply is None else reply.quality

    @property
    def hold_id(self) -> int:
        """The hold, 0 where there is none (any more)."""
        reply = self.reply
        return 0 if reply is None or self._ended else reply.hold_id

    def runs(self, first: int, last: int, now: float) -> list[Run]:
        """Where chunks [first, last) lie. What waits before a load is less by the
        time since the question; now: on the clock that it was asked by."""
        reply = self.reply
        runs = []
        begin = 0
        for run in () if reply is None else reply.tiers:
            end = begin + run.chunks
            chunks = min(end, last) - max(begin, first)
            if chunks > 0:
                cost_s, wait_s = run.cost_ns / 1e9, run.wait_ns / 1e9
                wait_s = max(min(wait_s, cost_s), wait_s - (now - self.asked))
                runs.append(Run(_tier_name(run.tier), chunks, wait_s, cost_s))
            begin = end
        # A daemon that does not say where they lie has them at hand.
        rest = last - max(begin, first)
        return [*runs, Run("host", rest)] if rest > 0 else runs

    def skip(self, first_chunk: int, load_s: float, compute_s: float) -> None:
        """Says that chunks from this one on are computed: the hold keeps those
        before it."""
        if self.hold_id:
            key = self.keys[32 * first_chunk : 32 * first_chunk + 32]
            self._client.skip(self.hold_id, first_chunk, key, load_s, compute_s)

    def lapsed(self, now_ns: int) -> bool:
        """Whether it was asked on another connection, or without a hold, or chunks
        matched, but their hold is gone or as good as gone."""
        if self.generation != self._client.generation or self._hold_ms == NO_HOLD:
            return True
        return self.chunks > 0 and not self.holds(now_ns, min(500_000_000, self._hold_ms * 250_000))

    def holds(self, now_ns: int, margin_ns: int) -> bool:
        """Whether the hold stands for at least margin_ns more."""
        if not self.hold_id or self.generation != self._client.generation:
            return False
        self._renewed()
        return self._until() - now_ns >= margin_ns

    def keep(self, now_ns: int) -> None:
        """Renews the hold once half of its time is over."""
        if self.hold_id and self._renewal is None and self._until() - now_ns < self._hold_ms * 500_000:
            self._renewal = self._client.renew_hold(self.hold_id, self._hold_ms)
        self._renewed()

    def end(self) -> bool:
        """Ends the hold, also one that is yet to come. Whether there was one."""
        if self._ended:
            return False
        had = self.hold_id
        self._ended = True
        if had:
            self._client.end_holds([had])
        else:
            self.pending.add_callback(_end_late(self._client.end_holds))
        return bool(had)

    def _renewed(self) -> None:
        renewal = self._renewal
        if renewal is None or not renewal.done:
            return
        self._renewal = None
        reply = renewal.poll() if renewal.error is None else None
        # A hold that could not be renewed is as good as gone.
        self._deadline_ns = 1 if reply is None else reply.hold_deadline_ns

    def _until(self) -> int:
        reply = self.reply
        return self._deadline_ns or (0 if reply is None else reply.hold_deadline_ns)


def _tier_name(tier: int) -> str:
    try:
        return part_pb2.Tier.Name(tier).removeprefix("TIER_").lower()
    except ValueError:
        # Of a newer daemon.
        return f"tier {tier}"


def _end_late(end_holds: Callable[[list[int]], None]) -> Callable[[Pending[engine_pb2.MatchReply]], None]:
    def end(pending: Pending[engine_pb2.MatchReply]) -> None:
        reply = pending.poll() if pending.error is None else None
        if reply is not None and reply.hold_id:
            end_holds([reply.hold_id])

    return end
