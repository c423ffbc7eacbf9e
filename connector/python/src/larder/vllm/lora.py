"""Digests of LoRA adapters, made off the scheduler's path."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from larder.errors import LarderError
from larder.weights import adapter_digest

_MOST = 4096

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class _Adapter:
    path: str
    signature: Signature
    digest: Future[bytes | None]


class AdapterDigests:
    """Knows adapters by their id in the engine.

    The engine keeps an adapter's weights while its files may change, and may
    read them again unseen. So an adapter whose files changed since they were
    hashed is not known any more, for good: nothing says which weights are used.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "larder-lora")
        self._adapters: dict[int, _Adapter | None] = {}

    def digest(self, lora_request: Any) -> bytes | None:
        """Returns the digest for keys, 32 bytes; None while it is not known."""
        if lora_request.load_inplace or lora_request.tensorizer_config_dict:
            return None
        number, path = lora_request.lora_int_id, lora_request.lora_path
        signature = _signature(path)
        if number not in self._adapters:
            if signature is None or len(self._adapters) >= _MOST:
                return None
            made = self._pool.submit(_hash, path, signature)
            self._adapters[number] = _Adapter(path, signature, made)
        adapter = self._adapters[number]
        if adapter is None or (adapter.path, adapter.signature) != (path, signature):
            self._adapters[number] = None
            return None
        digest = adapter.digest.result() if adapter.digest.done() else None
        if digest is not None and lora_request.is_3d_lora_weight:
            digest = hashlib.sha256(b"larder/adapter-3d/1" + digest).digest()
        return digest

    def close(self) -> None:
        """Ends the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _hash(path: str, signature: Signature) -> bytes | None:
    try:
        digest = adapter_digest(path)
    except LarderError:
        return None
    return digest if _signature(path) == signature else None


def _signature(path: str) -> Signature | None:
    """What changes with the files of a folder; None where it cannot be read."""
    try:
        with os.scandir(path) as entries:
            found = [(e.name, e.stat()) for e in entries if e.is_file()]
    except OSError:
        return None
    return tuple(sorted((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in found))
