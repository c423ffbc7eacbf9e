"""Models without downloads: a shape, with weights drawn from a seed.

LARGE is shaped as an 8B Llama, for times; its weights, and those of models with
windows, are drawn in the engine itself (inside/drawn_weights.py). small and latent
write a checkpoint, so that engines of any number of ranks have the same model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LARGE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Of each token 128 KiB of KV."""

SMALL = LARGE | {
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
}

LATENT: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "moe_intermediate_size": 512,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "topk_method": "greedy",
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "moe_layer_freq": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""DeepSeek's attention (MLA: one latent of 576 elements a token), no experts."""


WINDOW = 512
_WINDOWS: dict[str, Any] = {
    "torch_dtype": "bfloat16",
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}

GEMMA3 = _WINDOWS | {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "query_pre_attn_scalar": 128,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
"""Gemma 3's attention: a group of full layers and two of windows, all pages of one size."""

GEMMA4 = _WINDOWS | {
    "architectures": ["Gemma4ForCausalLM"],
    "model_type": "gemma4_text",
    # transformers keeps the wide heads for itself, and vLLM looks for them (GEMMA4_OVERRIDES).
    "global_head_dim": 256,
    "allow_global_per_layer_attribute_access": True,
    "num_global_key_value_heads": 4,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 4096,
    "num_kv_shared_layers": 0,
    "attention_k_eq_v": False,
    "enable_moe_block": False,
    "final_logit_softcapping": None,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
"""Gemma 4's attention: heads of full layers are twice as wide, so that their blocks have half the tokens."""
GEMMA4_OVERRIDES = {"global_head_dim": 256}


def shape(folder: Path, config: dict[str, Any]) -> Path:
    """A model of a config alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return folder


def small(folder: Path, seed: int = 1) -> Path:
    """A Llama of 4 layers with 8 KV heads, with its weights, which are others for another seed."""
    c = SMALL
    hidden, inner, q, kv = c["hidden_size"], c["intermediate_size"], 16 * 128, 8 * 128
    layer = {
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    return _checkpoint(folder, c, layer, seed)


def latent(folder: Path) -> Path:
    """A model with MLA, 4 layers, with its weights."""
    c = LATENT
    hidden, inner, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    rank, rope, nope, value = c["kv_lora_rank"], c["qk_rope_head_dim"], c["qk_nope_head_dim"], c["v_head_dim"]
    layer = {
        "self_attn.q_proj": (heads * (nope + rope), hidden),
        "self_attn.kv_a_proj_with_mqa": (rank + rope, hidden),
        "self_attn.kv_a_layernorm": (rank,),
        "self_attn.kv_b_proj": (heads * (nope + value), rank),
        "self_attn.o_proj": (hidden, heads * value),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    return _checkpoint(folder, c, layer)


def _checkpoint(folder: Path, config: dict[str, Any], layer: dict[str, tuple[int, ...]], seed: int = 1) -> Path:
    import torch
    from safetensors.torch import save_file

    shape(folder, config)
    vocabulary, hidden = config["vocab_size"], config["hidden_size"]
    shapes = {"model.embed_tokens": (vocabulary, hidden), "lm_head": (vocabulary, hidden), "model.norm": (hidden,)}
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{i}.{name}": size for name, size in layer.items()}
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, size in shapes.items():
        # Wide enough that attention looks at some tokens more than at others.
        drawn = torch.ones(size) if len(size) == 1 else torch.randn(size, generator=random) * 2 / size[1] ** 0.5
        tensors[f"{name}.weight"] = drawn.to(torch.bfloat16)
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder
