"""vLLM's real scheduler around a computation that can be checked.

In place of a model each token's K and V follow from the hash of everything
before it, so whatever stands in a page is either right or wrong: before every
step the pages of all tokens that count as computed are compared with what
belongs there. Hooks are called in the order and with the arguments of the model
runner of the vLLM that is installed, and what crosses processes is pickled.
"""

# ruff: noqa: S301 - what is unpickled was pickled here

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from engine_versions import NEWER, starts_first, take_ended
from simulated_config import DIM, HEADS, LAYERS, VOCABULARY, make_cache_config
from vllm import SamplingParams
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.forward_context import override_forward_context
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from larder.vllm import LarderConnector
from larder.vllm.layout_choice import cpu_write
from larder.vllm.layout_proof import Write
from larder.vllm.memory import tensor
from larder.vllm.metadata import StepMetadata

Hashes = npt.NDArray[np.uint64]
_MIX = np.uint64(0x9E3779B97F4A7C15)


def prefix_hashes(tokens: Sequence[int], state: int = 0) -> Hashes:
    """One 64-bit hash for each token, over everything up to it."""
    out = np.empty(len(tokens), np.uint64)
    value = state
    for i, token in enumerate(tokens):
        value = (value * 6364136223846793005 + token * 0x9E3779B97F4A7C15 + 1442695040888963407) & (2**64 - 1)
        value ^= value >> 29
        out[i] = value
    return out


def kv_of(hashes: Hashes, layer: int, dim: int = DIM) -> torch.Tensor:
    """K and V of tokens, (token, head, 2 * dim) in bfloat16: finite, and unlike any other token's."""
    lanes = np.arange(HEADS * 2 * dim, dtype=np.uint64) + np.uint64(layer * 1000 + 1)
    with np.errstate(over="ignore"):
        mixed = hashes[:, None] * (lanes[None, :] * _MIX | np.uint64(1))
    bits = ((mixed >> np.uint64(40)) & np.uint64(0x3FFF)).astype(np.int16)
    return torch.from_numpy(bits).view(torch.bfloat16).view(len(hashes), HEADS, 2 * dim)


def check_chunk(parts: dict[int, bytes], hashes: Hashes, ordinal: int, chunk: int = 64, spans: int = 1) -> None:
    """Fails unless the parts of a chunk hold the canonical bytes of its tokens' KV. spans: equally long ones."""
    part = range(ordinal * chunk, (ordinal + 1) * chunk)
    known = torch.stack([kv_of(hashes[part.start : part.stop], layer).transpose(0, 1) for layer in range(LAYERS)])
    for index, data in parts.items():
        span, head = divmod(index, HEADS)
        want = known.unflatten(0, (spans, -1))[span, :, head]
        have = tensor(np.frombuffer(data, np.uint8), torch.int16).view(-1, chunk, 2 * DIM)
        assert torch.equal(have, want.contiguous().view(torch.int16)), f"chunk {ordinal}, span {span}, head {head}"


def larder(connector: Any) -> Any:
    """Larder's connector: this one, or the one in a MultiConnector; None where there is none."""
    among = getattr(connector, "_connectors", [connector])
    return next((c for c in among if isinstance(c, LarderConnector)), None)


@dataclass
class Shadow:
    """What a model runner remembers of a request."""

    blocks: list[Any]
    tokens: list[int]


@dataclass
class Step:
    """What one step did."""

    scheduled: dict[str, int]
    metadata: StepMetadata
    output: KVConnectorOutput
    finished: list[str] = field(default_factory=list)


class SimulatedEngine:
    """One engine. connect: what takes the place of larder.client.Client, None for the real one."""

    # Full CUDA graphs leave out the hooks for layers.
    layer_hooks = True
    scheduler_kind: type[Scheduler] = Scheduler

    def __init__(self, vllm_config: Any, connect: Any = None, cache_config: Any = None) -> None:
        self.config = vllm_config
        self.block = vllm_config.cache_config.block_size
        blocks = vllm_config.cache_config.num_gpu_blocks
        self.cache_config = cache_config or make_cache_config(self.block, blocks)
        names = [n for g in self.cache_config.kv_cache_groups for n in g.layer_names]
        self.pages = {n: self._make_pages(blocks) for n in names}
        # By (pipeline, tensor) rank.
        self.workers = self._make_workers(connect)
        self.worker = next(iter(self.workers.values()))
        unit, hashed = self._block_sizes()
        self.scheduler = self.scheduler_kind(
            vllm_config=vllm_config,
            kv_cache_config=self.cache_config,
            structured_output_manager=StructuredOutputManager(vllm_config),
            block_size=unit,
            hash_block_size=hashed,
            log_stats=True,
        )
        self.connector = self.scheduler.connector
        if connect is not None:
            larder(self.connector).scheduler_half._connect = connect
        self._aggregate = KVOutputAggregator.from_connector(self.connector, len(self.workers)).aggregate
        handshakes = {rank: w.get_handshake_metadata() for rank, w in self.workers.items()}
        if handshakes[0, 0] is not None:
            self.connector.set_xfer_handshake_metadata_pp_aware(pickle.loads(pickle.dumps(handshakes)))
        hash_fn = get_hash_fn_by_name("sha256")
        init_none_hash(hash_fn)
        self._hasher = get_request_block_hasher(hashed, hash_fn)
        self._write = self._make_write()
        self._forward_context = SimpleNamespace(
            attn_metadata=dict.fromkeys(names),
            no_compile_layers={n: SimpleNamespace(kv_cache=c) for n, c in self.pages.items()},
        )
        self._shadows: dict[str, Shadow] = {}
        self._hashes: dict[str, Hashes] = {}
        self.outputs: dict[str, list[int]] = {}
        self.external: dict[str, int] = {}
        self.ended: set[str] = set()
        # Whether another connector brings, rightly, what counts as computed when a request begins.
        self.others_bring = False
        # Takes what the engine's core says of itself after a step.
        self.front_end: Callable[[Any], None] = lambda _: None
        # Which weights compute: other ones make other KV of the same tokens.
        self.weights = 0
        self.steps = 0
        self.checked_tokens = 0
        self.preemptions = 0

    def _make_workers(self, connect: Any) -> dict[tuple[int, int], Any]:
        worker = self._make_worker(self.cache_config, connect)
        worker.register_kv_caches(self.pages)
        return {(0, 0): worker}

    def _make_worker(self, cache_config: Any, connect: Any) -> Any:
        worker = KVConnectorFactory.create_connector(self.config, KVConnectorRole.WORKER, cache_config)
        if connect is not None:
            larder(worker).worker_half._connect = connect
        return worker

    def _make_pages(self, blocks: int) -> torch.Tensor:
        """One layer's pages."""
        return torch.zeros(blocks, HEADS, self.block, 2 * DIM, dtype=torch.bfloat16)

    def _make_write(self) -> Write:
        """The operation by which they are written."""
        from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

        return cpu_write(str(_get_attn_isa(torch.bfloat16, self.block, DIM, "auto")))

    def _block_sizes(self) -> tuple[int, int]:
        """Tokens of which the scheduler computes multiples, and tokens of a block hash."""
        return self.block, self.block

    # -- requests ------------------------------------------------------------

    def add(
        self, request_id: str, tokens: Sequence[int], max_tokens: int = 4, params: Any = None, **fields: Any
    ) -> Any:
        """A request arrives."""
        extra = None if params is None else {"kv_transfer_params": params}
        sampling = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, extra_args=extra)
        sampling.skip_reading_prefix_cache = fields.pop("skip_reading", None)
        request = Request(request_id, list(tokens), sampling, None, block_hasher=self._hasher, **fields)
        self.outputs[request_id] = []
        self.scheduler.add_request(request)
        return request

    def abort(self, request_id: str) -> None:
        """Its client is gone."""
        self.scheduler.finish_requests(request_id, RequestStatus.FINISHED_ABORTED)
        self.ended.add(request_id)

    def run(self, most: int = 2000) -> list[Step]:
        """Steps until nothing is left to do; returns the steps. Those that compute nothing, and wait for threads that a
        busy machine may keep waiting, count by time."""
        steps: list[Step] = []
        until = time.monotonic() + 200
        while self.scheduler.has_requests():
            steps.append(self.step())
            most -= bool(steps[-1].scheduled)
            assert most > 0, "the engine does not come to an end"
            assert time.monotonic() < until, "the engine does not come to an end"
        for worker in self.workers.values():
            larder(worker).worker_half.settle()
        return steps

    def generate(self, request_id: str, tokens: Sequence[int], max_tokens: int = 4, **more: Any) -> list[int]:
        """One request from arrival to end; returns its output."""
        self.add(request_id, tokens, max_tokens, **more)
        self.run()
        return self.outputs[request_id]

    def generate_beside(self, request_id: str, tokens: Sequence[int], max_tokens: int = 4) -> list[int]:
        """As generate, while other requests may wait; returns its output."""
        self.add(request_id, tokens, max_tokens)
        while request_id not in self.ended:
            self.step()
        return self.outputs[request_id]

    # -- a step ----------------------------------------------------------------

    def step(self) -> Step:
        """Schedules, computes, reports, updates: as EngineCore.step."""
        self.steps += 1
        output = self.scheduler.schedule()
        self.preemptions += len(output.preempted_req_ids or ())
        metadata = pickle.loads(pickle.dumps(output.kv_connector_metadata))
        assert len(pickle.dumps(metadata)) < 65536
        result, reported = self._execute(output, metadata)
        finished = self._update(output, result)
        return Step(dict(output.num_scheduled_tokens), metadata, reported, finished)

    def _update(self, output: Any, result: ModelRunnerOutput) -> list[str]:
        """The scheduler hears of a step's end; returns the requests that are gone."""
        before = set(self.scheduler.requests)
        core = self.scheduler.update_from_output(output, result)
        for outputs in core.values():
            self.front_end(outputs.scheduler_stats)
            for one in outputs.outputs:
                self.outputs[one.request_id] += one.new_token_ids
                if one.prefill_stats is not None:
                    self.external[one.request_id] = one.prefill_stats.num_external_cached_tokens
                if one.finish_reason is not None:
                    self.ended.add(one.request_id)
        return sorted(before - set(self.scheduler.requests))

    def _execute(self, output: Any, metadata: Any) -> tuple[ModelRunnerOutput, KVConnectorOutput]:
        workers = list(self.workers.values())
        for worker in workers:
            worker.handle_preemptions(metadata)
        self._remember(output)
        for request_id in output.finished_req_ids:
            self._shadows.pop(request_id, None)
        sampled: list[list[int]] = []
        context = self._forward_context if output.total_num_scheduled_tokens else SimpleNamespace(attn_metadata=None)
        with ExitStack() as after:
            after.enter_context(override_forward_context(context))
            for worker in workers:
                worker.bind_connector_metadata(metadata)
                if starts_first(output):
                    worker.start_load_kv(context)
                after.callback(worker.clear_connector_metadata)
            if output.total_num_scheduled_tokens:
                sampled = self._compute(output)
            for worker in workers:
                if not starts_first(output):
                    worker.start_load_kv(context)
                if output.total_num_scheduled_tokens or NEWER:
                    worker.wait_for_save()
            reports = [self._report(rank, output) for rank in self.workers]
        ids = list(output.num_scheduled_tokens)
        results = [
            ModelRunnerOutput(
                req_ids=ids,
                req_id_to_index={r: i for i, r in enumerate(ids)},
                sampled_token_ids=sampled,
                kv_connector_output=pickle.loads(pickle.dumps(report)),
            )
            for report in reports
        ]
        # An engine of one process has none of this.
        result = self._aggregate(results) if len(results) > 1 else results[0]
        return result, result.kv_connector_output

    def _report(self, rank: tuple[int, int], output: Any) -> KVConnectorOutput:
        """What a rank says at the end of a step."""
        worker, report = self.workers[rank], KVConnectorOutput()
        take_ended(worker, output.finished_req_ids, report)
        report.invalid_block_ids = worker.get_block_ids_with_load_errors()
        report.kv_connector_stats = worker.get_kv_connector_stats()
        report.kv_cache_events = worker.get_kv_connector_kv_cache_events()
        report.kv_connector_worker_meta = worker.build_connector_worker_meta()
        return report

    def _remember(self, output: Any) -> None:
        for new in output.scheduled_new_reqs:
            self._shadows[new.req_id] = Shadow(list(new.block_ids[0]), [])
        cached = output.scheduled_cached_reqs
        for request_id, blocks in zip(cached.req_ids, cached.new_block_ids, strict=True):
            shadow = self._shadows[request_id]
            if request_id in cached.resumed_req_ids:
                shadow.blocks = []
            if blocks is not None:
                shadow.blocks += blocks[0]

    def _compute(self, output: Any) -> list[list[int]]:
        """Checks the past, writes the present, and says what comes next."""
        computed = {n.req_id: n.num_computed_tokens for n in output.scheduled_new_reqs}
        cached = output.scheduled_cached_reqs
        computed |= dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        plan = []
        for request_id, count in output.num_scheduled_tokens.items():
            hashes, past = self._hashes_of(self.scheduler.requests[request_id]), computed[request_id]
            if self.others_bring and request_id not in cached.req_ids:
                self._put(self._shadows[request_id].blocks, hashes, 0, past)
            plan.append((request_id, hashes, past, count))
        self._through_layers([(self._shadows[name].blocks, h, past, past + count) for name, h, past, count in plan])
        # After all writes: a request may read what another one writes in this step.
        for request_id, hashes, past, _ in plan:
            self.check(request_id, hashes, past)
        ends = [(hashes, past + count) for _, hashes, past, count in plan]
        return [[int(hashes[end - 1] % VOCABULARY)] if end == len(hashes) else [] for hashes, end in ends]

    def _through_layers(self, puts: Sequence[tuple[Any, Hashes, int, int]]) -> None:
        """Writes the present: blocks, hashes, and which of their tokens."""
        for name in self.pages if self.layer_hooks else ():
            self.worker.wait_for_layer_load(name)
        for put in puts:
            self._put(*put)
        for name, cache in self.pages.items() if self.layer_hooks else ():
            self.worker.save_kv_layer(name, cache, None)

    def _hashes_of(self, request: Any) -> Hashes:
        """prefix_hashes of a request's tokens, of which only the new ones are hashed."""
        known = self._hashes.get(request.request_id, np.empty(0, np.uint64))
        fresh = request.all_token_ids[len(known) :]
        known = np.concatenate([known, prefix_hashes(fresh, int(known[-1]) if len(known) else self.weights)])
        self._hashes[request.request_id] = known
        return known

    def _kv(self, hashes: Hashes, layer: int) -> torch.Tensor:
        """kv_of, in the order of the heads in pages."""
        return kv_of(hashes, layer)

    def _slots(self, blocks: Sequence[int], begin: int, end: int) -> torch.Tensor:
        positions = torch.arange(begin, end)
        return torch.tensor(blocks)[positions // self.block] * self.block + positions % self.block

    def _put(self, blocks: Sequence[int], hashes: Hashes, begin: int, end: int) -> None:
        slots = self._slots(blocks, begin, end)
        for layer, cache in enumerate(self.pages.values()):
            kv = self._kv(hashes[begin:end], layer)
            self._write(kv[..., :DIM].contiguous(), kv[..., DIM:].contiguous(), cache, slots)

    def check(self, request_id: str, hashes: Hashes, past: int) -> None:
        """Fails unless the pages of the first `past` tokens hold their K and V."""
        blocks = self._shadows[request_id].blocks[: -(-past // self.block)]
        if past:
            self._check(request_id, blocks, hashes, past)

    def _check(self, request_id: str, blocks: Sequence[int], hashes: Hashes, past: int) -> None:
        own = {n: torch.zeros(len(blocks) + 1, *c.shape[1:], dtype=c.dtype) for n, c in self.pages.items()}
        slots = self._slots(list(range(len(blocks))), 0, past)
        whole, rest = divmod(past, self.block)
        for layer, (name, cache) in enumerate(own.items()):
            kv = self._kv(hashes[:past], layer)
            self._write(kv[..., :DIM].contiguous(), kv[..., DIM:].contiguous(), cache, slots)
            have = self.pages[name][blocks]
            wrong = [i for i in range(whole) if not torch.equal(have[i].view(torch.int16), cache[i].view(torch.int16))]
            assert not wrong, f"{request_id}: wrong KV in blocks {wrong} of {name}, {past} tokens computed"
        del rest
        self.checked_tokens += whole * self.block

    # -- ends --------------------------------------------------------------------

    def free_blocks(self) -> int:
        """Blocks that nobody holds."""
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    def drop_own_cache(self) -> None:
        """Empties the engine's prefix cache, as a restart would, but not Larder."""
        assert self.scheduler.kv_cache_manager.reset_prefix_cache()

    def load_weights(self, weights: int) -> None:
        """Other weights, as reload_weights and update_weights bring them: no connector is told."""
        self.weights = weights
        self._hashes.clear()

    def reset(self, *, running: bool = False) -> bool:
        """As EngineCore does it around sleep and updates of weights, for connectors, too."""
        return bool(self.scheduler.reset_prefix_cache(reset_running_requests=running, reset_connector=True))

    def close(self) -> None:
        """Ends both halves."""
        for worker in self.workers.values():
            worker.shutdown()
        self.connector.shutdown()


# What the fixtures engine and prompt are: conftest says with which arguments.
MakeEngine = Callable[..., SimulatedEngine]
MakePrompt = Callable[..., list[int]]


def expected_output(tokens: Sequence[int], count: int) -> list[int]:
    """What any right engine answers."""
    tokens = list(tokens)
    out = []
    for _ in range(count):
        out.append(int(prefix_hashes(tokens)[-1] % VOCABULARY))
        tokens.append(out[-1])
    return out
