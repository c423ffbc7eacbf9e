"""KV crosses versions of the engine: each one stores a prompt, and every other one loads it, with the same answer.

LARDER_ENGINES names the interpreters of the engines. Run by make test-engine-matrix; a session of make test-engine has
one version only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from real_engine import RealEngine

from harness.daemon import Daemon

CHUNK, PROMPT, TOKENS, PARTS = 256, 1500, 16, 2


def test_every_version_loads_what_the_others_stored(
    binaries: Path, short_folder: Path, test_model: Path, words: Callable[[Path], list[int]]
) -> None:
    engines = os.environ["LARDER_ENGINES"].split()
    assert len(engines) > 1, "one version alone proves nothing"
    ids = words(test_model)
    prompts = [ids[i * PROMPT : (i + 1) * PROMPT] for i in range(len(engines))]
    daemon = Daemon(binaries, short_folder, host_bytes="512MiB")
    daemon.start()
    answers: dict[int, list[int]] = {}
    # The first one again at the end, for what later ones stored.
    for turn, interpreter in enumerate([*engines, engines[0]]):
        engine = RealEngine(test_model, short_folder / f"{turn}.log", socket=daemon.socket, interpreter=interpreter)
        try:
            engine.await_ready()
            for i, prompt in enumerate(prompts):
                before = daemon.counters()
                answer = engine.generate(prompt, TOKENS)
                if i in answers:
                    assert answer == {"token_ids": answers[i], "cached": PROMPT // CHUNK * CHUNK}, interpreter
                    loaded = daemon.counters()["loaded_parts"] - before["loaded_parts"]
                    assert loaded == PARTS * (PROMPT // CHUNK), interpreter
                elif i == turn:
                    assert answer["cached"] == 0
                    answers[i] = answer["token_ids"]
                    daemon.await_published(before["published_chunks"] + PROMPT // CHUNK, 60)
                    break
        finally:
            engine.kill()
    assert len(set(map(tuple, answers.values()))) == len(engines), "answers that are all the same prove little"
    daemon.stop()
