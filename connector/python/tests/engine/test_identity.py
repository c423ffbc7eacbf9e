"""The namespace of an engine, from vLLM's own configuration: what differs in KV differs in it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file
from simulated_engine import CONFIG, make_config, write_config

from larder.errors import InvalidError
from larder.namespace import diff
from larder.vllm import identity
from larder.vllm.settings import Settings

SHAPE = identity.Shape((0, 1), 2, 64, 64, 16, "bfloat16")


def describe(folder, shape=SHAPE, settings=None, **options):
    """The namespace of an engine that reads its weights from files."""
    config = make_config(folder, extra=settings, **options)
    config.load_config.load_format = "auto"
    return identity.descriptor(config, Settings.parse({"weights_id": "", "chunk_tokens": 64} | (settings or {})), shape)


@pytest.fixture
def folder(tmp_path):
    """A model with weights."""
    made = write_config(tmp_path / "model")
    save_file({"w": np.arange(64, dtype=np.float32)}, str(made / "model.safetensors"))
    return made


def test_equal_engines_agree(folder):
    assert describe(folder).fingerprint() == describe(folder).fingerprint()


def test_another_fine_tune_at_the_same_path(folder):
    before = describe(folder)
    save_file({"w": np.arange(64, dtype=np.float32) + 1}, str(folder / "model.safetensors"))
    assert [d.field for d in diff(before, describe(folder))] == ["weights_id"]


def test_the_same_weights_elsewhere_are_the_same(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert describe(folder).fingerprint() == describe(moved).fingerprint()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"hf_overrides": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}}, "rope"),
        ({"hf_overrides": {"rms_norm_eps": 1e-3}}, "eps"),
        ({"hf_overrides": {"attention_bias": True}}, "attention_bias"),
    ],
)
def test_an_override_of_the_config(folder, options, part):
    fields = [d.field for d in diff(describe(folder), describe(folder, **options))]
    assert fields
    assert all(part in field for field in fields)


@pytest.mark.parametrize(
    ("shape", "field"),
    [
        (identity.Shape((0, 1), 2, 64, 64, 16, "float16"), "kv_dtype"),
        (identity.Shape((0, 2), 2, 64, 64, 16, "bfloat16"), "groups[0].layers"),
        (identity.Shape((0, 1), 4, 64, 64, 16, "bfloat16"), "groups[0].kv_heads"),
        (identity.Shape((0, 1), 2, 128, 64, 16, "bfloat16"), "groups[0].dk"),
        (identity.Shape((0, 1), 2, 64, 128, 16, "bfloat16"), "groups[0].dv"),
    ],
)
def test_another_shape(folder, shape, field):
    assert field in [d.field for d in diff(describe(folder), describe(folder, shape))]


def test_the_engines_block_is_no_part_of_a_canonical_namespace(folder):
    other = identity.Shape((0, 1), 2, 64, 64, 32, "bfloat16")
    assert describe(folder).fingerprint() == describe(folder, other, block=32).fingerprint()


def test_the_operators_words(folder):
    base = describe(folder)
    assert [d.field for d in diff(base, describe(folder, settings={"weights_epoch": 1}))] == ["weights_epoch"]
    assert [d.field for d in diff(base, describe(folder, settings={"weights_id": "x"}))] == ["weights_id"]


@pytest.mark.parametrize("loader", ["dummy", "pt", "npcache", "tensorizer"])
def test_weights_that_are_not_in_the_files_need_a_name(folder, loader):
    config = make_config(folder)
    config.load_config.load_format = loader
    with pytest.raises(InvalidError, match="set weights_id"):
        identity.descriptor(config, Settings.parse({"chunk_tokens": 64}), SHAPE)
    named = Settings.parse({"chunk_tokens": 64, "weights_id": "llama-v3"})
    assert identity.descriptor(config, named, SHAPE).weights_id != bytes(32)


def test_meaning_from_elsewhere_needs_a_name(tmp_path):
    made = write_config(tmp_path / "other", CONFIG | {"text_model_id": "somebody/else"})
    save_file({"w": np.arange(64, dtype=np.float32)}, str(made / "model.safetensors"))
    with pytest.raises(InvalidError, match="text_model_id"):
        describe(made)
