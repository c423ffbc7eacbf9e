"""The worker half: one for each rank. Moves KV between pages and the arena."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import vllm
from vllm.logger import init_logger

from larder.client import Client, Options
from larder.namespace import NamespaceDescriptor
from larder.stats import ClientStats
from larder.vllm import identity, support
from larder.vllm.gpu_loader import GpuLoader
from larder.vllm.gpu_path import GpuPath, gpu_path
from larder.vllm.gpu_saver import GpuSaver
from larder.vllm.groups import GroupSpan, identify
from larder.vllm.identity import RankPart
from larder.vllm.layer_saves import LayerSaves
from larder.vllm.layer_waits import LayerWaits
from larder.vllm.layout import LayoutAdapter
from larder.vllm.loader import LoadClient, Loader, LoadResult, nothing, until_step
from larder.vllm.metadata import Handshake, StepMetadata, WorkerReport
from larder.vllm.page_groups import PageGroups
from larder.vllm.saver import Saver, StoreClient
from larder.vllm.settings import Settings
from larder.vllm.slots_ahead import SlotsAhead
from larder.vllm.stages import Place, place
from larder.vllm.stats import Summary, WorkerStats, timed

logger = init_logger("vllm.larder.worker")


class WorkerClient(LoadClient, StoreClient, Protocol):
    """What the worker half needs of larder.client.Client."""

    @property
    def stats(self) -> ClientStats:
        """A copy of its counters."""
        ...

    def wait_ready(self, timeout: float) -> bool:
        """Waits for the connection, which is made meanwhile."""
        ...

    def close(self, timeout: float = 2.0) -> None:
        """Ends the connection."""
        ...


class WorkerHalf:
    """Everything runs on the engine's thread, except what Loader and Client
    do on theirs. Without pages, or where Larder is off, every hook is empty."""

    def __init__(
        self,
        vllm_config: Any,
        kv_cache_config: Any,
        settings: Settings,
        connect: Callable[[Options], WorkerClient] = Client,
    ) -> None:
        self.stats = WorkerStats()
        self._vllm_config = vllm_config
        self._kv_cache_config = kv_cache_config
        self._settings = settings
        self._connect = connect
        self._place: Callable[[], Place] = partial(place, vllm_config)
        self._handshake: Handshake | None = None
        self._unsaid: tuple[Handshake, ...] = ()
        self._client: WorkerClient | None = None
        self._path: GpuPath | None = None
        # None: no layer is ever waited for, or stored by itself.
        self.layers: LayerWaits | None = None
        self.saves: LayerSaves | None = None
        self._loader: Loader | None = None
        self._saver: Saver | None = None
        self._adapters: Mapping[GroupSpan, LayoutAdapter] = {}
        self._parts: tuple[RankPart, ...] = ()
        self._here: Place | None = None
        self._ahead: SlotsAhead | None = None
        self._no_credit = 0
        self._session = 0
        # Of earlier sessions, while loads of theirs have not ended.
        self._ending: list[tuple[Loader, WorkerClient]] = []
        self._summary = Summary()
        self._failed: dict[str, int] = {}
        self._took: dict[str, float] = {}
        self._invalid: set[int] = set()

    def register(self, caches: Mapping[str, Any]) -> None:
        """Takes the engine's KV caches, by layer name; INVALID where the engine
        cannot be served without risk, naming the setting."""
        support.refuse(self._vllm_config)
        off = support.off(self._vllm_config, self._kv_cache_config)
        if off:
            logger.warning("Larder is off: %s", off)
            self._say(Handshake(b"", off))
            return
        here = self._place()
        size = self._vllm_config.parallel_config.tensor_parallel_size
        namespace, adapters = identify(
            self._vllm_config, self._kv_cache_config, self._settings, _engine(), caches, here, size
        )
        parts = identity.rank_parts(namespace, here.tensor, size, adapters)
        self._say(Handshake(namespace.encode()))
        self._adapters, self._parts, self._here = adapters, parts, here
        self._path = gpu_path(self._vllm_config, self._kv_cache_config, self._settings, adapters, namespace)
        if self._path is not None and (self._path.by_layer or self._path.stores_by_layer):
            names = [name for group in self._kv_cache_config.kv_cache_groups for name in group.layer_names]
            ascending = sorted(names, key=identity.layer_ids(names).__getitem__)
            layers = {name: i for i, name in enumerate(ascending)}
            self.layers = LayerWaits(self._path.arrivals, layers)
            if self._path.stores_by_layer:
                self.saves = LayerSaves(layers, self._path.stores.steps, self.save_layers, self.give_up)
        self._attach(namespace)
        if self._path is not None and self._client is not None:
            # So that what there is to register is registered before the first step.
            self._client.wait_ready(self._settings.call_timeout_ms / 1000)
            self._path.ready()
        logger.info(
            "Larder: namespace %s, %d parts of %d bytes together for %d tokens, daemon at %s, slots granted ahead: %s",
            namespace.fingerprint()[:8].hex(),
            len(parts),
            sum(part.length for part in parts),
            namespace.chunk_tokens,
            self._settings.socket,
            self._ahead,
        )

    def _attach(self, namespace: NamespaceDescriptor) -> None:
        """Opens a session; its namespace differs from others' in the epoch only."""
        if self._here is None:
            return
        adapters, parts, path, threads = self._adapters, self._parts, self._path, self._settings.copy_threads
        most = self._settings.credit_mib << 20
        step_tokens = self._vllm_config.scheduler_config.max_num_batched_tokens
        self._ahead = SlotsAhead(parts, namespace.chunk_tokens, step_tokens, most)
        options = Options(
            socket=self._settings.socket,
            role="worker",
            instance_id=identity.instance_id(self._vllm_config),
            namespace=namespace,
            tenant=self._settings.tenant,
            ranks=identity.ranks(self._vllm_config, self._here),
            engine=_engine(),
            call_timeout_s=self._settings.call_timeout_ms / 1000,
            credits=self._ahead.counts,
            stream_bytes=most or Options.stream_bytes,
            mapped=None if path is None else path.registered.mapped,
        )
        groups = PageGroups.of(self._kv_cache_config)
        chunk_blocks = [namespace.chunk_tokens // group.block_tokens for group in groups.groups]
        self._client = client = self._connect(options)
        make_saver: Callable[..., Saver] = Saver
        make_loader: Callable[..., Loader] = Loader
        if path is not None:
            make_saver, make_loader = partial(GpuSaver, path), partial(GpuLoader, path, ahead_s=self._ahead_s(path))
        self._saver = make_saver(
            client,
            adapters,
            parts,
            namespace.chunk_tokens,
            self.stats,
            threads,
            tell_published=support.publishes_events(self._vllm_config),
        )
        self._loader = make_loader(
            client,
            adapters,
            parts,
            len(namespace.parts()),
            chunk_blocks,
            self.stats,
            threads,
            whole=groups.whole_loads,
        )

    def _follow(self, step: StepMetadata) -> None:
        """Goes over to the session that a step belongs to. Loads of the one before
        end, and what they bring counts as not loaded; no chunk of it is stored any
        more, since all of them were copied before this step."""
        if step.session == self._session:
            return
        self._session = step.session
        if self._saver is not None:
            self._saver.settle()
            self._saver.close()
        if self._loader is not None and self._client is not None:
            self._loader.void()
            self._ending.append((self._loader, self._client))
        self._loader = self._saver = self._client = None
        if step.namespace:
            self._attach(NamespaceDescriptor.decode(step.namespace))

    def _ended(self) -> list[LoadResult]:
        """Results of earlier sessions, which go once they have no more."""
        done: list[LoadResult] = []
        for ending in list(self._ending):
            loader, client = ending
            done += loader.take_done()
            if not loader.busy:
                self._ending.remove(ending)
                loader.close()
                client.close()
        return done

    @property
    def client_stats(self) -> ClientStats | None:
        """The counters of the connection, None before the first."""
        return None if self._client is None else self._client.stats

    def handshake(self) -> Handshake | None:
        """What the scheduler half needs before the first step."""
        return self._handshake

    @timed
    def settle(self, writes: Sequence[int] | None = None, arrived: Sequence[str] = ()) -> None:
        """From here on pages may be given to others, and written: waits for what
        still reads them for stores, or lets the device wait. writes, arrived:
        StepMetadata's."""
        if self._path is not None:
            self._path.arrivals.heard(arrived, writes)
        if self._saver is not None:
            self._saver.settle(writes)

    @timed
    def begin(self, step: StepMetadata, forward_context: Any) -> None:
        """A step's computation begins. forward_context: LayerWaits.begin's."""
        self._follow(step)
        proven = self.layers is not None and self.layers.begin(forward_context)
        if self.saves is not None:
            self.saves.begin(
                follows=self._saver is not None and self._saver.follow(step.stores if proven else ()),
            )

    @timed
    def start_loads(self, step: StepMetadata) -> None:
        """Starts the step's loads, and waits, boundedly, for those on which it
        computes."""
        self._follow(step)
        loader = self._loader
        here = [until_step(op) for op in step.loads if op.in_step_s]
        if loader is None:
            self._take(map(nothing, here))
            return
        for op in [*here, *(op for op in step.loads if not op.in_step_s)]:
            loader.submit(op)
        if here:
            self._take(loader.land(here))

    @timed
    def save(self, step: StepMetadata) -> None:
        """Starts to store the step's chunks, after its computation."""
        if self._saver is None or not step.stores:
            return
        if sys.exc_info()[1] is not None:
            # Called on the way out of a computation that failed.
            self._saver.give_up()
            return
        self._saver.save(step.stores)

    @timed
    def save_layers(self, step: int) -> None:
        """Starts to store what the computation has brought, GpuSaver.reached."""
        if isinstance(self._saver, GpuSaver):
            self._saver.reached(step)

    def give_up(self) -> None:
        """Nothing of what was started to be stored in this step is right."""
        if self._saver is not None:
            self._saver.give_up()

    @timed
    def idle(self, step: StepMetadata) -> None:
        """Waits a little in a step that computes nothing, for a load or an
        answer: threads of this process need the interpreter to bring them."""
        if self._loader is not None and step.idle_wait_s:
            self._loader.wait(step.idle_wait_s)

    @timed
    def finished(self, finished_requests: set[str], *, idle: bool = False) -> set[str] | None:
        """Requests whose load has ended, each one once. idle: the step computed
        nothing."""
        done = self._ended() if self._ending else []
        loader = self._loader
        if loader is not None:
            if finished_requests:
                loader.cancel(finished_requests)
            done += loader.take_done(idle=idle)
        self._say_so()
        self._take(done)
        return {result.request_id for result in done} or None

    def _take(self, results: Iterable[LoadResult]) -> None:
        for result in results:
            self._took[result.request_id] = result.took_s
            self._invalid |= result.invalid
            if result.chunks < result.wanted:
                self._failed[result.request_id] = result.chunks

    def load_errors(self) -> set[int]:
        """Pages that the loads of `finished` did not fill."""
        invalid, self._invalid = self._invalid, set()
        return invalid

    def report(self, step: StepMetadata) -> WorkerReport | None:
        """What the scheduler half must know of this step."""
        dropped = self._saver.take_dropped() if self._saver is not None else set()
        published = self._saver.take_published() if self._saver is not None else set()
        failed, self._failed = self._failed, {}
        took, self._took = self._took, {}
        said, self._unsaid = self._unsaid, ()
        if dropped or failed or said or took or step.number or published:
            return WorkerReport(dropped, failed, said, step.number, took, published)
        return None

    def shutdown(self) -> None:
        """Ends threads and connection; pages are touched no more."""
        for loader, client in self._ending:
            loader.close()
            client.close()
        if self._loader is not None:
            self._loader.close()
        if self._saver is not None:
            self._saver.settle()
            self._saver.close()
        if self._path is not None:
            self._path.close()
        if self._client is not None:
            self._client.close()

    def _ahead_s(self, path: GpuPath) -> float:
        return self._settings.load_ahead_ms / 1000 if path.may_report_ahead else 0.0

    def _say_so(self) -> None:
        s = self.stats
        if s.dropped_no_credit > self._no_credit and self._client is not None and self._ahead is not None:
            self._no_credit = s.dropped_no_credit
            self._ahead.complain(self._client.stats, partial(logger.warning, "Larder: %s"))
        dropped = s.dropped_no_credit + s.dropped_rejected + s.dropped_failed
        numbers = (s.chunks_loaded, s.bytes_loaded, s.loads_failed, s.chunks_stored, s.bytes_stored, dropped)
        if self._summary.due(time.monotonic(), numbers):
            logger.info(
                "Larder so far: loaded %d chunks (%d bytes, %d loads incomplete), stored %d (%d bytes, %d dropped)",
                *numbers,
            )

    def _say(self, handshake: Handshake) -> None:
        self._handshake = handshake
        self._unsaid = (handshake,)


def _engine() -> str:
    return f"vllm/{vllm.__version__}"
