"""A small Llama with seeded random weights, for machines without a model of their own.

It writes no sense, but it is a real transformer: every output token depends on the
whole prompt, so wrong KV bytes show.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SEED = 20260726
VOCABULARY = 4096
LAYERS, HIDDEN, INNER, HEADS, KV_HEADS, HEAD_SIZE = 8, 384, 1024, 4, 2, 128
POSITIONS = 8192

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_SIZE,
    "hidden_act": "silu",
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "dtype": "float32",
}


def make(directory: Path, texts: list[Path]) -> None:
    """Writes the model into ``directory``; its tokenizer is trained on ``texts``. Same input, same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(_weights(), str(directory / "model.safetensors"), metadata={"format": "pt"})
    _tokenizer(texts).save(str(directory / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS, **special}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=1))
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=1))


Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def _weights() -> dict[str, Matrix]:
    random = np.random.default_rng(SEED)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Matrix:
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(gain / columns**0.5)

    ones = np.ones(HIDDEN, dtype=np.float32)
    weights = {
        "model.embed_tokens.weight": random.standard_normal((VOCABULARY, HIDDEN), dtype=np.float32),
        "model.norm.weight": ones,
        "lm_head.weight": matrix(VOCABULARY, HIDDEN, 4.0),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        # Queries and keys are scaled up so that attention picks a few tokens out of
        # thousands; unscaled, it averages over all of them and the prompt hardly
        # matters, and greedy decoding soon repeats itself.
        weights |= {
            at + "input_layernorm.weight": ones,
            at + "self_attn.q_proj.weight": matrix(HEADS * HEAD_SIZE, HIDDEN, 2.0),
            at + "self_attn.k_proj.weight": matrix(KV_HEADS * HEAD_SIZE, HIDDEN, 2.0),
            at + "self_attn.v_proj.weight": matrix(KV_HEADS * HEAD_SIZE, HIDDEN, 1.5),
            at + "self_attn.o_proj.weight": matrix(HIDDEN, HEADS * HEAD_SIZE, 1.5),
            at + "post_attention_layernorm.weight": ones,
            at + "mlp.gate_proj.weight": matrix(INNER, HIDDEN),
            at + "mlp.up_proj.weight": matrix(INNER, HIDDEN),
            at + "mlp.down_proj.weight": matrix(HIDDEN, INNER),
        }
    return weights


def _tokenizer(texts: list[Path]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(path) for path in sorted(texts)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer
