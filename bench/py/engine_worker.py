"""One real vLLM engine as an arm of a benchmark, driven over stdin and stdout.

Runs in the engine's environment. Prompts are
seeds: the same seed and length are the same tokens in every process.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from lines import Answer, serve

ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": str(os.cpu_count()),
    # Several engines share the cores: those of one that idles must not spin.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TORCH_COMPILE_DISABLE": "1",  # 12-33 s of each start, for the sampler only
    "HF_HUB_OFFLINE": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "PYTHONHASHSEED": "0",  # LMCache needs it
    "LMCACHE_TRACK_USAGE": "false",
    "LMCACHE_MP_TRANSFER_MODE": "engine_driven",
}

REQUESTS = ("loads", "loads_failed", "skips", "match_timeouts", "match_failures", "waits_for_load", "stores_planned")


class Worker:
    """The engine, once it is started."""

    def __init__(self) -> None:
        self._llm: Any = None
        self._vocabulary = 0
        self._asked = 0

    def start(self, c: Answer) -> Answer:
        """Starts the engine; config: keyword arguments of vllm.LLM."""
        from vllm import LLM

        self._llm = LLM(**c["config"])
        self._vocabulary = self._llm.llm_engine.model_config.get_vocab_size()
        return {}

    def ask(self, c: Answer) -> Answer:
        """Runs prompts at once, greedily, each to exactly c["new"] tokens.

        prompts: [{"seed", "tokens", "then"}]: the first "tokens" tokens of a
        seed, followed by one of another seed where "then" is set. Answers with
        each prompt's seconds to its first token, tokens reused and new tokens,
        and the seconds until all were done.
        """
        from vllm import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=c["new"], ignore_eos=True)
        if c.get("larder"):
            params.extra_args = {"kv_transfer_params": {"larder": c["larder"]}}
        prompts = [self._prompt(p) for p in c["prompts"]]
        engine = self._llm.llm_engine
        ids = {}
        start = time.perf_counter()
        for i, prompt in enumerate(prompts):
            self._asked += 1
            ids[f"bench-{self._asked}"] = i
            engine.add_request(f"bench-{self._asked}", {"prompt_token_ids": prompt}, params)
        first = [0.0] * len(prompts)
        reused = [0] * len(prompts)
        new: list[list[int]] = [[]] * len(prompts)
        left = len(prompts)
        while left:
            for output in engine.step():
                i = ids[output.request_id]
                if not first[i] and output.outputs[0].token_ids:
                    first[i] = time.perf_counter() - start
                if output.finished:
                    reused[i] = output.num_cached_tokens or 0
                    new[i] = list(output.outputs[0].token_ids)
                    left -= 1
        seconds = time.perf_counter() - start
        return {"first": first, "reused": reused, "new": new, "seconds": seconds}

    def forget(self, _: Answer) -> Answer:
        """Empties the engine's own prefix cache, and only that."""
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("the engine's prefix cache could not be reset")
        return {}

    def stats(self, _: Answer) -> Answer:
        """Seconds inside the connector's hooks, and what it moved, so far."""
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        scheduler = self._llm.llm_engine.engine_core.engine_core.scheduler.connector.stats
        worker = get_kv_transfer_group().stats
        hooks = dict(scheduler.hook_s)
        for name, seconds in worker.hook_s.items():
            hooks[name] = hooks.get(name, 0.0) + seconds
        return {
            "hooks": hooks,
            "seconds": sum(hooks.values()),
            "chunks_loaded": worker.chunks_loaded,
            "chunks_stored": worker.chunks_stored,
            "dropped": worker.dropped_no_credit + worker.dropped_rejected + worker.dropped_failed,
            "requests": {name: getattr(scheduler, name) for name in REQUESTS},
        }

    def _prompt(self, p: Answer) -> list[int]:
        tokens: list[int] = self._draw(p["seed"], p["tokens"])
        if p.get("then"):
            tokens += self._draw(p["then"], 1)
        return tokens

    def _draw(self, seed: int, n: int) -> list[int]:
        rng = np.random.default_rng(seed)
        drawn: list[int] = rng.integers(10, self._vocabulary, 8192)[:n].tolist()
        return drawn


if __name__ == "__main__":
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(Worker(), channel)
