"""What the scheduler half knows of one request."""

from __future__ import annotations

from typing import Any

from larder.keys import KEY_BYTES, Chain, root_key
from larder.load_or_recompute import Choice
from larder.vllm.matching import Match
from larder.vllm.page_groups import RequestPages
from larder.vllm.request_policy import RequestPolicy

# How often one chunk's store is tried.
STORE_TRIES = 3


class RequestState:
    """Lives from on_new_request to request_finished.

    local: tokens of the engine's own hit, as last heard. external: tokens after
    them that Larder loads, or loaded. in_step: as was last said, inside of the step
    that computes the others. loading: a load is under way. no_load:
    nothing is loaded for it any more. matches: asked so far; preemptions: as of
    the last one; outdated: chunks of the last answer that was, -1 before.
    choice: from which chunk on, and how many, where less is loaded than could
    be, until the request has its pages; skip_told: whether the daemon heard of
    one. waited, waiting_since: for the present one. blocked_since: when it first
    waited for another request's load. lossy: by chunk, the qualities of those
    that are not exact, which Lineage notes. apart: what sets the names of its
    chunks apart from those of requests that take worse ones.
    """

    def __init__(self, request: Any, policy: RequestPolicy, apart: bytes = b"") -> None:
        self.request = request
        self.policy = policy
        self.apart = apart
        self.match: Match | None = None
        self.local = 0
        self.external = 0
        self.in_step = False
        self.loading = False
        self.no_load = False
        self.matches = 0
        self.outdated = -1
        self.choice: tuple[int, Choice] | None = None
        self.skip_told = False
        self.preemptions = 0
        self.waited = False
        self.waiting_since: float | None = None
        self.blocked_since: float | None = None
        self.pages = RequestPages()
        # A chunk that the daemon lacks cannot be stored any more.
        self.gap = False
        # Chunks before this one were looked at for storing.
        self.next_chunk: int | None = None
        # Chunks covered by the local hit, that is not yet clear whether the
        # daemon has them: up to here.
        self.unclear: int = 0
        # Older chunks to store.
        self.backlog: list[int] = []
        self.tries: dict[int, int] = {}
        self.lossy: dict[int, int] = {}
        self._chain: Chain | None = None
        self._chained = 0
        self._rooted = (b"", b"")
        self.root = b""
        self.keys = bytearray()

    @property
    def request_id(self) -> str:
        """The engine's id of the request."""
        return str(self.request.request_id)

    def make_keys(self, fingerprint: bytes, tenant_key: bytes, chunk_tokens: int, tokens: int) -> int:
        """Makes the keys of all full chunks among the first tokens tokens;
        returns how many there are now, which may be more.

        Raises LarderError where they have no keys."""
        if self._chain is None or self._rooted != (fingerprint, tenant_key):
            policy = self.policy
            self._rooted = (fingerprint, tenant_key)
            self.root = root_key(fingerprint, tenant_key, policy.salt, policy.adapter)
            self._chain = Chain(self.root, chunk_tokens, policy.extras)
            self._chained = 0
            self.keys = bytearray()
        have = len(self.keys) // KEY_BYTES
        if tokens // chunk_tokens > have:
            self.keys += self._chain.append(self._tokens(tokens))
            self._chained = tokens
        return len(self.keys) // KEY_BYTES

    def _tokens(self, tokens: int) -> list[int]:
        request = self.request
        if self._chained == 0 and tokens == request.num_prompt_tokens:
            # Spares a copy of a long prompt.
            prompt: list[int] = request.prompt_token_ids
            return prompt
        return list(request.all_token_ids[self._chained : tokens])

    def key(self, chunk: int) -> bytes:
        """The key of a chunk; -1 is the root."""
        if chunk < 0:
            return self.root
        return bytes(self.keys[chunk * KEY_BYTES : (chunk + 1) * KEY_BYTES])

    def restart(self) -> None:
        """The request begins anew in another namespace: it has no pages but such
        as it computes from now on."""
        self.match = self.choice = self.next_chunk = self.waiting_since = self.blocked_since = None
        self.waited = False
        self.outdated = -1
        self.unclear = 0
        self.gap = False
        self.backlog = []
        self.tries = {}
        self.lossy = {}
        self._chain = None
        self.keys = bytearray()

    def unfilled(self) -> None:
        """Its pages did not get what they should have: it has none, and computes
        anew what a match does not bring."""
        self.next_chunk = None
        self.unclear = 0
        self.backlog = []
        self.pages.clear()

    def may_wait(self, now: float, seconds: float) -> bool:
        """Whether the request has not waited for others' loads as long."""
        if self.blocked_since is None:
            self.blocked_since = now
        return now - self.blocked_since < seconds

    def name(self, chunk: int) -> bytes:
        """What the scheduler half knows a chunk by: its key, where one is known
        to be there, or on its way, in a quality that the request takes."""
        return self.key(chunk) + self.apart

    def all_keys(self, chunks: int) -> bytes:
        """The keys of the first chunks chunks."""
        return bytes(self.keys[: chunks * KEY_BYTES])
