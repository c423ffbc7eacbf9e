"""Larder and LMCache's server under the same treatment: killed, stopped, restarted, their files damaged; their memory;
and how fast eight requests at once are answered whose beginnings are stored.

    python bench/py/peer.py --binaries bin --model DIR [--only larder] [--skip treatment] --out FILE

Runs in an environment with vLLM and LMCache. Both sides keep 2 GiB in memory and everything in files below; engines are
those of engine_worker.py in float32, so that answers can be compared with an engine's that has no connector. One JSON
line for each finding.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
ANSWER_S = 400.0  # LMCache's own timeout of a call is 300 s
TURN_S = 60.0
TOKENS, NEW = 2000, 16
PROMPTS = 4
KILLS = 5
PATIENCE_S = 90.0
PARTS = ["killed", "loads", "stopped", "damaged"]
TURNS_STORED = 8
Prompt = dict[str, int]


class Engine:
    """One engine_worker.py."""

    def __init__(self, model: str, kv: dict[str, Any] | None, log: Path, **options: Any) -> None:
        config: dict[str, Any] = {
            "model": model, "dtype": "float32", "enforce_eager": True, "disable_log_stats": True, "max_model_len": 4096,
            "max_num_batched_tokens": 4096, "max_num_seqs": 8, "block_size": 32, **options,
        }  # fmt: skip
        if kv is not None:
            config["kv_transfer_config"] = {**kv, "kv_role": "kv_both"}
        paths = [str(REPOSITORY / "connector/python/src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("engine_worker.py"))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "VLLM_RPC_BASE_PATH": str(log.parent)},
            )  # fmt: skip
        self.do("start", config=config)

    def do(self, name: str, limit_s: float = ANSWER_S, **arguments: Any) -> Any:
        """One of the worker's commands. Raises TimeoutError, with the engine killed, or RuntimeError."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        timer = threading.Timer(limit_s, self.process.kill)
        timer.start()
        try:
            stdin.write(json.dumps({"do": name, **arguments}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late = timer.finished.is_set()
            timer.cancel()
        if late:
            raise TimeoutError(f"no answer to {name} in {limit_s:.0f} s")
        if not line:
            raise RuntimeError("the engine ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def ask(self, prompts: list[Prompt], new: int = NEW, limit_s: float = ANSWER_S) -> Any:
        """As engine_worker.Worker.ask."""
        return self.do("ask", limit_s, prompts=prompts, new=new)

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()


class Side(ABC):
    """A server, its files, and the connector to it."""

    name: str
    kv: dict[str, Any]

    def __init__(self, work: Path) -> None:
        self.work = work
        self.files = work / "files"
        self.files.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """What starts the server."""

    @abstractmethod
    def serves(self) -> bool:
        """Whether it does."""

    @abstractmethod
    def stored(self) -> list[Path]:
        """The files with KV in them."""

    def start(self) -> float:
        """Starts the server; seconds until it serves."""
        began = time.monotonic()
        with (self.work / "server.log").open("ab") as log:
            env = os.environ | {"PYTHONHASHSEED": "0", "LMCACHE_TRACK_USAGE": "false", "LMCACHE_DISABLE_BANNER": "1"}
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        wait_for(self.serves, self.name)
        return time.monotonic() - began

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """To the server and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


class Larder(Side):
    """larderd with an nvme tier, everything written at once."""

    name = "larder"

    def __init__(self, work: Path, binaries: Path) -> None:
        super().__init__(work)
        self.binaries = binaries
        self.socket = work / "larderd.sock"
        self.kv = {
            "kv_connector": "LarderConnector", "kv_connector_module_path": "larder.vllm",
            "kv_connector_extra_config": {"socket": str(self.socket)},
        }  # fmt: skip

    def command(self) -> list[str]:
        flags = {
            "listen.socket": self.socket, "listen.handover": self.work / "handover.sock", "listen.metrics": "off",
            "host.bytes": "2GiB", "state_dir": self.work / "state", "nvme.path": self.files, "nvme.bytes": "4GiB",
            "nvme.reserve_bytes": "1MiB", "nvme.write_back": "always", "nvme.buffered": "true",
        }  # fmt: skip
        return [str(self.binaries / "larderd"), *(f"--{name}={value}" for name, value in flags.items())]

    def serves(self) -> bool:
        status = [str(self.binaries / "larder"), "--socket", str(self.socket), "status"]
        return subprocess.run(status, capture_output=True, check=False).returncode == 0

    def stored(self) -> list[Path]:
        return [
            f for f in self.files.rglob("*") if f.is_file() and "index" not in f.parts and f.stat().st_size > 1 << 20
        ]


class LMCache(Side):
    """LMCache's multiprocess server, in the mode that is fastest on a CPU, with its adapter for files."""

    name = "lmcache"
    port = 15555

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.kv = {
            "kv_connector": "LMCacheMPConnector",
            "kv_connector_module_path": "lmcache.integration.vllm.lmcache_mp_connector",
            "kv_connector_extra_config": {"lmcache.mp.host": "tcp://localhost", "lmcache.mp.port": self.port},
        }

    def command(self) -> list[str]:
        shm = f"larder-peer-{os.getpid()}"
        return [
            str(Path(sys.executable).with_name("lmcache")), "server", "--host", "127.0.0.1", "--port", str(self.port),
            "--http-host", "127.0.0.1", "--http-port", "18080", "--l1-size-gb", "2", "--chunk-size", "256",
            "--eviction-policy", "LRU", "--supported-transfer-mode", "engine_driven", "--shm-name", shm,
            "--l2-adapter", json.dumps({"type": "fs", "base_path": str(self.files)}),
        ]  # fmt: skip

    def serves(self) -> bool:
        return all(accepts(port) for port in (self.port, 18080))

    def stored(self) -> list[Path]:
        return [f for f in self.files.rglob("*") if f.is_file()]


def accepts(port: int) -> bool:
    """Whether anybody listens on this host."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_for(check: Callable[[], Any], what: str, limit_s: float = PATIENCE_S) -> None:
    """Returns once check is true."""
    until = time.monotonic() + limit_s
    while not check():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.05)


def memory(pid: int) -> dict[str, int]:
    """MiB of a process and its children: resident, and with what is shared divided among those who share it."""
    pids = [pid]
    for one in pids:
        pids += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    sums = {"rss_mib": 0, "pss_mib": 0}
    for one in pids:
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            key, *rest = line.split()
            if key.lower() in ("rss:", "pss:"):
                sums[f"{key[:-1].lower()}_mib"] += int(rest[0]) // 1024
    return sums


class Treatment:
    """One side's server and an engine, and what is done to them."""

    def __init__(self, side: Side, model: str, answers: list[list[int]], say: Callable[..., None]) -> None:
        self.side = side
        self.model = model
        self.answers = answers
        self.say = say
        self.engine: Engine | None = None

    def ask(self, test: str, which: int, **more: Any) -> int:
        """Asks a prompt; says how long it took, how much was reused and whether the answer is right."""
        began = time.monotonic()
        try:
            assert self.engine is not None
            answer = self.engine.ask([prompt(which)])
        except (RuntimeError, TimeoutError) as error:
            self.say(test, engine="dead", seconds=round(time.monotonic() - began, 2), error=str(error)[:200], **more)
            self.restart_engine()
            return 0
        new = answer["new"][0]
        right = new == self.answers[which]
        if not right:
            more["tokens"] = f"{len(new)} of {NEW}"
        self.say(test, seconds=round(answer["seconds"], 3), reused=answer["reused"][0], right=right, **more)
        reused: int = answer["reused"][0]
        return reused

    def restart_engine(self) -> None:
        """A new process, whose cache is empty; and which has none of its own, so that each request asks the server."""
        if self.engine is not None:
            self.engine.close()
        self.engine = Engine(self.model, self.side.kv, self.side.work / "engine.log", enable_prefix_caching=False)

    def run(self, parts: list[str]) -> None:
        """What comes first, and these parts."""
        side = self.side
        self.say("server's start", seconds=round(side.start(), 2))
        self.restart_engine()
        assert self.engine is not None
        self.say("memory, nothing stored", server=memory(side.pid), engine=memory(self.engine.process.pid))
        for which in range(PROMPTS):
            self.ask("cold", which)
        self.settle()
        for which in range(PROMPTS):
            self.ask("warm", which)
        kv = PROMPTS * (TOKENS // 256 * 256) * 24 // 1024
        self.say("memory", server=memory(side.pid), engine=memory(self.engine.process.pid), stored_mib=kv)
        for part in parts:
            {
                "killed": self.killed,
                "loads": self.killed_during_loads,
                "stopped": self.stopped,
                "damaged": self.damaged,
            }[part]()

    def settle(self) -> None:
        """Waits until the files are written: until nothing has changed for two seconds."""
        seen: list[int] = []
        for _ in range(60):
            time.sleep(1)
            seen.append(sum(f.stat().st_blocks for f in self.side.stored()))
            if len(seen) > 2 and seen[-1] and len(set(seen[-3:])) == 1:
                break
        self.say("files", count=len(self.side.stored()), mib=seen[-1] // 2048)

    def killed(self) -> None:
        """While nobody asks; and started again."""
        self.side.kill()
        for i in range(3):
            self.ask("after kill -9 of the server", i)
        self.say("server's start", seconds=round(self.side.start(), 2))
        self.until_reused("restarted")

    def until_reused(self, after: str) -> None:
        """Requests until one is answered with KV from the server."""
        began = time.monotonic()
        while not self.ask(f"{after}, request", 0):
            if time.monotonic() - began > PATIENCE_S:
                self.say(f"{after}: nothing reused", seconds=PATIENCE_S)
                return
            time.sleep(1)
        self.say(f"{after}: reused again", seconds=round(time.monotonic() - began, 1))

    def killed_during_loads(self) -> None:
        """At moments spread over a warm request."""
        for i in range(KILLS):
            timer = threading.Timer(0.02 + 0.03 * i, self.side.kill)
            timer.start()
            self.ask("kill -9 during a warm request", i % PROMPTS)
            timer.join()
            self.side.kill()
            self.side.start()
            self.until_reused("restarted")

    def stopped(self) -> None:
        """SIGSTOP for ten seconds, from before a request on."""
        self.side.signal(signal.SIGSTOP)
        timer = threading.Timer(10.0, self.side.signal, [signal.SIGCONT])
        timer.start()
        self.ask("server stopped for 10 s", 1)
        timer.join()
        self.until_reused("continued")

    def damaged(self) -> None:
        """One number of every 4 KiB of all files, between two servers: the byte with its exponent."""
        self.settle()
        self.side.kill()
        files = self.side.stored()
        for file in files:
            data = bytearray(file.read_bytes())
            for at in range(2051, len(data), 4096):
                data[at] ^= 0x55
            with file.open("r+b") as there:
                there.write(data)
        self.side.start()
        self.restart_engine()
        for which in range(PROMPTS):
            self.ask("files damaged, new engine", which, files=len(files))
        for which in range(PROMPTS):
            self.ask("files damaged, asked again", which)


def prompt(which: int, tokens: int = TOKENS) -> Prompt:
    """Prompts of different seeds have nothing in common."""
    return {"seed": 1000 + which, "tokens": tokens}


def throughput(
    sides: dict[str, Side | None], model: str, say: Callable[..., None], repeats: int, *, wait: bool
) -> None:
    """Eight requests at once, three times over four beginnings of 1500 tokens with ends of their own, which are stored
    but not in the engine's own cache; in turns, each with the arms in an order of its own."""
    # The pages of an engine hold what it answered in three turns.
    families = range(min(repeats, TURNS_STORED) * 4)
    # Pages for 20480 tokens: eight requests, not what an engine has answered before.
    options: dict[str, Any] = {"dtype": "bfloat16", "block_size": 128, "num_gpu_blocks_override": 160}
    with ExitStack() as stack:
        engines = {}
        for name, side in sides.items():
            kv = None if side is None else side.kv
            if side is not None:
                side.start()
                stack.callback(side.kill)
                storing = Engine(model, kv, side.work / "engine.log", **options)
                for family in families:
                    storing.ask([prompt(100 + family, 1500)], 1)
                time.sleep(5)
                storing.close()
            log = Path(tempfile.gettempdir()) / "peer-plain.log" if side is None else side.work / "engine.log"
            engines[name] = Engine(model, kv, log, **options)
            stack.callback(engines[name].close)
            engines[name].ask([prompt(1, 512)])
        if wait:
            say("ready", side="all")
            sys.stdin.readline()
        chance = random.Random()  # noqa: S311
        results: dict[str, list[float]] = {name: [] for name in engines}
        reused: dict[str, list[int]] = {name: [] for name in engines}
        for repeat in range(repeats):
            # "then" ends a prompt with a token of its own: a chunk of its own besides.
            first = 1100 + 4 * (repeat % TURNS_STORED)
            batch = [{"seed": first + i % 4, "tokens": 1500, "then": 5000 + 100 * repeat + i} for i in range(24)]
            order = list(engines)
            chance.shuffle(order)
            for name in order:
                try:
                    answer = engines[name].ask(batch, 32, TURN_S)
                except (RuntimeError, TimeoutError) as error:
                    say("turn", side=name, number=repeat, error=str(error)[:200])
                    del engines[name]
                    continue
                say("turn", side=name, number=repeat, seconds=round(answer["seconds"], 2), reused=sum(answer["reused"]))
                results[name].append(24 * (1501 + 32) / answer["seconds"])
                reused[name].append(sum(answer["reused"]))
        results = {name: values for name, values in results.items() if values}
        for name, values in results.items():
            say(
                "throughput", side=name, tokens_per_s=round(statistics.median(values)), all=[round(v) for v in values],
                reused=reused[name],
            )  # fmt: skip
            if name.startswith("larder") and name in engines:
                say("requests", side=name, **engines[name].do("stats")["requests"])
        for one, other in combinations(results, 2):
            # An arm whose engine gave no answer has fewer turns.
            ratios = [a / b for a, b in zip(results[one], results[other], strict=False)]
            medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
            interval = [round(medians[i], 3) for i in (100, 1899)]
            say("ratio", side=one, to=other, median=round(statistics.median(ratios), 3), interval=interval)


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """A short path, for sockets."""
    path = Path(tempfile.mkdtemp(prefix=f"peer-{name}-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=Path, default=REPOSITORY / "bin", help="where larderd and larder are")
    parser.add_argument("--model", required=True)
    parser.add_argument("--only", choices=("larder", "lmcache"))
    parser.add_argument("--skip", choices=("treatment", "throughput"))
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, help="of the treatment")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--control", action="store_true", help="a second arm of Larder, and of no connector, each")
    parser.add_argument("--wait", action="store_true", help="for a line on standard input before what is timed")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("LMCACHE_LOG_LEVEL", "WARNING")
    names = [options.only] if options.only else ["larder", "lmcache"]

    def say(test: str, *, side: str, **facts: Any) -> None:
        line = json.dumps({"side": side, "test": test, **facts})
        print(line, flush=True)
        with options.out.open("a") as out:
            out.write(line + "\n")

    with ExitStack() as stack:

        def make(name: str) -> Side:
            work = stack.enter_context(folder(name))
            return LMCache(work) if name == "lmcache" else Larder(work, options.binaries)

        if options.skip != "treatment":
            plain = Engine(options.model, None, stack.enter_context(folder("plain")) / "engine.log")
            answers = [plain.ask([prompt(i)])["new"][0] for i in range(PROMPTS)]
            plain.close()
            for name in names:
                side = make(name)
                treatment = Treatment(side, options.model, answers, lambda *a, n=name, **k: say(*a, side=n, **k))
                try:
                    treatment.run(options.parts)
                finally:
                    side.kill()
                    if treatment.engine is not None:
                        treatment.engine.close()
        if options.skip != "throughput":
            again = [name for name in ("plain", "larder") if options.control and name in ("plain", *names)]
            arms = ["plain", *names, *(f"{name}-again" for name in again)]
            sides = {name: None if name.startswith("plain") else make(name) for name in arms}
            throughput(sides, options.model, say, options.repeats, wait=options.wait)


if __name__ == "__main__":
    main()
