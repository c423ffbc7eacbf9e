"""A real vLLM of several ranks, each in a process of its own, as engine_process.

The scheduler is in this process, so requests and the scheduler half are reached as there.
Ranks are asked by the engine's own collective call.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
from typing import Any

import torch
from engine_process import Server, main

Layers = dict[tuple[int, int], list[str]]
"""By layer and KV head of the model, the hash of each chunk."""


def of_rank(worker: Any) -> dict[str, Any]:
    """What one rank says about itself."""
    from vllm.distributed.kv_transfer import get_kv_transfer_group
    from vllm.distributed.parallel_state import get_pp_group, get_tp_group

    half = get_kv_transfer_group().worker_half
    client = half._client
    return {
        "pid": os.getpid(),
        "place": [get_pp_group().rank_in_group, get_tp_group().rank_in_group],
        "ready": client.ready and has_slots(client),
        "namespace": half.handshake().namespace.hex(),
        "stats": dataclasses.asdict(half.stats),
        "pending": len(half._loader._pending),
        "layers": len(worker.model_runner.kv_caches),
    }


def has_slots(client: Any) -> bool:
    """Whether at least half of the slots are here that a client keeps ahead: a store without one is dropped."""
    pool = client._present().pool
    return all(2 * len(pool._idle[length]) > kept for length, kept in pool._kept.items())


def pages_of_rank(worker: Any, blocks: list[list[int]]) -> Layers:
    """The hashes of the chunks in so many pages, as (token, K and V) for each layer and head.

    Read from the model runner's own tensors, with plain indexing and the documented order
    of the CPU backend."""
    from vllm.distributed.parallel_state import get_tp_group
    from vllm.model_executor.models.utils import extract_layer_index
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    model = worker.model_runner.model_config
    total, size = model.get_total_num_kv_heads(), get_tp_group().world_size
    first = get_tp_group().rank_in_group * total // size
    found: Layers = {}
    context = worker.vllm_config.compilation_config.static_forward_context
    for name, layer in context.items():
        cache = layer.kv_cache
        heads, block, wide = cache.shape[1:]
        isa = _get_attn_isa(cache.dtype, block, wide // 2, "auto")
        assert isa.startswith("vec"), f"the order of {isa} is not written down here"
        for head in range(heads):
            hashes = []
            for of_chunk in blocks:
                digest = hashlib.sha256()
                for b in of_chunk:
                    flat = cache[b, head].flatten()
                    k = flat[: block * wide // 2].view(wide // 2, block).t()
                    v = flat[block * wide // 2 :].view(block, wide // 2)
                    digest.update(torch.cat([k, v], 1).contiguous().view(torch.uint8).numpy().tobytes())
                hashes.append(digest.hexdigest())
            found[extract_layer_index(name), first + head] = hashes
    return found


def kill_before(worker: Any, rank: int, call: str, pid: int | None) -> None:
    """On the tensor-parallel rank: kills a process, None for the rank's own, just before the next call of commit (of
    chunks that it has copied) or load."""
    from vllm.distributed.kv_transfer import get_kv_transfer_group
    from vllm.distributed.parallel_state import get_tp_group

    del worker
    if get_tp_group().rank_in_group != rank:
        return
    client = get_kv_transfer_group().worker_half._client
    method = getattr(client, call)

    def killing(*args: Any, **more: Any) -> Any:
        os.kill(pid or os.getpid(), signal.SIGKILL)
        setattr(client, call, method)
        return method(*args, **more)

    setattr(client, call, killing)


class Ranks(Server):
    """The operations that concern ranks; the others are Server's."""

    def ranks(self) -> list[dict[str, Any]]:
        """of_rank of each, by (pipeline, tensor) rank."""
        return sorted(self.llm.collective_rpc(of_rank), key=lambda r: r["place"])

    def ready(self) -> bool:
        """Whether all are connected, and have slots."""
        client = self.scheduler.connector.scheduler_half._client
        return client is not None and client.ready and all(r["ready"] for r in self.ranks())

    def kill_before(self, rank: int, call: str, pid: int | None = None) -> None:
        """See the function of this name."""
        self.llm.collective_rpc(kill_before, args=(rank, call, pid))

    def pending_loads(self) -> int:
        """Those of all ranks."""
        return sum(rank["pending"] for rank in self.ranks())

    def model_pages(self, prompt: list[int], chunks: int, chunk: int = 256, loaded: bool = False) -> list[list[Any]]:
        """[layer, head, the hash of each chunk] for all layers and heads of the model, out of the ranks' pages.

        Of ranks that hold the same heads, out of the lowest's. What was loaded must be the same on all of them; what
        they compute may differ in the last bits, as it does with four."""
        from vllm import SamplingParams
        from vllm.v1.request import Request

        core = self.engine.engine_core.engine_core
        request = Request("pages", prompt, SamplingParams(max_tokens=1), None, block_hasher=core.request_block_hasher)
        blocks, tokens, *_ = self.scheduler.kv_cache_manager.get_computed_blocks(request)
        assert tokens >= chunks * chunk, f"{tokens} tokens are cached"
        ids = blocks.get_block_ids()[0]
        each = chunk // core.vllm_config.cache_config.block_size
        by_chunk = [ids[i * each : (i + 1) * each] for i in range(chunks)]
        merged: Layers = {}
        for found in self.llm.collective_rpc(pages_of_rank, args=(by_chunk,)):
            for key, hashes in found.items():
                known = merged.setdefault(key, hashes)
                assert known == hashes or not loaded, f"ranks differ in layer and head {key}"
        return [[*key, hashes] for key, hashes in sorted(merged.items())]


if __name__ == "__main__":
    main(Ranks)
