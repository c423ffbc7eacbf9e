"""Which of the engine's pages may hold, or rest on, KV that lost something."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from vllm.logger import init_logger

from larder.vllm.request_state import RequestState

logger = init_logger("vllm.larder.lineage")

# Chunks remembered at most, of 256 tokens 33 million: more than an engine's
# pages hold.
MOST_CHUNKS = 1 << 17


class Lineage:
    """Qualities (api/PART.md: 0 exact, else 1 + level) of chunks that were loaded
    with a loss, or computed on top of one.

    The engine's own prefix cache hands pages from one request to another without
    a word about where they come from, block by block. So a chunk counts as no
    better than what was ever loaded for its key or for a chunk before it, and,
    as far as the engine's cache covers a request, for any chunk with the same
    parent: its first blocks may be those. What is forgotten for want of memory
    is never taken for exact: from then on everything has its quality.
    """

    def __init__(self, chunk_tokens: int, most: int = MOST_CHUNKS) -> None:
        self._chunk_tokens = chunk_tokens
        self._most = most
        self._chunks: OrderedDict[bytes, int] = OrderedDict()
        # By parent, the worst of its chunks.
        self._children: OrderedDict[bytes, int] = OrderedDict()
        self._floor = 0

    def lost(self, state: RequestState, first: int, last: int, quality: int) -> None:
        """Chunks [first, last) of the request are no better than quality."""
        if quality == 0:
            return
        for chunk in range(first, last):
            self._note(self._chunks, state.key(chunk), quality)
            self._note(self._children, state.key(chunk - 1), quality)

    def store(self, state: RequestState, chunks: Sequence[int]) -> list[int]:
        """The qualities of chunks that the request holds in pages, each noted for
        what will be computed on top of it."""
        if not self._chunks:
            return [self._floor] * len(chunks)
        worst = self._floor
        upto = []
        for c in range(max(chunks, default=-1) + 1):
            worst = max(worst, self._chunks.get(state.key(c), 0))
            if c * self._chunk_tokens < state.local:
                worst = max(worst, self._children.get(state.key(c - 1), 0))
            upto.append(worst)
        for c in chunks:
            self.lost(state, c, c + 1, upto[c])
        return [upto[c] for c in chunks]

    def _note(self, known: OrderedDict[bytes, int], key: bytes, quality: int) -> None:
        known[key] = max(quality, known.get(key, 0))
        known.move_to_end(key)
        while len(known) > self._most:
            _, forgotten = known.popitem(last=False)
            if forgotten > self._floor:
                self._floor = forgotten
                logger.warning("Larder: everything that this engine stores counts as L%d from now on", forgotten - 1)
