"""Resets of the engine's cache, and weights that change under it, on a GPU.

    make build && python3 -m pytest bench/gpu/test_other_weights.py

Needs a GPU and vLLM, and fails without them: it is no part of CI.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import models
from checks import CHUNK, LENGTH, WHOLE, answers_as, counted, load, pages, store
from rig import Engine, await_that, daemon, with_larder

MODELS = {"of before": 1, "of after": 2}
"""Seeds of the weights."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("weights")
    return {name: models.small(work / name.replace(" ", "-"), seed) for name, seed in MODELS.items()}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[dict[str, Engine]]:
    """ours is reset; other has the weights of before and never is; of both weights one without Larder."""
    work = tmp_path_factory.mktemp("resets")
    larderd = daemon(work / "larder", "4GiB")
    larder = {"kv_transfer_config": with_larder(larderd.socket, credit_mib=512)}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "ours": ("of before", {**larder, "enable_sleep_mode": True}),
        "other": ("of before", larder),
        "plain before": ("of before", {}),
        "plain after": ("of after", {}),
    }
    made = {}
    for name, (weights, options) in kinds.items():
        made[name] = Engine(
            name, checkpoints[weights], work / f"{name}.log",
            max_model_len=4096, max_num_batched_tokens=4096, max_num_seqs=8, kv_cache_memory_bytes=1 << 30, **options,
        )  # fmt: skip
    yield made
    for engine in made.values():
        engine.kill()
    larderd.stop()


def test_what_was_stored_before_a_reset_is_not_loaded_after(engines: dict[str, Engine]) -> None:
    ours, other, plain = engines["ours"].ready(), engines["other"].ready(), engines["plain before"].ready()
    prompt = [21, LENGTH]
    store(ours, prompt)
    answers_as(plain, prompt, load(ours, prompt))
    loaded = counted(ours, "chunks_loaded")
    assert ours.call("drop")
    # Nothing is found, and what is computed is stored anew.
    store(ours, prompt)
    assert counted(ours, "chunks_loaded") == loaded
    written = pages(ours, prompt)
    answers_as(plain, prompt, load(ours, prompt))
    assert pages(ours, prompt) == written
    # Who was not reset has what was stored before.
    answers_as(plain, prompt, load(other, prompt))


def test_a_reset_amid_a_request(engines: dict[str, Engine]) -> None:
    ours = engines["ours"].ready()
    prompt = [31, LENGTH]
    before = counted(ours, "chunks_stored")
    ours.call("ask", prompt=prompt, tokens=40, drop_after=8)

    def stored() -> bool:
        ours.call("settle")
        # Once before the reset, and once after it.
        return counted(ours, "chunks_stored") >= before + 2 * (LENGTH // CHUNK)

    await_that("the prompt is stored again", stored)
    written = pages(ours, prompt)
    load(ours, prompt)
    assert pages(ours, prompt) == written


def test_other_weights_after_a_sleep(engines: dict[str, Engine], checkpoints: dict[str, Path]) -> None:
    ours, other, after = engines["ours"].ready(), engines["other"].ready(), engines["plain after"].ready()
    prompt = [41, LENGTH]
    store(ours, prompt)
    assert ours.call("sleep", level=2) is None
    ours.call("wake", tags=["weights"])
    ours.call("reload", path=str(checkpoints["of after"]))
    ours.call("wake", tags=["kv_cache"])
    ours.call("overwrite", value=3.0)
    # KV of the weights of before would be found in the daemon, and be wrong.
    first = store(ours, prompt)
    after.call("reset")
    want = after.call("ask", prompt=prompt, tokens=8, logprobs=1, cut=WHOLE)
    assert (first["token_ids"], first["scores"]) == (want["token_ids"], want["scores"])
    written = pages(ours, prompt)
    assert written == pages(after, prompt)
    answers_as(after, prompt, load(ours, prompt))
    assert pages(ours, prompt) == written
    # And nobody else finds it.
    other.call("reset")
    assert other.call("ask", prompt=prompt)["cached"] == 0
