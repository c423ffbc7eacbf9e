"""The engine's side of ``harness.engine``: runs in the engine's environment.

Reads requests as JSON lines from standard input and answers on what was standard
output; everything the engine prints goes to standard error. Ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TextIO


def generate(llm: Any, request: dict[str, Any], number: int) -> dict[str, Any]:
    """Greedy decoding of exactly ``tokens`` tokens, timed from submission."""
    from vllm import SamplingParams

    prompt = request["prompt"]
    engine = llm.llm_engine
    start = time.perf_counter()
    engine.add_request(
        f"request-{number}",
        {"prompt_token_ids": prompt},
        SamplingParams(temperature=0, max_tokens=request["tokens"], ignore_eos=True),
    )
    first: float | None = None
    while True:
        for output in engine.step():
            completion = output.outputs[0]
            if first is None and completion.token_ids:
                first = time.perf_counter() - start
            if output.finished:
                return {
                    "prompt_tokens": len(prompt),
                    "cached_tokens": output.num_cached_tokens,
                    "ttft_s": first,
                    "total_s": time.perf_counter() - start,
                    "token_ids": list(completion.token_ids),
                    "text": completion.text,
                }


def main(config: dict[str, Any], answers: TextIO) -> None:
    """Serves until end of input."""
    from vllm import LLM

    llm = LLM(**config)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    say({"ready": True})
    for number, line in enumerate(sys.stdin):
        request = json.loads(line)
        if request["op"] == "tokenize":
            say({"token_ids": llm.get_tokenizer()(request["text"])["input_ids"]})
        else:
            say(generate(llm, request, number))


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main(json.loads(sys.argv[1]), channel)
