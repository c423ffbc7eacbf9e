"""Namespaces of engines: whatever changes KV keeps two engines apart, and nothing else does."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hybrid_engine import make_hybrid
from safetensors.numpy import save_file
from simulated_config import CONFIG, DIM, HEADS, make_cache_config, make_config, write_config
from vllm.engine.arg_utils import EngineArgs
from vllm.v1 import kv_cache_interface
from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec, MLAAttentionSpec

from larder.errors import LarderError
from larder.namespace import GroupKind, NamespaceDescriptor, diff
from larder.vllm import identity, support
from larder.vllm.identity import Shape
from larder.vllm.layout import opaque
from larder.vllm.settings import Settings
from larder.vllm.stages import Place

LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
SHAPE = identity.Shape((0, 1), HEADS, DIM, DIM, 16, "bfloat16")
HELD = {(0, 0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with weights."""
    return model(tmp_path / "model")


def model(path: Path, seed: int = 0, **changes: Any) -> Path:
    write_config(path, CONFIG | changes)
    weights = np.random.default_rng(seed).standard_normal((64, 64), dtype=np.float32)
    save_file({"w": weights}, str(path / "model.safetensors"))
    return path


def config(path: Path, dtype: str = "bfloat16", **options: Any) -> Any:
    return EngineArgs(
        model=str(path), skip_tokenizer_init=True, dtype=dtype, enforce_eager=True, **options
    ).create_engine_config()


def namespace(
    path: Path, settings: Settings | None = None, shape: Shape = SHAPE, **options: Any
) -> NamespaceDescriptor:
    return identity.descriptor(config(path, **options), settings or Settings(), [shape])


def changed(a: NamespaceDescriptor, b: NamespaceDescriptor) -> list[str]:
    return [d.field for d in diff(a, b)]


def test_the_same_engine_has_the_same_namespace(folder: Path) -> None:
    assert namespace(folder).encode() == namespace(folder, block_size=32, max_num_seqs=3, seed=5).encode()


def test_a_copy_of_the_model_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    assert namespace(folder).fingerprint() == namespace(model(tmp_path / "copy")).fingerprint()


@pytest.mark.parametrize(
    ("changes", "options", "fields"),
    [
        ({"rope_theta": 5000.0}, {}, ["config.rope.theta"]),
        ({"rms_norm_eps": 1e-6}, {}, ["config.rms_norm_eps"]),
        ({"hidden_act": "gelu"}, {}, ["config.hidden_act"]),
        ({"some_new_setting": 3}, {}, ["config.some_new_setting"]),
        ({}, {"hf_overrides": {"rope_parameters": LINEAR}}, ["config.rope.factor", "config.rope.kind"]),
        ({}, {"dtype": "float32"}, ["config.compute.dtype"]),
    ],
)  # fmt: skip
def test_settings_that_change_kv(folder: Path, tmp_path: Path, changes: Any, options: Any, fields: list[str]) -> None:
    assert sorted(changed(namespace(folder), namespace(model(tmp_path / "other", **changes), **options))) == fields


def test_other_weights_at_the_same_path(folder: Path) -> None:
    before = namespace(folder)
    model(folder, seed=1)
    assert changed(before, namespace(folder)) == ["weights_id"]


def test_longer_contexts_of_a_rope_that_depends_on_it(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    path = model(tmp_path / "m", rope_parameters=rope)
    assert changed(namespace(path), namespace(path, max_model_len=4096)) == ["config.engine.max_model_len"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"weights_id": "llama-ft-3"}, "weights_id"),
        ({"weights_epoch": 1}, "weights_epoch"),
        ({"chunk_tokens": 128}, "chunk_tokens"),
    ],
)
def test_settings_of_the_operator(folder: Path, settings: dict[str, Any], field: str) -> None:
    assert changed(namespace(folder), namespace(folder, Settings.parse(settings))) == [field]


def test_pages_as_they_are_bind_engine_and_block(folder: Path) -> None:
    c = config(folder)
    made = [
        identity.descriptor(c, Settings(), [SHAPE], opaque("vllm/1", "CPU_ATTN", isa), [4096]) for isa in ("amx", "vec")
    ]
    assert changed(*made) == ["layout.isa"]
    assert changed(made[0], namespace(folder)) != []


def test_dummy_weights_need_a_name(tmp_path: Path) -> None:
    path = write_config(tmp_path / "dummy")
    with pytest.raises(LarderError, match=r"weights_id.*load_format dummy"):
        namespace(path, load_format="dummy")
    assert namespace(path, Settings(weights_id="dummy-1"), load_format="dummy").fingerprint()


def test_a_model_that_is_not_there_needs_a_name(folder: Path) -> None:
    c = config(folder)
    c.model_config.model = "nobody/nothing"
    with pytest.raises(LarderError, match="set weights_id"):
        identity.descriptor(c, Settings(), [SHAPE])


def test_processes_of_one_engine_agree_on_the_instance(model_folder: Path) -> None:
    c = make_config(model_folder)
    assert identity.instance_id(c) == identity.instance_id(c)
    assert len(identity.instance_id(c)) == 16
    assert identity.instance_id(c) != identity.instance_id(make_config(model_folder))


@pytest.mark.parametrize(
    ("heads", "unit", "size", "want"),
    [
        (8, 1, 1, [list(range(8))]),
        (8, 2, 2, [[0, 1], [2, 3]]),
        (8, 1, 4, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (2, 1, 4, [[0], [0], [1], [1]]),
    ],
)
def test_ranks_hold_whole_parts(folder: Path, heads: int, unit: int, size: int, want: Any) -> None:
    shape = identity.Shape((0, 1), heads, DIM, DIM, 16, "bfloat16")
    made = identity.descriptor(config(folder), Settings(), [shape])
    made = replace(made, groups=(replace(made.groups[0], head_group=unit),))
    ranks = [identity.rank_parts(made, rank, size, HELD) for rank in range(size)]
    assert [[p.index for p in parts] for parts in ranks] == want
    writers = [p.index for parts in ranks for p in parts if p.writes]
    assert sorted(writers) == list(range(heads // unit))
    for parts in ranks:
        assert [p.heads.first for p in parts] == [i * unit for i in range(len(parts))]


def test_a_stage_holds_the_parts_of_its_spans(folder: Path) -> None:
    shape = identity.Shape((0, 1, 2, 3), 2, DIM, DIM, 16, "bfloat16")
    made = identity.descriptor(config(folder), Settings(), [shape], spans=(0, 1, 3))
    held = [{(0, 0)}, {(0, 1), (0, 2)}]
    parts = [[identity.rank_parts(made, rank, 2, stage) for rank in range(2)] for stage in held]
    assert [[[p.index for p in rank] for rank in stage] for stage in parts] == [[[0], [1]], [[2, 4], [3, 5]]]
    assert [p.span for p in parts[1][0]] == [1, 2]
    # Two layers in the middle.
    assert [p.length for p in parts[1][0]] == [2 * 256 * 2 * DIM * 2, 256 * 2 * DIM * 2]


def test_latent_kv_is_one_part_that_the_lowest_rank_writes(folder: Path) -> None:
    shape = identity.Shape((0, 1), 1, 576, 0, 16, "bfloat16")
    made = identity.descriptor(config(folder), Settings(), [shape])
    assert made.groups[0].kind == GroupKind.LATENT
    (part,) = made.parts()
    assert part.raw_length == 2 * 256 * 576 * 2
    held = [identity.rank_parts(made, rank, 4, HELD) for rank in range(4)]
    assert [[(p.index, p.heads.first, p.heads.count, p.writes) for p in parts] for parts in held] == [
        [(0, 0, 1, rank == 0)] for rank in range(4)
    ]


def test_packed_latents_are_not_cached(model_folder: Path) -> None:
    c = make_config(model_folder)
    shape = {"block_size": 64, "num_kv_heads": 1, "head_size": 576, "dtype": torch.bfloat16}
    # From 0.32 on by another name.
    compressed = "compress_ratio" if hasattr(MLAAttentionSpec, "compress_ratio") else "tokens_per_state"
    whys = []
    for more in ({}, {"cache_dtype_str": "fp8_ds_mla"}, {compressed: 4}):
        spec = MLAAttentionSpec(**shape, **more)
        whys.append(support.off(c, KVCacheConfig(8, [], [KVCacheGroupSpec(["model.layers.0.self_attn.attn"], spec)])))
    assert whys == ["", "compressed or packed latents", "compressed or packed latents"]


def test_fewer_heads_in_a_part_by_setting(folder: Path) -> None:
    shape = identity.Shape((0, 1), 4, DIM, DIM, 16, "bfloat16")
    assert [
        identity.descriptor(config(folder), Settings(head_group=n), [shape]).groups[0].head_group for n in (1, 2, 8)
    ] == [1, 2, 4]
    with pytest.raises(LarderError, match=r"groups\[0\].head_group"):
        identity.descriptor(config(folder), Settings(head_group=3), [shape])


def test_a_rank_with_a_piece_of_a_part_is_refused(folder: Path) -> None:
    shape = identity.Shape((0, 1), 4, DIM, DIM, 16, "bfloat16")
    made = identity.descriptor(config(folder), Settings(), [shape])
    made = replace(made, groups=(replace(made.groups[0], head_group=4),))
    with pytest.raises(LarderError, match="head_group"):
        identity.rank_parts(made, 0, 2, HELD)


@pytest.mark.parametrize("name", ["decode_context_parallel_size", "prefill_context_parallel_size", "x_parallel_size"])
def test_unsupported_parallelism_is_refused_by_name(model_folder: Path, name: str) -> None:
    c = make_config(model_folder, tensor_parallel_size=2, pipeline_parallel_size=2)
    support.refuse(c)
    vars(c.parallel_config)[name] = 2
    with pytest.raises(LarderError, match=name):
        support.refuse(c)


def test_data_parallel_engines_are_engines_of_their_own(model_folder: Path) -> None:
    c = make_config(model_folder)
    seen = []
    for rank in range(2):
        # As the engine does for each, without and with experts.
        of_rank = copy.deepcopy(c)
        of_rank.kv_transfer_config.engine_id += f"_dp{rank}"
        of_rank.parallel_config.data_parallel_index = rank
        for size in (1, 2):
            of_rank.parallel_config.data_parallel_size = size
            told = identity.ranks(of_rank, Place())
            assert told.data == rank < told.data_size
        seen.append(identity.instance_id(of_rank))
    assert seen[0] != seen[1]


def test_what_larder_is_off_for(model_folder: Path) -> None:
    c = make_config(model_folder)
    assert support.off(c, make_cache_config(16, 8)) == ""
    assert support.off(c, make_hybrid(8, (16, 0, 32), (16, 64, 32))) == ""
    assert "17 KV cache groups" in support.off(c, make_hybrid(8, *[(16, 64, 32)] * 17))
    assert "0 KV cache groups" in support.off(c, make_hybrid(8))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("ChunkedLocalAttentionSpec", {"attention_chunk_size": 64}),
        ("CrossAttentionSpec", {}),
        ("EncoderOnlyAttentionSpec", {}),
        ("RSWASpec", {"rswa_window": 64}),
        ("SinkFullAttentionSpec", {"sink_len": 4}),
        ("SlidingWindowMLASpec", {"sliding_window": 64}),
    ],
)
def test_kinds_of_kv_that_larder_is_off_for(model_folder: Path, kind: str, more: dict[str, Any]) -> None:
    shape = {"block_size": 16, "num_kv_heads": HEADS, "head_size": DIM, "dtype": torch.bfloat16}
    config = make_cache_config(16, 8)
    spec = getattr(kv_cache_interface, kind)(**shape, **more)
    config.kv_cache_groups.append(KVCacheGroupSpec(["model.layers.7.attn"], spec))
    assert f"KV of the kind {kind}" in support.off(make_config(model_folder), config)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": torch.float32}, "different types of elements"),
        ({"page_size_padded": 1 << 20}, "padded pages"),
        ({"head_size_v": 64}, "K and V of different size"),
    ],
)
def test_groups_that_larder_is_off_for(model_folder: Path, change: dict[str, Any], reason: str) -> None:
    config = make_hybrid(8, (16, 0, 32), (16, 64, 32))
    second = config.kv_cache_groups[1]
    second.kv_cache_spec = replace(second.kv_cache_spec, **change)
    assert reason in support.off(make_config(model_folder), config)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"sockt": "/x"}, r"sockt.*socket"),
        ({"chunk_tokens": "256"}, r"chunk_tokens.*str.*int"),
        ({"store_generated": 1}, r"store_generated.*int.*bool"),
        ({"match_wait_us": -1}, "match_wait_us"),
        ({"layout": "best"}, "auto or opaque"),
        ({"socket": ""}, "socket"),
        ({"hold_ms": 1}, "hold_ms"),
    ],
)
def test_wrong_settings_are_refused(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(LarderError, match=message):
        Settings.parse(extra)


@pytest.mark.parametrize(
    ("chunk", "block", "want"), [(0, 16, 256), (0, 128, 256), (0, 48, 288), (0, 512, 512), (64, 32, 64)]
)
def test_chunks_are_whole_blocks(chunk: int, block: int, want: Any) -> None:
    assert Settings(chunk_tokens=chunk).chunk_tokens_for(block) == want


@pytest.mark.parametrize(("chunk", "block"), [(256, 48), (100, 16), (0, 2048), (32, 16)])
def test_chunks_that_cannot_be(chunk: int, block: int) -> None:
    with pytest.raises(LarderError, match=f"multiple of {block}"):
        Settings(chunk_tokens=chunk).chunk_tokens_for(block)


def test_settings_survive_json() -> None:
    assert Settings.parse(json.loads('{"match_deadline_ms": 5, "failed_pause_s": 2}')).failed_pause_s == 2.0
