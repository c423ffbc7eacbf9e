"""Which of the engine's pages may hold, or rest on, KV that lost something."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from vllm.logger import init_logger

from larder.vllm.request_state import RequestState

logger = init_logger("vllm.larder.lineage")

# Chunks remembered at most, of 256 tokens 33 million: more than an engine's
# pages hold.
MOST_CHUNKS = 1 << 17
# Worse than any quality: what another connector brought may have lost anything,
# so nothing can be said of it.
UNKNOWN = 255


class Lineage:
    """Qualities (api/PART.md: 0 exact, else 1 + level) of chunks that were loaded
    with a loss, or computed on top of one.

    The engine's own prefix cache hands pages from one request to another without
    a word about where they come from, block by block. So things have the names
    that the engine's cache gives them, hashes of blocks, which know nothing of
    Larder's salts and tenants: a chunk that of its last block. A chunk counts as
    no better than what was ever loaded under its name or for a chunk before it,
    and, as far as the engine's cache covers a request, for any chunk with the
    same first block: its first blocks may be those. Where the engine has no
    hashes it shares no pages, and what the request itself had loaded decides.
    What is forgotten for want of memory is never taken for exact: from then on
    everything has its quality.
    """

    def __init__(self, chunk_tokens: int, block_tokens: int, most: int = MOST_CHUNKS) -> None:
        self._chunk_tokens = chunk_tokens
        self._blocks = chunk_tokens // block_tokens
        self._most = most
        self._chunks: OrderedDict[bytes, int] = OrderedDict()
        # By first block, the worst of its chunks.
        self._starts: OrderedDict[bytes, int] = OrderedDict()
        self._floor = 0

    def lost(self, state: RequestState, first: int, last: int, quality: int) -> None:
        """Chunks [first, last) of the request are no better than quality."""
        if quality == 0:
            return
        hashes = state.request.block_hashes
        for chunk in range(first, last):
            state.lossy[chunk] = max(quality, state.lossy.get(chunk, 0))
            begin, end = chunk * self._blocks, (chunk + 1) * self._blocks
            # The last one may be in the making.
            if begin < len(hashes):
                self._note(self._starts, hashes[begin], quality)
            if end <= len(hashes):
                self._note(self._chunks, hashes[end - 1], quality)

    def brought(self, states: Iterable[RequestState]) -> bool:
        """Requests just got their pages: whether another connector fills some."""
        any_brought = False
        for state in states:
            begin, end = state.local + state.external, state.request.num_computed_tokens
            if end > begin:
                self.lost(state, begin // self._chunk_tokens, -(-end // self._chunk_tokens), UNKNOWN)
                any_brought = True
        return any_brought

    def store(self, state: RequestState, chunks: Sequence[int]) -> list[int]:
        """The qualities of chunks that the request holds in pages, each noted for
        what will be computed on top of it."""
        if not self._starts and not state.lossy:
            return [self._floor] * len(chunks)
        worst = self._floor
        upto = []
        hashes = state.request.block_hashes
        for c in range(max(chunks, default=-1) + 1):
            worst = max(worst, state.lossy.get(c, 0))
            begin, end = c * self._blocks, (c + 1) * self._blocks
            if end <= len(hashes):
                worst = max(worst, self._chunks.get(hashes[end - 1], 0))
                if c * self._chunk_tokens < state.local:
                    worst = max(worst, self._starts.get(hashes[begin], 0))
            upto.append(worst)
        for c in chunks:
            self.lost(state, c, c + 1, upto[c])
        return [upto[c] for c in chunks]

    def _note(self, known: OrderedDict[bytes, int], name: bytes, quality: int) -> None:
        known[name] = max(quality, known.get(name, 0))
        known.move_to_end(name)
        while len(known) > self._most:
            _, forgotten = known.popitem(last=False)
            if forgotten > self._floor:
                self._floor = forgotten
                what = "nothing is stored" if forgotten == UNKNOWN else f"all that is stored counts as L{forgotten - 1}"
                logger.warning("Larder: %s from now on, until the engine restarts", what)
