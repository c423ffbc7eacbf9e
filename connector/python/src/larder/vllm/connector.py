"""The connector as vLLM sees it."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Mapping
from typing import Any

import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorRole, SupportsHMA
from vllm.logger import init_logger

from larder.client import Options
from larder.namespace import NamespaceDescriptor
from larder.vllm import compat, identity, in_step, support
from larder.vllm.engine_stats import EngineStats, Reporter
from larder.vllm.failure_policy import set_recompute
from larder.vllm.metadata import Handshake, StepMetadata, WorkerReport
from larder.vllm.page_groups import PageGroups
from larder.vllm.prom_metrics import PromMetrics
from larder.vllm.scheduler import SchedulerHalf
from larder.vllm.settings import Settings
from larder.vllm.stages import Place
from larder.vllm.stats import SchedulerStats, WorkerStats
from larder.vllm.whole_loads import Restarts
from larder.vllm.worker import WorkerHalf
from larder.vllm.writes import written_blocks

logger = init_logger("vllm.larder")


class LarderConnector(KVConnectorBase_V1, SupportsHMA):
    """Hands each hook to the half that it belongs to.

    vLLM makes one with role SCHEDULER and one with role WORKER for each rank,
    in one process or in several.
    """

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        transfer = vllm_config.kv_transfer_config
        settings = Settings.parse(transfer.kv_connector_extra_config)
        # Where copies run beside the engine's steps.
        self._on_device = vllm_config.device_config.device_type != "cpu"
        self._block_tokens = [group.kv_cache_spec.block_size for group in kv_cache_config.kv_cache_groups]
        self._scheduler: SchedulerHalf | None = None
        self._worker: WorkerHalf | None = None
        if role == KVConnectorRole.SCHEDULER:
            untested = compat.untested()
            if untested:
                logger.warning("Larder: %s", untested)
            set_recompute(transfer)
            self._scheduler = SchedulerHalf(
                settings,
                lambda namespace: _scheduler_options(vllm_config, settings, namespace),
                PageGroups.of(kv_cache_config, compat.prefix_match_unit(vllm_config.cache_config)),
                vllm_config.scheduler_config.max_num_batched_tokens,
                loads=transfer.is_kv_consumer,
                stores=transfer.is_kv_producer,
                events=support.publishes_events(vllm_config),
                under_way=vllm_config.max_concurrent_batches,
                restarts=Restarts.of_caller(),
                in_step=in_step.possible(vllm_config, kv_cache_config),
            )
        else:
            self._worker = WorkerHalf(vllm_config, kv_cache_config, settings)
        half = self._scheduler or self.worker_half
        self._reporter = Reporter(half.stats, lambda: half.client_stats)
        # An engine in the user's own process ends without a word.
        atexit.register(self.shutdown)

    @property
    def stats(self) -> SchedulerStats | WorkerStats:
        """The counters of this half."""
        return (self._scheduler or self.worker_half).stats

    @property
    def scheduler_half(self) -> SchedulerHalf:
        """The scheduler half; only there for role SCHEDULER."""
        if self._scheduler is None:
            raise RuntimeError("this is the connector of a worker")
        return self._scheduler

    @property
    def worker_half(self) -> WorkerHalf:
        """The worker half; only there for role WORKER."""
        if self._worker is None:
            raise RuntimeError("this is the connector of a scheduler")
        return self._worker

    def shutdown(self) -> None:
        """Ends this half's threads and connection."""
        atexit.unregister(self.shutdown)
        if self._scheduler is not None:
            self._scheduler.shutdown()
        if self._worker is not None:
            self._worker.shutdown()

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config: dict[str, Any]) -> bool:
        """Whether the hooks for layers must be called under CUDA graphs."""
        return "piecewise" in (extra_config.get("load_layers"), extra_config.get("store_layers"))

    @property
    def requires_kv_delivery(self) -> bool:
        """0.32 asks: a store may be dropped, and no request is computed again for it."""
        return False

    # -- worker ----------------------------------------------------------------

    def register_kv_caches(self, kv_caches: Mapping[str, Any]) -> None:
        """Takes the engine's pages."""
        self.worker_half.register(kv_caches)

    def get_handshake_metadata(self) -> Handshake | None:
        """What the scheduler half needs to know."""
        return self.worker_half.handshake()

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        """The first call of every step, before anything is written."""
        step = kv_connector_metadata
        self.worker_half.settle(getattr(step, "writes", None), getattr(step, "arrived", ()))

    def bind_connector_metadata(self, connector_metadata: Any) -> None:
        """A step's computation begins."""
        super().bind_connector_metadata(connector_metadata)
        half = self._worker
        if half is not None and half.layers is not None:
            half.settle(connector_metadata.writes, connector_metadata.arrived)
            half.begin(connector_metadata, compat.forward_context())

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Starts loads; they run beside this and later steps."""
        step, half = self._step(), self.worker_half
        if half.layers is None:
            half.settle(step.writes, step.arrived)
        half.start_loads(step)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """On GPUs the device waits for what is left of loads that were reported."""
        layers = self.worker_half.layers
        if layers is not None:
            layers.layer(layer_name)

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """On GPUs stores may follow the layers; else chunks are stored after the
        step, all layers at once."""
        saves = self.worker_half.saves
        if saves is not None:
            saves.layer(layer_name)

    def wait_for_save(self) -> None:
        """Starts to store what the step computed, or the rest of it; settled before
        the next one."""
        self._after_layers()
        self.worker_half.save(self._step())

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Loads that ended. Nothing is sent after the step, so nothing else."""
        self._after_layers()
        step = self._step()
        self.worker_half.idle(step)
        return None, self.worker_half.finished(finished_req_ids, idle=step.idle_wait_s > 0)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Pages that the loads just reported did not fill."""
        return self.worker_half.load_errors()

    def build_connector_worker_meta(self) -> WorkerReport | None:
        """What the scheduler half must know of this step."""
        return self.worker_half.report(self._step())

    def _after_layers(self) -> None:
        if self.worker_half.layers is not None:
            self.worker_half.layers.end()

    def _step(self) -> StepMetadata:
        step: StepMetadata = self._get_connector_metadata()
        return step

    # -- scheduler -------------------------------------------------------------

    def set_xfer_handshake_metadata(self, metadata: Mapping[int, Any]) -> None:
        """Takes what the workers say."""
        self.scheduler_half.start(m for m in metadata.values() if isinstance(m, Handshake))

    def set_xfer_handshake_metadata_pp_aware(self, metadata: Mapping[tuple[int, int], Any]) -> None:
        """The same, of all pipeline stages: they say one namespace."""
        self.scheduler_half.start(m for m in metadata.values() if isinstance(m, Handshake))

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        """Takes the engine's pool, to know what is in it, and whether a reset emptied it."""
        self.scheduler_half.epochs.bind(gpu_block_pool)
        self.scheduler_half.own_cache.bind(gpu_block_pool)

    def on_new_request(self, request: Any) -> None:
        """A request arrived."""
        self.scheduler_half.new_request(request)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Tokens that can be loaded; inside of the step for a request that is alone,
        else asynchronously."""
        return self.scheduler_half.matched_tokens(request, num_computed_tokens)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """The request has pages."""
        ids = blocks.get_block_ids() if num_external_tokens else ()
        self.scheduler_half.allocated(request, ids, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> StepMetadata:
        """What the workers do in this step."""
        step = self.scheduler_half.build(scheduler_output)
        if self._on_device:
            step.writes = written_blocks(scheduler_output, self._block_tokens)
        return step

    def update_connector_output(self, connector_output: Any) -> None:
        """What the workers did."""
        self.scheduler_half.output(connector_output)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:  # noqa: ARG002
        """The request is over; its pages may be given away, since their reads
        end before the next step writes."""
        self.scheduler_half.finished(request)
        return False, None

    def request_finished_all_groups(
        self,
        request: Any,
        block_ids: tuple[list[int], ...],  # noqa: ARG002
    ) -> tuple[bool, dict[str, Any] | None]:
        """As request_finished."""
        self.scheduler_half.finished(request)
        return False, None

    def reset_cache(self) -> bool:
        """The engine dropped its cache."""
        return self.scheduler_half.reset()

    def take_events(self) -> Iterable[Any]:
        """KV cache events of chunks in Larder."""
        return self.scheduler_half.events.take()

    # -- metrics ---------------------------------------------------------------

    def get_kv_connector_stats(self) -> EngineStats | None:
        """What this half did since the last call."""
        return self._reporter.take()

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> EngineStats:
        """Takes what crossed processes."""
        return EngineStats(data or {})

    @classmethod
    def build_prom_metrics(
        cls,
        vllm_config: Any,
        metric_types: dict[Any, Any],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> PromMetrics:
        """Makes the front end's metrics."""
        return PromMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)


def _scheduler_options(vllm_config: Any, settings: Settings, namespace: NamespaceDescriptor) -> Options:
    return Options(
        socket=settings.socket,
        role="scheduler",
        instance_id=identity.instance_id(vllm_config),
        namespace=namespace,
        tenant=settings.tenant,
        ranks=identity.ranks(vllm_config, Place()),
        engine=f"vllm/{vllm.__version__}",
        call_timeout_s=settings.call_timeout_ms / 1000,
    )
