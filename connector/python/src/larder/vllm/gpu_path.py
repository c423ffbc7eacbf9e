"""Everything that a worker on a GPU has more than one on a CPU."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from larder.errors import UnavailableError
from larder.namespace import NamespaceDescriptor
from larder.registered import Driver, RegisteredMemory
from larder.vllm.arrivals import Arrivals
from larder.vllm.device import Event, wait_all
from larder.vllm.gpu_copies import Lanes, PageCopies, PartCopy, Piece, Variant
from larder.vllm.layer_waits import layer_hooks
from larder.vllm.layout_gpu import GpuAdapter
from larder.vllm.reads import PageReads
from larder.vllm.settings import Settings
from larder.vllm.sleeping import watch_sleep

T = TypeVar("T")

Where = tuple[int, int]
"""A KV cache group, and a layer span."""

# By measurement (bench/RESULTS.md).
AUTO_LOAD: Variant = "staged"
AUTO_STORE: Variant = "staged"

# Steps in which copies go through the layers.
_LAYER_STEPS = 4

# Seconds that the engine's start waits for the memory to be registered: a
# second for a few GiB.
_REGISTER_S = 120.0


class Order(enum.Enum):
    """Who may write pages that stores still read, beside a step's computation."""

    # Nobody: what a step writes is known when it begins.
    WRITES = "writes"
    # The engine, before it tells us that a step begins: it zeroes pages. All that
    # it starts after a store comes after its reads.
    EVERYTHING = "everything"
    # Another connector, on streams of its own: the engine's thread waits.
    OTHERS = "others"


class Direction:
    """Loads, or stores, of all KV cache groups and layer spans of a rank."""

    def __init__(
        self,
        adapters: Mapping[Where, GpuAdapter],
        heads: Mapping[Where, int],
        variant: Variant,
        registered: RegisteredMemory,
        *,
        to_parts: bool,
        cut: int = 0,
    ) -> None:
        """cut: in how many steps copies may go through the layers, where all of
        them are of one group and span."""
        device = next(iter(adapters.values())).device
        self.lanes = Lanes(device, max(adapter.longest(heads[where]) for where, adapter in adapters.items()))
        self._lock = threading.Lock()
        self._suspended = False
        self._copies: dict[Where, PageCopies] = {
            where: adapter.copies(
                self.lanes,
                variant,
                registered.covers,
                heads[where],
                to_parts=to_parts,
                cut=cut if len(adapters) == 1 else 0,
            )
            for where, adapter in adapters.items()
        }

    @property
    def steps(self) -> tuple[int, ...]:
        """PageCopies.steps."""
        return next(iter(self._copies.values())).steps

    def start(
        self,
        copies: Mapping[Where, Sequence[PartCopy]],
        after: Sequence[Event],
        *,
        by_layer: bool = False,
        steps: slice = slice(None),
    ) -> list[Piece]:
        """Starts copies: PageCopies.start. Where one fails, waits for what was
        started before it raises."""
        pieces: list[Piece] = []
        # Loads of a session that ends run beside those of the next one.
        with self._lock:
            if self._suspended:
                raise UnavailableError("the engine sleeps, and has no pages")
            try:
                for where, some in copies.items():
                    pieces += self._copies[where].start(some, after, by_layer=by_layer, steps=steps)
            except BaseException:
                self.lanes.stop()
                raise
        return pieces

    def suspend(self) -> None:
        """Waits for copies under way, and starts none until resume."""
        with self._lock:
            self._suspended = True
            self.lanes.stop()

    def resume(self) -> None:
        """The opposite."""
        with self._lock:
            self._suspended = False


class GpuPath:
    """The device's side of loads and stores.

    Made where the engine hands its pages over, which may be inside of an
    allocator that empties its memory when the engine sleeps, and shortly before
    graphs are captured, when no thread may ask the driver for memory. So what it
    holds is made on another thread, and memory is registered until ready ends
    and from the first step on."""

    def __init__(
        self,
        adapters: Mapping[Where, GpuAdapter],
        heads: Mapping[Where, int],
        load: str,
        store: str,
        driver: Driver,
        order: Order = Order.WRITES,
        *,
        by_layer: bool = False,
        stores_by_layer: bool = False,
    ) -> None:
        """heads: of a part. load, store: auto, staged or zero_copy.
        order: who may write pages that are being read, and so who waits. by_layer:
        the last copies of loads go through the layers; stores_by_layer: those of
        stores may follow the computation through them."""
        self.device = device = next(iter(adapters.values())).device
        self.registered = RegisteredMemory(driver)
        self.reads = PageReads()
        self.arrivals = Arrivals(device)
        self._order = order
        self._begun = False

        # Where others write pages, the engine waits for reads as soon as they are
        # started: in the middle of its computation.
        may_cut = self.may_report_ahead and len(adapters) == 1
        self.by_layer = by_layer and may_cut
        self.stores_by_layer = stores_by_layer and may_cut

        def make(setting: str, auto: Variant, *, to_parts: bool, cut: int = 0) -> Direction:
            return Direction(adapters, heads, _variant(setting, auto), self.registered, to_parts=to_parts, cut=cut)

        cuts = [_LAYER_STEPS if cut else 0 for cut in (self.by_layer, self.stores_by_layer)]
        self.loads = _elsewhere(device.bind, lambda: make(load, AUTO_LOAD, to_parts=False, cut=cuts[0]))
        self.stores = _elsewhere(device.bind, lambda: make(store, AUTO_STORE, to_parts=True, cut=cuts[1]))

    def ready(self) -> None:
        """The engine goes on to start: what is mapped by now is registered, and
        nothing more until its first step."""
        self.registered.settled(_REGISTER_S)
        self.registered.pause(_REGISTER_S)

    @property
    def may_report_ahead(self) -> bool:
        """Whether nobody writes pages before the engine's stream has waited for
        loads that fill them (Arrivals)."""
        return self._order is Order.WRITES

    def reading(self, events: Sequence[Event], blocks: Iterable[int]) -> None:
        """Blocks are read until these events."""
        self.reads.add(events, blocks)
        if self._order is Order.EVERYTHING:
            self._wait(events)

    def order(self, blocks: Iterable[int] | None = None) -> None:
        """A step begins: what the engine starts from now on comes after reads of
        these blocks; None: of any."""
        if not self._begun:
            self._begun = True
            self.registered.resume()
        if self._order is Order.OTHERS:
            wait_all(self.reads.of(None))
        else:
            self._wait(self.reads.of(blocks))

    def suspend(self) -> None:
        """The engine gives its pages up."""
        self.loads.suspend()
        self.stores.suspend()

    def resume(self) -> None:
        """It has pages again."""
        self.loads.resume()
        self.stores.resume()

    def _wait(self, events: Sequence[Event]) -> None:
        for event in events:
            self.device.wait(self.device.current_stream(), event)

    def close(self) -> None:
        """Waits for the device, and gives the memory back to the driver. Nobody
        starts copies any more."""
        self.loads.lanes.stop()
        self.stores.lanes.stop()
        self.registered.close()


def gpu_path(
    vllm_config: Any,
    kv_cache_config: Any,
    settings: Settings,
    adapters: Mapping[Where, object],
    namespace: NamespaceDescriptor,
) -> GpuPath | None:
    """The path of an engine whose pages lie on a GPU; None for others."""
    ours = {where: a for where, a in adapters.items() if isinstance(a, GpuAdapter)}
    if not ours:
        return None
    order = Order.WRITES
    if vllm_config.kv_transfer_config.kv_connector == "MultiConnector":
        order = Order.OTHERS
    elif kv_cache_config.needs_kv_cache_zeroing:
        order = Order.EVERYTHING
    heads = {where: namespace.groups[where[0]].head_group for where in ours}
    driver = next(iter(ours.values())).device.driver()
    hooks = layer_hooks(vllm_config)
    path = GpuPath(
        ours,
        heads,
        settings.gpu_load,
        settings.gpu_store,
        driver,
        order,
        by_layer=hooks and settings.load_layers != "off",
        stores_by_layer=hooks and settings.store_layers != "off",
    )
    watch_sleep(vllm_config.model_config, path)
    return path


def _variant(setting: str, auto: Variant) -> Variant:
    return auto if setting == "auto" else "zero_copy" if setting == "zero_copy" else "staged"


def _elsewhere(bind: Callable[[], None], make: Callable[[], T]) -> T:
    """What make returns on a thread of its own."""
    with ThreadPoolExecutor(1, "larder-gpu", initializer=bind) as pool:
        return pool.submit(make).result()
