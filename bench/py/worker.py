"""The Python side of the benchmarks, one process driven over stdin and stdout.

An arm answers with the seconds that it took and the CPU seconds that this
process used, so that whoever drives it can put its arms between others.
"""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from lines import Answer, serve, timed

from larder.client import NO_HOLD, Client, CommitChunk, CommitPart, Options
from larder.keys import chunk_keys
from larder.namespace import NamespaceDescriptor
from larder.v1 import engine_pb2

Bytes = npt.NDArray[np.uint8]

# A commit carries as much as is left after it, within these bounds: few
# messages, and little to checksum after the last copy.
MIN_COMMIT_BYTES = 8 << 20
MAX_COMMIT_BYTES = 32 << 20
CHUNK_TOKENS = 256


class Ring:
    """Pieces of prefaulted memory in turn."""

    def __init__(self, size: int) -> None:
        self._memory: Bytes = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
        self._at = 0

    def next(self, n: int) -> Bytes:
        if self._at + n > len(self._memory):
            self._at = 0
        piece = self._memory[self._at : self._at + n]
        self._at += n
        return piece


class Worker:
    """State between commands."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._ring: Ring | None = None
        self._slots: list[Bytes] = []
        self._at = 0
        self._part_bytes = 0
        self._echo: Echo | None = None

    def close(self, _: Answer) -> Answer:
        """Ends the session and frees the memory."""
        if self._client is not None:
            self._client.close()
        if self._echo is not None:
            self._echo.close()
        self._client = self._ring = self._echo = None
        self._slots = []
        return {}

    def open(self, c: Answer) -> Answer:
        """Connects; memory: bytes that sources and destinations rotate through;
        slots: how many slots of the arena memcpy rotates through."""
        self._part_bytes = c["part_bytes"]
        credits = {self._part_bytes: c["credits"]} if c["credits"] else {}
        self._client = Client(
            Options(
                socket=c["socket"],
                role="client",
                namespace=NamespaceDescriptor.decode(bytes.fromhex(c["namespace"])),
                credits=credits,
                call_timeout_s=10.0,
                prefault=True,
            )
        )
        if not self._client.wait_ready(10.0):
            raise RuntimeError(f"not connected: {self._client.last_error}")
        if c["memory"]:
            self._ring = Ring(c["memory"])
        for _ in range(c.get("slots", 0)):
            # Never committed; the view stays valid while the session lives.
            with self._credit().writing() as view:
                self._slots.append(view)
        return {}

    @property
    def client(self) -> Client:
        assert self._client is not None
        return self._client

    def store(self, c: Answer) -> Answer:
        """Stores the keys' chunks, one part each, batch by batch; a batch ends
        when its publish is acknowledged."""
        root, keys, batch = bytes.fromhex(c["root"]), bytes.fromhex(c["keys"]), c["batch"]
        list_of_keys = [keys[i : i + 32] for i in range(0, len(keys), 32)]

        def run() -> None:
            for at in range(0, len(list_of_keys), batch):
                self._store_batch(root, list_of_keys, at, min(at + batch, len(list_of_keys)))

        return timed(run)

    def _store_batch(self, root: bytes, keys: list[bytes], first: int, end: int) -> None:
        ring, n = self._ring, self._part_bytes
        assert ring is not None
        sent: list[Any] = []
        chunks: list[CommitChunk] = []
        for i in range(first, end):
            credit = self._credit()
            source = ring.next(n)
            with credit.writing() as view:
                np.copyto(view, source)
            parent = keys[i - 1] if i else root
            chunks.append(CommitChunk(keys[i], parent, i, CHUNK_TOKENS, (CommitPart(0, credit),)))
            left = (end - 1 - i) * n
            if len(chunks) * n >= min(max(left, MIN_COMMIT_BYTES), MAX_COMMIT_BYTES):
                sent.append(self.client.commit(chunks))
                chunks = []
        if chunks:
            sent.append(self.client.commit(chunks))
        for pending in sent:
            self._check(pending)

    def _credit(self) -> Any:
        until = time.monotonic() + 10.0
        while (credit := self.client.take_credit(self._part_bytes)) is None:
            if time.monotonic() > until:
                raise RuntimeError(f"no credit of {self._part_bytes} bytes within 10 s")
            time.sleep(0.00005)
        return credit

    @staticmethod
    def _check(pending: Any) -> None:
        reply = pending.result()
        for outcome in reply.outcomes:
            if outcome != engine_pb2.COMMIT_OUTCOME_PUBLISHED:
                raise RuntimeError(f"a part was not published: {outcome} {reply.errors}")

    def load(self, c: Answer) -> Answer:
        """Loads ranges [first, chunks] of a held prompt and copies them out."""
        root, keys, ring, n = bytes.fromhex(c["root"]), bytes.fromhex(c["keys"]), self._ring, self._part_bytes
        assert ring is not None
        found = self.client.match(root, keys).result()
        if found.chunks != len(keys) // 32:
            raise RuntimeError(f"{found.chunks} of {len(keys) // 32} chunks are there")

        def run() -> None:
            for first, chunks in c["ranges"]:
                with self.client.load(found.hold_id, first, chunks) as load:
                    got = 0
                    for batch in load.batches(10.0):
                        for part in batch:
                            np.copyto(ring.next(n), part.view)
                        got += len(batch)
                    if not load.release() or got != chunks:
                        raise RuntimeError(f"{got} of {chunks} parts: {load.failed}")

        answer = timed(run)
        self.client.end_holds([found.hold_id])
        return answer

    def memcpy(self, c: Answer) -> Answer:
        """Copies count parts into slots, or out of them, with numpy."""
        ring, slots, n = self._ring, self._slots, self._part_bytes
        assert ring is not None
        out = c.get("out", False)

        def run() -> None:
            for _ in range(c["count"]):
                slot, memory = slots[self._at], ring.next(n)
                self._at = (self._at + 1) % len(slots)
                if out:
                    np.copyto(memory, slot)
                else:
                    np.copyto(slot, memory)

        return timed(run)

    def match(self, c: Answer) -> Answer:
        """Microseconds of each of count matches with a hold."""
        root, keys = bytes.fromhex(c["root"]), bytes.fromhex(c["keys"])
        us, holds = [], []
        for _ in range(c["count"]):
            began = time.perf_counter()
            found = self.client.match(root, keys).result()
            us.append((time.perf_counter() - began) * 1e6)
            if found.chunks != len(keys) // 32:
                raise RuntimeError(f"{found.chunks} of {len(keys) // 32} chunks are there")
            holds.append(found.hold_id)
        self.client.end_holds(holds)
        return {"us": us}

    def echo(self, c: Answer) -> Answer:
        """Microseconds of each of count bare round trips of the same size."""
        if self._echo is None:
            self._echo = Echo(c["socket"])
        root, keys = bytes.fromhex(c["root"]), bytes.fromhex(c["keys"])
        us = []
        for _ in range(c["count"]):
            began = time.perf_counter()
            reply = self._echo.match(root, keys)
            us.append((time.perf_counter() - began) * 1e6)
            if reply.match.chunks != len(keys) // 32:
                raise RuntimeError("the echo answered something else")
        return {"us": us}

    def keys(self, c: Answer) -> Answer:
        """Milliseconds on the calling thread to hash a prompt and to submit its
        match; the answers are waited for in between."""
        tokens = [(i * 7919) % 128000 for i in range(c["tokens"])]
        ms = []
        for _ in range(c["count"]):
            root = bytes(32)
            began = time.perf_counter()
            pending = self.client.match(root, chunk_keys(root, tokens, CHUNK_TOKENS), hold_ms=NO_HOLD)
            ms.append((time.perf_counter() - began) * 1e3)
            pending.result()
        return {"ms": ms}


class Echo:
    """A bare stream to the echo process: what grpcio itself costs."""

    def __init__(self, socket: str) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._out: queue.SimpleQueue[engine_pb2.SessionRequest | None] = queue.SimpleQueue()
        self._id = 0
        call = self._channel.stream_stream(
            "/larder.v1.Engine/Session",
            request_serializer=engine_pb2.SessionRequest.SerializeToString,
            response_deserializer=engine_pb2.SessionResponse.FromString,
        )
        self._replies = iter(call(self._requests(), wait_for_ready=True))

    def _requests(self) -> Iterator[engine_pb2.SessionRequest]:
        while (request := self._out.get()) is not None:
            yield request

    def match(self, root: bytes, keys: bytes) -> engine_pb2.SessionResponse:
        self._id += 1
        self._out.put(engine_pb2.SessionRequest(id=self._id, match=engine_pb2.Match(root=root, keys=keys)))
        reply: engine_pb2.SessionResponse = next(self._replies)
        return reply

    def close(self) -> None:
        self._out.put(None)
        self._channel.close()


if __name__ == "__main__":
    worker = Worker()
    serve(worker, sys.stdout)
    worker.close({})
