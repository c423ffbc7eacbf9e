"""One larderd process and what its command line says about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

READY_S = 60.0
"""Seconds within which a daemon must answer ``larder status``."""


class DaemonError(RuntimeError):
    """The daemon did not start, or the larder command failed; the text says why."""


class Daemon:
    """A larderd of its own: sockets, state and log in ``work``.

    Args:
        binaries: directory with ``larderd`` and ``larder``.
        work: a directory for this daemon alone. Keep its path under 80 bytes: Unix
            socket paths are limited to 107.
        host_bytes: budget of the host tier, as larderd's ``--host.bytes`` takes it.
        flags: further flags, ``{"listen.metrics": "off"}``.
    """

    def __init__(
        self, binaries: Path, work: Path, *, host_bytes: str = "2GiB", flags: dict[str, str] | None = None
    ) -> None:
        self.socket = work / "larderd.sock"
        self.log = work / "larderd.log"
        self._larder = str(binaries / "larder")
        settings = {
            "listen.socket": str(self.socket),
            "listen.handover": str(work / "handover.sock"),
            "listen.metrics": "off",
            "host.bytes": host_bytes,
            "state_dir": str(work / "state"),
        } | (flags or {})
        self._command = [str(binaries / "larderd")]
        for key, value in settings.items():
            self._command.append(f"--{key}={value}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        if self._process is None:
            raise DaemonError("larderd is not running")
        return self._process.pid

    def start(self) -> None:
        """Starts the daemon and returns once it serves. Raises DaemonError."""
        # The user's own settings are not this daemon's.
        env = {name: value for name, value in os.environ.items() if not name.startswith("LARDER_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        deadline = time.monotonic() + READY_S
        why = ""
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise DaemonError(f"larderd ended with {self._process.returncode}:\n{self._last_lines()}")
            try:
                if (why := self.status()["state"]) == "serving":
                    return
            except DaemonError as error:
                why = str(error)
            time.sleep(0.05)
        raise DaemonError(f"larderd does not serve after {READY_S:.0f} s: {why}\n{self._last_lines()}")

    def status(self) -> dict[str, Any]:
        """``larder status --json``: a StatusResponse, 64-bit integers as decimal strings."""
        status: dict[str, Any] = json.loads(self._ask("status", "--json"))
        return status

    def clear(self) -> None:
        """``larder clear --everything``."""
        self._ask("clear", "--everything", "--yes", "--timeout", "60s")

    def counters(self) -> Counters:
        """The counters since the start. What is absent from the JSON is 0."""
        return Counters(self.status().get("counters", {}))

    def await_published(self, chunks: int, timeout_s: float) -> Counters:
        """Returns once at least ``chunks`` chunks were published. Raises DaemonError after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while (now := self.counters())["published_chunks"] < chunks:
            if time.monotonic() > deadline:
                got = now["published_chunks"]
                raise DaemonError(f"{got} of {chunks} chunks published in {timeout_s:.0f} s\n{self._last_lines()}")
            time.sleep(0.02)
        return now

    def ended(self, timeout_s: float) -> bool:
        """Whether the process ends by itself, or was ended, within ``timeout_s``."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit status, or -9 where it had to be killed after 20 s."""
        return self._end(signal.SIGTERM)

    def _ask(self, name: str, *flags: str) -> str:
        command = [self._larder, "--socket", str(self.socket), name, *flags]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
            )
        except subprocess.TimeoutExpired:
            raise DaemonError(f"larder {name} did not end within 60 s") from None
        if done.returncode:
            raise DaemonError(f"larder {name} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.poll() is None:
            os.kill(process.pid, how)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


class Counters:
    """The daemon's counters by their proto names: ``counters["stored_bytes"]``."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> int:
        head, *rest = name.split("_")
        camel = head + "".join(word.capitalize() for word in rest)
        return int(self._fields.get(name, self._fields.get(camel, 0)))
