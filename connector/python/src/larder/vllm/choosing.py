"""The scheduler half's choice between loading and computing, request by request."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from larder.load_costs import LoadCosts
from larder.load_or_recompute import Run
from larder.vllm.inflight import InFlight, InFlightLoads
from larder.vllm.metadata import WorkerReport
from larder.vllm.request_state import RequestState
from larder.vllm.stats import SchedulerStats
from larder.vllm.step_clock import StepClock


class Choosing:
    """Learns from steps and loads, chooses for requests, and says what is
    computed though it could be loaded. Everything runs on the scheduler's
    thread."""

    def __init__(self, costs: LoadCosts, states: Mapping[str, RequestState], stats: SchedulerStats) -> None:
        self._costs = costs
        self._steps = StepClock(costs.prefill)
        self._states = states
        self._stats = stats

    def last(self, state: RequestState, first: int, last: int, under_way: Mapping[int, InFlight], now: float) -> int:
        """Returns up to which of the chunks [first, last) to load. under_way: other
        requests' loads of some of them, by their distance from the first; what these
        bring is not loaded again, so it takes no time but theirs."""
        if state.match is None:
            return last
        runs: list[Run] = []
        begin = first
        for load, chunks in groupby(range(last - first), under_way.get):
            end = begin + len(list(chunks))
            if load is None:
                runs += state.match.runs(begin, end, now)
            else:
                runs.append(Run("", end - begin, max(0.0, load.ends - now), under_way=True))
            begin = end
        choice = self._costs.choose(runs, first, state.local, state.request.num_tokens, self._steps.others, now)
        if first + choice.chunks < last:
            state.choice = first, choice
        return first + choice.chunks

    def settled(self, state: RequestState, external: int, now: float) -> None:
        """A request got its pages, external tokens of which are loaded: tells the
        daemon what is computed, once for a request."""
        if state.choice is None or state.match is None:
            return
        (first, choice), state.choice = state.choice, None
        if not choice.chunks:
            self._costs.declined()
        if state.skip_told or (choice.chunks and not external):
            # Where another connector loads, nothing was chosen here.
            return
        state.skip_told = True
        self._stats.skips += 1
        skipped = self._stats.chunks_skipped
        for run in state.match.runs(first + choice.chunks, state.match.chunks, now):
            skipped[run.tier] = skipped.get(run.tier, 0) + run.chunks
        state.match.skip(first + choice.chunks, choice.load_s, choice.compute_s)

    def started(self, load: InFlight, now: float) -> None:
        """A load begins."""
        load.ends = self._costs.started(load.runs, now)

    def begin_step(self, output: Any, loading: bool, now: float) -> int:
        """A step is built. Returns its number, 0 where its time is not measured."""
        return self._steps.begin(output, self._prompt_tokens, loading, now)

    def end_step(self, report: Any, inflight: InFlightLoads, now: float) -> None:
        """A step's workers reported, before loads that ended leave inflight."""
        said = report if isinstance(report, WorkerReport) else WorkerReport()
        self._stats.steps_measured += self._steps.end(said.number, bool(inflight), now)
        if not inflight:
            self._costs.idle()

    def _prompt_tokens(self, request_id: str) -> int:
        state = self._states.get(request_id)
        return 0 if state is None else int(state.request.num_prompt_tokens)
