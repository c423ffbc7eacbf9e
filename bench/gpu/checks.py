"""What tests of the connector on GPUs do with an engine."""

from __future__ import annotations

from typing import Any

from rig import Engine, await_that

CHUNK = 256
LENGTH = 3000
WHOLE = LENGTH // CHUNK * CHUNK
"""Tokens of a prompt's whole chunks."""

Digests = dict[tuple[int, int], list[str]]
"""Of each layer and KV head, by block."""


def counted(engine: Engine, name: str) -> int:
    """A counter of the connector's worker half."""
    return int(engine.call("counts")["workers"][0][name])


def store(engine: Engine, prompt: list[int]) -> dict[str, Any]:
    """Computes a prompt's whole chunks, and waits until they are stored. Not the tokens after them, so that
    answers_as computes the same shapes."""
    await_that("the engine is connected", lambda: bool(engine.call("ready")))
    before = counted(engine, "chunks_stored")
    answer: dict[str, Any] = engine.call("ask", prompt=prompt, tokens=8, logprobs=1, cut=WHOLE)
    assert answer["cached"] == 0

    def stored() -> bool:
        engine.call("settle")
        return counted(engine, "chunks_stored") >= before + prompt[1] // CHUNK

    await_that("the prompt is stored", stored)
    return answer


def load(engine: Engine, prompt: list[int]) -> dict[str, Any]:
    """Asks for a prompt where nothing right is left in any page; all whole chunks must come from Larder."""
    engine.call("reset")
    engine.call("overwrite", value=3.0)
    before = counted(engine, "chunks_loaded")
    answer: dict[str, Any] = engine.call("ask", prompt=prompt, tokens=8, logprobs=1)
    assert answer["cached"] == WHOLE
    assert counted(engine, "chunks_loaded") - before == WHOLE // CHUNK
    return answer


def pages(engine: Engine, prompt: list[int]) -> Digests:
    """Digests of the whole chunks' blocks."""
    # As a request finds them that goes on after the last whole chunk.
    (rank,) = engine.call("pages", prompt=[prompt[0], WHOLE + 1], tokens=WHOLE)
    return {(layer, head): digests for layer, head, digests in rank}


def answers_as(plain: Engine, prompt: list[int], got: dict[str, Any]) -> None:
    """Fails unless an engine without connector gives the same, to the bit, with as many tokens from its own cache:
    then the same shapes are computed."""
    plain.call("reset")
    plain.call("ask", prompt=prompt, cut=WHOLE)
    want = plain.call("ask", prompt=prompt, tokens=8, logprobs=1)
    assert want["cached"] == WHOLE
    assert (got["token_ids"], got["scores"]) == (want["token_ids"], want["scores"])
