"""The engine's KV cache groups: which pages hold which tokens.

Every group has pages of its own for a request's tokens, numbered over all
groups. A group of sliding windows keeps those that attention still reads: the
engine puts the null page in place of the others, without a word when it does
so while the request runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

# vLLM's number of the page that stands where there is none.
NULL_PAGE = 0


@dataclass(frozen=True)
class PageGroup:
    """One group. window: tokens that attention reads, its own among them; 0: all."""

    block_tokens: int
    window: int = 0

    def taken_back(self, computed: int) -> int:
        """Leading blocks that the engine may have given to others, once so many
        tokens are computed."""
        return max(0, computed - self.window + 1) // self.block_tokens if self.window else 0


@dataclass(frozen=True)
class PageGroups:
    """All groups of an engine, in its order. hash_tokens: tokens of one of the
    engine's block hashes."""

    groups: tuple[PageGroup, ...]
    hash_tokens: int

    @classmethod
    def of(cls, kv_cache_config: Any, prefix_match_unit: int | None = None) -> PageGroups:
        """From the engine's own description. prefix_match_unit: the setting of
        that name."""
        specs = [g.kv_cache_spec for g in kv_cache_config.kv_cache_groups]
        groups = tuple(PageGroup(spec.block_size, window(spec)) for spec in specs)
        sizes = [group.block_tokens for group in groups] or [1]
        several = prefix_match_unit if len(groups) > 1 else None
        return cls(groups, several or math.gcd(*sizes))

    @property
    def unit(self) -> int:
        """Tokens of which the engine computes and caches multiples."""
        return math.lcm(*(group.block_tokens for group in self.groups))

    @property
    def whole_loads(self) -> bool:
        """Whether a load brings everything or counts for nothing: the pages of
        what comes before a window's last tokens are not there to compute them."""
        return len(self.groups) > 1 or any(group.window for group in self.groups)

    def to_load(
        self, blocks: Sequence[Sequence[int]], first: int, begin: int, end: int
    ) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        """The pages of tokens [begin, end) that a load has to fill, counted from
        token first on: for each group, how many blocks it leaves out before
        them, and their ids."""
        skips, ids = [], []
        for group, pages in zip(self.groups, blocks, strict=True):
            start, stop = begin // group.block_tokens, -(-end // group.block_tokens)
            while start < stop and pages[start] == NULL_PAGE:
                start += 1
            skips.append(start - first // group.block_tokens)
            ids.append(tuple(pages[start:stop]))
        return tuple(skips), tuple(ids)


def window(spec: Any) -> int:
    """The window of a kind of KV whose pages are taken back behind it, else 0."""
    from vllm.v1.kv_cache_interface import SlidingWindowSpec

    return int(spec.sliding_window) if isinstance(spec, SlidingWindowSpec) else 0


class RequestPages:
    """The pages of one request's tokens, by group, as the engine last said."""

    def __init__(self) -> None:
        self._blocks: list[list[int]] = []
        self._computed = 0

    def set(self, blocks: Sequence[Sequence[int]]) -> None:
        """These are all."""
        self._blocks = [list(ids) for ids in blocks]

    def clear(self) -> None:
        """They were taken."""
        self._blocks = []

    def add(self, blocks: Sequence[Sequence[int]]) -> None:
        """More at the end."""
        if not self._blocks:
            self.set(blocks)
            return
        for have, more in zip(self._blocks, blocks, strict=True):
            have.extend(more)

    def at_step(self, computed: int) -> None:
        """A step begins, before which so many tokens are computed."""
        self._computed = computed

    def first_in(self, groups: PageGroups, pages: Set[int]) -> int | None:
        """Which token is the first whose page, in any group, is one of these;
        None: none."""
        found = [
            i * group.block_tokens
            for group, ids in zip(groups.groups, self._blocks, strict=False)
            for i, page in enumerate(ids)
            if page in pages
        ]
        return min(found, default=None)

    def after(self, groups: PageGroups, token: int) -> Set[int]:
        """All from that on which holds a token."""
        return {
            page
            for group, ids in zip(groups.groups, self._blocks, strict=False)
            for page in ids[token // group.block_tokens :]
        }

    def of(self, groups: PageGroups, begin: int, end: int) -> tuple[tuple[int, ...], ...] | None:
        """The pages of tokens [begin, end), whole blocks, for each group; None
        where some are gone."""
        if len(self._blocks) != len(groups.groups):
            return None
        found = []
        for group, pages in zip(groups.groups, self._blocks, strict=True):
            first, last = begin // group.block_tokens, end // group.block_tokens
            ids = tuple(pages[first:last])
            if first < group.taken_back(self._computed) or NULL_PAGE in ids or len(ids) < last - first:
                return None
            found.append(ids)
        return tuple(found)
