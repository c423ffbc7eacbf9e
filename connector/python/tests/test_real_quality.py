"""Three engines and a real daemon whose disk keeps chunks at L2."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fake_daemon import PATIENCE_S
from larderd import CHUNK_TOKENS, PART_BYTES, ROOT, Larderd, namespace, take
from larderd import keys as keys_of
from support import Connect, eventually

from larder.client import Client, CommitChunk, CommitPart
from larder.load import Bytes
from larder.v1 import engine_pb2

EXACT, L2 = 0, 3
PUBLISHED = engine_pb2.COMMIT_OUTCOME_PUBLISHED

Real = Callable[..., Larderd]


def kv(key: bytes, part: int) -> Bytes:
    """KV of a part in bfloat16, each of the 64 channels of its own size."""
    seed = int.from_bytes(hashlib.sha256(key + bytes([part])).digest()[:8], "little")
    draw = np.random.default_rng(seed)
    values = draw.standard_normal((PART_BYTES // 128, 64)) * np.exp2(draw.standard_normal(64))
    bits: Bytes = (values.astype("<f4").view("<u4") >> 16).astype("<u2").reshape(-1).view(np.uint8)
    return bits


def numbers(part: Bytes) -> npt.NDArray[np.float32]:
    return (part.view("<u2").astype("<u4") << 16).view("<f4")


def store(client: Client, prompt: list[bytes], first: int, last: int, quality: int) -> None:
    chunks = []
    for i in range(first, last):
        parts = []
        for part in range(2):
            credit = take(client)
            with credit.writing() as view:
                view[:] = kv(prompt[i], part)
            parts.append(CommitPart(part, credit))
        chunks.append(CommitChunk(prompt[i], prompt[i - 1] if i else ROOT, i, CHUNK_TOKENS, parts, quality))
    outcomes = list(client.commit(chunks).result().outcomes)
    assert set(outcomes) <= {PUBLISHED, engine_pb2.COMMIT_OUTCOME_KEPT}


def match(client: Client, prompt: list[bytes], worst: int) -> engine_pb2.MatchReply:
    return client.match(ROOT, b"".join(prompt), worst_quality=worst).result()


def load(client: Client, prompt: list[bytes], worst: int) -> tuple[int, dict[tuple[int, int], Bytes]]:
    """The quality that the daemon names, and the bytes of what matched."""
    found = match(client, prompt, worst)
    got = {}
    with client.load(found.hold_id, 0, found.chunks) as loading:
        for batch in loading.batches(PATIENCE_S):
            for part in batch:
                got[part.chunk, part.part] = part.view.copy()
        assert loading.failed == []
        assert loading.release()
    client.end_holds([found.hold_id])
    return found.quality, got


@pytest.mark.parametrize("share_memory", [True, False])
def test_a_lossy_prefix_never_answers_exact(real: Real, connect: Connect, folder: Path, share_memory: bool) -> None:
    def client_of() -> Client:
        options = {
            "namespace": namespace(),
            "credits": {PART_BYTES: 32},
            "role": "client",
            "share_memory": share_memory,
        }
        return connect(**options)

    daemon = real(
        nvme__path=str(folder / "nvme"),
        nvme__bytes="64MiB",
        nvme__reserve_bytes="1MiB",
        nvme__buffered="true",
        nvme__write_back="always",
        nvme__codec="L2",
    )

    def written(chunks: int) -> None:
        eventually(lambda: daemon.status().tiers[1].chunks >= chunks)

    prompt = keys_of("quality", 5)
    a = client_of()
    store(a, prompt, 0, 4, EXACT)
    assert (match(a, prompt, EXACT).chunks, match(a, prompt, L2).quality) == (4, EXACT)
    written(4)
    a.close(PATIENCE_S)
    daemon.kill()
    daemon.start()

    b, c = client_of(), client_of()
    assert match(c, prompt, EXACT).chunks == 0
    assert match(c, prompt, L2 - 1).chunks == 0
    quality, got = load(b, prompt, L2)
    assert quality == L2
    assert len(got) == 8
    for (chunk, part), data in got.items():
        want, have = numbers(kv(prompt[chunk], part)), numbers(data)
        # Half a step of 9 x 0.09 rms, V's being the coarser, and bfloat16's own rounding.
        error = np.abs(want - have) - np.abs(want) / 128
        assert error.max() < 0.5 * 9 * 0.09 * 2 * np.sqrt(np.mean(want**2))
        assert not (want == have).all()
    # B computes the next chunk on top of them.
    store(b, prompt, 4, 5, quality)
    assert (match(b, prompt, L2).chunks, match(b, prompt, L2).quality) == (5, L2)
    assert match(c, prompt, EXACT).chunks == 0
    # Nor does the chunk by itself, as a prompt's first.
    assert match(c, prompt[4:], EXACT).chunks == 0
    written(5)
    b.close(PATIENCE_S)
    c.close(PATIENCE_S)
    daemon.kill()
    daemon.start()

    b, c = client_of(), client_of()
    quality, again = load(b, prompt, L2)
    assert (quality, len(again)) == (L2, 10)
    assert all((again[at] == got[at]).all() for at in got)
    assert all((again[4, part] == kv(prompt[4], part)).all() for part in range(2))
    assert match(c, prompt, EXACT).chunks == 0
    store(c, prompt, 0, 5, EXACT)
    quality, exact = load(c, prompt, EXACT)
    assert (quality, len(exact)) == (EXACT, 10)
    assert all((data == kv(prompt[chunk], part)).all() for (chunk, part), data in exact.items())
