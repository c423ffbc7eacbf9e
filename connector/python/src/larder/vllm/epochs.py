"""What the engine may use, and store, after it dropped its cache.

vLLM drops it when weights may have changed, and says neither whether nor to
what: they change in the workers, by calls that no connector hears of. So what
follows is a namespace of its own, with an epoch that nobody else has.
"""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any

from vllm.logger import init_logger

from larder.namespace import NamespaceDescriptor

logger = init_logger("vllm.larder.epochs")

# Namespaces that one engine makes. The daemon has 4096 in its life, for all.
MOST_EPOCHS = 256
# An operator's own epochs (Settings.weights_epoch) are smaller.
_DRAWN = 1 << 63


class Epochs:
    """The namespace of the engine, and which session of the workers has it.

    namespace: None while there is none. session: counted from 0, which workers
    begin by themselves with what they say at the start; of later ones they are
    told, once.
    """

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._pool: Any = None
        self._drawn = 0
        # As the workers said it.
        self._said: NamespaceDescriptor | None = None
        # A reset that came before that: whether it emptied the cache.
        self._early: bool | None = None
        # Drawn, with nothing stored in it.
        self._fresh: NamespaceDescriptor | None = None
        self._untold = b""
        self.namespace: NamespaceDescriptor | None = None
        self.session = 0

    @property
    def started(self) -> bool:
        """Whether the workers said their namespace."""
        return self._said is not None

    def bind(self, pool: Any) -> None:
        """Takes the engine's pool of blocks."""
        self._pool = pool

    def start(self, namespace: NamespaceDescriptor) -> None:
        """Takes what the workers say at the engine's start."""
        self._said = self.namespace = namespace
        if self._early is not None:
            self._go_on(self._next(namespace, emptied=self._early))

    def reset(self) -> bool:
        """The engine's cache was reset: whether the namespace is another one now."""
        if self._keep:
            return False
        emptied = self._emptied()
        if self._said is None:
            self._early = emptied
            return False
        return self._go_on(self._next(self._said, emptied=emptied))

    def used(self) -> None:
        """Something is stored in the present namespace."""
        self._fresh = None

    def tell(self) -> bytes:
        """What workers are to be told of a new session: the encoding of its
        namespace, once; empty where there is none, and later."""
        told, self._untold = self._untold, b""
        return told

    def _go_on(self, namespace: NamespaceDescriptor | None) -> bool:
        if namespace == self.namespace:
            return False
        self.namespace = namespace
        self.session += 1
        self._untold = b"" if namespace is None else namespace.encode()
        if namespace is not None:
            logger.info("Larder: namespace %s from now on", namespace.fingerprint()[:8].hex())
        return True

    def _next(self, namespace: NamespaceDescriptor, *, emptied: bool) -> NamespaceDescriptor | None:
        """One in which nothing was stored is as good as new, so resets of an engine
        that is idle take one between them."""
        if not emptied:
            # Its pages may be of weights of before, and so may all that is
            # computed on top.
            logger.warning("Larder is off until the engine's cache is reset again: some of it is still in use")
            return None
        if self._fresh is None:
            if self._drawn == MOST_EPOCHS:
                logger.warning("Larder is off until the engine restarts: its cache was reset %d times", MOST_EPOCHS)
                return None
            self._drawn += 1
            self._fresh = dataclasses.replace(namespace, weights_epoch=_DRAWN | secrets.randbits(63))
        return self._fresh

    def _emptied(self) -> bool:
        """Whether the engine holds no page, and would find none."""
        pool = self._pool
        if pool is None:
            return False
        # One block is never free: that which stands for none.
        return pool.num_gpu_blocks - pool.get_num_free_blocks() == 1 and len(pool.cached_block_hash_to_block) == 0
