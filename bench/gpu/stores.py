"""What stores that follow the layers (store_layers) change, in a real engine on a GPU.

    make build && python3 bench/gpu/stores.py --out FOLDER

The model is that of engine.py. One engine, eager, and one with graphs, started with
store_layers: auto, take turns; each measures in turns off, auto and off again, so
that the second off says how much is noise:

    ttft, stored    of a prompt that nobody has seen, alone: the time to its first token,
                    and until all of its chunks are published
    decode          16 requests at once, all chunks stored: tokens a second after all had
                    their first (decode_tok_s), and with the prompts (all_tok_s)

A prompt's chunks are counted by the connector. .ratio compares auto with the mean of
both offs beside it, .control the second off with the first; low and high are quartiles
(of decode: the least and the most). Rows are JSON, one a line, in FOLDER/rows.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import models
from engine import GIB, _card
from rig import Daemon, Engine, daemon, make_folders, with_larder
from turns import CHUNK

ARMS = ("off", "auto", "again")


class Bench:
    """One daemon and the engines of some modes."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.seed = 0
        self.began = time.monotonic()
        self.daemon: Daemon = daemon(args.work / "larder", args.host_bytes)
        model = models.shape(args.work / "model", models.SMALL if args.tiny else models.LARGE)
        extra = {"weights_id": "drawn", "credit_mib": args.credit_mib, "store_layers": "auto"}
        self.engines: dict[str, Engine] = {}
        for mode in args.modes:
            options: dict[str, Any] = {}
            if mode == "graphs":
                graphs: dict[str, Any] = {"mode": 3, "backend": "eager", "cudagraph_mode": "FULL_AND_PIECEWISE"}
                graphs["cudagraph_capture_sizes"] = [1, 2, 4, 8, 16, 32, 64, 128, 256]
                options = {"enforce_eager": False, "compilation_config": graphs}
            self.engines[mode] = Engine(
                mode, model, args.out / f"{mode}.log", load_format="dummy", max_model_len=max(args.lengths) + 512,
                max_num_batched_tokens=args.batched, max_num_seqs=32, kv_cache_memory_bytes=args.pages,
                kv_transfer_config=with_larder(self.daemon.socket, **extra), **options,
            )  # fmt: skip

    def row(self, name: str, **values: Any) -> None:
        """Writes one row."""
        text = json.dumps({"name": name, **values})
        with (self.args.out / "rows.jsonl").open("a") as rows:
            rows.write(text + "\n")
        print(f"{time.monotonic() - self.began:6.1f} {text}", flush=True)

    def close(self) -> None:
        """Ends everything."""
        for engine in self.engines.values():
            engine.kill()
        self.daemon.stop()

    def run(self) -> None:
        """All of it."""
        self.row("machine", card=_card(), began=time.strftime("%Y-%m-%d %H:%M"))
        for mode, engine in self.engines.items():
            engine.ready(self.args.start_s)
            self.row(f"{mode}.start", value=engine.start_s, unit="s")
        for engine in self.engines.values():
            for arm in ARMS:
                for length in self.args.lengths[:2]:
                    self._cold(engine, arm, length)
        for mode, engine in self.engines.items():
            self.row(f"{mode}.versions", **engine.call("versions"))
            for length, repeats in zip(self.args.lengths, self.args.repeats, strict=True):
                self.times(mode, engine, length, repeats)
            self.decode(mode, engine)
            counts = engine.call("counts")["workers"][0]
            self.row(f"{mode}.counts", **{k: v for k, v in counts.items() if v and k.startswith(("chunks", "dropped"))})

    def _cold(self, engine: Engine, arm: str, length: int) -> dict[str, float]:
        engine.call("tune", store_layers="auto" if arm == "auto" else "off")
        engine.call("reset")
        self.seed += 1
        got: dict[str, float] = engine.call("cold", prompt=[100_000 + self.seed, length], chunks=length // CHUNK)
        return got | {"after_s": got["stored_s"] - got["ttft_s"]}

    def times(self, mode: str, engine: Engine, length: int, repeats: int) -> None:
        """Prompts of one length, alone."""
        runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
        hooks = dict.fromkeys(ARMS, 0.0)
        for turn in range(repeats):
            for arm in [*ARMS[turn % 3 :], *ARMS[: turn % 3]]:
                before = _hooks(engine)
                runs[arm].append(self._cold(engine, arm, length))
                hooks[arm] += _hooks(engine) - before
        for key in ("ttft_s", "stored_s", "after_s"):
            for arm in ARMS:
                values = [run[key] for run in runs[arm]]
                low, middle, high = statistics.quantiles(values, n=4)
                self.row(
                    f"{mode}.{length}.{key[:-2]}.{arm}", value=_ms(middle), unit="ms", low=_ms(low), high=_ms(high),
                    n=len(values),
                )  # fmt: skip
            self._ratios(f"{mode}.{length}.{key[:-2]}", {arm: [run[key] for run in runs[arm]] for arm in ARMS})
        self.row(f"{mode}.{length}.hooks", unit="ms", **{arm: _ms(value / repeats) for arm, value in hooks.items()})

    def decode(self, mode: str, engine: Engine) -> None:
        """Many requests at once."""
        args = self.args
        runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
        for turn in range(args.rounds):
            for arm in [*ARMS[turn % 3 :], *ARMS[: turn % 3]]:
                engine.call("tune", store_layers="auto" if arm == "auto" else "off")
                engine.call("reset")
                self.seed += 100
                runs[arm].append(
                    engine.call("decode", seed=500_000 + self.seed, requests=args.requests, prompt=args.decode_prompt,
                                tokens=args.decode_tokens)
                )  # fmt: skip
                engine.call("settle", steps=20)
        for key in ("decode_tok_s", "all_tok_s") if args.rounds else ():
            for arm in ARMS:
                values = [run[key] for run in runs[arm]]
                self.row(
                    f"{mode}.{key}.{arm}", value=round(statistics.median(values)), unit="tok/s", low=round(min(values)),
                    high=round(max(values)), n=len(values),
                )  # fmt: skip
            self._ratios(f"{mode}.{key}", {arm: [run[key] for run in runs[arm]] for arm in ARMS})

    def _ratios(self, name: str, runs: dict[str, list[float]]) -> None:
        turns = list(zip(*(runs[arm] for arm in ARMS), strict=True))
        for what, values in (
            ("ratio", [auto / ((off + again) / 2) for off, auto, again in turns]),
            ("control", [again / off for off, _, again in turns]),
        ):
            low, high = min(values), max(values)
            if len(values) > 3:
                low, _, high = statistics.quantiles(values, n=4)
            middle = statistics.median(values)
            self.row(f"{name}.{what}", value=round(middle, 4), low=round(low, 4), high=round(high, 4))


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _hooks(engine: Engine) -> float:
    """Seconds in the worker's hooks for stores so far."""
    hooks = engine.call("counts")["workers"][0]["hook_s"]
    return float(sum(hooks.get(name, 0.0) for name in ("begin", "save", "save_layers")))


def main() -> None:
    def numbers(text: str) -> list[int]:
        return [int(x) for x in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of rows and logs")
    parser.add_argument("--work", type=Path, default=Path("/tmp/larder-gpu"), help="scratch folder, emptied")  # noqa: S108
    parser.add_argument("--modes", type=lambda s: s.split(","), default=["eager", "graphs"])
    parser.add_argument("--lengths", type=numbers, default=[2000, 8100, 32100])
    parser.add_argument("--repeats", type=numbers, default=[15, 11, 6], help="of each length")
    parser.add_argument("--rounds", type=int, default=3, help="of decode; 0: none")
    parser.add_argument("--batched", type=int, default=8192, help="max_num_batched_tokens")
    parser.add_argument("--pages", type=int, default=5 * GIB, help="bytes of KV pages of each engine")
    parser.add_argument("--host-bytes", default="24GiB", help="larderd's host.bytes")
    parser.add_argument("--credit-mib", type=int, default=2560)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--decode-prompt", type=int, default=904)
    parser.add_argument("--decode-tokens", type=int, default=256)
    parser.add_argument("--start-s", type=float, default=240)
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the script")
    args = parser.parse_args()
    make_folders(args.work, args.out)
    bench = Bench(args)
    try:
        bench.run()
    finally:
        bench.close()


if __name__ == "__main__":
    main()
