"""A model of latent KV, shaped like DeepSeek V2, in each real engine that computes one on CPU (from 0.32 on).

LARDER_ENGINES names the interpreters of the engines. Run by make test-engine-matrix. Made here, with weights of its
own; float32, where answers do not depend on how many tokens were reused. Its engine has no prefix cache of its own.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_engine import RealEngine
from safetensors.numpy import save_file

from harness.daemon import Daemon

CHUNK, CHUNKS, TOKENS = 256, 4, 24
# The only latent that the engine's kernel takes, in blocks of 16.
LATENT, ROTATED = 512, 64
HIDDEN, LAYERS, HEADS, DIM, WIDE, VOCABULARY = 128, 3, 4, 64, 256, 1000
CONFIG = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "kv_lora_rank": LATENT,
    "q_lora_rank": None,
    "qk_nope_head_dim": DIM,
    "qk_rope_head_dim": ROTATED,
    "v_head_dim": DIM,
    # No layer has experts.
    "first_k_dense_replace": LAYERS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 65536,
    # As DeepSeek's. The engine's kernel for plain rotation is for keys that lie one after the other, and rotates these
    # wrongly: an answer depends on where in a batch a token is.
    "rope_scaling": {
        "type": "yarn", "factor": 16, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
        "mscale": 0.707, "mscale_all_dim": 0.707,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}  # fmt: skip
OPTIONS: dict[str, Any] = {
    "skip_tokenizer_init": True, "block_size": 16, "max_model_len": 2048, "attention_config": {"backend": "CPU_MLA"},
}  # fmt: skip


def weights() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Random ones, so large that tokens differ."""
    source = np.random.default_rng(7)

    def some(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return (source.standard_normal(shape) * 0.2).astype(np.float32)

    made = {"model.embed_tokens.weight": some(VOCABULARY, HIDDEN), "model.norm.weight": 1 + some(HIDDEN)}
    made["lm_head.weight"] = some(VOCABULARY, HIDDEN)
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        for name in ("input", "post_attention"):
            made[f"{at}{name}_layernorm.weight"] = 1 + some(HIDDEN)
        made[f"{at}self_attn.q_proj.weight"] = some(HEADS * (DIM + ROTATED), HIDDEN)
        made[f"{at}self_attn.kv_a_proj_with_mqa.weight"] = some(LATENT + ROTATED, HIDDEN)
        made[f"{at}self_attn.kv_a_layernorm.weight"] = 1 + some(LATENT)
        made[f"{at}self_attn.kv_b_proj.weight"] = some(HEADS * 2 * DIM, LATENT)
        made[f"{at}self_attn.o_proj.weight"] = some(HIDDEN, HEADS * DIM)
        for name in ("gate", "up"):
            made[f"{at}mlp.{name}_proj.weight"] = some(WIDE, HIDDEN)
        made[f"{at}mlp.down_proj.weight"] = some(HIDDEN, WIDE)
    return made


def has_latent(interpreter: str) -> bool:
    """Whether an engine computes latent KV on CPU."""
    ask = "from vllm.v1.attention.backends.registry import AttentionBackendEnum as E; print('CPU_MLA' in E.__members__)"
    said = subprocess.run([interpreter, "-c", ask], capture_output=True, text=True, check=True).stdout
    return said.split()[-1] == "True"


def prompt(seed: int) -> list[int]:
    """Its own chunks, and after them what all prompts end with: an answer says whose KV it was computed from."""
    own, end = random.Random(seed), random.Random(99)  # noqa: S311
    tokens = [own.randrange(3, VOCABULARY) for _ in range(CHUNKS * CHUNK)]
    return tokens + [end.randrange(3, VOCABULARY) for _ in range(50)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deepseek")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(weights(), str(folder / "model.safetensors"))
    return folder


def test_stored_killed_and_loaded(model: Path, binaries: Path, short_folder: Path) -> None:
    engines = [interpreter for interpreter in os.environ["LARDER_ENGINES"].split() if has_latent(interpreter)]
    assert engines, "none of these engines computes latent KV on CPU"
    for number, interpreter in enumerate(engines):
        work = short_folder / f"latent{number}"
        work.mkdir()
        daemon = Daemon(binaries, work, host_bytes="256MiB")
        options = {"socket": daemon.socket, "interpreter": interpreter, **OPTIONS}
        cold = RealEngine(model, work / "cold.log", **options)
        try:
            # There is no daemon yet.
            want = [cold.generate(prompt(i), TOKENS)["token_ids"] for i in range(2)]
            assert want[0] != want[1]
            assert all(len(set(answer)) > 4 for answer in want), "answers of one word prove little"
            daemon.start()
            cold.await_ready()
            for i in range(2):
                assert cold.generate(prompt(i), TOKENS) == {"token_ids": want[i], "cached": 0}
            daemon.await_published(2 * CHUNKS, 60)
            cold.kill()

            before = daemon.counters()["loaded_parts"]
            warm = RealEngine(model, work / "warm.log", **options)
            warm.await_ready()
            assert warm.generate(prompt(0), TOKENS) == {"token_ids": want[0], "cached": CHUNKS * CHUNK}
            assert warm.stats()["chunks_loaded"] == CHUNKS
            assert daemon.counters()["loaded_parts"] - before == CHUNKS

            # The daemon dies under a load: the engine does not, and computes.
            warm.ask("kill_at", moment="copy", nth=1, pid=daemon.pid)
            assert warm.generate(prompt(1), TOKENS)["token_ids"] == want[1]
            assert daemon.ended(10)
            assert not any((leftovers := warm.ask("leftovers")).values()), leftovers
            warm.kill()
        finally:
            cold.kill()
            daemon.kill()
