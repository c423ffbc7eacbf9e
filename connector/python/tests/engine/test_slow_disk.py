"""vLLM's scheduler, the real client, and a real larderd whose disk is slow."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from simulated_engine import MakeEngine, MakePrompt
from timed_engine import Timed, seconds

from harness.daemon import Daemon

CHUNK, PROMPT = 64, 1000
TOKENS = PROMPT // CHUNK * CHUNK
PATIENCE_S = 120.0


@pytest.fixture
def slow_larderd(
    binaries: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Daemon, Callable[[str], None]]]:
    """A daemon with 32 chunks of memory and all of them on disk; what sets the time of a read."""
    folder = short_folder / "slow"
    folder.mkdir()
    (folder / "larder").symlink_to(binaries / "larder")
    subprocess.run(
        ["go", "build", "-o", str(folder / "larderd"), "./test/slowdisk"],  # noqa: S607 - the Go that made the rest
        cwd=REPOSITORY,
        env={**os.environ, "CGO_ENABLED": "0"},
        check=True,
    )
    speed = folder / "speed"
    monkeypatch.setenv("SLOWDISK", str(speed))

    def set_speed(read: str) -> None:
        # In one step, since reads look at it all the time.
        (folder / "new").write_text(read)
        (folder / "new").rename(speed)

    set_speed("0s")
    nvme = {"path": str(folder / "nvme"), "bytes": "64MiB", "reserve_bytes": "1MiB", "buffered": "true"}
    flags = {f"nvme.{name}": value for name, value in nvme.items()} | {"nvme.write_back": "always"}
    daemon = Daemon(folder, folder, host_bytes="1MiB", flags=flags)
    daemon.start()
    yield daemon, set_speed
    daemon.stop()


def test_what_lies_on_a_slow_disk_is_computed(
    engine: MakeEngine, prompt: MakePrompt, slow_larderd: tuple[Daemon, Callable[[str], None]]
) -> None:
    daemon, set_speed = slow_larderd
    plain = engine(
        connect=None, blocks=128, extra={"socket": str(daemon.socket), "load_or_recompute": True, "copy_threads": 1}
    )
    plain.connector.scheduler_half._client.wait_ready(PATIENCE_S)
    e = Timed(plain, prompt)
    prompts = [prompt(PROMPT, seed=i) for i in range(5)]
    runs = 0

    def answer(tokens: list[int]) -> int:
        nonlocal runs
        runs += 1
        return e.answer(f"r{runs}", tokens)

    # More than memory holds. What was evicted before it was written is stored again.
    until = time.monotonic() + PATIENCE_S
    while not all(answer(tokens) == TOKENS for tokens in prompts):
        assert time.monotonic() < until, "not everything came to the disk"

    # Two reads for each chunk: 3 s for a prompt, which the engine computes in a fifth of that.
    set_speed("100ms")
    assert seconds(0, TOKENS) < TOKENS / CHUNK * 0.2 / 4
    stats = e.half.stats
    skips, loaded = stats.skips, 0
    while stats.skips == skips:
        loaded += 1
        # Two of them may lie in memory, and the figures follow the loads of the others.
        assert loaded <= 4 * len(prompts), "it is loaded again and again"
        answer(prompts[loaded % len(prompts)])
    assert stats.chunks_skipped["nvme"] >= TOKENS // CHUNK // 2

    # The operator is told.
    tokens = prompts[loaded % len(prompts)]
    said = subprocess.run(
        [str(daemon.socket.parent / "larder"), "--socket", str(daemon.socket), "explain", *map(str, tokens)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "hit" in said
    assert "chunks itself" in said
    assert "nvme" in said
