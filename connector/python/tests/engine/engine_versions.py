"""How the engine under test calls its connectors in a step: versions differ, and the simulated engine follows."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import KVCacheTensor
from vllm.v1.outputs import KVConnectorOutput

# From 0.32 on loads that no request of the step waits for start after its computation, stores are asked for in steps
# that compute nothing too, and one hook tells what has ended.
NEWER = "has_sync_kv_loads" in {f.name for f in fields(SchedulerOutput)}


def starts_first(output: Any) -> bool:
    """Whether a step's loads start before its computation."""
    return not NEWER or bool(output.has_sync_kv_loads)


def take_ended(worker: Any, finished: set[str], report: KVConnectorOutput) -> None:
    """Asks the worker which transfers have ended."""
    if not NEWER:
        report.finished_sending, report.finished_recving = worker.get_finished(finished)
        return
    results = worker.get_transfer_results(finished)
    report.finished_sending, report.finished_recving = results.finished_sending, results.finished_recving
    report.failed_recving = results.failed_recving


def own_tensor(layer: str, page_bytes: int, blocks: int) -> KVCacheTensor:
    """Memory of one layer, as the engine tells its connectors: from 0.32 on with the strides of it all."""
    size = page_bytes * blocks
    if "shared_by" in {f.name for f in fields(KVCacheTensor)}:
        return KVCacheTensor(size=size, shared_by=[layer])
    return KVCacheTensor(size=size, layers=[layer], layer_stride=size, block_stride=page_bytes)


def smallest_block() -> int:
    """Tokens of the smallest block that the engine's attention on CPU takes: 16, and 32 from 0.32 on."""
    return int(CPUAttentionBackend.get_supported_kernel_block_sizes()[0].base)
