"""A client belongs to the process that made it."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon
from support import Connect

from larder.client import Client
from larder.errors import InvalidError

KEYS = b"k" * 32
MAPS = Path("/proc/self/maps")
MAPPED = "memfd:fake "


def in_child(run: Callable[[], object]) -> int:
    """Forks, runs, and answers the child's exit status."""
    with warnings.catch_warnings():
        # Later Pythons warn of forks in a process with threads, rightly.
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run()
            status = 0
        except BaseException:  # noqa: BLE001 - a child must not return into pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def test_the_child_is_told_and_the_parent_goes_on(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.put(KEYS, [b"a" * 8192, b"b" * 4096])
    client: Client = connect(credits={8192: 1})
    pending = client.match(b"r" * 32, KEYS)

    def child() -> None:
        assert not client.ready
        assert not client.wait_ready(1.0)
        assert client.take_credit(8192) is None
        client.end_holds([1])
        with pytest.raises(InvalidError, match="fork"):
            client.match(b"r" * 32, KEYS).result()
        with pytest.raises(InvalidError, match="fork"):
            client.load(1, 0, 1).batches(1.0)
        with pytest.raises(InvalidError, match="fork"):
            _ = client.objects
        client.close()

    assert in_child(child) == 0
    assert pending.result().chunks == 1
    with client.load(pending.result().hold_id, 0, 1) as load:
        assert sum(len(batch) for batch in load.batches(20.0)) == 2
        assert load.release()


def test_the_arena_does_not_cross_a_fork(daemon: FakeDaemon, connect: Connect) -> None:
    del daemon
    client = connect()
    assert client.arena is not None
    assert MAPPED in MAPS.read_text()

    def child() -> None:
        assert MAPPED not in MAPS.read_text()

    assert in_child(child) == 0
