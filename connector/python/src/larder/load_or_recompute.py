"""How much of a match is loaded, and how much computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """Consecutive chunks in one tier. wait_s: seconds until the first chunk of
    the tier can be in the arena; cost_s: seconds that each takes."""

    tier: str
    chunks: int
    wait_s: float = 0.0
    cost_s: float = 0.0


@dataclass(frozen=True)
class Copying:
    """What loads take beside what tiers take. fixed_s: of each load; chunk_s: of
    each chunk; busy_s: until the loads before it are done, while tiers can be at
    work already."""

    fixed_s: float = 0.0
    chunk_s: float = 0.0
    busy_s: float = 0.0


@dataclass(frozen=True)
class Choice:
    """chunks are loaded. Of the others: expected seconds to load them, and to
    compute them, 0 where that is not known."""

    chunks: int
    load_s: float = 0.0
    compute_s: float = 0.0


def load_seconds(runs: Sequence[Run], chunks: int, copying: Copying) -> float:
    """Expected seconds to load the first chunks chunks of runs."""
    if not chunks:
        return 0.0
    waits: dict[str, float] = {}
    bringing, left = 0.0, chunks
    for run in runs:
        taken = min(run.chunks, left)
        if not taken:
            break
        waits.setdefault(run.tier, run.wait_s)
        bringing += taken * run.cost_s
        left -= taken
    return copying.fixed_s + chunks * copying.chunk_s + bringing + max(copying.busy_s, sum(waits.values()))


def choose(runs: Sequence[Run], copying: Copying, compute: Callable[[int], float] | None, deadline_s: float) -> Choice:
    """Returns how many leading chunks to load so that load + compute takes the
    least time, where the load ends within deadline_s.

    compute: expected seconds for what is left after so many chunks. None, where
    that is not known: as many as come in time.

    Within a run the load is a line, and the rest of a prompt gets cheaper with
    each chunk the faster the further back it is (attention reads all before it),
    so the best point is an end of a run; or where time runs out, since what comes
    after that is computed in any case."""
    total = sum(run.chunks for run in runs)
    points = [0]
    for run in runs:
        begin = points[-1]
        end = begin + run.chunks
        if load_seconds(runs, end, copying) <= deadline_s:
            points.append(end)
            continue
        first = load_seconds(runs, begin + 1, copying)
        if first <= deadline_s:
            # Some of the run; each chunk takes the same.
            each = max(run.cost_s + copying.chunk_s, 1e-12)
            points.append(begin + min(run.chunks - 1, 1 + int((deadline_s - first) / each)))
        break
    if compute is None:
        best = points[-1]
    else:
        best = min(points, key=lambda p: (load_seconds(runs, p, copying) + compute(p), -p))
    if best == total:
        return Choice(total)
    return Choice(
        best,
        load_seconds(runs, total, copying) - load_seconds(runs, best, copying),
        0.0 if compute is None else compute(best) - compute(total),
    )
