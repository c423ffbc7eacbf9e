"""A look into the engine's own prefix cache, before the engine looks itself."""

from __future__ import annotations

from typing import Any

from larder.vllm.page_groups import PageGroups


class OwnCache:
    """Whether the engine most likely finds the head of a prompt in its own pages. A
    hint: the engine may give them away before the request's turn. One lookup, so
    only for engines with one KV cache group, and none where it has no pool."""

    def __init__(self, groups: PageGroups) -> None:
        self._one_group = len(groups.groups) == 1
        self._hash_tokens = groups.hash_tokens
        self._pool: Any = None

    def bind(self, pool: Any) -> None:
        """Takes the engine's pool of blocks."""
        self._pool = pool

    def covers(self, request: Any, tokens: int) -> bool:
        """Whether it has the block that ends at so many tokens: pages are given away
        from a prompt's end on, so those before it are there, too."""
        if self._pool is None or not self._one_group or request.skip_reading_prefix_cache:
            return False
        if tokens >= request.num_tokens:
            # It always computes the last token.
            return False
        end = tokens // self._hash_tokens
        hashes = request.block_hashes
        return 0 < end <= len(hashes) and self._pool.get_cached_block(hashes[end - 1], [0]) is not None
