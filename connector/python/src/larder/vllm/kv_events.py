"""KV cache events: what Larder holds, in the engine's own names, for routers."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_events import BlockRemoved, BlockStored
from vllm.v1.core.kv_cache_utils import generate_block_hash_extra_keys, maybe_convert_block_hash

from larder.vllm import compat
from larder.vllm.metadata import StoreOp
from larder.vllm.page_groups import PageGroups
from larder.vllm.request_state import RequestState
from larder.vllm.stats import SchedulerStats

# Chunks announced and not withdrawn that are remembered, of 256 tokens 4
# million tokens. What is forgotten is never withdrawn.
MOST_ANNOUNCED = 1 << 14
# Chunks whose store is under way, and chunks that wait for the next step.
MOST_WAITING = 1 << 12
# Blocks in one event that withdraws.
_MOST_HASHES = 1 << 10


@dataclass
class _Stored:
    """Consecutive chunks [first, end) of a request."""

    request: Any
    first: int
    end: int


@dataclass
class _Announced:
    at: float
    hashes: tuple[Any, ...]


class KVEvents:
    """Announces chunks as BlockStored: when a commit's answer says that one is
    published, and when a match shows one that was not announced yet. Withdraws
    them as BlockRemoved: when a match shows that they are gone or cannot be
    reached, when their load fails, when the connection is another one, and when
    Larder is turned off. The daemon says nothing of what it evicts, so a chunk
    counts as there until somebody asks for it: events are hints.

    One event has the blocks of consecutive chunks, as the engine's own have: its
    block hashes, the hash of the block before them, the tokens. Requests whose
    blocks have no hashes are left out. Everything runs on the scheduler's thread.
    on: whether the engine publishes events; otherwise nothing is done.
    """

    def __init__(
        self,
        groups: PageGroups,
        medium: str,
        stats: SchedulerStats,
        *,
        on: bool,
        most_announced: int = MOST_ANNOUNCED,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._block_tokens = groups.hash_tokens
        # With several groups a chunk has blocks of each: none in particular.
        self._group = 0 if len(groups.groups) == 1 else None
        self._blocks = 0
        self._on = on
        self._medium = medium
        self._stats = stats
        self._most_announced = most_announced
        self._most_waiting = most_waiting
        self._storing: OrderedDict[tuple[str, int], tuple[Any, bytes]] = OrderedDict()
        self._announced: OrderedDict[bytes, _Announced] = OrderedDict()
        # In order, what the next step publishes: of chunks, or hashes to withdraw.
        self._queue: deque[_Stored | list[Any]] = deque()
        self._waiting = 0

    def start(self, chunk_tokens: int) -> None:
        """The namespace is known."""
        self._blocks = chunk_tokens // self._block_tokens

    def storing(self, stores: Sequence[StoreOp], states: Mapping[str, RequestState]) -> None:
        """Workers are told to store these chunks."""
        if not self._on:
            return
        for op in stores:
            self._storing[op.request_id, op.ordinal] = states[op.request_id].request, op.key
        while len(self._storing) > self._most_waiting:
            self._storing.popitem(last=False)

    def answered(self, stored: Iterable[tuple[str, int]], dropped: Iterable[tuple[str, int]], now: float) -> None:
        """Stores ended: these chunks are published, those are not stored."""
        for name in dropped:
            self._storing.pop(name, None)
        for name in sorted(stored):
            request, key = self._storing.pop(name, (None, b""))
            if request is not None:
                self._announce(request, name[1], key, now)

    def matched(self, request: Any, keys: Sequence[bytes], count: int, asked: float, now: float) -> None:
        """The daemon has the first count of a request's chunks, and had not the
        one after them when it was asked."""
        if not self._on:
            return
        for chunk, key in enumerate(keys[:count]):
            known = self._announced.get(key)
            if known is None:
                self._announce(request, chunk, key, now)
            else:
                known.at = now
                self._announced.move_to_end(key)
        # Stored since then: not gone.
        self._withdraw(key for key in keys[count:] if key in self._announced and self._announced[key].at < asked)

    def failed(self, keys: Iterable[bytes]) -> None:
        """These could not be loaded."""
        self._withdraw(key for key in keys if key in self._announced)

    def clear(self) -> None:
        """Nothing is known of what another daemon has."""
        self._storing.clear()
        self._withdraw(list(self._announced))

    def take(self) -> list[Any]:
        """Returns the events since the last call."""
        if not self._queue:
            return []
        queue, self._queue, self._waiting = self._queue, deque(), 0
        return [self._removed(e) if isinstance(e, list) else self._stored(e) for e in queue]

    def _announce(self, request: Any, chunk: int, key: bytes, now: float) -> None:
        hashes = request.block_hashes
        first, end = chunk * self._blocks, (chunk + 1) * self._blocks
        if end > len(hashes):
            return
        if self._waiting >= self._most_waiting:
            self._stats.events_dropped += 1
            return
        self._waiting += 1
        self._stats.events_stored += 1
        self._announced[key] = _Announced(now, tuple(hashes[first:end]))
        self._announced.move_to_end(key)
        while len(self._announced) > self._most_announced:
            self._announced.popitem(last=False)
        last = self._queue[-1] if self._queue else None
        if isinstance(last, _Stored) and last.request is request and last.end == chunk:
            last.end += 1
        else:
            self._queue.append(_Stored(request, chunk, chunk + 1))

    def _withdraw(self, keys: Iterable[bytes]) -> None:
        hashes: list[Any] = []
        for key in list(keys):
            self._stats.events_removed += 1
            hashes += self._announced.pop(key).hashes
        for i in range(0, len(hashes), _MOST_HASHES):
            self._queue.append(hashes[i : i + _MOST_HASHES])

    def _stored(self, chunks: _Stored) -> Any:
        request = chunks.request
        first, end = chunks.first * self._blocks, chunks.end * self._blocks
        extra = [self._extra_keys(request, block) for block in range(first, end)]
        lora = request.lora_request
        return _event(
            BlockStored,
            block_hashes=[maybe_convert_block_hash(h) for h in request.block_hashes[first:end]],
            parent_block_hash=maybe_convert_block_hash(request.block_hashes[first - 1]) if first else None,
            token_ids=list(request.all_token_ids[first * self._block_tokens : end * self._block_tokens]),
            block_size=self._block_tokens,
            lora_id=lora.adapter_id if lora else None,
            medium=self._medium,
            lora_name=lora.name if lora else None,
            extra_keys=compat.event_extra_keys(extra),
            group_idx=self._group,
            locality="LOCAL",
        )

    def _removed(self, hashes: list[Any]) -> Any:
        return _event(
            BlockRemoved,
            block_hashes=[maybe_convert_block_hash(h) for h in hashes],
            medium=self._medium,
            group_idx=self._group,
            locality="LOCAL",
        )

    def _extra_keys(self, request: Any, block: int) -> Any:
        begin = block * self._block_tokens
        return generate_block_hash_extra_keys(request, begin, begin + self._block_tokens, 0)[0]


def _event(kind: Any, **fields: Any) -> Any:
    """An event with those of the fields that this vLLM knows."""
    return kind(**{name: value for name, value in fields.items() if name in kind.__struct_fields__})
