"""A client on another host: TCP with mutual TLS, bytes over streams."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_daemon import PATIENCE_S
from larderd import PART_BYTES, REPOSITORY, ROOT, Larderd, keys, load, namespace, store
from support import Connect, eventually

from larder.client import Client, Options, Tls
from larder.errors import InvalidError, Kind


def certificates(folder: Path) -> Path:
    """An authority, and what it issued."""
    folder.mkdir()
    subprocess.run(
        ["go", "run", "./connector/python/tests/certs", str(folder)],  # noqa: S607 - the Go that made the rest
        cwd=REPOSITORY,
        env={**os.environ, "CGO_ENABLED": "0"},
        check=True,
    )
    return folder


@pytest.fixture
def remote(real: Callable[..., Larderd], folder: Path) -> Iterator[Callable[[Path], Options]]:
    """A daemon on TCP; answers options for a client with the files of a folder."""
    theirs = certificates(folder / "certs")
    # Bound for as long as the test lasts, so that nobody else is given the port;
    # with this option the daemon may still listen on it.
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    real(
        listen__tcp=f"127.0.0.1:{port}",
        listen__tls__cert=str(theirs / "server.pem"),
        listen__tls__key=str(theirs / "server.key"),
        listen__tls__client_ca=str(theirs / "ca.pem"),
    )

    def options(files: Path) -> Options:
        tls = Tls(str(files / "ca.pem"), str(files / "client.pem"), str(files / "client.key"), "localhost")
        return Options(
            socket=f"127.0.0.1:{port}",
            tls=tls,
            namespace=namespace(),
            credits={PART_BYTES: 8},
            call_timeout_s=PATIENCE_S,
            connect_timeout_s=PATIENCE_S,
            backoff_max_s=0.1,
        )

    yield options
    reserved.close()


def test_bytes_cross_between_a_remote_and_a_local_client(
    remote: Callable[[Path], Options], folder: Path, connect: Connect
) -> None:
    prompt = keys("a", 3)
    local = connect(namespace=namespace(), credits={PART_BYTES: 8})
    with Client(remote(folder / "certs")) as client:
        assert client.wait_ready(PATIENCE_S), client.last_error
        assert client.arena is None
        store(client, prompt)
        found = local.match(ROOT, b"".join(prompt)).result()
        assert load(local, prompt, found.hold_id, 3)
        found = client.match(ROOT, b"".join(prompt)).result()
        assert load(client, prompt, found.hold_id, 3)
        assert client.stats.bytes_loaded == 6 * PART_BYTES


def test_a_certificate_of_another_authority_is_not_let_in(remote: Callable[[Path], Options], folder: Path) -> None:
    with Client(remote(certificates(folder / "others"))) as client:
        eventually(lambda: client.last_error)
        assert not client.ready
        assert client.last_error is not None
        assert client.last_error.kind is Kind.UNAVAILABLE


def test_files_that_cannot_be_read_are_named(remote: Callable[[Path], Options], folder: Path) -> None:
    with Client(remote(folder / "none")) as client:
        eventually(lambda: client.last_error)
        assert isinstance(client.last_error, InvalidError)
        assert "none" in str(client.last_error)
