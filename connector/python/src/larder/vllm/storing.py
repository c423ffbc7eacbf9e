"""Which chunks a step stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from larder.keys import KEY_BYTES
from larder.vllm.lineage import UNKNOWN, Lineage
from larder.vllm.matching import Match
from larder.vllm.metadata import StoreOp
from larder.vllm.page_groups import PageGroups
from larder.vllm.present import PresentKeys
from larder.vllm.request_state import STORE_TRIES, RequestState
from larder.vllm.stats import SchedulerStats
from larder.vllm.unproven import Unproven

# Matches for one request after which none is asked because of what was stored.
MOST_ASKED_AGAIN = 8


class StorePlanner:
    """Plans each chunk of a request once: when its last token is computed, or,
    for those that the engine's own cache covers, once the daemon's answer says
    that it lacks them. What a rank drops is planned again while the request
    runs, from head to tail: a chunk is of no use before the one before it is
    there. What may rest on pages that another connector did not fill, once that is
    known."""

    def __init__(
        self,
        chunk_tokens: int,
        groups: PageGroups,
        backfill: int,
        present: PresentKeys,
        stats: SchedulerStats,
        lineage: Lineage,
        unproven: Unproven,
    ) -> None:
        self._lineage = lineage
        self._unproven = unproven
        self._chunk_tokens = chunk_tokens
        self._groups = groups
        self._backfill = backfill
        self._present = present
        self._stats = stats

    def plan(self, state: RequestState, before: int, after: int, chunks: int) -> list[StoreOp]:
        """Returns what to store after the step.

        before, after: tokens whose KV is in pages before and after the step,
        none of which can be taken back. chunks: full chunks with keys."""
        ready = min(after // self._chunk_tokens, chunks)
        if state.next_chunk is None:
            state.next_chunk = state.unclear = before // self._chunk_tokens
        self._clear_up(state)
        older = sorted({c for c in state.backlog if c < ready and state.name(c) not in self._present})
        chosen = older[: self._backfill]
        # Those not ready are of pages lost in a preemption.
        state.backlog = [c for c in state.backlog if c >= ready] + older[self._backfill :]
        fresh = range(state.next_chunk, ready)
        state.next_chunk = max(state.next_chunk, ready)
        chosen += [c for c in fresh if state.name(c) not in self._present]
        token = self._unproven.first(state.pages)
        if token is not None:
            proven = token // self._chunk_tokens
            state.backlog = [c for c in chosen if c >= proven] + state.backlog
            chosen = [c for c in chosen if c < proven]
        stores = []
        for chunk, quality in zip(chosen, self._lineage.store(state, chosen), strict=True):
            if quality != UNKNOWN:
                stores += self._ops(state, chunk, quality)
        self._present.storing(state.name(s.ordinal) for s in stores)
        self._stats.stores_planned += len(stores)
        return stores

    def due(self, state: RequestState, after: int) -> bool:
        """Whether plan, for tokens up to `after` at most, has anything to look at: in
        most steps of most requests it does not, and there may be hundreds in a step."""
        return (
            state.next_chunk is None
            or after // self._chunk_tokens > state.next_chunk
            or bool(state.backlog or state.unclear)
            or (state.match is not None and not state.match.learnt)
        )

    def unclear(self, state: RequestState, before: int, chunks: int) -> bool:
        """Whether the answer to a request's match decides on chunks of its local hit."""
        covered = before // self._chunk_tokens if state.next_chunk is None else state.unclear
        return any(state.name(c) not in self._present for c in range(min(covered, chunks)))

    def outdated(self, state: RequestState, match: Match) -> bool:
        """Whether a request that waited since its match was answered could load more
        by now: the first chunk that it would compute is stored since. Said once for
        answers of as many chunks, as a store takes its time."""
        known = match.chunks
        first = max(known, state.local // self._chunk_tokens)
        if not match.learnt or known == state.outdated or state.matches >= MOST_ASKED_AGAIN:
            return False
        if (first + 1) * KEY_BYTES > len(state.keys):
            return False
        if not all(state.name(c) in self._present for c in range(known, first + 1)):
            return False
        state.outdated = known
        return True

    def dropped(self, states: Mapping[str, RequestState], names: Iterable[tuple[str, int]]) -> None:
        """Ranks did not store chunks of a step, by request and ordinal.

        The first of a request's was tried; those behind it were dropped for it.
        So where slots are few a step stores some and the next one goes on, and
        what cannot be stored at all is given up with what is behind it."""
        heads: dict[str, int] = {}
        for request_id, ordinal in sorted(names):
            self._stats.stores_dropped += 1
            state = states.get(request_id)
            if state is None or state.next_chunk is None:
                continue
            self._present.remove(state.name(ordinal))
            if request_id not in heads:
                heads[request_id] = ordinal
                state.tries[ordinal] = state.tries.get(ordinal, 0) + 1
            if state.tries[heads[request_id]] < STORE_TRIES:
                state.backlog.append(ordinal)
            else:
                state.backlog = [c for c in state.backlog if c < ordinal]

    def _clear_up(self, state: RequestState) -> None:
        """Decides on the chunks of the local hit, once the match is done."""
        if not state.unclear or (state.match is not None and not state.match.done):
            return
        known = 0 if state.match is None else state.match.chunks
        state.backlog[:0] = range(known, state.unclear)
        state.unclear = 0

    def _ops(self, state: RequestState, chunk: int, quality: int) -> list[StoreOp]:
        """The store of a chunk; none where pages of some group are gone, since
        a chunk is complete with the parts of all groups."""
        begin = chunk * self._chunk_tokens
        blocks = state.pages.of(self._groups, begin, begin + self._chunk_tokens)
        if blocks is None or state.gap:
            # What comes after it could not be matched.
            state.gap = True
            self._stats.stores_behind_window += 1
            return []
        return [StoreOp(state.request_id, chunk, state.key(chunk), state.key(chunk - 1), blocks, quality)]
