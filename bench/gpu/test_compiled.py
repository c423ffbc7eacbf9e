"""Engines with code by Inductor, as vLLM starts by itself, on a GPU.

    make build && python3 -m pytest bench/gpu/test_compiled.py

Needs a GPU, a C compiler and vLLM, and fails without them: it is no part of CI.

Inductor chooses kernels by their time, so what two processes compute need not be
equal to the bit. What is loaded is, always; and what follows it where the two
processes compute alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import models
from arms import CAPTURED, COMPILED
from checks import LENGTH, WHOLE, answers_as, load, pages, store
from rig import Engine, daemon, with_larder


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    work = tmp_path_factory.mktemp("compiled")
    model = models.small(work / "llama")
    larderd = daemon(work / "larder", "4GiB")
    larder = {"kv_transfer_config": with_larder(larderd.socket, credit_mib=512)}
    graphs = {"cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes": CAPTURED}
    made: dict[str, Engine] = {}
    kinds: dict[str, dict[str, Any]] = {"writer": larder, "plain": {}, "reader": larder}
    for name, options in kinds.items():
        made[name] = Engine(
            name, model, work / f"{name}.log", enforce_eager=False, compilation_config=COMPILED["inductor"] | graphs,
            max_model_len=4096, max_num_batched_tokens=4096, max_num_seqs=8, kv_cache_memory_bytes=1 << 30, **options,
        )  # fmt: skip
        if name == "writer":
            # The others find what it compiled.
            made[name].ready()
    yield made
    for engine in made.values():
        engine.kill()
    larderd.stop()


def test_pages_come_back_as_they_left(engines: dict[str, Engine]) -> None:
    writer, reader, plain = (engines[name].ready() for name in ("writer", "reader", "plain"))
    own = {}
    for name, engine in engines.items():
        own[name] = engine.call("ask", prompt=[61, WHOLE - 1], tokens=8, logprobs=1, cut=255)["scores"]
    alike = {name for name, scores in own.items() if scores == own["plain"]}
    print(f"compute as the plain engine does: {sorted(alike)}; {own}")

    prompt = [62, LENGTH]
    store(writer, prompt)
    written = pages(writer, prompt)
    for name, engine in (("reader", reader), ("writer", writer)):
        got = load(engine, prompt)
        assert pages(engine, prompt) == written
        print(name, got["token_ids"], got["scores"])
        if {name, "writer"} <= alike:
            answers_as(plain, prompt, got)
