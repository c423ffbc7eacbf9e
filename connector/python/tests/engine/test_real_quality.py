"""Real engines and a real daemon whose disk keeps chunks at L2: who accepts that,
who does not, and what becomes of what is computed on top."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from real_engine import RealEngine

from harness.daemon import Daemon

CHUNK, TOKENS = 256, 24
L2 = {"lowest_level": "L2"}
EXACT = {"lowest_level": "exact"}


@pytest.fixture
def larderd(binaries: Path, tmp_path: Path, short_folder: Path) -> Iterator[Daemon]:
    """A daemon that writes all chunks to its disk at once, at L2."""
    folder = short_folder / "quality"
    folder.mkdir()
    flags = {
        "nvme.path": str(tmp_path / "nvme"),
        "nvme.bytes": "256MiB",
        "nvme.reserve_bytes": "1MiB",
        "nvme.buffered": "true",
        "nvme.write_back": "always",
        "nvme.codec": "L2",
    }
    daemon = Daemon(binaries, folder, host_bytes="512MiB", flags=flags)
    daemon.start()
    yield daemon
    daemon.stop()


def on_disk(larderd: Daemon) -> dict[str, Any]:
    tier: dict[str, Any] = larderd.status()["tiers"][1]
    return tier


def await_on_disk(larderd: Daemon, chunks: int) -> None:
    until = time.monotonic() + 60
    while int(on_disk(larderd).get("chunks", 0)) < chunks:
        assert time.monotonic() < until, on_disk(larderd)
        time.sleep(0.05)


def test_a_lossy_prefix_in_real_engines(
    larderd: Daemon, test_model: Path, words: Callable[[Path], list[int]], tmp_path: Path
) -> None:
    ids = words(test_model)
    short, long = ids[:3000], ids[:3200]

    @contextlib.contextmanager
    def engine(name: str, **extra: Any) -> Iterator[RealEngine]:
        one = RealEngine(test_model, tmp_path / f"{name}.log", socket=larderd.socket, extra=extra)
        try:
            one.await_ready()
            yield one
        finally:
            one.kill()

    with engine("a") as a:
        assert a.generate(short, TOKENS)["cached"] == 0
        await_on_disk(larderd, 11)
        assert a.stats()["chunks_stored"] == 11
        bytes_stored = a.stats()["bytes_stored"]
        right = a.generate(long, TOKENS, larder={"skip_store": True})["token_ids"]
    # A third of what came, at the least: a float32 has 16 bits of noise.
    assert int(on_disk(larderd)["written_bytes"]) < bytes_stored / 3
    larderd.stop()
    larderd.start()

    with engine("b", **L2) as b:
        answer = b.generate(long, TOKENS)
        assert answer["cached"] == 11 * CHUNK
        assert len(set(answer["token_ids"])) > 4
        await_on_disk(larderd, 12)
        assert b.stats()["chunks_loaded"] == 11
        assert b.stats()["chunks_stored"] == 1
        # From the engine's own cache: nothing new.
        b.generate(long, TOKENS)
        assert b.stats()["chunks_stored"] == 1
        # Nor anything for a request that wants exact, which these pages are not.
        answer = b.generate(long, TOKENS, larder={**EXACT, "skip_store": True})
        assert answer["cached"] == 0
        assert answer["token_ids"] == right

    before = larderd.counters()
    with engine("c") as c:
        assert c.generate(long, TOKENS)["cached"] == 0
        larderd.await_published(int(before["published_chunks"]) + 12, 60)
        assert c.stats()["chunks_loaded"] == 0
        assert c.stats()["chunks_stored"] == 12

    # Whoever accepts L2 has the exact ones too, now that the host tier has them.
    with engine("d", **L2) as d:
        assert d.generate(long, TOKENS)["cached"] == 12 * CHUNK
        assert d.stats()["chunks_loaded"] == 12
        # They are known to be exact, their pages are not.
        answer = d.generate(long, TOKENS, larder=EXACT)
        assert answer["cached"] == 12 * CHUNK
        assert d.stats()["chunks_loaded"] == 24
        assert answer["token_ids"] == right
