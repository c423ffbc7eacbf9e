"""Loads inside of the step that computes on top of them.

An asynchronous load takes two more steps: one that computes nothing reports it,
and where the engine schedules one step ahead the next one is already made. A
synchronous claim spares both, and holds up all other requests of its step. So it
is made only for a request that is alone, while it is alone, and for a short load.

What such a load does not bring is named in the same step. vLLM (0.25 to 0.32)
then leaves out the step's output and lets the request go on from the first page
that was not filled, but

    its prefix cache has those pages, and those computed on top, under the hashes
    of what should be there: another request would compute on them;
    a step that was scheduled meanwhile has computed on them, and its output is
    taken for the request's.

So whoever else arrives waits until the step has said that all is well; and where
it is not, those pages lose their hashes, and the request gives them back and
begins anew with what is good of them, as all requests do where vLLM resets its
cache (compat.take_back). Nothing is stored meanwhile (larder.vllm.unproven).
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import replace
from typing import Any

from vllm.v1.request import RequestStatus

from larder.load_costs import LoadCosts
from larder.vllm import compat
from larder.vllm.inflight import InFlight, InFlightLoads
from larder.vllm.metadata import LoadOp, WorkerReport
from larder.vllm.page_groups import PageGroups
from larder.vllm.request_state import RequestState
from larder.vllm.settings import Settings
from larder.vllm.stats import SchedulerStats

# Pages that must be left once a request has all of its own: it is not to be
# preempted while it is not known what became of its load.
_SPARE_PAGES = 4


def possible(vllm_config: Any, kv_cache_config: Any) -> bool:
    """Whether an engine's steps may load: with one group of full attention, in one
    pipeline stage, no other connector, and where a step's tokens are its requests'.
    Ranks of data parallelism wait for each other's steps. Taking back uses what the
    engine promises to nobody, so an engine of another version does without."""
    parallel = vllm_config.parallel_config
    return (
        not compat.untested()
        and not PageGroups.of(kv_cache_config).whole_loads
        and parallel.pipeline_parallel_size == parallel.data_parallel_size == 1
        and vllm_config.kv_transfer_config.kv_connector != "MultiConnector"
        and vllm_config.speculative_config is None
        and vllm_config.model_config.runner_type == "generate"
        and vllm_config.max_concurrent_batches <= 2
        and not kv_cache_config.needs_kv_cache_zeroing
    )


class InStep:
    """The engine's one load inside of a step. Everything runs on the scheduler's
    thread. scheduler: the engine's, which may be under construction; None: not known."""

    def __init__(
        self, scheduler: Any, groups: PageGroups, settings: Settings, stats: SchedulerStats, *, on: bool
    ) -> None:
        self._scheduler = scheduler
        self._groups = groups
        self._stats = stats
        self._pause_s = settings.failed_pause_s
        self.wait_s = settings.load_in_step_ms / 1000
        self._on = on and scheduler is not None
        self._costs: LoadCosts | None = None
        self._chunk_tokens = 0
        self._load: InFlight | None = None
        self._state: RequestState | None = None
        self._sampled = 0
        self._not_before = 0.0
        # Whether what fails can be taken back, once that was looked at.
        self._known: bool | None = None

    @property
    def under_way(self) -> bool:
        """Whether a step has yet to say what became of one: until then no other
        request may begin."""
        return self._load is not None

    def start(self, costs: LoadCosts, chunk_tokens: int) -> None:
        """Takes what else the engine's workers had to say before."""
        self._costs = costs
        self._chunk_tokens = chunk_tokens

    def fits(self, state: RequestState, first: int, tokens: int, now: float) -> int:
        """How many of a request's leading tokens the step loads that computes the
        others; 0: none. The request is alone, and could load so many, from that
        chunk on."""
        request, match, costs = state.request, state.match, self._costs
        last = -(-tokens // self._chunk_tokens)
        # Something is left to compute.
        tokens = min(tokens, request.num_tokens - 1) // self._groups.unit * self._groups.unit
        if not self._on or not self.wait_s or match is None or costs is None or tokens <= state.local:
            return 0
        if now < self._not_before or request.num_tokens // self._chunk_tokens > last:
            # It failed lately; or what is computed would be stored late.
            return 0
        if request.num_preemptions or request.resumable or getattr(request, "use_structured_output", False):
            # Its output of earlier steps may be under way.
            return 0
        if getattr(request.sampling_params, "seed", None) is not None:
            # What is dropped was sampled: the engine does not draw it again.
            return 0
        runs = match.runs(first, last, now)
        if self._known is None:
            self._known = compat.can_take_back(self._scheduler, request)
        if not self._known or any(run.tier != "host" for run in runs):
            return 0
        # Those of a local hit may be among the free ones.
        free = self._scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        if free < -(-request.num_tokens // self._groups.unit) + _SPARE_PAGES:
            return 0
        seconds = costs.expected(runs, now)
        if seconds is None or 2 * seconds > self.wait_s:
            return 0
        state.in_step = True
        return tokens

    def begin(self, state: RequestState, load: InFlight, op: LoadOp) -> LoadOp:
        """A load begins with the step that is scheduled now, perhaps inside of it;
        returns what the workers are told."""
        if not state.in_step:
            return op
        self._stats.loads_in_step += 1
        self._state, self._load, self._sampled = state, load, 0
        return replace(op, in_step_s=self.wait_s)

    def loads(self, request_id: str) -> bool:
        """Whether it is this request's."""
        return self._load is not None and self._load.request.request_id == request_id

    def built(self, output: Any) -> None:
        """The step is scheduled."""
        load = self._load
        for new in output.scheduled_new_reqs if load is not None else ():
            if load is not None and new.req_id == load.request.request_id:
                end = new.num_computed_tokens + output.num_scheduled_tokens[new.req_id]
                self._sampled = int(end >= load.request.num_tokens)

    def ended(self, report: Any, invalid: Set[int], inflight: InFlightLoads, now: float) -> Iterable[str]:
        """A step's workers reported, by now to the scheduler, too: which request's
        load has ended. Where it failed the request begins anew."""
        said = report if isinstance(report, WorkerReport) else WorkerReport()
        if self._costs is not None:
            self._learn(self._costs, said, inflight)
        load, state = self._load, self._state
        if load is None or state is None or load.request.request_id not in said.took_s:
            return ()
        request = load.request
        self._load = self._state = None
        if load.failed:
            self._not_before = now + self._pause_s
            self._take_back(state, request, invalid)
        return (request.request_id,)

    def _learn(self, costs: LoadCosts, said: WorkerReport, inflight: InFlightLoads) -> None:
        """Notes how long loads took that had nothing but copies to wait for."""
        for request_id, seconds in said.took_s.items():
            load = inflight.get(request_id)
            if load is not None and not load.failed and all(run.tier == "host" for run in load.runs):
                costs.copied(len(load.keys), seconds)

    def _take_back(self, state: RequestState, request: Any, invalid: Set[int]) -> None:
        first = state.pages.first_in(self._groups, invalid)
        pages = state.pages.after(self._groups, state.local if first is None else first)
        self._scheduler.kv_cache_manager.evict_blocks(pages)
        state.unfilled()
        if request.status == RequestStatus.RUNNING:
            compat.take_back(self._scheduler, request, self._sampled)
