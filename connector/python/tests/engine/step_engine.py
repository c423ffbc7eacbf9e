"""The simulated engine whose steps compute on what they load themselves.

A step that computes on pages which were not filled does it wrongly, as it would in
a real engine; so wrong KV is allowed in steps whose workers say so, what they
sample is wrong, and it shows if it counts anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from simulated_config import VOCABULARY
from simulated_engine import Hashes, SimulatedEngine, Step, larder, prefix_hashes
from simulated_ranks import RankedEngine
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput


class StepEngine(SimulatedEngine):
    """As SimulatedEngine. meanwhile: called once a step with loads is scheduled, before it is executed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.meanwhile: Callable[[], None] = lambda: None
        # Of the step under way, and what workers said of the last ones.
        self._wrong: dict[str, AssertionError] = {}
        self._said: deque[set[int]] = deque(maxlen=2)
        # Steps that computed on pages that were not filled.
        self.in_vain = 0

    def know_costs(self) -> None:
        """As after some loads: copies take little time."""
        for _ in range(3):
            larder(self.connector).scheduler_half._in_step._costs.copied(4, 1e-3)

    def check(self, request_id: str, hashes: Hashes, past: int) -> None:
        """As SimulatedEngine.check; what is wrong may yet be explained."""
        try:
            super().check(request_id, hashes, past)
        except AssertionError as error:
            self._wrong[request_id] = error

    def _execute(self, output: Any, metadata: Any) -> tuple[ModelRunnerOutput, KVConnectorOutput]:
        if metadata.loads:
            self.meanwhile()
        self._wrong.clear()
        result, reported = super()._execute(output, metadata)
        self._said.append(set(reported.invalid_block_ids))
        self.in_vain += bool(self._wrong)
        for request_id, error in self._wrong.items():
            if set().union(*self._said).isdisjoint(self._shadows[request_id].blocks):
                raise error
            i = result.req_id_to_index[request_id]
            result.sampled_token_ids[i] = [(t + 1) % VOCABULARY for t in result.sampled_token_ids[i]]
        return result, reported


class AheadEngine(StepEngine):
    """With asynchronous scheduling: a step is scheduled, and executed, before the output of the one before is taken."""

    scheduler_kind = AsyncScheduler

    def __init__(self, vllm_config: Any, *args: Any) -> None:
        # Engines on CPUs turn it off.
        vllm_config.scheduler_config.async_scheduling = True
        assert vllm_config.max_concurrent_batches >= 2
        self._queue: deque[tuple[Any, ModelRunnerOutput]] = deque()
        self._ends: dict[str, int] = {}
        super().__init__(vllm_config, *args)

    def step(self) -> Step:
        """As EngineCore.step_with_batch_queue, until one was scheduled or the last one taken."""
        if self._queue and not self.scheduler.has_requests():
            self._take()
            return Step({}, None, KVConnectorOutput())  # type: ignore[arg-type]
        self.steps += 1
        output = self.scheduler.schedule()
        result, reported = self._execute(output, output.kv_connector_metadata)
        self._queue.append((output, result))
        if len(self._queue) == 2 or not (output.total_num_scheduled_tokens or self.scheduler.has_requests()):
            self._take()
        return Step(dict(output.num_scheduled_tokens), output.kv_connector_metadata, reported)

    def run(self, most: int = 2000) -> list[Step]:
        """As SimulatedEngine.run."""
        steps = super().run(most)
        while self._queue:
            self._take()
        return steps

    def _take(self) -> None:
        self._update(*self._queue.popleft())

    def _compute(self, output: Any) -> list[list[int]]:
        new = {n.req_id: n.num_computed_tokens for n in output.scheduled_new_reqs}
        cached = output.scheduled_cached_reqs
        computed = new | dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        self._ends = {name: computed[name] + count for name, count in output.num_scheduled_tokens.items()}
        return super()._compute(output)

    def _hashes_of(self, request: Any) -> Hashes:
        """Of tokens too that the scheduler does not know yet."""
        name = request.request_id
        tokens = list(request.all_token_ids)
        missing = self._ends.get(name, 0) - len(tokens)
        if missing > 0:
            under_way = [
                t for _, r in self._queue if name in r.req_id_to_index
                for t in r.sampled_token_ids[r.req_id_to_index[name]]
            ]  # fmt: skip
            tokens += under_way[-missing:]
        return prefix_hashes(tokens, self.weights)


class AheadV2Engine(AheadEngine):
    """The scheduler serves vLLM's newer model runner, to which a request that comes back is a new one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.scheduler.use_v2_model_runner = True


class StepRanks(StepEngine, RankedEngine):
    """StepEngine of several ranks."""


class AheadRanks(AheadEngine, RankedEngine):
    """AheadEngine of several ranks."""
