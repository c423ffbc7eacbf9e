"""Times of real engines on a GPU, with Larder, with vLLM's own connectors and without.

    make build && python3 bench/gpu/engine.py --out FOLDER

The model is shaped as an 8B Llama (models.LARGE, 128 KiB of KV a token), weights
drawn (inside/drawn_weights.py). Every arm is an engine process; those of a stage live at the
same time, and only one of them has a request at any moment, in turns, each turn
beginning with another one. As many live together as the card has room for.

ttft: the time from the arrival of one request to its first token, of prompts of
2000, 8100 and 32100 tokens, the engine's own prefix cache emptied before each:

    plain            recompute, and .hit: the same prompt again, from the engine's pages
    larder           after it stored the prompt itself; larder.fresh: a process that
                     started after it was stored, and saw it never
    larder.X         the same engine as larder with other settings, while it has its
                     turn: --variant X:load_ahead_ms=0
    offloading       vLLM's OffloadingConnector, host memory
    tiering          its TieringOffloadingSpec with a folder below; .fresh as above

An arm's .hit is the same prompt once more, from the engine's own pages; inside has
the milliseconds of a turn (those two requests and a short one) in Larder's hooks
and loads. A hit counts only if as many tokens were reused as whole chunks before the prompt's
last token have, and Larder's counters say that they were loaded. .first is the
first hit of a process after it was warmed with another prompt. What a hit
generates (16 tokens, with the score of each) must equal what the plain engine
generates when as many tokens come from its own cache: then both compute the same
shapes. Whether it equals a recompute as well is said too (bf16 rounds by shape).

decode: 16 requests at once, tokens of one second after all had their first;
plain, larder and plain again in turns: .ratio has larder over the mean of both
plain runs beside it, .control the second plain run over the first.

With --graphs the engines are compiled in pieces and captured (vLLM's cudagraphs
FULL_AND_PIECEWISE, code by torch's eager backend), else they are eager.
Rows are JSON, one a line, in FOLDER/rows.jsonl, and logs beside them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import models
from rig import Daemon, Engine, EngineError, await_that, daemon, offloading, tiering, with_larder

CHUNK = 256
# Settings of the connector that variants may have otherwise, by default.
TUNED = {"load_ahead_ms": 3.0, "load_layers": "off"}
GIB = 1 << 30
# Of one engine on the card: weights, pages, activations, CUDA itself.
ENGINE_BYTES = 23 * GIB


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


class Bench:
    """Starts arms, measures, writes rows."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.out: Path = args.out
        self.work: Path = args.work
        self.mode = "graphs" if args.graphs else "eager"
        self.arms: dict[str, Arm] = {}
        self.daemon: Daemon | None = None
        self.began = time.monotonic()
        self.seed = 0
        self.controls: dict[tuple[int, int], dict[str, Any]] = {}
        self.recomputed: dict[int, dict[str, Any]] = {}
        folder = self.work / "model"
        if args.tiny:
            self.model, self.load = models.shape(folder, models.SMALL), "dummy"
        else:
            self.model, self.load = models.shape(folder, models.LARGE), "dummy"

    def row(self, name: str, **values: Any) -> None:
        """Writes one row."""
        text = json.dumps({"name": f"{self.mode}.{name}", **values})
        with (self.out / "rows.jsonl").open("a") as rows:
            rows.write(text + "\n")
        print(f"{time.monotonic() - self.began:6.1f} {text}", flush=True)

    # -- processes -----------------------------------------------------------

    def start(self, names: Iterable[str]) -> None:
        """Starts arms side by side."""
        names = [*names]
        variants = [name for name in names if name in self.args.variants]
        started = [Arm(name, self._engine(name)) for name in names if name not in self.arms and name not in variants]
        for arm in started:
            try:
                arm.engine.ready(self.args.start_s)
            except EngineError as error:
                # The others go on.
                self.row(f"{arm.name}.failed", error=str(error)[-3000:])
                arm.engine.kill()
                continue
            self.arms[arm.name] = arm
            self.row(f"{arm.name}.start", value=arm.engine.start_s, unit="s")
        if started:
            self._warm(a for a in started if a.name in self.arms)
        if variants and "larder" in self.arms:
            ours = self.arms["larder"]
            ours.tuned = TUNED | {key: value for key, value in self.args.connector if key in TUNED}
            for name in variants:
                self.arms[name] = Arm(name, ours.engine, tuned=ours.tuned | self.args.variants[name])

    def stop(self, names: Iterable[str]) -> None:
        """Ends arms."""
        for name in list(names):
            arm = self.arms.pop(name, None)
            if arm is not None and name not in self.args.variants:
                arm.engine.kill()

    def close(self) -> None:
        """Ends everything."""
        self.stop(list(self.arms))
        if self.daemon is not None:
            self.daemon.stop()

    def _engine(self, name: str) -> Engine:
        args = self.args
        options: dict[str, Any] = {
            "load_format": self.load,
            "max_model_len": max(args.lengths) + 512,
            "max_num_batched_tokens": args.batched,
            "max_num_seqs": 32,
            "kv_cache_memory_bytes": args.pages,
        }
        if args.graphs:
            sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256]
            options["enforce_eager"] = False
            options["compilation_config"] = {
                "mode": 3,
                "backend": "eager",
                "cudagraph_mode": "FULL_AND_PIECEWISE",
                "cudagraph_capture_sizes": sizes,
            }
        kind = name.split(".", maxsplit=1)[0]
        environment: dict[str, str] = {}
        if kind == "larder":
            if self.daemon is None:
                self.daemon = daemon(self.work / "larder", args.host_bytes, **dict(args.larderd))
            extra = {"weights_id": "drawn", "credit_mib": args.credit_mib, **dict(args.connector)}
            options["kv_transfer_config"] = with_larder(self.daemon.socket, **extra)
        elif kind == "offloading":
            options["kv_transfer_config"] = offloading(args.offload_bytes)
        elif kind == "tiering":
            folder = self.work / "tier"
            folder.mkdir(exist_ok=True)
            options["kv_transfer_config"] = tiering(args.offload_bytes, folder)
            # Else every process names its files anew.
            environment["PYTHONHASHSEED"] = "0"
        log = self.out / f"{self.mode}.{name}.log"
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

    # -- times to the first token --------------------------------------------

    def ttft(self, names: list[str], repeats: int) -> None:
        """All lengths, arms in turns."""
        arms = [self.arms[n] for n in names if n in self.arms]
        for length in self.args.lengths:
            times: dict[str, list[float]] = {}
            for arm in list(arms):
                if not self._stored(arm, length):
                    arms.remove(arm)
            before = {a.name: _inside(a) for a in arms}
            for turn in range(repeats):
                for arm in [*arms[turn % len(arms) :], *arms[: turn % len(arms)]]:
                    self._turn(arm, length, times)
            for name, values in times.items():
                self._times(f"ttft.{length}.{name}", values)
            for arm in arms:
                after = _inside(arm)
                each = {k: _ms((after[k] - before[arm.name].get(k, 0)) / repeats) for k in after}
                if each:
                    self.row(f"inside.{length}.{arm.name}", unit="ms", **{k: v for k, v in each.items() if v})
            for arm in arms:
                if arm.name.startswith("larder"):
                    self._compare(arm, length)

    def _prompt(self, length: int) -> list[int]:
        return [length, length]

    def _stored(self, arm: Arm, length: int) -> bool:
        """The first sight of a prompt by an arm: cold, which stores, or a fresh
        process's first hit. Whether it can be measured."""
        arm.turn()
        if length in arm.stored or arm.name in self.args.variants:
            return True
        arm.stored.add(length)
        first = arm.engine.call("ask", prompt=self._prompt(length))
        fresh = arm.name.endswith(".fresh")
        self.row(
            f"ttft.{length}.{arm.name}.{'first' if fresh else 'cold'}",
            value=_ms(first["ttft_s"]), unit="ms", cached=first["cached"],
        )  # fmt: skip
        if fresh and first["cached"] < self._least(length):
            # From here on it would load what it stored itself.
            self.row(f"ttft.{length}.{arm.name}.failed", error="a fresh process found nothing", cached=first["cached"])
            return False
        if arm.name == "larder":
            self._published(arm, length)
        # A folder takes longer.
        arm.engine.call("settle", steps=300 if arm.name == "tiering" else 100)
        arm.engine.call("reset")
        if arm.name == "plain":
            return True
        # What follows a cold run in the same process may differ from the rest.
        hit = arm.engine.call("ask", prompt=self._prompt(length))
        arm.engine.call("settle", steps=20)
        enough = bool(hit["cached"] >= self._least(length))
        if not enough:
            self.row(
                f"ttft.{length}.{arm.name}.failed", error="not reused", cached=hit["cached"], least=self._least(length)
            )
        return enough

    def _published(self, arm: Arm, length: int) -> None:
        """Waits for the prompt's chunks."""
        wanted = length // CHUNK

        def stored() -> bool:
            arm.engine.call("settle", steps=5)
            workers = arm.engine.call("counts")["workers"]
            return bool(sum(w["chunks_stored"] + w["chunks_duplicate"] for w in workers) >= wanted)

        with suppress(EngineError):
            await_that(f"{wanted} chunks stored", stored, 10)
        self.row(f"store.{length}.larder", **_worker(arm.engine.call("counts")["workers"][0]))

    def _least(self, length: int) -> int:
        return (length - 1) // CHUNK * CHUNK

    def _turn(self, arm: Arm, length: int, times: dict[str, list[float]]) -> None:
        arm.turn()
        arm.engine.call("reset")
        got = arm.engine.call("ask", prompt=self._prompt(length))
        if arm.name == "plain":
            times.setdefault("recompute", []).append(got["ttft_s"])
            again = arm.engine.call("ask", prompt=self._prompt(length))
            if again["cached"] < self._least(length):
                raise EngineError(f"the engine's own cache gave {again['cached']} tokens")
            times.setdefault("hit", []).append(again["ttft_s"])
            return
        if got["cached"] < self._least(length):
            self.row(f"ttft.{length}.{arm.name}.missed", cached=got["cached"])
            return
        times.setdefault(arm.name, []).append(got["ttft_s"])
        again = arm.engine.call("ask", prompt=self._prompt(length))
        times.setdefault(f"{arm.name}.hit", []).append(again["ttft_s"])
        arm.engine.call("settle", steps=3)

    def _times(self, name: str, values: list[float]) -> None:
        low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        self.row(
            name, value=_ms(middle), unit="ms", low=_ms(low), high=_ms(high), least=_ms(min(values)), n=len(values)
        )

    # -- what is generated ---------------------------------------------------

    def _compare(self, arm: Arm, length: int) -> None:
        """The tokens after a hit beside those of the plain engine."""
        arm.turn()
        arm.engine.call("reset")
        before = arm.engine.call("counts")["workers"]
        got = arm.engine.call("ask", prompt=self._prompt(length), tokens=16, logprobs=1)
        after = arm.engine.call("counts")["workers"]
        loaded = sum(w["chunks_loaded"] for w in after) - sum(w["chunks_loaded"] for w in before)
        plain = self.arms.get("plain")
        if plain is not None:
            self._controls(plain.engine, length, got["cached"])
        control = self.controls.get((length, got["cached"]))
        recomputed = self.recomputed.get(length)
        self.row(
            f"answer.{length}.{arm.name}",
            cached=got["cached"],
            loaded_chunks=loaded,
            equals_control=control and _same(control, got),
            tokens_equal_control=control and control["token_ids"] == got["token_ids"],
            tokens_equal_recompute=recomputed and recomputed["token_ids"] == got["token_ids"],
            distinct=len(set(got["token_ids"])),
        )

    def _controls(self, plain: Engine, length: int, cached: int) -> None:
        prompt = self._prompt(length)
        if length not in self.recomputed:
            plain.call("reset")
            self.recomputed[length] = plain.call("ask", prompt=prompt, tokens=16, logprobs=1)
            # A prompt that ends in the same tokens and begins with others must go on in another way.
            plain.call("reset")
            other = plain.call("ask", prompt=prompt, tokens=16, logprobs=1, other_head=CHUNK)
            self.row(f"answer.{length}.other_head", equal=_same(other, self.recomputed[length]))
        if (length, cached) not in self.controls:
            plain.call("reset")
            plain.call("ask", prompt=prompt, tokens=1, cut=cached)
            control = plain.call("ask", prompt=prompt, tokens=16, logprobs=1)
            if control["cached"] == cached:
                self.controls[length, cached] = control

    # -- throughput ----------------------------------------------------------

    def decode(self, rounds: int) -> None:
        """plain, larder, plain, in rounds."""
        plain, ours = self.arms["plain"].engine, self.arms["larder"].engine
        runs: dict[str, list[dict[str, float]]] = {"plain": [], "larder": [], "again": []}
        before = ours.call("counts")["workers"][0]
        for _ in range(rounds):
            self.seed += 1000
            for name, engine in (("plain", plain), ("larder", ours), ("again", plain)):
                engine.call("reset")
                runs[name].append(
                    engine.call("decode", seed=self.seed + (500 if name == "again" else 0), requests=self.args.requests,
                                prompt=self.args.decode_prompt, tokens=self.args.decode_tokens)
                )  # fmt: skip
                engine.call("settle", steps=20)
        after = ours.call("counts")["workers"][0]
        stored = {k: after[k] - before[k] for k in after if isinstance(after[k], int) and after[k] != before[k]}
        for key in ("decode_tok_s", "all_tok_s"):
            for name, results in runs.items():
                values = [r[key] for r in results]
                self.row(f"{key}.{name}", value=round(statistics.median(values)), unit="tok/s", low=round(min(values)),
                         high=round(max(values)), n=len(values))  # fmt: skip
            ratios = [
                o[key] / ((p[key] + q[key]) / 2)
                for p, o, q in zip(runs["plain"], runs["larder"], runs["again"], strict=True)
            ]
            control = [q[key] / p[key] for p, q in zip(runs["plain"], runs["again"], strict=True)]
            self._ratio(f"{key}.ratio", ratios)
            self._ratio(f"{key}.control", control)
        self.row("decode.stored", **stored)

    def _ratio(self, name: str, values: list[float]) -> None:
        self.row(name, value=round(statistics.median(values), 4), low=round(min(values), 4), high=round(max(values), 4),
                 n=len(values))  # fmt: skip

    # -- the whole -----------------------------------------------------------

    def run(self) -> None:
        """All that was asked for."""
        args = self.args
        room = args.room or _room()
        first = ["plain", "larder", *args.variants, "offloading", "tiering"]
        fresh = ["larder.fresh", "tiering.fresh"]
        self.row("machine", card=_card(), room=room, began=time.strftime("%Y-%m-%d %H:%M"))
        # Stages of at most so many arms; plain is in each.
        if room >= 5:
            stages = [first, ["plain", "larder", "offloading", *fresh]]
        elif room >= 4:
            stages = [first, ["plain", "larder.fresh", "offloading", "tiering.fresh"]]
        else:
            stages = [first[:-1], ["plain", "larder", "tiering"], ["plain", *fresh]]
        if args.arms:
            stages = [[n for n in stage if n in args.arms or n in args.variants] for stage in stages]
        # What was left out must not make a stage that says nothing new.
        stages = [s for i, s in enumerate(stages) if s and not (i and set(s) <= set(stages[i - 1]))]
        for i, stage in enumerate(stages):
            self.stop([n for n in self.arms if n not in stage])
            self.start(stage)
            if not self.arms:
                raise SystemExit("no engine started")
            if args.once and i < len(stages) - 1:
                # What fresh arms find.
                for length in args.lengths:
                    for arm in list(self.arms.values()):
                        self._stored(arm, length)
                continue
            self._hold()
            if "plain" in self.arms:
                plain = self.arms["plain"].engine
                self.row("versions", **plain.call("versions"), pages=plain.call("form")[0])
            self.ttft(stage, args.repeats)
            if args.rounds and {"plain", "larder"} <= set(self.arms):
                self.decode(args.rounds)
                args.rounds = 0
        for arm in self.arms.values():
            if arm.name.startswith("larder"):
                self.row(f"{arm.name}.counts", **_worker(arm.engine.call("counts")["workers"][0]))

    def _hold(self) -> None:
        """Waits for the file that was asked for, and says that all is ready."""
        if self.args.hold is not None:
            self.row("ready", arms=[*self.arms])
            await_that(f"{self.args.hold} is there", self.args.hold.exists, 600)


def _inside(arm: Arm) -> dict[str, float]:
    """Seconds in Larder's hooks and loads so far."""
    if not arm.name.startswith("larder"):
        return {}
    counts = arm.engine.call("counts")
    worker = counts["workers"][0]
    hooks = {f"scheduler.{k}": v for k, v in counts["scheduler"]["hook_s"].items()}
    return hooks | {f"worker.{k}": v for k, v in worker["hook_s"].items()} | {"load": worker["load_s"]}


def _worker(counts: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in counts.items() if v and not isinstance(v, dict)}


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return bool(a["token_ids"] == b["token_ids"] and a["scores"] == b["scores"])


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _card() -> str:
    with suppress(OSError):
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _room() -> int:
    with suppress(OSError, ValueError):
        query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        mib = int(subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()[0])
        return int((mib << 20) // ENGINE_BYTES)
    return 4


def _pair(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    with suppress(ValueError):
        return name, json.loads(value)
    return name, value


def _variant(text: str) -> tuple[str, dict[str, Any]]:
    name, _, settings = text.partition(":")
    return f"larder.{name}", dict(_pair(one) for one in settings.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of rows and logs")
    parser.add_argument("--work", type=Path, default=Path("/tmp/larder-gpu"), help="scratch folder, emptied")  # noqa: S108
    parser.add_argument("--graphs", action="store_true")
    parser.add_argument("--lengths", type=lambda s: [int(x) for x in s.split(",")], default=[2000, 8100, 32100])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=5, help="of decode; 0: none")
    parser.add_argument("--arms", type=lambda s: s.split(","), default=None, help="only these")
    parser.add_argument("--room", type=int, default=0, help="engines at a time; 0: what the card holds")
    parser.add_argument("--batched", type=int, default=8192, help="max_num_batched_tokens")
    parser.add_argument("--pages", type=int, default=5 * GIB, help="bytes of KV pages of each engine")
    parser.add_argument("--host-bytes", default="16GiB", help="larderd's host.bytes")
    parser.add_argument("--credit-mib", type=int, default=2560)
    parser.add_argument("--offload-bytes", type=int, default=10 * GIB)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--decode-prompt", type=int, default=904)
    parser.add_argument("--decode-tokens", type=int, default=320)
    parser.add_argument("--start-s", type=float, default=240)
    parser.add_argument("--connector", type=_pair, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--variant", type=_variant, action="append", default=[], metavar="NAME:KEY=VALUE,...")
    parser.add_argument("--larderd", type=_pair, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--once", action="store_true", help="start all, and only then measure")
    parser.add_argument("--hold", type=Path, default=None, help="measure once this file is there")
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the script")
    args = parser.parse_args()
    args.variants = dict(args.variant)
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    try:
        bench.run()
    finally:
        bench.close()


if __name__ == "__main__":
    main()
