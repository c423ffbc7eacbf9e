"""Engines and a daemon as processes, for the scripts of this folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / p) for p in ("test", "connector/python/src") if str(REPOSITORY / p) not in sys.path]

from harness.daemon import Daemon  # noqa: E402
from harness.engine import connector_config  # noqa: E402

__all__ = ["Daemon", "Engine", "EngineError", "await_that", "daemon", "offloading", "tiering", "with_larder"]

ENVIRONMENT = {
    # Front end, core and worker in one process.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_LOGGING_LEVEL": "INFO",
    "VLLM_HOST_IP": "127.0.0.1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Shared by all engines: the first start fills it in 20 s.
    "VLLM_CACHE_ROOT": "/tmp/larder-vllm",  # noqa: S108
    # Multicast over NVLink: nothing here needs it, and a host that shares its
    # GPUs may forbid it.
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "VLLM_USE_NCCL_SYMM_MEM": "0",
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
}
# Patience: these runs are about what is loaded, and all of it is.
PATIENT = {"match_deadline_ms": 5000, "load_deadline_ms": 10_000, "load_or_recompute": False}


class EngineError(RuntimeError):
    """An engine failed or ended; the text has the end of its log."""


class Engine:
    """engine_server.py in a process of its own. It starts beside others: ready waits."""

    def __init__(
        self,
        name: str,
        model: Path,
        log: Path,
        environment: dict[str, str] | None = None,
        *,
        site: Path | None = None,
        **options: Any,
    ) -> None:
        """site: a folder whose vLLM it is, in place of the one that is there."""
        self.name = name
        self._log = log
        config: dict[str, Any] = {
            "model": str(model),
            "dtype": "bfloat16",
            "skip_tokenizer_init": True,
            "enforce_eager": True,
            "disable_log_stats": True,
            "enable_prefix_caching": True,
            # With kv_cache_memory_bytes only what must be free at the start.
            "gpu_memory_utilization": 0.1,
            "worker_extension_cls": "engine_pages.Pages",
            **options,
        }
        # The engine must see no module of this folder: some names are others' too.
        here = str(Path(__file__).parent / "inside")
        ours = [here, str(REPOSITORY / "connector/python/src")]
        paths = [*ours, *map(str, filter(None, [site])), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**ENVIRONMENT, **os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})}
        env.pop("PYTHONHASHSEED", None)
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(here, "engine_server.py")), json.dumps(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=env,
                text=True,
                start_new_session=True,
            )
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.start_s = 0.0

    def ready(self, timeout_s: float = 240) -> Engine:
        """Returns once it has started."""
        if not self.start_s:
            self.start_s = float(self._take(timeout_s))
        return self

    def call(self, op: str, timeout_s: float = 120, **arguments: Any) -> Any:
        """One operation of engine_server.Server."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EngineError(f"{self.name} is gone:\n{self.last_lines()}") from None
        return self._take(timeout_s)

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()

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
            raise EngineError(f"{self.name}: no answer within {timeout_s:.0f} s:\n{self.last_lines()}") from None
        if answer is None:
            raise EngineError(f"{self.name} ended:\n{self.last_lines()}")
        if "error" in answer:
            raise EngineError(f"{self.name}: {answer['error']}\n{self.last_lines()}")
        return answer["result"]


def make_folders(work: Path, out: Path) -> None:
    """Makes the scratch folder, empty, and that of rows and logs."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    out.mkdir(parents=True, exist_ok=True)


def daemon(work: Path, host_bytes: str, **flags: str) -> Daemon:
    """A larderd whose memory is there from the start."""
    work.mkdir(parents=True, exist_ok=True)
    named = {name.replace("__", "."): value for name, value in flags.items()}
    made = Daemon(REPOSITORY / "bin", work, host_bytes=host_bytes, flags={"host.prefault": "true"} | named)
    made.start()
    return made


def with_larder(socket: Path, **extra: Any) -> dict[str, Any]:
    """kv_transfer_config of Larder."""
    return connector_config(socket, **(PATIENT | extra))


def offloading(size: int) -> dict[str, Any]:
    """kv_transfer_config of vLLM's OffloadingConnector with so many bytes of host memory."""
    extra = {"cpu_bytes_to_use": size}
    return {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}


def tiering(size: int, folder: Path) -> dict[str, Any]:
    """The same with its TieringOffloadingSpec, and a folder below."""
    config = offloading(size)
    tier = {"type": "fs", "root_dir": str(folder)}
    config["kv_connector_extra_config"] |= {"spec_name": "TieringOffloadingSpec", "secondary_tiers": [tier]}
    return config


def await_that(what: str, done: Callable[[], bool], timeout_s: float = 30) -> None:
    """Returns once done() holds. Raises EngineError after timeout_s."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise EngineError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.02)
