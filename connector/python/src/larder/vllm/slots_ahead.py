"""The slots that a rank keeps granted ahead for its stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from larder.stats import ClientStats
from larder.vllm.identity import RankPart


class SlotsAhead:
    """How many are wanted, and what to say where stores found none.

    Twice what a step's tokens fill, since the pool is refilled once half is gone,
    and what the step before took counts until the daemon has checked it. With
    most, bytes, as many whole chunks as that holds, but one. The daemon may allow
    less; then the pool keeps less, and a step that fills more is stored over
    several steps."""

    def __init__(self, parts: Sequence[RankPart], chunk_tokens: int, step_tokens: int, most: int) -> None:
        lengths = [part.length for part in parts if part.writes]
        self._step_tokens = step_tokens
        self._most = most
        self._chunk_bytes = sum(lengths)
        self._wanted = 2 * (-(-step_tokens // chunk_tokens) + 1)
        self._chunks = self._wanted
        if most and self._chunk_bytes:
            self._chunks = max(1, min(self._wanted, most // self._chunk_bytes))
        # By length of slots; empty for a rank that writes nothing.
        self.counts = {length: lengths.count(length) * self._chunks for length in set(lengths)}
        self._said: set[str] = set()

    def __str__(self) -> str:
        if not self.counts:
            return "none: another rank writes what this one holds"
        text = f"{_mib(self._chunks * self._chunk_bytes)} for {self._chunks} chunks"
        if self._chunks < self._wanted:
            return (
                f"{text}, as credit_mib says; two steps of {self._step_tokens} tokens fill "
                f"{_mib(self._wanted * self._chunk_bytes)}"
            )
        return f"{text}, what two steps of {self._step_tokens} tokens fill"

    def complain(self, stats: ClientStats, warn: Callable[[str], None]) -> None:
        """Says why stores found no slot, and what helps; each reason once. Before
        the first slots came it says nothing: they were on their way."""
        if not stats.credits_granted:
            return
        reason, remedy = self._reason(stats.credit_limit)
        if reason not in self._said:
            self._said.add(reason)
            warn(f"chunks were not stored in the step that computed them, and perhaps not later: {reason}; {remedy}")

    def _reason(self, allowed: int) -> tuple[str, str]:
        """Why there are too few, and what helps. allowed: bytes, 0 = no bound."""
        if self._chunks < self._wanted and not 0 < allowed < self._chunks * self._chunk_bytes:
            reason = f"credit_mib lets {self._chunks} be granted ahead, and two steps fill {self._wanted}"
            return reason, "raise it, or leave it out"
        if 0 < allowed < self._chunks * self._chunk_bytes:
            reason = "the daemon allows this rank fewer slots granted ahead than it wants"
            some = f"{_mib(allowed)} as of now, of {_mib(self._chunks * self._chunk_bytes)}"
            return reason, f"{some}: raise larderd's host.bytes or host.granted_percent"
        reason = "the daemon had no slots, or not in time"
        return reason, "if larder_host_grants_full_total grows, raise larderd's host.bytes"


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.4g} MiB"
