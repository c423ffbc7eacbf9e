"""Two data-parallel engines behind one server, by the night: LARDER_NIGHTLY=1. Each is an engine of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_engine import PATIENT, SOURCES

from harness.daemon import Daemon
from harness.engine import ENVIRONMENT, connector_config

CHUNK, START_S, ANSWER_S = 256, 600, 120


class Server:
    """vLLM's server of two engines."""

    def __init__(self, model: Path, log: Path, larder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self._model, self._log = str(model), log
        options = {
            "model": self._model, "data-parallel-size": "2", "dtype": "float32", "max-model-len": "4096",
            "max-num-seqs": "8", "num-gpu-blocks-override": "40", "host": "127.0.0.1", "port": str(self._port),
            "kv-transfer-config": json.dumps(connector_config(larder, **PATIENT)),
        }  # fmt: skip
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
        command += [word for name, value in options.items() for word in (f"--{name}", value)]
        paths = [str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {
            **os.environ, **ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "1", "OMP_NUM_THREADS": "1",
            "VLLM_RPC_BASE_PATH": str(log.parent), "PYTHONPATH": os.pathsep.join(paths),
        }  # fmt: skip
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, start_new_session=True
            )

    def await_ready(self) -> None:
        """Returns once it serves."""
        until = time.monotonic() + START_S
        while True:
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-4000:]
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._call("GET", "/health", {})
                return
            assert time.monotonic() < until, self._log.read_text(errors="replace")[-4000:]
            time.sleep(0.2)

    def ask(self, engine: int, prompt: list[int]) -> str:
        """What one of the engines answers."""
        question = {"model": self._model, "prompt": prompt, "max_tokens": 8, "temperature": 0}
        headers = {"Content-Type": "application/json", "X-data-parallel-rank": str(engine)}
        answer = json.loads(self._call("POST", "/v1/completions", headers, json.dumps(question)))
        return str(answer["choices"][0]["text"])

    def _call(self, method: str, path: str, headers: dict[str, str], body: str | None = None) -> bytes:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)) as connection:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            data = reply.read()
        assert reply.status == 200, data[:4000]
        return data

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def larderd(binaries: Path, short_folder: Path) -> Iterator[Daemon]:
    work = short_folder / "data"
    work.mkdir()
    # Each rank of each engine is to store what a step fills at once.
    daemon = Daemon(binaries, work, host_bytes="1GiB", flags={"host.granted_percent": "100"})
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def server(test_model: Path, short_folder: Path, larderd: Daemon) -> Iterator[Server]:
    made = Server(test_model, short_folder / "data/server.log", larderd.socket)
    try:
        made.await_ready()
        yield made
    finally:
        made.kill()


def test_what_one_engine_stores_the_other_loads(
    server: Server, larderd: Daemon, test_model: Path, words: Callable[[Path], list[int]]
) -> None:
    # A scheduler and a worker each.
    assert len(larderd.status()["sessions"]) == 4
    for writer, prompt in enumerate((words(test_model)[:1500], words(test_model)[2000:3300])):
        chunks = len(prompt) // CHUNK
        before = larderd.counters()
        cold = server.ask(writer, prompt)
        larderd.await_published(before["published_chunks"] + chunks, 60)
        assert larderd.counters()["loaded_parts"] == before["loaded_parts"]
        assert server.ask(1 - writer, prompt) == cold
        after = larderd.counters()
        assert after["loaded_parts"] - before["loaded_parts"] == 2 * chunks
        assert after["published_chunks"] - before["published_chunks"] == chunks
