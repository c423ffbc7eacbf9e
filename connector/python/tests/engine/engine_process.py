"""A real vLLM in a process of its own: requests are JSON lines on standard input, answers on standard output."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import hashlib
import itertools
import json
import os
import signal
import sys
import traceback
from typing import Any

import torch


class Server:
    """The operations, by name. In an engine of several processes only those of the front end work."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.engine = llm.llm_engine
        self.count = 0

    @property
    def scheduler(self) -> Any:
        return self.engine.engine_core.engine_core.scheduler

    @property
    def worker(self) -> Any:
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        return get_kv_transfer_group()

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self.llm.get_tokenizer()(text)["input_ids"]
        return ids

    def generate(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All of them at once, or from the step on that a request names with after; one with abort_after is aborted
        after so many steps. Of one with margins the answer has each token's lead over the second best."""
        answers: dict[str, dict[str, Any]] = {}
        arrivals: dict[int, list[str]] = {}
        aborts: dict[int, list[str]] = {}
        asked = {}
        for request in requests:
            self.count += 1
            name = f"request-{self.count}"
            asked[name] = request
            arrivals.setdefault(request.get("after", 0), []).append(name)
            if "abort_after" in request:
                aborts.setdefault(request["abort_after"], []).append(name)
            answers[name] = {"token_ids": [], "cached": 0}
        steps = 0
        while arrivals or self.engine.has_unfinished_requests():
            for name in arrivals.pop(steps, []):
                self._add(name, asked[name])
            self.engine.abort_request(aborts.pop(steps, []))
            steps += 1
            for output in self.engine.step() if self.engine.has_unfinished_requests() else ():
                answer = answers[output.request_id]
                answer["token_ids"] = list(output.outputs[0].token_ids)
                answer["cached"] = output.num_cached_tokens
                if output.finished and asked[output.request_id].get("margins"):
                    answer["margins"] = [_margin(one) for one in output.outputs[0].logprobs]
        return list(answers.values())

    def _add(self, name: str, request: dict[str, Any]) -> None:
        from vllm import SamplingParams

        extra = {"kv_transfer_params": {"larder": request["larder"]}} if request.get("larder") else None
        sampling = SamplingParams(
            temperature=0, max_tokens=request["tokens"], ignore_eos=True, extra_args=extra,
            logprobs=2 if request.get("margins") else None,
        )  # fmt: skip
        prompt = {"prompt_token_ids": request["prompt"]}
        if request.get("salt"):
            prompt["cache_salt"] = request["salt"]
        self.engine.add_request(name, prompt, sampling)

    def step(self, times: int) -> None:
        """Steps that finish what is left of aborted requests."""
        core = self.engine.engine_core.engine_core
        for _ in range(times):
            core.step()

    def reset(self, connector: bool = False) -> bool:
        """Empties the engine's own prefix cache, and says so to the connector."""
        return bool(self.llm.reset_prefix_cache(reset_connector=connector))

    def sleep(self) -> None:
        """To sleep, and awake again; a CPU keeps its memory meanwhile."""
        self.llm.sleep(level=1)
        self.llm.wake_up()

    def stats(self) -> dict[str, Any]:
        """The counters of both halves."""
        scheduler = dataclasses.asdict(self.scheduler.connector.stats)
        return {"scheduler": scheduler, "worker": dataclasses.asdict(self.worker.stats)}

    def metrics(self) -> dict[str, float]:
        """Larder's series in the engine's Prometheus registry that are not zero, without the engine's labels."""
        from prometheus_client import REGISTRY

        found = {}
        for family in REGISTRY.collect():
            for sample in family.samples if family.name.startswith("vllm:larder_") else ():
                labels = [v for k, v in sample.labels.items() if k not in ("model_name", "engine", "le")]
                if sample.value and "le" not in sample.labels:
                    found["/".join([sample.name.removeprefix("vllm:larder_"), *labels])] = sample.value
        return found

    def ready(self) -> bool:
        """Whether both halves have a connection."""
        halves = (self.scheduler.connector.scheduler_half, self.worker.worker_half)
        return all(h._client is not None and h._client.ready for h in halves)

    def namespace(self) -> str:
        """The canonical encoding of the engine's namespace."""
        return str(self.worker.worker_half.handshake().namespace.hex())

    def load_in_step(self, ms: float) -> None:
        """Lets steps load, for so long, as if it were known that loads take no time."""
        inside = self.scheduler.connector.scheduler_half._in_step
        inside.wait_s = ms / 1000
        inside._not_before = 0.0
        inside._costs.expected = lambda *_: 0.0

    def kill_at(self, moment: str, nth: int, pid: int, by: int = signal.SIGKILL) -> None:
        """Kills a process, or sends it another signal, just before the worker's nth of: write (of a chunk into its
        slots), commit (the call), load (the call), copy (of a part out of its slot)."""
        half = self.worker.worker_half
        owner, name = {
            "write": (half._saver, "_write"),
            "commit": (half._client, "commit"),
            "load": (half._client, "load"),
            "copy": (half._loader, "_copy"),
        }[moment]
        method, count = getattr(owner, name), itertools.count(1)

        def counted(*args: Any, **more: Any) -> Any:
            if next(count) == nth:
                os.kill(pid, by)
                setattr(owner, name, method)
            return method(*args, **more)

        setattr(owner, name, counted)

    def trim(self) -> None:
        """Gives back to the system what the C library keeps of freed memory, which grows with Larder and
        without (bench/RESULTS.md)."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)

    def leftovers(self) -> dict[str, int]:
        """What must be zero once all is done."""
        half = self.scheduler.connector.scheduler_half
        pool = self.scheduler.kv_cache_manager.block_pool
        return {
            "blocks": pool.num_gpu_blocks - 1 - pool.get_num_free_blocks(),
            "requests": len(self.scheduler.requests),
            "states": len(half._states),
            "matches": len(half._holds),
            "loads": len(half._inflight) + self.pending_loads(),
        }

    def pending_loads(self) -> int:
        """Loads that a worker half has not said to have ended."""
        return len(self.worker.worker_half._loader._pending)

    def pages(self, prompt: list[int], chunks: int) -> list[str]:
        """The hash of each chunk's KV in the engine's own pages, as (layer, head, token, K and V).

        Read with plain indexing and the documented order of the CPU backend, without an adapter."""
        from vllm import SamplingParams
        from vllm.v1.attention.backends.cpu_attn import _get_attn_isa
        from vllm.v1.request import Request

        core = self.engine.engine_core.engine_core
        request = Request("pages", prompt, SamplingParams(max_tokens=1), None, block_hasher=core.request_block_hasher)
        blocks, tokens, *_ = self.scheduler.kv_cache_manager.get_computed_blocks(request)
        assert tokens >= chunks * 256, f"{tokens} tokens are cached"
        ids = blocks.get_block_ids()[0]
        caches = self.worker.worker_half._loader._adapters[0, 0]._geometry.tensors
        heads, block, wide = caches[0].shape[1:]
        isa = _get_attn_isa(caches[0].dtype, block, wide // 2, "auto")
        assert isa.startswith("vec"), f"the order of {isa} is not written down here"
        hashes = []
        for chunk in range(chunks):
            of_chunk = ids[chunk * 256 // block : (chunk + 1) * 256 // block]
            digest = hashlib.sha256()
            for cache in caches:
                for head in range(heads):
                    for b in of_chunk:
                        flat = cache[b, head].flatten()
                        k = flat[: block * wide // 2].view(wide // 2, block).t()
                        v = flat[block * wide // 2 :].view(block, wide // 2)
                        digest.update(torch.cat([k, v], 1).contiguous().view(torch.uint8).numpy().tobytes())
            hashes.append(digest.hexdigest())
        return hashes

    def sketch(self, prompts: list[list[int]]) -> list[list[list[float]]]:
        """Of each prompt's blocks that are in the engine's own cache, one number for each layer: a fixed random
        projection of the page. Wrong KV changes it, rounding hardly."""
        from vllm import SamplingParams
        from vllm.v1.request import Request

        hasher = self.engine.engine_core.engine_core.request_block_hasher
        caches = self.engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner.kv_caches
        weights = torch.randn(caches[0][0].numel(), generator=torch.Generator().manual_seed(1))
        sketches = []
        for prompt in prompts:
            request = Request("sketch", prompt, SamplingParams(max_tokens=1), None, block_hasher=hasher)
            ids = self.scheduler.kv_cache_manager.get_computed_blocks(request)[0].get_block_ids()[0]
            sketches.append(torch.stack([c[ids].flatten(1) @ weights for c in caches], 1).tolist() if ids else [])
        return sketches

    def block_hashes(self, prompt: list[int]) -> list[list[str]]:
        """For each KV cache group, the hash of every page that the engine's own cache has for a prompt, all layers in
        one; "" where it has none, as behind a window."""
        from vllm import SamplingParams
        from vllm.v1.request import Request

        core = self.engine.engine_core.engine_core
        request = Request("pages", prompt, SamplingParams(max_tokens=1), None, block_hasher=core.request_block_hasher)
        blocks, *_ = self.scheduler.kv_cache_manager.get_computed_blocks(request)
        found = []
        for group, ids in enumerate(blocks.get_block_ids()):
            adapter = self.worker.worker_half._loader._adapters[group, 0]
            found.append([""] * len(ids))
            for i, block in enumerate(ids):
                if block:
                    layers = [c[block].contiguous().view(torch.uint8) for c in adapter._geometry.tensors]
                    found[-1][i] = hashlib.sha256(torch.stack(layers).numpy().tobytes()).hexdigest()
        return found

    def raw_pages(self, prompt: list[int], tokens: int) -> str:
        """The hash of the pages of the prompt's first tokens, as they are."""
        from vllm import SamplingParams
        from vllm.v1.request import Request

        core = self.engine.engine_core.engine_core
        request = Request("pages", prompt, SamplingParams(max_tokens=1), None, block_hasher=core.request_block_hasher)
        blocks, cached, *_ = self.scheduler.kv_cache_manager.get_computed_blocks(request)
        caches = self.worker.worker_half._loader._adapters[0, 0]._geometry.tensors
        assert cached >= tokens
        ids = blocks.get_block_ids()[0][: tokens // caches[0].shape[2]]
        digest = hashlib.sha256()
        for cache in caches:
            digest.update(cache[ids].contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _margin(tops: Any) -> float:
    first, second = sorted((one.logprob for one in tops.values()), reverse=True)[:2]
    return float(first - second)


def main(kind: type[Server] = Server) -> None:
    """Serves until end of input."""
    # Whatever the engine prints goes to the log.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from vllm import LLM

    def say(answer: dict[str, Any]) -> None:
        channel.write(json.dumps(answer) + "\n")
        channel.flush()

    server = kind(LLM(**json.loads(sys.argv[1])))
    say({"result": True})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say({"result": getattr(server, request.pop("op"))(**request)})
        except Exception:  # noqa: BLE001 - whatever it was, the test is told
            say({"error": traceback.format_exc()})


if __name__ == "__main__":
    main()
