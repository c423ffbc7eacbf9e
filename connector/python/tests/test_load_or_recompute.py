"""The choice between loading and computing: against every other choice, and the cases that it is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.load_costs import LoadCosts
from larder.load_or_recompute import Choice, Copying, Run, choose, load_seconds

CHUNK = 256
HOUR = 3600.0

seconds = st.floats(0, 1)
small = st.floats(0, 0.05)
runs_of = st.lists(
    st.one_of(
        st.builds(Run, st.sampled_from(["host", "nvme", "peer"]), st.integers(1, 12), seconds, small),
        st.builds(Run, st.just(""), st.integers(1, 12), seconds, under_way=st.just(True)),
    ),
    max_size=5,
)


def brute_load(runs: list[Run], chunks: int, copying: Copying) -> float:
    """Chunk by chunk, as the rule is written."""
    if chunks == 0:
        return 0.0
    flat = [run for run in runs for _ in range(run.chunks)][:chunks]
    own = [run for run in flat if not run.under_way]
    others = max((run.wait_s for run in flat if run.under_way), default=0.0)
    if not own:
        return others
    waits: dict[str, float] = {}
    for run in own:
        if run.tier not in waits:
            waits[run.tier] = run.wait_s
    each = sum(run.cost_s + copying.chunk_s for run in own)
    return copying.fixed_s + each + max(copying.busy_s, sum(waits.values()), others)


def late(chunks: int, copying: Copying) -> float:
    return copying.late_s if chunks else 0.0


@given(
    runs=runs_of,
    copying=st.builds(Copying, small, small, seconds, small),
    figures=st.tuples(small, small, st.floats(0, 0.005)),
    deadline_s=st.floats(0, 5),
    measured=st.booleans(),
)
def test_no_other_choice_is_better(
    runs: list[Run],
    copying: Copying,
    figures: tuple[float, float, float],
    deadline_s: float,
    measured: bool,
) -> None:
    total = sum(run.chunks for run in runs)
    fixed, each, pair = figures

    def compute(chunks: int) -> float:
        return fixed + each * (total - chunks) + pair * (total**2 - chunks**2)

    choice = choose(runs, copying, compute if measured else None, deadline_s)
    loads = [brute_load(runs, p, copying) for p in range(total + 1)]
    assert loads[choice.chunks] <= deadline_s + 1e-9
    ends = [sum(run.chunks for run in runs[:i]) for i in range(len(runs) + 1)]
    assert load_seconds(runs, copying) == pytest.approx([loads[end] for end in ends])
    if measured:
        takes = [loads[p] + late(p, copying) + compute(p) for p in range(total + 1)]
        best = min(takes[p] for p in range(total + 1) if loads[p] <= deadline_s)
        assert takes[choice.chunks] <= best + 1e-9
        if choice.chunks < total:
            assert choice.compute_s == pytest.approx(compute(choice.chunks) - compute(total))
    else:
        assert choice.chunks >= max(p for p in range(total + 1) if loads[p] <= deadline_s - 1e-9 or p == 0)
        assert choice.compute_s == 0
    spared = loads[total] + late(total, copying) - loads[choice.chunks] - late(choice.chunks, copying)
    assert choice.load_s == pytest.approx(spared if choice.chunks < total else 0)


def prefill(base: float, pair: float = 0.0) -> Callable[[int], float]:
    """40 chunks of which each takes base seconds, and pair more for each before it."""
    return lambda chunks: base * (40 - chunks) + pair * (40**2 - chunks**2) / 2


def test_a_whole_prompt_is_loaded_though_its_first_chunk_is_cheaper_to_compute() -> None:
    # Computing a chunk takes 5 ms at the front and 25 ms at the end, loading 10.
    compute = prefill(0.005, 0.0005)
    nvme = [Run("nvme", 40, 0.001, 0.010)]
    assert compute(0) - compute(1) < 0.010
    assert choose(nvme, Copying(), compute, HOUR) == Choice(40)
    # The front alone is computed.
    alone = choose([Run("nvme", 1, 0.001, 0.010)], Copying(), lambda chunks: compute(chunks) - compute(1), HOUR)
    assert alone.chunks == 0


def test_nothing_is_loaded_from_a_slow_device() -> None:
    choice = choose([Run("nvme", 40, 0.1, 0.05)], Copying(), prefill(0.01), HOUR)
    assert choice.chunks == 0
    assert choice.load_s == pytest.approx(0.1 + 40 * 0.05)
    assert choice.compute_s == pytest.approx(0.4)


def test_a_prompt_half_in_the_host_ends_in_the_middle() -> None:
    choice = choose([Run("host", 20), Run("nvme", 20, 0.1, 0.05)], Copying(0.001, 0.0005), prefill(0.01), HOUR)
    assert choice.chunks == 20
    # And where the host has the second half, all of it is worth the way.
    ahead = [Run("nvme", 2, 0.01, 0.05), Run("host", 38)]
    assert choose(ahead, Copying(), prefill(0.01), HOUR).chunks == 40


def test_a_queue_alone_can_make_a_device_slow() -> None:
    assert choose([Run("nvme", 40, 0.0, 0.001)], Copying(), prefill(0.01), HOUR).chunks == 40
    assert choose([Run("nvme", 40, 0.5, 0.001)], Copying(), prefill(0.01), HOUR).chunks == 0
    # Its wait runs while loads before this one are copied.
    busy = Copying(busy_s=0.3)
    assert load_seconds([Run("nvme", 1, 0.2)], busy) == pytest.approx([0, 0.3])


def test_more_runs_than_are_looked_at() -> None:
    runs = [Run("host", 1), Run("nvme", 1, 0.0, 0.001)] * 200
    assert choose(runs, Copying(), prefill(0.01), HOUR) == Choice(400)
    # The end is in the host, behind chunks that are not worth it.
    runs = [Run("host", 4), *[Run("nvme", 1, 0.0, 1.0), Run("host", 1)] * 100]
    assert choose(runs, Copying(), lambda chunks: 0.01 * (204 - chunks), HOUR).chunks == 4


def test_what_does_not_come_in_time_is_not_asked_for() -> None:
    runs = [Run("host", 4), Run("nvme", 36, 1.0, 0.5)]
    # Nothing is known of the engine, and computing may take for ever.
    for compute in (None, prefill(100.0)):
        choice = choose(runs, Copying(), compute, 3.0)
        assert choice.chunks == 4 + 4
        assert choice.load_s == pytest.approx(32 * 0.5)
    assert choose(runs, Copying(), None, 1.2).chunks == 4
    assert choose([], Copying(), None, 1.0) == Choice(0)


@pytest.fixture
def costs() -> LoadCosts:
    """Of an engine that computes 1024 tokens in a step of 100 ms + 1 ms for each 1024 tokens before."""
    made = LoadCosts(CHUNK, 1024, 3.0)
    for position in (0, 0, 0, *range(0, 16384, 1024)):
        made.prefill.observe(1024, 1024 * (position + 512), 0.1 + position / 1024 / 1000)
    return made


def test_everything_is_loaded_until_steps_were_measured() -> None:
    costs = LoadCosts(CHUNK, 1024, 3.0)
    assert costs.choose([Run("nvme", 40, 0.1, 0.06)], 0, 0, 40 * CHUNK, 0, 0.0).chunks == 40


def test_the_engine_and_the_tiers_are_weighed(costs: LoadCosts) -> None:
    # 40 chunks are computed in 1.045 s.
    for cost_s, chunks in ((0.020, 40), (0.030, 0)):
        assert costs.choose([Run("nvme", 40, 0.001, cost_s)], 0, 0, 40 * CHUNK, 0, 0.0).chunks == chunks
    # What the engine has itself is not computed again.
    assert costs.choose([Run("nvme", 20, 0.001, 0.030)], 20, 20 * CHUNK + 64, 40 * CHUNK, 0, 0.0).chunks == 0
    # Others take three quarters of each step: what is left takes four steps where it took one.
    assert costs.choose([Run("nvme", 40, 0.001, 0.030)], 0, 0, 40 * CHUNK, 768, 0.0).chunks == 40


def test_what_is_said_of_a_choice_is_not_negative() -> None:
    costs = LoadCosts(CHUNK, 8192, 3.0)
    for step in range(20):
        tokens = 1024 * (1 + step % 8)
        costs.prefill.observe(tokens, 0.0, 0.010 + tokens * 20e-6)
    # A chunk is computed in 5 ms; behind a step of others, of 12 ms, the end of a
    # load is seen 6 ms late.
    choice = costs.choose([Run("nvme", 1, 0.001, 0.001)], 0, 0, CHUNK, 100, 0.0)
    assert choice.chunks == 0
    assert choice.compute_s == pytest.approx(0.0055, rel=0.1)
    assert choice.load_s == pytest.approx(0.008, rel=0.1)


def test_copies_count_once_they_were_measured(costs: LoadCosts) -> None:
    runs = [Run("nvme", 40, 0.001, 0.020)]
    for chunks in (10, 20, 40):
        costs.copied(chunks, 0.005 + chunks * 0.010)
    choice = costs.choose(runs, 0, 0, 40 * CHUNK, 0, 0.0)
    assert choice.chunks == 0
    assert choice.load_s == pytest.approx(0.001 + 0.005 + 40 * 0.030, rel=0.01)
    # A copy that stood still for a minute is not the measure of others.
    costs.copied(10, 60.0)
    assert costs.choose(runs, 0, 0, 40 * CHUNK, 0, 0.0).load_s < 2.0


def test_copies_that_were_slow_are_tried_again(costs: LoadCosts) -> None:
    host = [Run("host", 40)]
    for _ in range(4):
        costs.copied(40, 8.0)

    def declined() -> int:
        for asked in range(1000):
            if costs.choose(host, 0, 0, 40 * CHUNK, 0, 0.0).chunks:
                return asked
            costs.declined()
        raise AssertionError("never tried again")

    assert 40 < declined() < 60
    costs.copied(40, 8.0)
    assert 40 < declined() < 60
    costs.copied(40, 0.1)
    assert declined() == 0


def test_loads_wait_for_those_before_them(costs: LoadCosts) -> None:
    host = [Run("host", 40)]
    for chunks in (10, 20, 40):
        costs.copied(chunks, chunks * 0.010)
    assert costs.choose(host, 0, 0, 40 * CHUNK, 0, 100.0).chunks == 40
    costs.started([Run("nvme", 40, 0.0, 0.040)], 100.0)
    # Two seconds are ahead of it.
    assert costs.choose(host, 0, 0, 40 * CHUNK, 0, 100.0).chunks == 0
    assert costs.choose(host, 0, 0, 40 * CHUNK, 0, 101.7).chunks == 40
    costs.started(host, 101.7)
    costs.idle()
    assert costs.choose(host, 0, 0, 40 * CHUNK, 0, 101.7).chunks == 40
