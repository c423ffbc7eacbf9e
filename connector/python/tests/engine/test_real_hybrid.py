"""A model of full attention and sliding windows, shaped like Gemma 3, in a real engine with a real daemon.

Made here, with weights of its own. It computes in float32, where answers do not
depend on how many tokens were reused.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_engine import RealEngine
from safetensors.numpy import save_file

from harness.daemon import Daemon

CHUNK = 256
BLOCK = 32
WINDOW = 256
TOKENS = 24
HIDDEN, HEADS, DIM, WIDE, VOCABULARY = 128, 2, 64, 256, 1000
KINDS = ["sliding_attention", "sliding_attention", "full_attention"] * 2
CONFIG = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_hidden_layers": len(KINDS),
    "num_attention_heads": 2 * HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": DIM,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "query_pre_attn_scalar": DIM,
    "sliding_window": WINDOW,
    "layer_types": KINDS,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
# Of the engine's groups: two layers each, one group of full attention and two of windows.
GROUPS = 3
OPTIONS: dict[str, Any] = {
    "skip_tokenizer_init": True, "block_size": BLOCK, "max_num_batched_tokens": 512, "max_model_len": 2048,
}  # fmt: skip


def weights() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Random ones, so large that tokens differ."""
    source = np.random.default_rng(7)

    def some(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return (source.standard_normal(shape) * 0.2).astype(np.float32)

    made = {"model.embed_tokens.weight": some(VOCABULARY, HIDDEN), "model.norm.weight": some(HIDDEN)}
    # Not that of the embeddings, which would say each token again.
    made["lm_head.weight"] = some(VOCABULARY, HIDDEN)
    for i in range(len(KINDS)):
        at = f"model.layers.{i}."
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            made[f"{at}{name}_layernorm.weight"] = some(HIDDEN)
        for name, heads in (("q", 2 * HEADS), ("k", HEADS), ("v", HEADS)):
            made[f"{at}self_attn.{name}_proj.weight"] = some(heads * DIM, HIDDEN)
        made[f"{at}self_attn.o_proj.weight"] = some(HIDDEN, 2 * HEADS * DIM)
        for name in ("q", "k"):
            made[f"{at}self_attn.{name}_norm.weight"] = some(DIM)
        for name in ("gate", "up"):
            made[f"{at}mlp.{name}_proj.weight"] = some(WIDE, HIDDEN)
        made[f"{at}mlp.down_proj.weight"] = some(HIDDEN, WIDE)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(weights(), str(folder / "model.safetensors"))
    return folder


@pytest.fixture(scope="module")
def larderd(binaries: Path, short_folder: Path) -> Iterator[Daemon]:
    work = short_folder / "hybrid"
    work.mkdir()
    daemon = Daemon(binaries, work, host_bytes="256MiB")
    yield daemon
    daemon.kill()


def prompt(seed: int) -> list[int]:
    """Much longer than a window; 4 chunks, and 3 blocks after them."""
    source = random.Random(seed)  # noqa: S311
    return [source.randrange(3, VOCABULARY) for _ in range(4 * CHUNK + 100)]


def test_stored_killed_and_loaded(model: Path, larderd: Daemon, short_folder: Path) -> None:
    cold = RealEngine(model, short_folder / "cold.log", socket=larderd.socket, **OPTIONS)
    # There is no daemon yet.
    want = [cold.generate(prompt(i), TOKENS)["token_ids"] for i in range(2)]
    assert all(len(set(answer)) > 4 for answer in want), "answers of one word prove little"
    larderd.start()
    cold.await_ready()
    assert cold.ask("reset")
    for i in range(2):
        assert cold.generate(prompt(i), TOKENS) == {"token_ids": want[i], "cached": 0}
    larderd.await_published(8, 60)
    parts = larderd.counters()["stored_parts"] // 8
    assert cold.stats()["chunks_stored"] == 8
    pages = cold.ask("block_hashes", prompt=prompt(0))
    cold.kill()
    assert len(pages) == GROUPS
    if int(os.environ.get("LARDER_KILLS", "0")) >= 100:
        # At night, when a further start of an engine matters less.
        alone = RealEngine(model, short_folder / "alone.log", **OPTIONS)
        assert [alone.generate(prompt(i), TOKENS)["token_ids"] for i in range(2)] == want
        alone.kill()

    before = larderd.counters()["loaded_parts"]
    warm = RealEngine(model, short_folder / "warm.log", socket=larderd.socket, **OPTIONS)
    warm.await_ready()
    assert warm.generate(prompt(0), TOKENS) == {"token_ids": want[0], "cached": 4 * CHUNK}
    assert warm.stats()["chunks_loaded"] == 4
    # All chunks of the full group, the last one of those of windows: parts are alike in number.
    assert larderd.counters()["loaded_parts"] - before == parts // GROUPS * (4 + 1 + 1)
    for mine, theirs in zip(warm.ask("block_hashes", prompt=prompt(0)), pages, strict=True):
        both = [a == b for a, b in zip(mine[: 4 * CHUNK // BLOCK], theirs, strict=False) if a and b]
        assert all(both)
        assert len(both) >= (WINDOW - 100) // BLOCK

    # The daemon dies under a load: the engine does not, and computes.
    warm.ask("kill_at", moment="copy", nth=1, pid=larderd.pid)
    assert warm.generate(prompt(1), TOKENS) == {"token_ids": want[1], "cached": 0}
    assert larderd.ended(10)
    assert warm.stats("scheduler")["restarts"] == 1
    assert warm.ask("reset")
    assert warm.generate(prompt(0), TOKENS)["token_ids"] == want[0]
    leftovers = warm.ask("leftovers")
    warm.kill()
    assert not any(leftovers.values()), leftovers
