"""A vLLM engine in a process of its own: requests are JSON lines on standard
input, answers on standard output. Front end, core and worker share the process
(with several ranks the workers have their own), so a step is a call.

A prompt is [seed, length]: tokens drawn from the seed. Times are of the host's
clock, seconds, from the arrival of a request to its answer.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

Prompt = list[int]


def tokens_of(prompt: Prompt, vocabulary: int) -> list[int]:
    """A prompt's tokens; no two seeds have a block in common."""
    seed, length = prompt
    drawn = random.Random(seed)  # noqa: S311 - tokens
    return [drawn.randrange(100, vocabulary - 100) for _ in range(length)]


class Server:
    """The operations, by name."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.engine = llm.llm_engine
        self.core = self.engine.engine_core.engine_core
        self.vocabulary = llm.model_config.get_vocab_size()
        self.count = 0
        self.by_layer: Any = None

    def ask(
        self,
        prompt: Prompt,
        tokens: int = 1,
        logprobs: int | None = None,
        cut: int | None = None,
        other_head: int = 0,
        drop_after: int = 0,
    ) -> dict[str, Any]:
        """One request alone: its time, how many tokens were reused, what was generated.

        cut: only so many of the prompt's tokens. other_head: so many of the first
        tokens are others. drop_after: after so many steps the engine's cache is emptied,
        the connector told, and the request begins anew."""
        ids = (
            tokens_of([prompt[0] + 1, other_head], self.vocabulary) + tokens_of(prompt, self.vocabulary)[other_head:cut]
        )
        start = time.perf_counter()
        name = self._add(ids, tokens, logprobs)
        first, steps = 0.0, 0
        final: Any = None
        while self.engine.has_unfinished_requests():
            steps += 1
            if steps == drop_after:
                self._drop_amid()
            for output in self.engine.step():
                if output.request_id == name and output.outputs[0].token_ids:
                    first = first or time.perf_counter() - start
                    final = output
        scores = [max(x.logprob for x in step.values()) for step in final.outputs[0].logprobs or []]
        return {
            "ttft_s": first,
            "total_s": time.perf_counter() - start,
            "cached": final.num_cached_tokens or 0,
            "steps": steps,
            "token_ids": list(final.outputs[0].token_ids),
            "scores": scores,
        }

    def _drop_amid(self) -> None:
        """Empties the cache under running requests once no step is under way, as vLLM's own pause does: with
        a connector and overlapping steps it fails else, since blocks are freed late."""
        from vllm.v1.core.sched.interface import PauseState

        self.core.scheduler.set_pause_state(PauseState.PAUSED_ALL)
        while self.core.batch_queue:
            self.engine.step()
        emptied = self.llm.reset_prefix_cache(reset_running_requests=True, reset_connector=True)
        self.core.scheduler.set_pause_state(PauseState.UNPAUSED)
        if not emptied:
            raise RuntimeError("the cache was not emptied")

    def decode(self, seed: int, requests: int, prompt: int, tokens: int) -> dict[str, Any]:
        """Requests at once, of lengths from prompt on, 16 apart, so that their chunks end
        at different steps. decode_s: the steps after all had their first token."""
        ids = [tokens_of([seed + i, prompt + 16 * i], self.vocabulary) for i in range(requests)]
        start = time.perf_counter()
        for one in ids:
            self._add(one, tokens)
        had: dict[str, int] = {}
        began, counted_from = 0.0, 0
        while self.engine.has_unfinished_requests():
            for output in self.engine.step():
                had[output.request_id] = len(output.outputs[0].token_ids)
            if not began and len(had) == requests:
                began, counted_from = time.perf_counter(), sum(had.values())
        end = time.perf_counter()
        made = sum(had.values())
        return {
            "decode_tok_s": (made - counted_from) / (end - began),
            "all_tok_s": made / (end - start),
            "decode_s": end - began,
            "total_s": end - start,
        }

    def settle(self, steps: int = 8) -> None:
        """A request of less than a block, and empty steps: in those connectors finish
        what they do after a request."""
        self.ask([self.count + 1_000_000, 8], 4)
        for _ in range(steps):
            self.core.step()
            time.sleep(0.005)

    def reset(self, timeout_s: float = 10.0) -> None:
        """Empties the engine's own prefix cache, once no page is in use any more.
        Connectors are not told."""
        deadline = time.monotonic() + timeout_s
        while not self.llm.reset_prefix_cache(reset_connector=False):
            if time.monotonic() > deadline:
                raise RuntimeError(f"pages still in use after {timeout_s} s")
            self.settle(1)

    def counts(self) -> dict[str, Any]:
        """Larder's counters: of the scheduler's half, and of each rank's."""
        stats: Any = getattr(self.core.scheduler.connector, "stats", None)
        scheduler = {} if stats is None else dataclasses.asdict(stats)
        return {"scheduler": scheduler, "workers": self.llm.collective_rpc("larder_counts")}

    def ready(self) -> bool:
        """Whether all that is computed from now on is stored."""
        half: Any = self.core.scheduler.connector.scheduler_half
        client = half._client
        return client is not None and client.ready and all(self.llm.collective_rpc("larder_ready"))

    def tune(
        self,
        load_ahead_ms: float = 3.0,
        load_layers: str = "off",
        store_layers: str = "off",
        load_in_step_ms: float = 80.0,
    ) -> None:
        """Changes settings of Larder's halves, in this process; what goes by
        layer only where the engine was started so."""
        half = self._worker_half()
        if self.by_layer is None:
            self.by_layer = half.layers, half.saves
        loads, stores = load_layers != "off", store_layers != "off"
        half._loader._ahead_s = load_ahead_ms / 1000
        self.core.scheduler.connector.scheduler_half._in_step.wait_s = load_in_step_ms / 1000
        half.layers = self.by_layer[0] if loads or stores else None
        half.saves = self.by_layer[1] if stores else None
        half._path.by_layer = loads and half.layers is not None

    def cold(self, prompt: Prompt, chunks: int, timeout_s: float = 10.0) -> dict[str, float]:
        """One request alone, for one token: the time to it, and until so many more
        chunks are published, without a step in between."""
        stats = self._worker_half().stats
        ids = tokens_of(prompt, self.vocabulary)
        wanted = stats.chunks_stored + chunks
        start = time.perf_counter()
        self._add(ids, 1)
        while self.engine.has_unfinished_requests():
            self.engine.step()
        first = time.perf_counter() - start
        while stats.chunks_stored < wanted:
            if time.perf_counter() > start + timeout_s:
                raise RuntimeError(f"{stats.chunks_stored - wanted + chunks} of {chunks} chunks stored")
            time.sleep(0.0002)
        return {"ttft_s": first, "stored_s": time.perf_counter() - start}

    def _worker_half(self) -> Any:
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        connector: Any = get_kv_transfer_group()
        return connector.worker_half

    def pages(self, prompt: Prompt, tokens: int) -> list[list[Any]]:
        """For each rank, the digests (engine_pages.Pages) of the blocks that the engine's own
        cache has for a prompt's first tokens, of all KV cache groups."""
        from vllm import SamplingParams
        from vllm.v1.request import Request

        ids = tokens_of(prompt, self.vocabulary)
        request = Request("pages", ids, SamplingParams(max_tokens=1), None, block_hasher=self.core.request_block_hasher)
        manager = self.core.scheduler.kv_cache_manager
        found, cached, *_ = manager.get_computed_blocks(request)
        if cached < tokens:
            raise RuntimeError(f"the engine has {cached} of {tokens} tokens")
        groups = manager.kv_cache_config.kv_cache_groups
        blocks = [
            some[: tokens // group.kv_cache_spec.block_size]
            for some, group in zip(found.get_block_ids(), groups, strict=True)
        ]
        digests: list[list[Any]] = self.llm.collective_rpc("page_digests", args=(blocks,))
        return digests

    def overwrite(self, value: float) -> None:
        """Fills every page of every rank."""
        self.llm.collective_rpc("overwrite_pages", args=(value,))

    def form(self) -> list[str]:
        """What the pages of each rank look like."""
        forms: list[str] = self.llm.collective_rpc("page_form")
        return forms

    def sleep(self, level: int) -> None:
        """The engine's sleep mode."""
        self.llm.sleep(level=level)

    def wake(self, tags: list[str] | None = None) -> None:
        """The opposite. tags: only weights, or kv_cache."""
        self.llm.wake_up(tags)

    def reload(self, path: str | None = None) -> None:
        """Loads weights anew, into what is there. path: of other ones of the same shape."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": path})

    def drop(self) -> bool:
        """Empties the engine's own prefix cache and says so to its connector: whether it is empty."""
        return bool(self.llm.reset_prefix_cache(reset_connector=True))

    def versions(self) -> dict[str, str]:
        """Of what runs here."""
        from importlib import metadata

        found = {}
        for name in ("vllm", "torch", "triton", "transformers"):
            with suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(name)
        return found

    def _add(self, ids: list[int], tokens: int, logprobs: int | None = None) -> str:
        from vllm import SamplingParams

        self.count += 1
        name = f"request-{self.count}"
        sampling = SamplingParams(
            temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False, logprobs=logprobs
        )
        self.engine.add_request(name, {"prompt_token_ids": ids}, sampling)
        return name


def main() -> None:
    """Serves until end of input."""
    # Whatever the engine prints goes to the log.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config = json.loads(sys.argv[1])
    start = time.perf_counter()
    from vllm import LLM

    if config.get("load_format") == "dummy":
        from drawn_weights import draw_weights

        draw_weights()

    def say(answer: dict[str, Any]) -> None:
        channel.write(json.dumps(answer) + "\n")
        channel.flush()

    try:
        server = Server(LLM(**config))
    except Exception:
        say({"error": traceback.format_exc()})
        raise
    say({"result": round(time.perf_counter() - start, 1)})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say({"result": getattr(server, request.pop("op"))(**request)})
        except Exception:
            say({"error": traceback.format_exc()})


if __name__ == "__main__":
    main()
