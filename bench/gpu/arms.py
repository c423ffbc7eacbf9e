"""The arms of engine.py: engines and what they have seen."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import models
from rig import Daemon, Engine, EngineError, daemon, offloading, tiering, with_larder

# Settings of the connector that variants may have otherwise, by default.
TUNED = {"load_ahead_ms": 3.0, "load_layers": "off", "store_layers": "off", "load_in_step_ms": 80.0}
# How engines are compiled, by the name of the mode.
COMPILED: dict[str, dict[str, Any]] = {
    "graphs": {"mode": 3, "backend": "eager"},
    "inductor": {"mode": 3, "backend": "inductor"},
}
CAPTURED = [1, 2, 4, 8, 16, 32, 64, 128, 256]


@dataclass
class Arm:
    """One engine and what it has seen."""

    name: str
    engine: Engine
    warm: bool = False
    # Prompts that its connector has.
    stored: set[int] = field(default_factory=set)
    # The first hit of each length, by this process.
    hit: set[int] = field(default_factory=set)
    # Settings that hold while it has its turn.
    tuned: dict[str, Any] = field(default_factory=dict)

    def turn(self) -> None:
        """It has its turn."""
        if self.tuned:
            self.engine.call("tune", **self.tuned)


class Rows:
    """JSON, one a line, in a file and on standard output."""

    def __init__(self, folder: Path, mode: str) -> None:
        self._file, self._mode = folder / "rows.jsonl", mode
        self._began = time.monotonic()

    def add(self, name: str, **values: Any) -> None:
        """One row."""
        text = json.dumps({"name": f"{self._mode}.{name}", **values})
        with self._file.open("a") as rows:
            rows.write(text + "\n")
        print(f"{time.monotonic() - self._began:6.1f} {text}", flush=True)


class Arms:
    """Those that live."""

    def __init__(self, args: argparse.Namespace, rows: Rows) -> None:
        self.args = args
        self.rows = rows
        self.live: dict[str, Arm] = {}
        self.daemon: Daemon | None = None
        # Of prompts that nothing is measured of.
        self.seed = 0
        self.model = models.shape(args.work / "model", models.SMALL if args.tiny else models.LARGE)

    def start(self, names: Iterable[str]) -> None:
        """Starts arms side by side."""
        names = [*names]
        variants = [name for name in names if name in self.args.variants]
        new = [name for name in names if name not in self.live and name not in variants]
        alone = 1 if self.args.mode == "inductor" and not self.live else 0
        started = [arm for some in (new[:alone], new[alone:]) for arm in self._ready([*map(self._made, some)])]
        self._warm(started)
        if variants and "larder" in self.live:
            ours = self.live["larder"]
            ours.tuned = TUNED | {key: value for key, value in self.args.connector if key in TUNED}
            for name in variants:
                self.live[name] = Arm(name, ours.engine, tuned=ours.tuned | self.args.variants[name])

    def _made(self, name: str) -> Arm:
        return Arm(name, self._engine(name))

    def _ready(self, arms: list[Arm]) -> list[Arm]:
        """Waits for those that were made; returns those that started."""
        for arm in arms:
            try:
                arm.engine.ready(self.args.start_s)
            except EngineError as error:
                # The others go on.
                self.rows.add(f"{arm.name}.failed", error=str(error)[-3000:])
                arm.engine.kill()
                continue
            self.live[arm.name] = arm
            self.rows.add(f"{arm.name}.start", value=arm.engine.start_s, unit="s")
        return [arm for arm in arms if arm.name in self.live]

    def stop(self, names: Iterable[str]) -> None:
        """Ends arms."""
        for name in list(names):
            arm = self.live.pop(name, None)
            if arm is not None and name not in self.args.variants:
                arm.engine.kill()

    def close(self) -> None:
        """Ends everything."""
        self.stop(list(self.live))
        if self.daemon is not None:
            self.daemon.stop()

    def _engine(self, name: str) -> Engine:
        args = self.args
        options: dict[str, Any] = {
            "load_format": "dummy",
            "max_model_len": max(args.lengths) + 512,
            "max_num_batched_tokens": args.batched,
            "max_num_seqs": 32,
            "kv_cache_memory_bytes": args.pages,
        }
        if args.mode in COMPILED:
            graphs = {"cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes": CAPTURED}
            options["enforce_eager"] = False
            options["compilation_config"] = COMPILED[args.mode] | graphs
        kind = name.split(".", maxsplit=1)[0]
        environment: dict[str, str] = {}
        if kind == "larder":
            if self.daemon is None:
                self.daemon = daemon(args.work / "larder", args.host_bytes, **dict(args.larderd))
            extra = {"weights_id": "drawn", "credit_mib": args.credit_mib, **dict(args.connector)}
            options["kv_transfer_config"] = with_larder(self.daemon.socket, **extra)
        elif kind == "offloading":
            options["kv_transfer_config"] = offloading(args.offload_bytes)
        elif kind == "tiering":
            folder = args.work / "tier"
            folder.mkdir(exist_ok=True)
            options["kv_transfer_config"] = tiering(args.offload_bytes, folder)
            # Else every process names its files anew.
            environment["PYTHONHASHSEED"] = "0"
        log = args.out / f"{args.mode}.{name}.log"
        return Engine(name, self.model, log, environment, **options)

    def _warm(self, arms: Iterable[Arm]) -> None:
        """A prompt of every length and way, of which nothing is measured."""
        for arm in arms:
            self.seed += 10
            engine = arm.engine
            for length in (self.args.lengths[0], self.args.lengths[1]):
                prompt = [900_000 + self.seed + length % 7, length]
                for _ in range(3):
                    engine.call("ask", prompt=prompt, tokens=2)
                    engine.call("settle", steps=20)
                    engine.call("reset")
            engine.call("decode", seed=910_000 + self.seed, requests=4, prompt=600, tokens=8)
            engine.call("settle", steps=20)
            engine.call("reset")
            arm.warm = True
