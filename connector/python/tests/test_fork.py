"""A client belongs to the process that made it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fake_daemon import PATIENCE_S, FakeDaemon

HERE = Path(__file__).parent


def run(case: str, socket: str = "") -> None:
    """Runs one of fork_cases.py."""
    done = subprocess.run(
        [sys.executable, str(HERE / "fork_cases.py"), case, socket],
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0", "PYTHONPATH": str(HERE.parent / "src")},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_child_is_told_and_the_parent_goes_on(daemon: FakeDaemon) -> None:
    daemon.put(b"k" * 32, [b"a" * 8192, b"b" * 4096])
    run("the_child_is_told", daemon.socket)


def test_a_child_that_frees_the_mapping_tears_out_nothing() -> None:
    run("freeing_tears_out_nothing")
