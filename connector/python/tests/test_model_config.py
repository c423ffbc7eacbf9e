"""larder.model_config: what becomes a field, and under which text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.errors import InvalidError
from larder.model_config import canonical_value, config_fields

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "dtype": "bfloat16",
    "eos_token_id": 1,
    "hidden_size": 384,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
    "transformers_version": "5.17.0",
    "use_cache": True,
}


def fields(config: dict[str, Any], dtype: str = "bfloat16", extra: dict[str, object] | None = None) -> dict[str, str]:
    return {f.name: f.value for f in config_fields(config, dtype, extra)}


def test_llama() -> None:
    assert fields(LLAMA) == {
        "architecture": "LlamaForCausalLM",
        "attention_bias": "false",
        "compute.dtype": "bfloat16",
        "dtype": "bfloat16",
        "eos_token_id": "1",
        "hidden_size": "384",
        "rms_norm_eps": "1e-05",
        "rope.kind": "default",
        "rope.theta": "500000",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": ["MistralForCausalLM"]},
        {"rms_norm_eps": 1e-06},
        {"attention_bias": True},
        {"sliding_window": 4096},
        {"head_dim": 64},
        {"partial_rotary_factor": 0.5},
        {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "yarn", "factor": 4.0}},
        {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
        {"rope_theta": 10000.0},
        {"quantization_config": {"quant_method": "fp8"}},
        {"something_new": {"deep": [1, 2]}},
        # Harmless by their names, and yet some models read them.
        {"eos_token_id": [1, 2]},
        {"pad_token_id": 0},
        {"initializer_range": 0.01},
        {"dtype": "float32"},
        {"tie_word_embeddings": True},
        {"auto_map": {"AutoModelForCausalLM": "modeling.Other"}},
        {"quantization_config": {"input_tensors": {"dtype": "fp4"}}},
        {"quantization_config": {"use_cache": False}},
        # Beside rope_parameters, where other code may read them.
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default", "type": "mrope"}},
        {"time_step_limit": [0.0, float("inf")]},
        # The names that this module gives.
        {"rope": {"kind": "default"}},
        {"compute": {"dtype": "bfloat16"}},
        {"architecture": "LlamaForCausalLM"},
    ],
)
def test_what_changes_kv_changes_the_fields(change: dict[str, Any]) -> None:
    assert fields(LLAMA | change) != fields(LLAMA)


def test_engine_settings_change_the_fields() -> None:
    assert fields(LLAMA, "float16") != fields(LLAMA)
    assert fields(LLAMA, extra={"engine.quantization": "fp8"})["engine.quantization"] == "fp8"
    assert fields(LLAMA, extra={"engine.quantization": None}) == fields(LLAMA)
    with pytest.raises(InvalidError, match="two values"):
        fields(LLAMA, extra={"hidden_size": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"_name_or_path": "/other/path"},
        {"name_or_path": "/other/path"},
        {"_commit_hash": "0123"},
        {"transformers_version": "9"},
        {"_attn_implementation": "sdpa"},
        {"_attn_implementation_internal": "sdpa"},
        {"use_cache": False},
        {"return_dict": False},
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"sliding_window": None},
        {"hidden_size": 384.0},
    ],
)
def test_harmless(change: dict[str, Any]) -> None:
    assert fields(LLAMA | change) == fields(LLAMA)
    text: dict[str, Any] = {"model_type": "y", "hidden_size": 384}
    assert fields({"text_config": text | change}) == fields({"text_config": text})


def test_both_ways_of_writing_rope() -> None:
    base = {k: v for k, v in LLAMA.items() if k != "rope_parameters"}
    new = base | {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 500000.0}}
    for old in (
        base | {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        base | {"rope_theta": 500000, "rope_scaling": {"type": "llama3", "factor": 8}},
        new | {"rope_theta": 500000.0},
    ):
        assert fields(old) == fields(new)
    assert fields(base | {"rope_theta": 500000.0}) == fields(LLAMA)
    assert fields(base | {"rope_theta": 500000.0, "rope_scaling": None}) == fields(LLAMA)
    assert "rope.kind" not in fields(base)
    assert fields(new | {"rope_theta": 1.0})["rope.top_theta"] == "1"
    assert fields(new | {"rope_scaling": {"type": "yarn"}})["rope.top_scaling.type"] == "yarn"
    assert fields(new | {"rope_scaling": new["rope_parameters"]}) == fields(new)
    for bad in ("yarn", {"kind": "yarn"}, {"theta": 1}, {"top_theta": 1}, {"top_scaling": 1}):
        with pytest.raises(InvalidError, match="rope"):
            fields(base | {"rope_scaling": bad})


def test_rope_for_each_type_of_layer() -> None:
    got = fields(
        {
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
            }
        }
    )
    assert got == {
        "compute.dtype": "bfloat16",
        "rope.full_attention.factor": "8",
        "rope.full_attention.kind": "linear",
        "rope.full_attention.theta": "1000000",
        "rope.sliding_attention.kind": "default",
        "rope.sliding_attention.theta": "10000",
    }


def test_names_and_nesting() -> None:
    got = fields(
        {
            "text_config": {
                "model_type": "x",
                "A.b": 1,
                "_name_or_path": "x",
                "list": ["full", 2, None, {"b": 1, "a": True}],
            }
        }
    )
    assert got["text_config.-41-2eb"] == "1"
    assert got["text_config.list"] == "[full,2,null,{a:true,b:1}]"
    assert len(got) == 4
    assert fields({"a": {"b": 1}, "a.c": 2, "\ud800": 3}).keys() == {"a.b", "a-2ec", "-ed-a0-80", "compute.dtype"}


def test_settings_of_every_layer_are_one_field() -> None:
    def layers(n: int, **more: Any) -> dict[str, Any]:
        return {"quantization_config": {"layers": {f"l{i}": {"bits": 4} for i in range(n)}} | more}

    assert len(fields(layers(64))) == 1 + 64
    assert fields(layers(65)).keys() == {"quantization_config.layers", "compute.dtype"}
    assert fields(layers(65)) != fields(layers(66))
    # A name of up to 128 characters.
    assert fields({"a": {"x" * 126: 1}}).keys() == {"a." + "x" * 126, "compute.dtype"}
    assert fields({"a": {"x" * 127: 1}}).keys() == {"a", "compute.dtype"}
    # A nested configuration is never one field.
    text = {"model_type": "x"} | {f"k{i}": i for i in range(100)}
    assert len(fields({"text_config": text})) == 102


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "true"), (1, "1"), (-3, "-3"), (0.0, "0"), (-0.0, "0"), (1.0, "1"), (0.1, "0.1"),
        (1e15, "1000000000000000"), (1e16, "1e+16"), (1e22, "1e+22"), (1e-05, "1e-05"), (123456.5, "123456.5"),
        ("a b", "a%20b"), ("100%", "'100%25"), ("1", "'1"), ("true", "'true"), ("", "'"), ("-x", "'-x"), ("'", "%27"),
        (float("inf"), "inf"), (float("-inf"), "-inf"), (float("nan"), "nan"), ("inf", "'inf"), ("nan", "'nan"),
        ("null", "'null"),
        ("caf\u00e9", "caf%C3%A9"), ("cafe\u0301", "cafe%CC%81"), ("a\0", "a%00"), ("a,b", "a%2Cb"),
        ([], "[]"), (["a", "b"], "[a,b]"), ("x" * 4096, "x" * 4096),
    ],
)  # fmt: skip
def test_value(value: object, text: str) -> None:
    assert canonical_value(value) == text


def test_long_values_become_digests() -> None:
    a, b = canonical_value("x" * 4097), canonical_value("x" * 4096 + "y")
    assert a.startswith("sha256:")
    assert len(a) == 71
    assert a != b


@pytest.mark.parametrize("value", [b"x", object(), {1, 2}])
def test_no_text(value: object) -> None:
    with pytest.raises(InvalidError, match=r"config\.x"):
        fields({"x": value})


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3), max_leaves=6
)


@given(values, values)
def test_equal_text_only_for_equal_values(a: object, b: object) -> None:
    """Equal apart from what canonical text leaves out on purpose: whether a
    whole number was written as a float."""
    if canonical_value(a) == canonical_value(b):
        assert shape(a) == shape(b)
    else:
        assert shape(a) != shape(b)


def shape(v: object) -> object:
    if isinstance(v, bool) or v is None or isinstance(v, str):
        return (type(v).__name__, v)
    if isinstance(v, float):
        return ("number", int(v) if v.is_integer() and abs(v) < 1e16 else repr(v))
    if isinstance(v, int):
        return ("number", v)
    if isinstance(v, list):
        return ("list", [shape(x) for x in v])
    assert isinstance(v, dict)
    return ("map", sorted((repr(shape(k)), repr(shape(x))) for k, x in v.items()))
