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
                     turn: --variant X:load_in_step_ms=0
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
pages: whether the shortest prompt's pages are those that were stored, and whether
the arm computes a short prompt as the plain engine does: with Inductor two
processes may not, and answers after hits differ then, too.

decode, after all else, since it fills the host's memory with its chunks: 16 requests
at once, tokens of one second after all had their first; plain, larder and plain
again in turns: .ratio has larder over the mean of both plain runs beside it,
.control the second plain run over the first.

With --graphs the engines are compiled in pieces and captured (vLLM's cudagraphs
FULL_AND_PIECEWISE, code by torch's eager backend), with --inductor too, with code
by Inductor, as vLLM does by itself; else they are eager. What Inductor made is kept
for later starts (VLLM_CACHE_ROOT), so the first engine of a run starts alone.
Rows are JSON, one a line, in FOLDER/rows.jsonl, and logs beside them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from arms import Arms, Rows
from rig import await_that, make_folders
from throughput import decode
from turns import Turns, worker_counts

GIB = 1 << 30
# Of one engine on the card: weights, pages, activations, CUDA itself.
ENGINE_BYTES = 23 * GIB


class Bench:
    """The stages."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.rows = Rows(args.out, args.mode)
        self.arms = Arms(args, self.rows)
        self.live = self.arms.live
        self.turns = Turns(args, self.arms, self.rows)

    def run(self) -> None:
        """All that was asked for."""
        args = self.args
        room = args.room or _room()
        first = ["plain", "larder", *args.variants, "offloading", "tiering"]
        fresh = ["larder.fresh", "tiering.fresh"]
        self.rows.add("machine", card=_card(), room=room, began=time.strftime("%Y-%m-%d %H:%M"))
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
            self.arms.stop([n for n in self.live if n not in stage])
            self.arms.start(stage)
            if not self.live:
                raise SystemExit("no engine started")
            if args.once and i < len(stages) - 1:
                # What fresh arms find.
                for length in args.lengths:
                    for arm in list(self.live.values()):
                        self.turns.stored(arm, length)
                continue
            self._hold()
            if "plain" in self.live:
                plain = self.live["plain"].engine
                self.rows.add("versions", **plain.call("versions"), pages=plain.call("form")[0])
            self.turns.ttft(stage, args.repeats)
        ours = self.live.get("larder", self.live.get("larder.fresh"))
        if args.rounds and "plain" in self.live and ours is not None:
            decode(args, self.rows, self.live["plain"].engine, ours.engine, self.arms.seed)
        for arm in self.live.values():
            if arm.name.startswith("larder"):
                self.rows.add(f"{arm.name}.counts", **worker_counts(arm.engine.call("counts")["workers"][0]))

    def _hold(self) -> None:
        """Waits for the file that was asked for, and says that all is ready."""
        if self.args.hold is not None:
            self.rows.add("ready", arms=[*self.live])
            await_that(f"{self.args.hold} is there", self.args.hold.exists, 600)


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
    parser.add_argument("--graphs", dest="mode", action="store_const", const="graphs", default="eager")
    parser.add_argument("--inductor", dest="mode", action="store_const", const="inductor")
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
    make_folders(args.work, args.out)
    bench = Bench(args)
    try:
        bench.run()
    finally:
        bench.arms.close()


if __name__ == "__main__":
    main()
