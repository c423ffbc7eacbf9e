"""The configuration of simulated engines, and of the model that they seem to have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from vllm.config import KVTransferConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

LAYERS, HEADS, DIM = 2, 2, 32

VOCABULARY = 1000

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": HEADS,
    "head_dim": DIM,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
}


def write_config(folder: Path, config: dict[str, Any] | None = None) -> Path:
    """A model's folder without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or CONFIG))
    return folder


def make_config(
    folder: Path,
    *,
    block: int = 16,
    blocks: int = 64,
    extra: dict[str, Any] | None = None,
    budget: int = 256,
    seqs: int = 8,
    model_len: int = 2048,
    role: str = "kv_both",
    others: Sequence[dict[str, Any]] = (),
    **more: Any,
) -> Any:
    """A VllmConfig as the engine makes it, for the model in folder. others: connectors beside Larder's under
    MultiConnector, in order; {} stands for Larder's."""
    # What a load brings, and whether there is one, must not depend on how busy the machine is.
    settings = {"weights_id": "simulated", "chunk_tokens": 64, "socket": "/nowhere", "load_deadline_ms": 60_000}
    settings |= {"load_or_recompute": False, "load_in_step_ms": 0} | (extra or {})
    own = {
        "kv_connector": "LarderConnector",
        "kv_connector_module_path": "larder.vllm",
        "kv_role": role,
        "kv_connector_extra_config": settings,
    }
    if others:
        connectors = {"connectors": [other or own for other in others]}
        own = {"kv_connector": "MultiConnector", "kv_role": role, "kv_connector_extra_config": connectors}
    transfer = KVTransferConfig(**own)
    config = EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        dtype="bfloat16",
        block_size=block,
        max_model_len=model_len,
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        kv_transfer_config=transfer,
        **more,
    ).create_engine_config()
    config.cache_config.num_gpu_blocks = blocks
    return config


def make_cache_config(block: int, blocks: int) -> Any:
    """What the engine tells its connectors about pages."""
    shape = {"block_size": block, "num_kv_heads": HEADS, "head_size": DIM, "dtype": torch.bfloat16}
    names = [f"model.layers.{i}.self_attn.attn" for i in range(LAYERS)]
    return KVCacheConfig(blocks, [], [KVCacheGroupSpec(names, FullAttentionSpec(**shape))])
