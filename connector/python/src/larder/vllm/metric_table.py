"""The engine's metrics about Larder: names, labels, and what to do about them.

The names start with vllm:, since vLLM clears only such ones before it registers
them again in one process.
"""

from __future__ import annotations

from dataclasses import dataclass

from larder.errors import Kind

PREFIX = "vllm:larder_"
OTHER = "other"

_KINDS = tuple(str(kind) for kind in Kind)
_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Metric:
    """One counter or, where it has buckets, histogram. values: of its label, which
    has no others; what is not among them counts as OTHER."""

    name: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def key(self, value: str = "") -> str:
        """Its name in reports."""
        if not self.label:
            return self.name
        return f"{self.name}/{value if value in self.values else OTHER}"

    def series(self) -> dict[str, tuple[str, ...]]:
        """All names in reports, and the labels that they stand for."""
        return {self.key(v): (v,) for v in self.values} if self.label else {self.name: ()}


METRICS = (
    Metric(
        "requests",
        "Requests that the connector saw.",
    ),
    Metric(
        "requests_uncached",
        "Requests that are neither loaded nor stored, by reason. adapter: the LoRA adapter's files could not be "
        "read yet. multimodal: content without a hash. salt, parameters: what the request names is not valid, see "
        "the log. embeddings, streaming and pooling are not cached at all.",
        "reason",
        ("adapter", "embeddings", "streaming", "pooling", "salt", "parameters", "multimodal", OTHER),
    ),
    Metric(
        "matches",
        "Questions to the daemon by how they ended. Many timeouts: the daemon's host is busy; raise "
        "match_deadline_ms only if requests may wait so long. Failed ones: see larder_call_failures.",
        "outcome",
        ("answered", "timeout", "failed"),
    ),
    Metric(
        "tokens_asked",
        "Tokens that the daemon was asked for, in whole chunks; after a preemption the same ones again. A prompt that "
        "the engine has itself, and that the daemon had less than 5 seconds ago, is not asked for.",
    ),
    Metric(
        "tokens_matched",
        "Tokens of those that it has. Over tokens_asked the hit rate; little where prompts repeat: host.bytes or "
        "nvme.bytes are too small, or engines differ in their namespace (larder namespaces).",
    ),
    Metric(
        "tokens_claimed",
        "Tokens that were to be loaded: matched, not in the engine's own cache, and faster than computing them.",
    ),
    Metric(
        "tokens_loaded",
        "Tokens that were loaded. Far fewer than claimed: see larder_load_failures.",
    ),
    Metric(
        "loads",
        "Loads that began, one for each request.",
    ),
    Metric(
        "loads_in_step",
        "Loads of those inside of the step that computes the rest: of requests that are alone, from host memory, and "
        "expected in half of load_in_step_ms.",
    ),
    Metric(
        "load_failures",
        "Loads that ended early, on each rank, by what came in their way; what they lack is computed. miss: it was "
        "evicted meanwhile, more host.bytes helps. corrupt: the daemon's log says what is damaged. unavailable: "
        "the daemon is gone, or slower than load_deadline_ms, or load_in_step_ms where a step waits. cancelled: the "
        "request was over. internal: a bug.",
        "kind",
        (*_KINDS, "cancelled", "internal", OTHER),
    ),
    Metric(
        "loaded_bytes",
        "Bytes loaded, all ranks together.",
    ),
    Metric(
        "blocks_recomputed",
        "Pages of loads that were not filled, on each rank, and are computed.",
    ),
    Metric(
        "requests_begun_anew",
        "Requests that gave their pages back since their load failed, and compute everything: with sliding windows or "
        "several KV cache groups a load counts as a whole. See larder_load_failures.",
    ),
    Metric(
        "waits",
        "Times that a request was put off for a step. match: its answer was not there yet. load: another request "
        "loads the same chunks, normal where prompts share a prefix; or a step that waits for a load (load_in_step_ms) "
        "has yet to say what became of it.",
        "what",
        ("match", "load"),
    ),
    Metric(
        "requests_computed",
        "Requests that computed what could have been loaded, since that takes less time (load_or_recompute).",
    ),
    Metric(
        "chunks_computed",
        "Chunks of those, by the tier that they lay in. Many of nvme: the disk is slower than the engine computes; "
        "see larder_nvme_queue, and larder explain.",
        "tier",
        ("host", "nvme", OTHER),
    ),
    Metric(
        "stored_bytes",
        "Bytes stored, all ranks together.",
    ),
    Metric(
        "chunks_stored",
        "Chunks that became visible.",
    ),
    Metric(
        "chunks_not_stored",
        "Chunks that a rank did not add. no_credit: no slot was at hand; the engine's log says why, and what helps. "
        "rejected: the daemon's log says why. failed: no answer, see larder_call_failures. "
        "duplicate: another engine was first; normal. conflict: other bytes were there; "
        "compare the engines' hosts and configurations. window: pages of a sliding window were given to others before; "
        "a smaller chunk_tokens helps where the window is shorter than a chunk.",
        "reason",
        ("no_credit", "rejected", "failed", "duplicate", "conflict", "window"),
    ),
    Metric(
        "chunks_pinned",
        "Chunks of requests that ask for pins. absent: the daemon does not have them. full: raise nvme.pinned_percent, "
        "or unpin something.",
        "outcome",
        ("pinned", "absent", "full"),
    ),
    Metric(
        "pins_refused",
        "Requests whose pins the daemon refused, or that came while too many waited; see the log.",
    ),
    Metric(
        "resets",
        "Times that the engine dropped its cache. What was stored before is not loaded after, unless keep_on_reset "
        "says that weights stay the same.",
    ),
    Metric(
        "connections",
        "Connections to the daemon, of scheduler and ranks. More than one for each: it was restarted, or gone.",
    ),
    Metric(
        "call_failures",
        "Calls to the daemon that failed, by kind, of scheduler and ranks. unavailable: is larderd running, and "
        "its socket the one in the connector's config? busy, full: see the daemon's metrics. denied, invalid: see the "
        "log.",
        "kind",
        (*_KINDS, OTHER),
    ),
    Metric(
        "late_replies",
        "Replies that came after their call's deadline. Many: raise call_timeout_ms, or give the daemon more "
        "processors.",
    ),
    Metric(
        "breaker_opens",
        "Times that calls were suspended, since too many had failed.",
    ),
    Metric(
        "kv_events",
        "Chunks in KV cache events, which say nothing of what the daemon evicts later. dropped: too many for one "
        "step; routers do not know of them.",
        "what",
        ("stored", "removed", "dropped"),
    ),
    Metric(
        "hook_seconds",
        "Time inside the connector's hooks, of the scheduler and of all ranks together. It is time that steps "
        "take longer. worker_settle: copies of stores that were not over when the next step began; raise "
        "copy_threads, or lower backfill_chunks. worker_start_loads: also waits for loads (load_in_step_ms).",
        "hook",
        (
            "scheduler_new_request", "scheduler_matched_tokens", "scheduler_allocated", "scheduler_finished",
            "scheduler_build", "scheduler_output", "worker_settle", "worker_start_loads", "worker_save",
            "worker_begin", "worker_save_layers", "worker_idle", "worker_finished", OTHER,
        ),
    ),
    Metric(
        "match_seconds",
        "Time from a question to the daemon until its answer. Above match_wait_us for most: requests wait for a "
        "further step of the scheduler.",
        buckets=_SECONDS,
    ),
    Metric(
        "load_seconds",
        "Time of a load, of the slowest rank, without its wait for earlier ones. Long for its bytes: the daemon "
        "verifies (give it processors), or brings chunks from disk (larder_nvme_promotion_seconds).",
        buckets=_SECONDS,
    ),
    Metric(
        "load_wait_seconds",
        "Time from a load's beginning until the scheduler goes on with its request. Much more than load_seconds: "
        "loads queue behind each other, or steps are long.",
        buckets=_SECONDS,
    ),
)  # fmt: skip

BY_NAME = {metric.name: metric for metric in METRICS}
