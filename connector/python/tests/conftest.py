"""Fixtures of the client's tests."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import larderd
import pytest
from fake_daemon import PATIENCE_S, FakeDaemon

from larder.client import Client, Options

# The engine's environment, which reads this file too, has none.
if find_spec("hypothesis"):
    from hypothesis import HealthCheck, settings

    # How long an example takes, or is in the making, says how busy the machine is.
    settings.register_profile("larder", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("larder")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a Unix socket's may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ldr") as path:
        yield Path(path)


@pytest.fixture
def daemon(folder: Path) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(folder)
    yield fake
    fake.close()


@pytest.fixture(params=["stream", "lane"])
def lane(request: pytest.FixtureRequest) -> bool:
    """Every test with a client runs over both transports."""
    return str(request.param) == "lane"


@pytest.fixture
def connect(folder: Path, lane: bool) -> Iterator[Callable[..., Client]]:
    """Makes clients of the daemon in `folder`, closed at the end; then no
    thread of theirs may be left."""
    clients: list[Client] = []

    def make(*, ready: bool = True, backoff: Any = None, **options: Any) -> Client:
        options.setdefault("socket", str(folder / "larder.sock"))
        options.setdefault("lane", lane)
        options.setdefault("call_timeout_s", PATIENCE_S)
        options.setdefault("connect_timeout_s", PATIENCE_S)
        options.setdefault("backoff_min_s", 0.001)
        options.setdefault("backoff_max_s", 0.02)
        client = Client(Options(**options), backoff=backoff)
        clients.append(client)
        if ready:
            assert client.wait_ready(PATIENCE_S), client.last_error
        return client

    yield make
    for client in clients:
        client.close(PATIENCE_S)
    assert [t.name for t in threading.enumerate() if t.name.startswith("larder-")] == []


@pytest.fixture(scope="session")
def larderd_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The daemon, built from this repository."""
    return larderd.build(tmp_path_factory.mktemp("bin"))


@pytest.fixture
def real(larderd_binary: Path, folder: Path) -> Iterator[Callable[..., larderd.Larderd]]:
    """Starts the real daemon in `folder`; keyword arguments are its flags."""
    running: list[larderd.Larderd] = []

    def start(**flags: str) -> larderd.Larderd:
        running.append(larderd.Larderd(larderd_binary, folder, flags))
        return running[-1]

    yield start
    for daemon in running:
        daemon.close()
