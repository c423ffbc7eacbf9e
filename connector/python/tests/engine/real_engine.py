"""The test's side of engine_process: an engine that may be asked, and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from harness.engine import ENVIRONMENT, connector_config

SOURCES = Path(__file__).resolve().parents[2] / "src"
# Patience: these tests are about what is loaded, and a busy machine may take its time.
PATIENT = {
    "match_deadline_ms": 20_000, "load_deadline_ms": 20_000, "call_timeout_ms": 5_000, "load_or_recompute": False,
    "load_in_step_ms": 0,
}  # fmt: skip


class EngineError(RuntimeError):
    """The engine failed or ended; the text has the end of its log."""


class RealEngine:
    """One engine. socket: the daemon's, None for an engine without Larder. interpreter: that of its environment.
    patient: else deadlines are the defaults."""

    def __init__(
        self,
        model: Path,
        log: Path,
        *,
        socket: Path | None = None,
        extra: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        script: str = "engine_process.py",
        interpreter: str = sys.executable,
        patient: bool = True,
        **options: Any,
    ) -> None:
        self._log = log
        config: dict[str, Any] = {
            "model": str(model), "enforce_eager": True, "dtype": "float32", "max_model_len": 4096,
            "max_num_batched_tokens": 4096, "max_num_seqs": 8, "disable_log_stats": True, **options,
        }  # fmt: skip
        if socket is not None:
            config["kv_transfer_config"] = connector_config(socket, **((PATIENT if patient else {}) | (extra or {})))
        paths = [str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {
            **os.environ, **ENVIRONMENT, "VLLM_RPC_BASE_PATH": str(log.parent), "PYTHONPATH": os.pathsep.join(paths),
            # Threads that wait for others should not keep them from the cores.
            "OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "PASSIVE", **(environment or {}),
        }  # fmt: skip
        env.pop("PYTHONHASHSEED", None)
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [interpreter, str(Path(__file__).with_name(script)), json.dumps(config)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, env=env, text=True, start_new_session=True,
            )  # fmt: skip
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        # Several processes, on a machine that may be busy.
        self._take(600)

    def ask(self, op: str, timeout_s: float = 120, **arguments: Any) -> Any:
        """One operation of engine_process.Server."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EngineError(f"the engine is gone:\n{self.last_lines()}") from None
        return self._take(timeout_s)

    def generate(self, prompt: list[int], tokens: int = 16, **more: Any) -> dict[str, Any]:
        """One request; its token_ids, and how many tokens of the prompt were cached."""
        return self.generate_all([{"prompt": prompt, "tokens": tokens, **more}])[0]

    def generate_all(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Several at once."""
        answers: list[dict[str, Any]] = self.ask("generate", requests=requests)
        return answers

    def stats(self, half: str = "worker") -> dict[str, Any]:
        """Counters."""
        stats: dict[str, Any] = self.ask("stats")[half]
        return stats

    def await_ready(self, timeout_s: float = 60) -> None:
        """Returns once both halves are connected."""
        deadline = time.monotonic() + timeout_s
        while not self.ask("ready"):
            assert time.monotonic() < deadline, f"not connected after {timeout_s} s:\n{self.last_lines()}"
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The engine's process."""
        return self._process.pid

    def stop(self, timeout_s: float = 60) -> int:
        """Ends it by the end of its input; returns its exit status."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            return self._process.wait(timeout_s)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def last_lines(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def _take(self, timeout_s: float) -> Any:
        try:
            answer = self._answers.get(timeout=timeout_s)
        except Empty:
            raise EngineError(f"no answer within {timeout_s:.0f} s:\n{self.last_lines()}") from None
        if answer is None:
            raise EngineError(f"the engine ended:\n{self.last_lines()}")
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer["result"]
