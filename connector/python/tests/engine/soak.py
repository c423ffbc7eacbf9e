"""A real engine with few pages and a real daemon with little memory and disk, for a long time (make soak-engine).

Requests with shared prefixes come several at once, or one or two at a time, are preempted and aborted, while the daemon
is killed, restarted, stopped and cleared. Every answer is that of an engine without Larder, every page in the engine's
cache has that engine's KV, and nothing that either process takes grows. LARDER_SOAK_ENGINE says how long; what it meets
is counted, and on a machine so slow that something has not happened by then, it goes on until it has.

Everything is float32. An answer counts up to the first token that led the second best by less than SURE in the engine
without Larder: from there on rounding may decide, which depends on how many tokens were reused.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import re
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from real_engine import RealEngine

from harness.daemon import Counters, Daemon

BLOCK, CHUNK = 16, 64
PATIENCE_S = 120.0
SURE = 1e-3
# The prompts have about 60 chunks of 1.5 MiB, what is generated more.
HOST_MIB, DISK_MIB = 72, 64
PAGES = 128  # 2048 tokens
WAVE = 20  # requests
IN_STEP_MS = 80  # load_in_step_ms
ALONE = 16  # requests of a wave in which they come one or two at a time
NOTHING = dict.fromkeys(["blocks", "requests", "states", "matches", "loads"], 0)
DISTURBANCES = ("none", "kill", "restart", "pause", "clear")
# Of a soak that has not met everything; and waves until something must have been loaded.
MOST_TOURS, MOST_WAVES = 10, 20
MEETS = (
    "requests", "aborted", "midway", "tokens", "pages", "kill", "restart", "pause", "clear", "preempted",
    "in step", "chunks_stored", "evicted host", "evicted nvme", *(f"loaded after {name}" for name in DISTURBANCES),
)  # fmt: skip
# What may be used beside the budgets, bytes: generous, since allocators keep what they had.
GROWTH = 256 << 20


@dataclass
class Case:
    """A prompt, what an engine without Larder answers, how much of that is sure, and its KV."""

    prompt: list[int]
    answer: list[int]
    sure: int
    sketch: list[list[float]]


@dataclass
class Used:
    """What a process has, at one moment."""

    descriptors: int
    threads: int
    # Mappings of arenas.
    arenas: int
    # Bytes.
    private: int
    shared: int

    @classmethod
    def of(cls, pid: int) -> Used:
        proc = Path(f"/proc/{pid}")
        kib = dict(re.findall(r"(\w+):\s+(\d+) kB", (proc / "status").read_text()))
        descriptors, threads = (len(list((proc / name).iterdir())) for name in ("fd", "task"))
        arenas = (proc / "maps").read_text().count("memfd:larder-arena")
        return cls(descriptors, threads, arenas, int(kib["RssAnon"]) << 10, int(kib["RssShmem"]) << 10)


def duration() -> float:
    """Seconds: LARDER_SOAK_ENGINE, as in 1h30m or 90s; 1h without it."""
    text = os.environ.get("LARDER_SOAK_ENGINE", "1h")
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    assert found, f"LARDER_SOAK_ENGINE={text}"
    assert any(found.groups()), f"LARDER_SOAK_ENGINE={text}"
    return sum(int(n or 0) * unit for n, unit in zip(found.groups(), (3600, 60, 1), strict=True))


def eventually(check: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while (seen := check()) is not True:
        assert time.monotonic() < until, f"{what}: {seen}"
        time.sleep(0.05)


class Soak:
    """The engine, the daemon, and what was counted. A disturbance runs on a thread of its own, all else on one."""

    def __init__(self, engine: RealEngine, daemon: Daemon, cases: list[Case], seed: int) -> None:
        self.engine = engine
        self.daemon = daemon
        self.cases = cases
        self.source = random.Random(seed)  # noqa: S311
        self.count: Counter[str] = Counter()
        self.tiers: dict[str, int] = {}

    def wave(self) -> None:
        """Some requests: in one wave they arrive while others run, in the next one a request is alone when it arrives,
        and now and then another one follows while it is loaded or computed."""
        source, requests, chosen, together = self.source, [], [], not self.count["waves"] % 2
        for i in range(WAVE if together else ALONE):
            # The first ones more often than others.
            case = self.cases[int(len(self.cases) * source.random() * source.random())]
            after = source.randrange(60) if together else i % 2 * source.randrange(1, 4)
            request: dict[str, Any] = {
                "prompt": case.prompt,
                "tokens": source.randint(1, len(case.answer) if together else min(len(case.answer), 16)),
                "after": after,
            }
            if source.random() < 0.2:
                request["abort_after"] = after + source.randrange(40)
            if source.random() < 0.1:
                request["larder"] = source.choice(({"skip_load": True}, {"skip_store": True}, {"salt": "another"}))
            requests.append(request)
            chosen.append(case)
        at_once, answers = WAVE if together else 2, []
        for i in range(0, len(requests), at_once):
            if i and source.random() < 0.5:
                # Of what it has itself it loads nothing.
                self.engine.ask("reset")
            answers += self.engine.ask("generate", timeout_s=600, requests=requests[i : i + at_once])
        for case, request, answer in zip(chosen, requests, answers, strict=True):
            ids = answer["token_ids"]
            aborted = "abort_after" in request and len(ids) < request["tokens"]
            assert aborted or len(ids) == request["tokens"]
            sure = min(len(ids), case.sure)
            assert ids[:sure] == case.answer[:sure], (self.count, request, answer, case.answer)
            self.count.update(requests=1, aborted=aborted, midway=aborted and bool(ids), tokens=sure)
            self.count["cached"] += answer["cached"] or 0
        some = source.sample(chosen, 8)
        for case, sketch in zip(some, self.engine.ask("sketch", prompts=[c.prompt for c in some]), strict=True):
            self.compare(case, sketch)
        self.count["waves"] += 1

    def compare(self, case: Case, sketch: list[list[float]]) -> None:
        """The engine's pages with those of one without Larder."""
        assert len(sketch) <= len(case.sketch)
        scale = [statistics.median(map(abs, layer)) for layer in zip(*case.sketch, strict=True)]
        for block, (mine, want) in enumerate(zip(sketch, case.sketch, strict=False)):
            for layer, (a, b) in enumerate(zip(mine, want, strict=True)):
                assert math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3 * scale[layer]), (block, layer, a, b)
        self.count["pages"] += len(sketch)

    def until_loaded(self, why: str) -> None:
        """Requests until some are answered with KV from the daemon, which now has to happen."""
        self.engine.await_ready(PATIENCE_S)
        before = self.engine.stats()["chunks_loaded"]
        until, last = time.monotonic() + PATIENCE_S, self.count["waves"] + MOST_WAVES
        while not (loaded := self.engine.stats()["chunks_loaded"] - before):
            assert time.monotonic() < until or self.count["waves"] < last, f"nothing was loaded after {why}"
            self.quiesce()
            assert self.engine.ask("reset")
            self.wave()
        self.count[f"loaded after {why}"] += loaded

    def during(self, disturb: Callable[[], None]) -> None:
        """Requests as long as a disturbance lasts."""
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(disturb)
            while not done.done():
                self.wave()
            done.result()

    def quiesce(self) -> None:
        """Nobody asks for anything: nothing of it is left in the engine."""

        def left() -> Any:
            self.engine.ask("step", times=5)
            return (now := self.engine.ask("leftovers")) == NOTHING or now

        eventually(left, "left in the engine")

    def idle(self) -> None:
        """As quiesce; and the daemon holds nothing for the engine but slots granted ahead."""
        self.quiesce()

        def left() -> Any:
            sessions = self.daemon.status().get("sessions", [])
            return not sum(s.get("leases", 0) + s.get("holds", 0) for s in sessions) or sessions

        eventually(left, "left in the daemon")

    def used(self) -> Used:
        """What the engine takes, at rest."""

        def arenas() -> Any:
            return (now := Used.of(self.engine.pid).arenas) == 1 or now

        # Before the garbage collector runs, on which nothing may depend.
        eventually(arenas, "arenas, of daemons that are gone")
        self.engine.ask("trim")
        return Used.of(self.engine.pid)

    def missing(self) -> list[str]:
        """What it is about and has not met."""
        self.note_tiers()
        met = self.count + Counter({f"evicted {name}": evicted for name, evicted in self.tiers.items()})
        told = self.engine.stats("scheduler")
        met |= Counter({"preempted": told["preempted"], "in step": told["loads_in_step"]})
        met["chunks_stored"] = self.engine.stats()["chunks_stored"]
        return [name for name in MEETS if not met[name]]

    # -- disturbances --------------------------------------------------------

    def disturbance(self, name: str, seconds: float) -> Callable[[], None]:
        source = random.Random(self.source.random())  # noqa: S311 - of its own thread
        first, then = (source.uniform(0.1, 0.5) * seconds for _ in range(2))
        if name == "pause" and self.count["pause"] % 3 == 2:
            # Longer than leases, holds and deadlines.
            then = 15.0

        def disturb() -> None:
            time.sleep(first)
            if name == "none":
                return
            self.note_tiers()
            if name == "pause":
                os.kill(self.daemon.pid, signal.SIGSTOP)
            elif name == "kill":
                self.daemon.kill()
            elif name == "restart":
                assert self.daemon.stop() == 0
            else:
                self.daemon.clear()
            self.count[name] += 1
            time.sleep(then)
            if name == "pause":
                os.kill(self.daemon.pid, signal.SIGCONT)
            elif name != "clear":
                self.forget_tiers()
                self.daemon.start()

        return disturb

    def note_tiers(self) -> None:
        """How many chunks each tier of this daemon has evicted."""
        self.tiers = {tier["tier"]: Counters(tier)["evicted_chunks"] for tier in self.daemon.status()["tiers"]}

    def forget_tiers(self) -> None:
        """This daemon is gone."""
        for name, evicted in self.tiers.items():
            self.count[f"evicted {name}"] += evicted
        self.tiers = {}


@pytest.fixture(scope="module")
def work(short_folder: Path) -> Path:
    return short_folder


@pytest.fixture(scope="module")
def cases(test_model: Path, work: Path, words: Callable[[Path], list[int]]) -> list[Case]:
    """Families of prompts with a common beginning, and short ones, answered by an engine without Larder."""
    ids, source = words(test_model), random.Random(7)  # noqa: S311
    prompts = []
    for family in range(5):
        begin = family * 1400
        shared = source.randrange(150, 700)
        for _ in range(4):
            end = source.randrange(7200, 8600)
            prompts.append(ids[begin : begin + shared] + ids[end : end + source.randrange(4, 300)])
        begin = source.randrange(7200, 8600)
        prompts.append(ids[begin : begin + source.randrange(10, 100)])
    source.shuffle(prompts)
    engine = RealEngine(test_model, work / "control.log", block_size=BLOCK)
    asked = [{"prompt": p, "tokens": source.choice((4, 16, 40, 120)), "margins": True} for p in prompts]
    answers = engine.ask("generate", timeout_s=600, requests=asked)
    cases = []
    for prompt, answer, sketch in zip(prompts, answers, engine.ask("sketch", prompts=prompts), strict=True):
        assert len(sketch) == (len(prompt) - 1) // BLOCK
        sure = next((i for i, margin in enumerate(answer["margins"]) if margin < SURE), len(answer["token_ids"]))
        cases.append(Case(prompt, answer["token_ids"], sure, sketch))
    engine.kill()
    assert statistics.mean(c.sure / len(c.answer) for c in cases) > 0.8, "hardly an answer is sure"
    return cases


@pytest.fixture(scope="module")
def larderd(binaries: Path, work: Path) -> Iterator[Daemon]:
    nvme = {
        "path": str(work / "nvme"), "bytes": f"{DISK_MIB}MiB", "reserve_bytes": "1MiB", "buffered": "true",
        "write_back": "always",
    }  # fmt: skip
    flags = {f"nvme.{name}": value for name, value in nvme.items()}
    daemon = Daemon(binaries, work, host_bytes=f"{HOST_MIB}MiB", flags=flags)
    daemon.start()
    yield daemon
    daemon.kill()


def test_soak(
    test_model: Path, work: Path, larderd: Daemon, cases: list[Case], capsys: pytest.CaptureFixture[str]
) -> None:
    total = duration()
    idle = Used.of(larderd.pid)
    engine = RealEngine(
        test_model, work / "soak.log", socket=larderd.socket, extra={"chunk_tokens": CHUNK}, patient=False,
        block_size=BLOCK, num_gpu_blocks_override=PAGES, max_model_len=1200, max_num_batched_tokens=512,
    )  # fmt: skip
    seed = int(os.environ.get("LARDER_SOAK_SEED", time.time_ns() % 10**6))
    soak = Soak(engine, larderd, cases, seed)
    # As by default, but also where the machine is too slow for loads to be expected in time.
    engine.ask("load_in_step", ms=IN_STEP_MS)
    until = time.monotonic() + total
    seconds = min(total / 20, 20.0)
    early: Used | None = None
    try:
        for turn in itertools.count(1):
            name = DISTURBANCES[(turn - 1) % len(DISTURBANCES)]
            soak.during(soak.disturbance(name, seconds))
            soak.until_loaded(name)
            soak.idle()
            late, served = soak.used(), Used.of(larderd.pid)
            tours = turn // len(DISTURBANCES)
            if tours and early is None:
                early = late
            missing = soak.missing()
            if early and time.monotonic() >= until and (not missing or tours >= MOST_TOURS):
                break
        soak.forget_tiers()
        stats = {half: engine.stats(half) for half in ("scheduler", "worker")}
        assert engine.stop() == 0
    except BaseException:
        with capsys.disabled():
            print(f"seed {seed}: {dict(soak.count)}\n{engine.last_lines()}")  # noqa: T201
        raise
    finally:
        engine.kill()
    with capsys.disabled():
        print(f"seed {seed}: {dict(soak.count)}\n{stats}\nengine {early}, {late}\nlarderd {idle}, {served}")  # noqa: T201
    assert not missing, f"not met in {turn} disturbances"

    # What one tour of it left, others did not add to.
    assert early is not None
    assert late.descriptors <= early.descriptors + 4, (early, late)
    assert late.threads <= early.threads + 4, (early, late)
    assert late.private <= early.private + GROWTH, (early, late)
    assert late.shared <= early.shared + (32 << 20), (early, late)
    assert served.private <= idle.private + GROWTH, (idle, served)

    def free() -> Any:
        status = larderd.status()
        host = status["host"]
        left = [int(host.get(name, 0)) for name in ("granted", "leased", "quarantined")]
        return not (any(left) or status.get("sessions")) or status

    eventually(free, "left in the daemon when the engine had ended")
    after = Used.of(larderd.pid)
    # Files of segments, and threads that waited for them.
    assert after.descriptors <= idle.descriptors + 24, (idle, after)
    assert after.threads <= idle.threads + 32, (idle, after)
    assert larderd.stop() == 0
    log = (work / "larderd.log").read_text()
    assert not [line for line in log.splitlines() if "panic" in line or "level=ERROR" in line]
    errors = subprocess.run(["grep", "-c", "Traceback", str(work / "soak.log")], capture_output=True, text=True)  # noqa: PLW1510, S607
    assert errors.stdout.strip() == "0", errors.stdout
