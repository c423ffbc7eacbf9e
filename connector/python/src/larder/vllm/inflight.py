"""Chunks that some request is loading, so that others wait for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vllm.v1.request import RequestStatus

from larder.load_or_recompute import Run
from larder.vllm.matching import Match
from larder.vllm.request_state import RequestState


@dataclass
class InFlight:
    """One load. deadline: time.monotonic() seconds by which the worker must
    have ended it; its request is then promoted by the engine. keys: its chunks, as
    RequestState names them; runs: where they lay. failed: some rank said that it
    did not get all of it. tokens: to load, less those that could not be; begun: its
    start, on the deadline's clock; ends: when it is expected to have ended, where
    that is worked out; took_s: on the slowest rank of those that have ended it."""

    request: Any
    match: Match | None
    keys: tuple[bytes, ...]
    deadline: float
    runs: tuple[Run, ...]
    failed: bool = False
    tokens: int = 0
    begun: float = 0.0
    ends: float = 0.0
    lost_chunks: int = 0
    took_s: float = 0.0

    def blocks_others(self, now: float) -> bool:
        """Whether its chunks will soon be a local hit.

        They are one only after the scheduler has taken the request out of its
        waiting state, which is a step after the load's end."""
        return self.request.status == RequestStatus.WAITING_FOR_REMOTE_KVS and now < self.deadline

    def lost(self, chunk: int, chunk_tokens: int) -> tuple[bytes, ...]:
        """Some rank did not get it from this one of its chunks on; returns the
        keys of what no other rank had told of before."""
        lost = self.keys[chunk : len(self.keys) - self.lost_chunks]
        self.failed = True
        self.lost_chunks += len(lost)
        self.tokens = max(0, self.tokens - len(lost) * chunk_tokens)
        return lost


class InFlightLoads:
    """The loads of one engine, by request and by chunk. patience_s: for which a
    request waits for others' loads, all in all."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._loads: dict[str, InFlight] = {}
        self._by_key: dict[bytes, InFlight] = {}
        self._arrived: list[str] = []

    def __len__(self) -> int:
        return len(self._loads)

    def start(self, load: InFlight) -> None:
        """A load was told to the workers."""
        self._loads[load.request.request_id] = load
        self._by_key |= dict.fromkeys(load.keys, load)

    def get(self, request_id: str) -> InFlight | None:
        """The load of a request, None where there is none."""
        return self._loads.get(request_id)

    def took(self, seconds: Mapping[str, float]) -> None:
        """Some ranks have ended loads, of these requests."""
        for request_id, took_s in seconds.items():
            load = self._loads.get(request_id)
            if load is not None:
                load.took_s = max(load.took_s, took_s)

    def end(self, request_id: str) -> InFlight | None:
        """Every rank has ended the load; its chunks still block others until
        its request is promoted."""
        self._arrived.append(request_id)
        return self._loads.pop(request_id, None)

    def take_arrived(self) -> tuple[str, ...]:
        """The loads that every rank has ended since the last call."""
        arrived, self._arrived = tuple(self._arrived), []
        return arrived

    def under_way(self, state: RequestState, keys: Sequence[bytes], now: float) -> dict[int, InFlight]:
        """The loads of other requests that this one may wait for, by the places of
        their chunks in keys."""
        found: dict[int, InFlight] = {}
        if not self._by_key:
            return found
        for i, key in enumerate(keys):
            load = self._by_key.get(key)
            if load is None:
                continue
            if load.blocks_others(now):
                found[i] = load
            else:
                self._forget(load)
        return found if found and state.may_wait(now, self._patience_s) else {}

    def sweep(self, now: float) -> None:
        """Forgets chunks that block nobody any more."""
        for load in {id(v): v for v in self._by_key.values()}.values():
            if load.request.request_id not in self._loads and not load.blocks_others(now):
                self._forget(load)

    def _forget(self, load: InFlight) -> None:
        for key in load.keys:
            if self._by_key.get(key) is load:
                del self._by_key[key]
