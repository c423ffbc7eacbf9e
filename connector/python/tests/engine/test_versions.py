"""The versions of the engine: what Larder takes from an engine, and what it says of one that it does not know."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import vllm
from simulated_config import DIM, HEADS, make_cache_config, make_config
from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec, MLAAttentionSpec

from larder.errors import LarderError
from larder.namespace import NamespaceDescriptor
from larder.vllm import LarderConnector, compat, identity, support
from larder.vllm.settings import Settings

# Engines of all versions share KV where nothing that changes it differs.
FINGERPRINT = "8b8e4218f8522fdc"


class Engine:
    """Hooks of some engine, of which get_finished is the one that tests change."""

    def get_finished(self, finished_req_ids: set[str]) -> Any: ...

    def register_kv_caches(self, kv_caches: Any) -> None: ...


def connector(**hooks: Any) -> type:
    """A connector with some of Larder's hooks."""
    own = {name: getattr(LarderConnector, name) for name in ("get_finished", "register_kv_caches")}
    return type("Connector", (), own | hooks)


def namespace(config: Any, settings: Settings | None = None) -> NamespaceDescriptor:
    settings = settings or Settings(weights_id="x")
    return identity.descriptor(config, settings, [identity.Shape((0, 1), HEADS, DIM, DIM, 32, "bfloat16")])


def test_this_engine_is_one_of_those_that_are_tested() -> None:
    assert vllm.__version__ in compat.TESTED
    assert compat.untested() == ""
    compat.refuse_hooks(LarderConnector)


@pytest.mark.parametrize("version", ["0.26.0+cpu", "0.32.0.dev3+g1234567"])
def test_builds_of_tested_versions(version: str) -> None:
    assert compat.untested(version) == ""


@pytest.mark.parametrize("version", ["0.26.1", "0.33.0", "1.0", "dev"])
def test_another_version_gets_a_line_that_names_it(version: str) -> None:
    line = compat.untested(version)
    assert version in line
    assert all(known in line for known in compat.TESTED)


def test_hooks_as_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_NEEDED", frozenset({"get_finished"}))
    compat.refuse_hooks(connector(), (Engine,))


def test_arguments_that_the_connector_may_leave_aside() -> None:
    def with_anything(self: Any, kv_caches: Any, **more: Any) -> None: ...

    def newer(self: Any, kv_caches: Any, *, pool: Any) -> None: ...

    def older(self: Any) -> None: ...

    def with_a_default(self: Any, pool: Any = None) -> None: ...

    compat.refuse_hooks(connector(h=with_anything), (type("E", (Engine,), {"h": newer}),))
    compat.refuse_hooks(connector(h=with_a_default), (type("E", (Engine,), {"h": older}),))


def renamed(self: Any, request_ids: Any) -> Any: ...
def more(self: Any, finished_req_ids: Any, step: Any) -> Any: ...
def keyword(self: Any, finished_req_ids: Any, *, step: Any) -> Any: ...
def fewer(self: Any) -> Any: ...


def of_class(cls: Any, data: Any = None) -> Any: ...
def of_class_newer(cls: Any, data: Any, names: Any) -> Any: ...


def test_a_hook_of_the_class_with_other_arguments_is_refused_by_name() -> None:
    made = connector(build=classmethod(of_class))
    compat.refuse_hooks(made, (type("Same", (Engine,), {"build": classmethod(of_class)}),))
    with pytest.raises(LarderError, match="build"):
        compat.refuse_hooks(made, (type("Newer", (Engine,), {"build": classmethod(of_class_newer)}),))


@pytest.mark.parametrize("hook", [renamed, more, keyword, fewer])
def test_a_hook_with_other_arguments_is_refused_by_name(hook: Any) -> None:
    newer = type("Newer", (Engine,), {"get_finished": hook})
    with pytest.raises(LarderError, match=rf"get_finished.*vLLM {vllm.__version__}"):
        compat.refuse_hooks(connector(), (newer,))


def test_a_hook_that_is_gone_is_refused_by_name() -> None:
    with pytest.raises(LarderError, match=r"get_finished.*no such hook"):
        compat.refuse_hooks(connector(), (type("Empty", (), {}),))


def test_a_new_hook_that_must_be_there_is_refused_by_name() -> None:
    made = connector()
    made.__abstractmethods__ = frozenset({"brand_new"})  # type: ignore[attr-defined]
    with pytest.raises(LarderError, match="brand_new"):
        compat.refuse_hooks(made, (Engine,))


def test_an_engine_without_what_is_imported_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("larder.vllm")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("vllm.distributed.kv_transfer.kv_connector.utils.get_current_attn_backends")
    with pytest.raises(ImportError, match=rf"vLLM {vllm.__version__} lacks.*get_current_attn_backends"):
        importlib.import_module("larder.vllm")


def test_all_versions_share_kv(model_folder: Path) -> None:
    # Changes with the namespace's format and with the defaults of Llama's config, and then in all versions at once.
    assert namespace(make_config(model_folder, block=32)).fingerprint().hex()[:16] == FINGERPRINT


def test_settings_of_multimodal_input_are_in_the_namespace(model_folder: Path) -> None:
    c = make_config(model_folder)
    plain = namespace(c).fingerprint()
    made = {plain}
    for setting, value in {
        "mm_processor_kwargs": {"max_pixels": 1000},
        "video_pruning_rate": 0.5,
        "mm_encoder_attn_dtype": "fp8",
    }.items():
        c.model_config.multimodal_config = SimpleNamespace(**{setting: value})
        made.add(namespace(c).fingerprint())
    assert len(made) == 4
    c.model_config.multimodal_config = SimpleNamespace()
    assert namespace(c).fingerprint() == plain


def test_scales_of_an_encoder_need_a_name(model_folder: Path) -> None:
    c = make_config(model_folder)
    c.model_config.multimodal_config = SimpleNamespace(mm_encoder_fp8_scale_path="/scales")
    with pytest.raises(LarderError, match="mm_encoder_fp8_scale_path"):
        namespace(c, Settings())


@pytest.mark.parametrize("name", ["num_head_slots", "state_content_bytes", "tokens_per_state"])
def test_pages_that_are_packed_otherwise_are_not_taken(model_folder: Path, name: str) -> None:
    cache_config = make_cache_config(32, 8)
    spec = cache_config.kv_cache_groups[0].kv_cache_spec
    object.__setattr__(spec, name, 2)
    said = support.off(make_config(model_folder), cache_config)
    # What is packed so may also be padded by the engine's count.
    assert name in said or said == "padded pages"
    assert compat.unknown_pages(spec) == f"pages with {name} 2"


def test_the_unit_of_block_hashes_has_two_names() -> None:
    assert compat.prefix_match_unit(SimpleNamespace(hash_block_size=16)) == 16
    assert compat.prefix_match_unit(SimpleNamespace(hash_block_size=16, prefix_match_unit=None)) is None
    assert compat.prefix_match_unit(SimpleNamespace(hash_block_size=16, prefix_match_unit=32)) == 32


@pytest.mark.parametrize("changes", [{"compress_ratio": 4}, {"tokens_per_state": 4}, {"cache_role": "indexer"}])
def test_latents_that_are_not_one_for_each_token(changes: dict[str, Any]) -> None:
    assert not compat.compressed(SimpleNamespace(compress_ratio=1))
    assert not compat.compressed(SimpleNamespace(tokens_per_state=1, cache_role="sparse"))
    assert compat.compressed(SimpleNamespace(**changes))


def test_latents_are_taken_from_every_version(model_folder: Path) -> None:
    spec = MLAAttentionSpec(block_size=32, num_kv_heads=1, head_size=96, dtype=torch.bfloat16)
    cache_config = KVCacheConfig(8, [], [KVCacheGroupSpec(["model.layers.0.self_attn.attn"], spec)])
    assert support.off(make_config(model_folder), cache_config) == ""
    assert compat.latent_without_v(spec) == (spec.head_size_v == 0)
