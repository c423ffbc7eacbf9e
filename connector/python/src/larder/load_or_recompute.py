"""How much of a match is loaded, and how much computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """Consecutive chunks in one tier. wait_s: seconds until the first chunk of
    the tier can be in the arena; cost_s: seconds that each takes. under_way:
    another request loads them; they take wait_s in all, and no copies."""

    tier: str
    chunks: int
    wait_s: float = 0.0
    cost_s: float = 0.0
    under_way: bool = False


@dataclass(frozen=True)
class Copying:
    """What loads take beside what tiers take. fixed_s: of each load; chunk_s: of
    each chunk; busy_s: until the loads before it are done, while tiers can be at
    work already; late_s: from a load's end until the engine goes on, which no
    deadline bounds."""

    fixed_s: float = 0.0
    chunk_s: float = 0.0
    busy_s: float = 0.0
    late_s: float = 0.0


@dataclass(frozen=True)
class Choice:
    """chunks are loaded. Of the others: expected seconds to load them, and to
    compute them, 0 where that is not known."""

    chunks: int
    load_s: float = 0.0
    compute_s: float = 0.0


# Ends of runs that are looked at: a choice takes some 60 us with so many.
_MOST_RUNS = 48


def load_seconds(runs: Sequence[Run], copying: Copying) -> list[float]:
    """Expected seconds to load the first run, the first two, and so on; before
    them 0 for nothing."""
    loads = [0.0]
    seconds, waits, others = copying.fixed_s, 0.0, 0.0
    met = set()
    for run in runs:
        if run.under_way:
            others = max(others, run.wait_s)
        else:
            if run.tier not in met:
                met.add(run.tier)
                waits += run.wait_s
            seconds += run.chunks * (run.cost_s + copying.chunk_s)
        loads.append(seconds + max(copying.busy_s, waits, others) if met else others)
    return loads


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
    loads = load_seconds(runs, copying)
    points = [(0, 0.0)]
    end = 0
    for run, load in zip(runs, loads[1:], strict=True):
        begin, end = end, end + run.chunks
        if load > deadline_s:
            # Some of the run may come; each chunk takes the same.
            each = max(run.cost_s + copying.chunk_s, 1e-12)
            some = run.chunks - math.ceil((load - deadline_s) / each)
            if some > 0 and not run.under_way:
                points.append((begin + some, load - (run.chunks - some) * each))
            break
        if len(points) < _MOST_RUNS or end == total:
            points.append((end, load))
    late = copying.late_s
    if compute is None:
        best, best_load = points[-1]
    else:
        best, best_load = min(points, key=lambda p: (p[1] + (late if p[0] else 0.0) + compute(p[0]), -p[0]))
    if best == total:
        return Choice(total)
    spared = loads[-1] - best_load + (0.0 if best else late)
    return Choice(best, spared, 0.0 if compute is None else compute(best) - compute(total))
