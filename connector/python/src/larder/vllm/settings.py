"""What an operator can set in kv_connector_extra_config."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_type_hints

from larder.errors import InvalidError

DEFAULT_CHUNK_TOKENS = 256
_LAYERS = ("auto", "piecewise", "off")
_GPU_COPIES = ("auto", "staged", "zero_copy")
# Named as their index, which is the API's worst quality (api/PART.md).
LEVELS = ("exact", "L0", "L1", "L2", "L3")


@dataclass(frozen=True)
class Settings:
    """Settings of one engine's connector. Unknown and ill-typed ones are an
    error: a misspelt key must not run with a default unseen."""

    # Path of the daemon's Unix socket.
    socket: str = "/run/larder/larderd.sock"
    # Empty: the tenant that the daemon gives to this user.
    tenant: str = ""

    # Tokens of a chunk, a multiple of the engine's block. 0: 256, or the next
    # multiple of the block. Engines with different chunks share nothing.
    chunk_tokens: int = 0
    # Names the weights instead of hashing samples of their files; needed where
    # a loader has no files. Hazard: the same name for other weights returns
    # wrong KV.
    weights_id: str = ""
    # Raise it when weights are edited in place.
    weights_epoch: int = 0
    # Layer spans that a chunk's parts are cut by; 0: one for each pipeline stage.
    # Engines share chunks only where their spans are equal: for engines of one
    # and of two stages to share, 2 in both.
    layer_spans: int = 0
    # KV heads in one part, in groups that have as many; 0: as few as make every
    # part 1 MiB or more. A tensor-parallel rank must hold whole parts, so ranks of
    # a small model may need less, and what shares with them the same.
    head_group: int = 0
    # Go on in the same namespace after the engine's cache was reset, which sleep
    # mode does, too. Off: every reset begins one that no other engine uses, 256 in
    # an engine's life. Hazard: wrong KV where weights ever change in the engine
    # (reload_weights, update_weights).
    keep_on_reset: bool = False
    # auto: canonical where an adapter proves itself; opaque: pages as they are.
    layout: str = "auto"

    # The lowest level of the codec that is loaded: exact, or L0 (finest) to L3.
    # Chunks that tiers keep with loss (nvme.codec) answer only engines that
    # accept it. What such an engine computes on top of one is stored with that
    # quality: it never answers a request for exact. Pages that another connector
    # brings (MultiConnector), and what is computed on top, such an engine does
    # not store. Hazard: outputs differ from those of the exact model. Hazard of
    # exact: pages that another connector brings count as exact and are stored so,
    # whatever that one did to them; beside one that quantizes, store nothing
    # (kv_role kv_consumer).
    lowest_level: str = "exact"

    # Store chunks that generation completes, not only those of prompts.
    store_generated: bool = True
    # Older chunks (local hits that Larder lacks, and retries) stored in one
    # step at most, beside those that the step computed. Hazard: each takes the
    # time of its copy from the step.
    backfill_chunks: int = 16
    # Slots kept granted ahead by each rank, in MiB at most. 0: what two steps of
    # the engine fill (max_num_batched_tokens), as far as the daemon allows it
    # (host.granted_percent). Hazard: what one step fills and finds no slots is
    # stored over later steps of its request, and lost where there are none; what
    # is granted counts against the daemon's budget.
    credit_mib: int = 0

    # Microseconds that the scheduler waits for a match under way: for each
    # request, and in each step for all of them.
    match_wait_us: int = 300
    step_wait_us: int = 1000
    # Milliseconds after which a request goes on without an answer.
    match_deadline_ms: int = 100
    # Milliseconds that a hold lasts unless renewed.
    hold_ms: int = 10_000
    # Waiting requests that hold chunks from their arrival on; later ones ask
    # when their turn comes.
    early_matches: int = 256
    # Milliseconds after which what a load still lacks is recomputed.
    load_deadline_ms: int = 3000
    # Load only as much of a match as takes less time than computing it: what the
    # daemon's tiers take as they say, what copies and the engine's steps take as
    # measured here. Until some steps were measured, and where computing always
    # takes longer, everything is loaded that comes before load_deadline_ms. Off:
    # everything is loaded.
    load_or_recompute: bool = True
    # Threads that copy a step's stores, and as many for loads; for pages that
    # the processor copies.
    copy_threads: int = 2
    # How loads to, and stores from, a GPU cross the bus: staged (DMA and a stage
    # of 64 MiB in GPU memory), zero_copy (a kernel on the host's memory, no stage,
    # but 16 multiprocessors are busy as long as the bus is), or auto, what was
    # faster where it was measured.
    gpu_load: str = "auto"
    gpu_store: str = "auto"
    # Milliseconds of a load's copies to a GPU that may be left when its request
    # goes on: all of it is verified by then, and nothing but the device itself could
    # fail. The step that first uses the pages waits for them on the device; 20 where
    # the engine computes nothing else. 0: requests go on once everything is copied
    # and confirmed. Hazard: that step's other requests wait as long.
    load_ahead_ms: float = 3.0
    # auto: such a step waits for the copies of a layer only when its computation
    # comes, where it calls the engine's hooks for layers (eager steps, and between the
    # pieces of CUDA graphs). piecewise: the same, and the engine is to run no full CUDA
    # graphs, which call none. Hazard of it: decoding becomes slower. off: for all copies
    # at its begin, which was faster where it was measured.
    load_layers: str = "off"
    # The same of stores from a GPU. auto: copies of what a step stores start as its
    # computation goes through the layers. Hazard: chunks are there some milliseconds
    # earlier, but prompts' first tokens may come a little later. off: all of them
    # start after the step.
    store_layers: str = "off"
    # Milliseconds that a step may wait for the load of the request that it begins to
    # compute. Where nothing else runs or waits, and all of a load lies in host memory
    # and is expected in half of this, it is done inside of the step that computes the
    # rest, which spares two steps; what is not there in time is recomputed. 0: never, as
    # in versions of vLLM that were not tested.
    # Hazard: requests that arrive meanwhile wait as long, and for the step itself.
    load_in_step_ms: float = 80.0
    # Seconds for which chunks whose load failed are not loaded again.
    failed_pause_s: float = 10.0
    # Milliseconds that a step without computation waits for loads, at most; it
    # ends with the first of them. For answers to matches alone it waits 0.3 at
    # most. An idle engine would spin, and keep the interpreter from the threads
    # that load: 40 MB took 40 ms so, against 28. Hazard: who arrives meanwhile
    # waits as long.
    idle_wait_ms: float = 5.0
    # The medium that KV cache events name, where the engine publishes them
    # (enable_kv_cache_events). What routers take for host memory differs: CPU,
    # CPU_PINNED, CPU_TIER1. Hazard: a router that does not know it may take these
    # blocks for ones in the engine's own memory.
    event_medium: str = "CPU"
    # Deadline of each call to the daemon, milliseconds.
    call_timeout_ms: int = 1000

    @classmethod
    def parse(cls, extra: Mapping[str, Any]) -> Settings:
        """Reads the connector's extra config; INVALID names key and nearest."""
        types = get_type_hints(cls)
        values: dict[str, Any] = {}
        for key, value in extra.items():
            if key not in types:
                near = difflib.get_close_matches(key, types, n=1)
                hint = near[0] if near else ", ".join(types)
                raise InvalidError("unknown key", f"kv_connector_extra_config.{key}", limit=hint)
            values[key] = _typed(key, value, types[key])
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.default is not MISSING and isinstance(value, int | float) and value < 0:
                raise InvalidError("must not be negative", f"kv_connector_extra_config.{f.name}", str(value), "0")
        for name in ("socket", "event_medium"):
            if not getattr(self, name):
                raise InvalidError("must not be empty", f"kv_connector_extra_config.{name}")
        if self.layout not in ("auto", "opaque"):
            raise InvalidError("unknown layout", "kv_connector_extra_config.layout", self.layout, "auto or opaque")
        if self.lowest_level not in LEVELS:
            raise InvalidError(
                "unknown level", "kv_connector_extra_config.lowest_level", self.lowest_level, ", ".join(LEVELS)
            )
        copies = {"gpu_load": _GPU_COPIES, "gpu_store": _GPU_COPIES, "load_layers": _LAYERS, "store_layers": _LAYERS}
        for name, known in copies.items():
            value = getattr(self, name)
            if value not in known:
                raise InvalidError("unknown kind of copy", f"kv_connector_extra_config.{name}", value, ", ".join(known))
        if self.copy_threads < 1:
            raise InvalidError("too few", "kv_connector_extra_config.copy_threads", str(self.copy_threads), "1")
        for name in ("hold_ms", "load_deadline_ms", "call_timeout_ms"):
            if getattr(self, name) < 10:
                raise InvalidError("too short", f"kv_connector_extra_config.{name}", str(getattr(self, name)), "10")

    def idle_wait_s(self, *, loading: bool, asking: bool) -> float:
        """Seconds that a step without computation waits: for a load, or for the
        answer to a match."""
        if loading:
            return self.idle_wait_ms / 1000
        return min(self.idle_wait_ms, 0.3) / 1000 if asking else 0.0

    @property
    def worst_quality(self) -> int:
        """lowest_level as the API counts (api/PART.md)."""
        return LEVELS.index(self.lowest_level)

    def chunk_tokens_for(self, block_tokens: int) -> int:
        """Returns the tokens of a chunk; INVALID where the block allows none."""
        chunk = self.chunk_tokens or -(-DEFAULT_CHUNK_TOKENS // block_tokens) * block_tokens
        if chunk % block_tokens or not 64 <= chunk <= 1024:
            raise InvalidError(
                "not possible with this engine's block",
                "kv_connector_extra_config.chunk_tokens",
                str(chunk),
                f"a multiple of {block_tokens} in 64..1024",
            )
        return chunk


def _typed(key: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidError("wrong type", f"kv_connector_extra_config.{key}", type(value).__name__, kind.__name__)
    return value
