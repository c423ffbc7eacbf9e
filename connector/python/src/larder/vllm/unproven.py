"""Pages that another connector fills within a step, until it is known that it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from larder.vllm.lineage import UNKNOWN, Lineage
from larder.vllm.page_groups import NULL_PAGE, PageGroups, RequestPages
from larder.vllm.request_state import RequestState


def _nobody(request_id: str) -> bool:
    del request_id
    return False


@dataclass(frozen=True)
class _Brought:
    """until: the step before which it is known. pages: each with the first of its
    tokens; end: of all that are claimed. ours: Larder itself brings them, and sees
    to it that they are not kept (larder.vllm.in_step)."""

    until: int
    state: RequestState
    pages: dict[int, int]
    end: int
    ours: bool


class Unproven:
    """A connector that loads synchronously says in the step's output which pages it
    did not fill. By then the step has computed on top of them, and the engine's
    prefix cache has them. So nothing of such a request, nor of one that shares its
    pages, is stored before that output; and after a failure nothing under these
    names any more, since the engine may keep the pages though nobody recomputes
    them. under_way: steps that the engine schedules before a step's output comes.
    """

    def __init__(self, groups: PageGroups, under_way: int) -> None:
        self._groups = groups
        self._under_way = under_way
        self._step = 0
        self._brought: list[_Brought] = []
        self._pages: set[int] = set()

    def scan(self, output: Any, states: Mapping[str, RequestState], ours: Callable[[str], bool] = _nobody) -> None:
        """A step is scheduled: looks for what others bring in it, and Larder itself
        for these requests."""
        self._step += 1
        if self._brought:
            self._brought = [b for b in self._brought if b.until > self._step]
            self._pages = {page for b in self._brought for page in b.pages}
        for new in output.scheduled_new_reqs:
            state, mine = states.get(new.req_id), ours(new.req_id)
            self._look(state, new.block_ids, new.num_computed_tokens, ours=mine)
        cached = output.scheduled_cached_reqs
        if cached.resumed_req_ids:
            for name, blocks, computed in zip(
                cached.req_ids, cached.new_block_ids, cached.num_computed_tokens, strict=True
            ):
                if name in cached.resumed_req_ids:
                    self._look(states.get(name), blocks, computed)

    def first(self, pages: RequestPages) -> int | None:
        """Which of a request's tokens is the first whose page may be unfilled;
        None: none."""
        return pages.first_in(self._groups, self._pages) if self._pages else None

    def failed(self, invalid: set[int], lineage: Lineage | None, chunk_tokens: int) -> None:
        """A step's output names pages that were not filled."""
        if not invalid or lineage is None:
            return
        for b in (b for b in self._brought if not b.ours):
            bad = [token for page, token in b.pages.items() if page in invalid]
            if bad:
                lineage.lost(b.state, min(bad) // chunk_tokens, -(-b.end // chunk_tokens), UNKNOWN)

    def _look(self, state: RequestState | None, blocks: Any, computed: int, *, ours: bool = False) -> None:
        begin = 0 if state is None else state.local + (0 if ours else state.external)
        if state is None or blocks is None or computed <= begin:
            return
        pages: dict[int, int] = {}
        for group, ids in zip(self._groups.groups, blocks, strict=True):
            size = group.block_tokens
            first = begin // size
            pages |= {page: i * size for i, page in enumerate(ids[first : -(-computed // size)], first)}
        pages.pop(NULL_PAGE, None)
        self._brought.append(_Brought(self._step + self._under_way, state, pages, computed, ours))
        self._pages.update(pages)
