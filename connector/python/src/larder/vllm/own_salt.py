"""The engine's own prefix cache, divided by what requests take.

vLLM hands pages from one request to another by the hashes of blocks, and knows
nothing of what was lost in them. So a request that takes less loss than its
engine loads has hashes of its own, shared with those that take the same.
"""

from __future__ import annotations

import secrets
from typing import Any


class OwnSalts:
    """Salts that only this process knows: a request's own salt, which may be any
    text, is never one of them."""

    def __init__(self) -> None:
        self._secret = secrets.token_hex(16)

    def set_apart(self, request: Any, worst_quality: int) -> None:
        """Gives a request another salt, on top of its own. To be called before
        the engine looks for pages of it, which it does when it schedules it first:
        hashes are made with the Request, and made anew here."""
        request.cache_salt = f"{request.cache_salt or ''}\0larder/{worst_quality}/{self._secret}"
        # In place: views of them that the engine made go on to be right.
        request.block_hashes.clear()
        request.update_block_hashes()
