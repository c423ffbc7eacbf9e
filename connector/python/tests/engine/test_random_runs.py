"""Random requests on too few pages, with a daemon that misbehaves: every answer is right, and nothing is left over.

Before each step the simulated engine compares the pages that count as computed
with what belongs there, so a wrong byte fails at once, whoever caused it.
"""

from __future__ import annotations

import random

import pytest
from hybrid_engine import HybridEngine, make_hybrid
from simulated_config import VOCABULARY
from simulated_engine import MakeEngine, expected_output, prefix_hashes
from stub_daemon import TENANT_KEY, StubDaemon

from larder.errors import FullError
from larder.keys import chunk_keys, root_key
from larder.v1 import engine_pb2, part_pb2

STEPS = 200


class Run:
    """One random run: requests over a few shared prefixes, faults of the daemon.

    windows: groups of a sliding window, beside one of full attention."""

    def __init__(self, engine: MakeEngine, daemon: StubDaemon, seed: int, windows: int = 0) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.daemon = daemon
        block = self.random.choice([16, 32, 64])
        blocks = (1 + windows) * self.random.choice([660, 800, 1200]) // block + 1
        window = self.random.choice([40, 100, 200]) if windows else 0
        forms = [(block, 0, 32)] + windows * [(block, window, 32)]
        made = engine(
            connect=daemon.connect,
            kind=HybridEngine,
            cache_config=make_hybrid(blocks, *forms),
            block=block,
            blocks=blocks,
            budget=self.random.choice([64, 100, 256, 512]),
            seqs=self.random.choice([2, 4, 8]),
            model_len=640,
            extra={
                "load_deadline_ms": 100,
                "failed_pause_s": 0.05,
                "hold_ms": 200,
                "backfill_chunks": 2,
                "load_or_recompute": self.random.random() < 0.5,
            },
        )
        assert isinstance(made, HybridEngine)
        self.engine = made
        self.pages = self.engine.free_blocks()
        self.bases = [[self.random.randrange(VOCABULARY) for _ in range(400)] for _ in range(3)]
        self.asked: dict[str, tuple[list[int], int]] = {}
        self.aborted: set[str] = set()

    def arrive(self) -> None:
        """A request that shares some prefix, or all of another prompt."""
        rng = self.random
        shared = rng.choice(self.bases)[: rng.randrange(1, 400)]
        tokens = shared + [rng.randrange(VOCABULARY) for _ in range(rng.choice([0, 0, 1, 30, 100]))]
        if self.asked and rng.random() < 0.3:
            tokens = rng.choice(list(self.asked.values()))[0]
        name, count = f"r{len(self.asked)}", rng.choice([1, 2, 5, 40, 100])
        self.asked[name] = (tokens, count)
        params = rng.choice([None, None, None, {"larder": {"skip_load": True}}, {"larder": {"skip_store": True}}])
        self.engine.add(name, tokens, count, params=params, skip_reading=rng.random() < 0.05 or None)

    def repeat(self) -> None:
        """The prompt of a request that was."""
        if self.asked:
            tokens, _ = list(self.asked.values())[-1]
            name = f"r{len(self.asked)}"
            self.asked[name] = (tokens, 3)
            self.engine.add(name, tokens, 3)

    def abort(self) -> None:
        """Some request that is not over."""
        running = [r for r in self.engine.scheduler.requests if r not in self.engine.ended]
        if running:
            name = self.random.choice(running)
            self.engine.abort(name)
            self.aborted.add(name)

    def disturb(self) -> None:
        """Something goes wrong with the daemon, or right again."""
        daemon, rng = self.daemon, self.random
        keys = list(daemon.chunks)
        match rng.randrange(12):
            case 0:
                daemon.up = not daemon.up
            case 1:
                daemon.stuck = not daemon.stuck
            case 2:
                daemon.silent = not daemon.silent
                daemon.answer()
            case 3 if keys:
                daemon.corrupt = set(rng.sample(keys, len(keys) // 4))
            case 4 if keys:
                for key in rng.sample(keys, len(keys) // 3):
                    daemon.evict(key)
            case 5:
                daemon.unconfirmed = rng.randrange(3)
            case 6:
                daemon.credits = rng.choice([None, 0, 3, 9])
            case 7:
                daemon.refuse_commit = rng.choice([None, FullError("no room", "commit")])
            case 8:
                daemon.restart()
            case 9 | 10:
                # A chunk is loaded at once, or some are, or none is.
                cost_ns, host = rng.choice([0, 20_000_000, 10**12]), rng.randrange(4)
                daemon.tiers = lambda keys: [
                    engine_pb2.TierRun(tier=part_pb2.TIER_HOST, chunks=min(host, len(keys))),
                    engine_pb2.TierRun(tier=part_pb2.TIER_NVME, chunks=max(0, len(keys) - host), cost_ns=cost_ns),
                ]
            case _:
                daemon.holds.clear()

    def heal(self) -> None:
        """The daemon is well again."""
        daemon = self.daemon
        daemon.up, daemon.stuck, daemon.silent = True, False, False
        daemon.corrupt, daemon.unconfirmed, daemon.credits, daemon.refuse_commit = set(), 0, None, None
        daemon.tiers = None
        daemon.answer()

    def run(self) -> None:
        """All of it."""
        rng = self.random
        for _ in range(STEPS):
            if rng.random() < 0.15:
                for _ in range(rng.choice([1, 1, 1, 4])):
                    self.arrive()
            if rng.random() < 0.02:
                self.abort()
            if rng.random() < 0.06:
                self.disturb()
            if rng.random() < 0.05:
                self.heal()
            if rng.random() < 0.04:
                # As good as another engine: its own cache is empty.
                self.engine.run()
                self.engine.drop_own_cache()
                for _ in range(rng.choice([1, 1, 4])):
                    self.repeat()
            if self.engine.scheduler.has_requests():
                self.engine.step()
        self.heal()
        self.engine.run()

    def check_stored(self) -> int:
        """Compares what the daemon has with what belongs there; returns chunks."""
        root = root_key(self.engine.connector.scheduler_half._fingerprint, TENANT_KEY)
        found = set()
        for name, (prompt, _) in self.asked.items():
            tokens = prompt + self.engine.outputs[name]
            hashes, keys = prefix_hashes(tokens), chunk_keys(root, tokens, 64)
            for i in range(len(keys) // 32):
                key = keys[32 * i : 32 * i + 32]
                if key in self.daemon.chunks and key not in found:
                    self.engine.check_chunk(self.daemon.chunks[key], hashes, i)
                    found.add(key)
        assert found == set(self.daemon.chunks), "chunks under keys that no request has"
        return len(found)


@pytest.mark.parametrize(("seed", "windows"), [*((seed, 0) for seed in range(10)), (20, 1), (21, 2), (22, 2)])
def test_random_run(engine: MakeEngine, daemon: StubDaemon, seed: int, windows: int) -> None:
    run = Run(engine, daemon, seed, windows)
    run.run()
    e, half = run.engine, run.engine.connector.scheduler_half
    for name, (tokens, count) in run.asked.items():
        want = expected_output(tokens, min(count, 640 - len(tokens)))
        got = e.outputs[name]
        assert got == (want[: len(got)] if name in run.aborted else want), name
    assert e.free_blocks() == run.pages
    assert not e.scheduler.requests
    assert not half._states
    assert not half._holds
    assert not half._inflight
    assert not half._starting
    assert not e.worker.worker_half._loader._pending
    assert run.engine.checked_tokens > 0
    run.check_stored()
    # Holds of a daemon's former life may be left; those of this one are not.
    e.generate("last", run.bases[0][:200])
    assert e.outputs["last"] == expected_output(run.bases[0][:200], 4)


def test_the_runs_meet_what_they_are_about(engine: MakeEngine) -> None:
    """Over the seeds there are loads, failed loads, preemptions, drops and duplicates; else the runs prove nothing."""
    names = ["loads", "failed", "restarts", "chunks", "preempted", "dropped", "waits", "skips", "stored"]
    totals = dict.fromkeys(names, 0)
    for seed in range(6):
        run = Run(engine, StubDaemon(), 100 + seed, windows=seed % 3)
        run.run()
        worker, scheduler = run.engine.worker.stats, run.engine.connector.stats
        totals["loads"] += worker.loads
        totals["failed"] += worker.loads_failed
        totals["restarts"] += scheduler.restarts
        totals["chunks"] += worker.chunks_loaded
        totals["dropped"] += scheduler.stores_dropped
        totals["waits"] += scheduler.waits_for_load
        totals["skips"] += scheduler.skips
        totals["preempted"] += run.engine.preemptions
        totals["stored"] += run.check_stored()
    assert all(totals.values()), totals
