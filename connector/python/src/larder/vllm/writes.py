"""Which pages a step may write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def written_blocks(output: Any, block_tokens: Sequence[int]) -> tuple[int, ...]:
    """The blocks that a step's computation may write and that its requests did
    not write before: those that the engine gives them in this step, and the ones
    in which a request that begins or comes back computes its first tokens.

    Nothing else that may still be read for a store is ever written: a request
    computes each token once, into blocks that it then has, and what is stored is
    computed. output: the scheduler's. block_tokens: of each group."""
    blocks: set[int] = set()

    def add(ids: Sequence[Sequence[int]], computed: int) -> None:
        for some, tokens in zip(ids, block_tokens, strict=True):
            blocks.update(some[computed // tokens :])

    for new in output.scheduled_new_reqs:
        add(new.block_ids, new.num_computed_tokens)
    cached = output.scheduled_cached_reqs
    for request_id, ids, computed in zip(cached.req_ids, cached.new_block_ids, cached.num_computed_tokens, strict=True):
        if ids is not None:
            # Of a request that came back these are all of its blocks.
            add(ids, computed if request_id in cached.resumed_req_ids else 0)
    return tuple(blocks)
