"""One real vLLM engine in a process of its own, which may be killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "INFO",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    # Front end, core and worker in one process: one SIGKILL ends the engine.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Compiling the sampler costs 12-33 s at each start and gains nothing here.
    "TORCH_COMPILE_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "GLOO_SOCKET_IFNAME": "lo",
}


class EngineError(RuntimeError):
    """The engine ended or refused; the text holds the end of its log."""


@dataclass(frozen=True)
class Answer:
    """What a prompt got. Times in seconds; ``cached_tokens`` were reused from any cache."""

    prompt_tokens: int
    cached_tokens: int
    ttft_s: float
    total_s: float
    token_ids: list[int]
    text: str


def connector_config(socket: Path, **extra: Any) -> dict[str, Any]:
    """The kv_transfer_config that loads Larder's connector. ``extra`` goes to the connector."""
    return {
        "kv_connector": "LarderConnector",
        "kv_connector_module_path": "larder.vllm",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"socket": str(socket), **extra},
    }


class Engine:
    """Starts an engine; ``generate`` answers one prompt at a time.

    Args:
        model: a local model directory.
        log: file that takes the engine's output.
        kv: kv_transfer_config, or None for an engine without a connector.
        options: further keyword arguments of ``vllm.LLM``.
        environment: further environment variables.
        start_s: seconds within which it must be ready.
    """

    def __init__(
        self,
        model: Path,
        log: Path,
        *,
        kv: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        start_s: float = 180.0,
    ) -> None:
        self._log = log
        config: dict[str, Any] = {"model": str(model), "enforce_eager": True, **(options or {})}
        if kv is not None:
            config["kv_transfer_config"] = dict(kv)
        paths = [str(REPOSITORY / "connector/python/src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": str(os.cpu_count())}
        # Engines leave sockets behind in this directory.
        env |= {"VLLM_RPC_BASE_PATH": str(log.parent), "PYTHONPATH": os.pathsep.join(paths)}
        env |= environment or {}
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("worker.py")), json.dumps(config)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, env=env, text=True,
            )  # fmt: skip
        self._answers: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="engine-answers", daemon=True)
        self._reader.start()
        self._await(start_s)

    @property
    def pid(self) -> int:
        """The engine's only process."""
        return self._process.pid

    def tokenize(self, text: str) -> list[int]:
        """The tokens of ``text``, by the model's tokenizer."""
        ids: list[int] = self._call({"op": "tokenize", "text": text}, 60)["token_ids"]
        return ids

    def generate(self, prompt: Sequence[int], tokens: int, timeout_s: float = 120.0) -> Answer:
        """Greedy decoding of exactly ``tokens`` tokens after ``prompt``. Raises EngineError."""
        return Answer(**self._call({"op": "generate", "prompt": list(prompt), "tokens": tokens}, timeout_s))

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone: nothing of it is left to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the engine as its user would, by closing its input; kills it after 30 s."""
        if self._process.stdin:
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(how)
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def _call(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EngineError(f"the engine is gone:\n{self._last_lines()}") from None
        return self._await(timeout_s)

    def _await(self, timeout_s: float) -> dict[str, Any]:
        try:
            answer = self._answers.get(timeout=timeout_s)
        except Empty:
            self.kill()
            raise EngineError(f"no answer within {timeout_s:.0f} s:\n{self._last_lines()}") from None
        if answer is None:
            self.kill()
            raise EngineError(f"the engine ended with {self._process.returncode}:\n{self._last_lines()}")
        return answer

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])
