"""Contract, lines 10 and 12: what is in a request's keys, and what keeps it out of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from simulated_engine import MakeEngine, MakePrompt, expected_output
from stub_daemon import StubDaemon

from larder.keys import Extra, ExtraKind
from larder.vllm.lora import AdapterDigests
from larder.vllm.request_policy import RequestPolicy, policy_of

IMAGE = "a" * 64


def request(**fields: Any) -> Any:
    """A request as far as its policy looks at it."""
    base: dict[str, Any] = {
        "kv_transfer_params": None, "prompt_embeds": None, "resumable": False, "pooling_params": None,
        "lora_request": None, "cache_salt": None, "skip_reading_prefix_cache": False, "mm_features": [],
        "priority": 0,
    }  # fmt: skip
    return SimpleNamespace(**(base | fields))


def policy(digest: Any = None, warn: Any = None, **fields: Any) -> RequestPolicy:
    return policy_of(request(**fields), lambda _: digest, warn or pytest.fail)


def image(content: str | None = IMAGE, offset: int = 3, length: int = 5, identifier: str = "x") -> Any:
    return SimpleNamespace(
        mm_hash=content, identifier=identifier, mm_position=SimpleNamespace(offset=offset, length=length)
    )


def test_salts_are_kept_apart() -> None:
    salts = [
        policy().salt,
        policy(cache_salt="a").salt,
        policy(kv_transfer_params={"larder": {"salt": "b"}}).salt,
        policy(cache_salt="a", kv_transfer_params={"larder": {"salt": "b"}}).salt,
        policy(cache_salt="ab").salt,
        policy(cache_salt="b", kv_transfer_params={"larder": {"salt": "a"}}).salt,
    ]
    assert salts == [b"", b"a", b"b", b"a\0b", b"ab", b"b\0a"]
    assert policy(cache_salt="a\0b").uncached
    assert policy(cache_salt="x" * 5000).uncached


def test_requests_with_other_salts_never_hit(engine: MakeEngine, prompt: MakePrompt) -> None:
    stored = engine()
    stored.generate("a", prompt(300), cache_salt="one")
    for salt, params, external in (
        ("one", None, 256),
        ("two", None, 0),
        (None, None, 0),
        (None, {"larder": {"salt": "one"}}, 256),
        ("one", {"larder": {"salt": "more"}}, 0),
    ):
        e = engine()
        assert e.generate("r", prompt(300), cache_salt=salt, params=params) == expected_output(prompt(300), 4)
        assert e.external["r"] == external, (salt, params)


def test_images_are_in_the_keys() -> None:
    assert policy(mm_features=[image()]).extras == (Extra(ExtraKind.MULTIMODAL, 3, 5, IMAGE.encode()),)
    assert policy(mm_features=[image(content=None, identifier="b" * 64)]).extras[0].content == b"b" * 64


@pytest.mark.parametrize("name", ["my picture", "image-1", "A" * 64, ""])
def test_images_known_by_a_name_only_are_not_cached(name: str) -> None:
    assert policy(mm_features=[image(content=name)]).uncached == "multimodal content without a hash"


def test_prompt_embeddings_are_not_cached() -> None:
    assert policy(prompt_embeds=torch.zeros(4, 8)).uncached == "prompt embeddings"


@pytest.mark.parametrize("field", ["resumable", "pooling_params"])
def test_other_requests_that_are_not_cached(field: str) -> None:
    assert policy(**{field: True}).uncached


def test_adapters_are_in_the_root() -> None:
    assert policy(lora_request=object()).uncached == "adapter not identified"
    assert policy(digest=b"d" * 32, lora_request=object()).adapter == b"d" * 32


def test_unknown_parameters_warn_and_do_nothing() -> None:
    said: list[str] = []
    p = policy(warn=said.append, kv_transfer_params={"other": 1, "larder": {"skip_laod": True, "skip_load": True}})
    assert p.skip_load
    assert said == ["kv_transfer_params.larder.skip_laod is unknown and ignored"]


@pytest.mark.parametrize("given", [None, {}, [], "x", {"other": {"salt": 1}}])
def test_parameters_of_others_are_theirs(given: Any) -> None:
    assert policy(kv_transfer_params=given) == policy()


@pytest.mark.parametrize("params", [{"skip_load": 1}, {"skip_store": "yes"}, {"salt": 3}, "x"])
def test_ill_typed_parameters_keep_the_request_out(params: Any) -> None:
    assert policy(kv_transfer_params={"larder": params}).uncached


@pytest.mark.parametrize(
    ("level", "engine_quality", "quality"),
    [(None, 0, 0), (None, 3, 3), ("exact", 3, 0), ("L0", 3, 1), ("L3", 3, 3), ("L2", 0, 0), ("exact", 0, 0)],
)
def test_the_level_of_a_request_is_never_worse_than_the_engines(level: Any, engine_quality: int, quality: int) -> None:
    params = None if level is None else {"larder": {"lowest_level": level}}
    made = policy_of(request(kv_transfer_params=params), lambda _: None, pytest.fail, engine_quality)
    assert (made.worst_quality, made.uncached) == (quality, "")


@pytest.mark.parametrize("params", [{"lowest_level": 0}, {"lowest_level": "L4"}, {"lowest_level": ["exact"]}, "x"])
def test_a_level_that_is_none_counts_as_exact(params: Any) -> None:
    made = policy_of(request(kv_transfer_params={"larder": params}), lambda _: None, pytest.fail, 3)
    assert made.worst_quality == 0
    assert made.uncached


def test_who_wants_exact_and_is_not_cached_still_wants_exact() -> None:
    params = {"larder": {"lowest_level": "exact", "salt": 1}}
    made = policy_of(request(kv_transfer_params=params), lambda _: None, pytest.fail, 3)
    assert made == RequestPolicy(uncached="kv_transfer_params.larder.salt is no string", worst_quality=0)
    # Others take what the engine takes.
    assert policy_of(request(prompt_embeds=1), lambda _: None, pytest.fail, 3).worst_quality == 3


def test_priorities() -> None:
    assert policy(priority=7).priority == 7
    assert policy(priority=7, kv_transfer_params={"larder": {"priority": -1}}).priority == -1
    assert policy(priority=1 << 40).priority == 1 << 31
    for wrong in (1 << 40, True, "1", 0.5):
        assert policy(kv_transfer_params={"larder": {"priority": wrong}}).uncached


def test_another_tenant_than_the_engines_is_not_cached() -> None:
    def of(tenant: Any, own: str) -> str:
        made = request(kv_transfer_params={"larder": {"tenant": tenant}})
        return policy_of(made, lambda _: None, pytest.fail, 0, own).uncached

    other = "kv_transfer_params.larder.tenant is not the tenant of this engine"
    assert of("a", "a") == of(None, "a") == of("", "") == ""
    assert of("b", "a") == of("b", "") == of("", "a") == other
    assert of(3, "a") == "kv_transfer_params.larder.tenant is no string"


def test_another_tenants_request_leaves_nothing(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine(extra={"tenant": "a"})
    tokens = prompt(300)
    assert e.generate("b", tokens, params={"larder": {"tenant": "b"}}) == expected_output(tokens, 4)
    assert not daemon.chunks
    assert not daemon.matches
    assert e.connector.stats.uncached == {"kv_transfer_params.larder.tenant is not the tenant of this engine": 1}
    e.drop_own_cache()
    e.generate("a", tokens, params={"larder": {"tenant": "a"}})
    e.drop_own_cache()
    e.generate("a again", tokens)
    assert e.external["a again"] == 256


def test_the_most_urgent_load_goes_first(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    prompts = {name: prompt(300, seed=i) for i, name in enumerate(["first", "low", "middle", "high"])}
    stored = engine(blocks=256)
    for name, tokens in prompts.items():
        stored.generate(name, tokens, max_tokens=1)
    daemon.stuck = True
    e = engine(blocks=256)
    e.add("first", prompts["first"])
    e.step()
    e.add("low", prompts["low"], priority=9)
    e.add("middle", prompts["middle"])
    e.add("high", prompts["high"], params={"larder": {"priority": -5}})
    e.step()
    assert e.connector.stats.loads == 4
    daemon.stuck = False
    e.run()
    # Prompts were stored one after the other.
    firsts = dict(zip([key for key, _, ordinal, _ in daemon.commits if ordinal == 0], prompts, strict=True))
    order = [firsts[key] for key in dict.fromkeys(key for key, _ in daemon.loaded) if key in firsts]
    assert order == ["first", "high", "middle", "low"]
    assert all(e.external[name] == 256 for name in prompts)


def test_the_urgent_ask_early(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    stored = engine(blocks=256)
    for i in range(3):
        stored.generate(str(i), prompt(300, seed=i), max_tokens=1)
    daemon.matches.clear()
    e = engine(blocks=256, extra={"early_matches": 1})
    e.add("a", prompt(300, seed=0), priority=1)
    e.add("b", prompt(300, seed=1), priority=1)
    assert len(daemon.matches) == len(daemon.holds) == 1
    e.add("c", prompt(300, seed=2))
    assert len(daemon.matches) == 2
    # The hold of a made room.
    assert len(daemon.holds) == 1
    e.run()
    assert [e.external[name] for name in "abc"] == [256] * 3
    assert not daemon.holds


def test_uncached_requests_are_computed_and_counted(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine()
    tokens = prompt(300)
    assert e.generate("r", tokens, params={"larder": {"salt": 5}}) == expected_output(tokens, 4)
    assert not daemon.chunks
    assert not daemon.matches
    assert e.connector.stats.uncached == {"kv_transfer_params.larder.salt is no string": 1}


def lora(path: Path | str, number: int = 1, **fields: Any) -> Any:
    base = {"lora_int_id": number, "lora_path": str(path), "load_inplace": False}
    base |= {"tensorizer_config_dict": None, "is_3d_lora_weight": False}
    return SimpleNamespace(**(base | fields))


def adapter(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.bin").write_bytes(weights)
    (folder / "adapter_config.json").write_text("{}")
    return folder


@pytest.fixture
def digests() -> Iterator[AdapterDigests]:
    made = AdapterDigests()
    yield made
    made.close()


def known(digests: AdapterDigests, lora_request: Any) -> bytes | None:
    """The digest, once its thread is done."""
    digests.digest(lora_request)
    under_way = digests._adapters[lora_request.lora_int_id]
    assert under_way is not None
    under_way.digest.result(60)
    return digests.digest(lora_request)


def test_adapters_are_known_by_content(digests: AdapterDigests, tmp_path: Path) -> None:
    one = known(digests, lora(adapter(tmp_path / "a"), 1))
    same = known(digests, lora(adapter(tmp_path / "b"), 2))
    other = known(digests, lora(adapter(tmp_path / "c", b"retrained"), 3))
    assert one == same != other
    assert one is not None
    assert len(one) == 32


def test_an_adapter_whose_files_change_is_not_known_any_more(digests: AdapterDigests, tmp_path: Path) -> None:
    request = lora(adapter(tmp_path / "a"))
    assert known(digests, request) is not None
    adapter(tmp_path / "a", b"longer than before")
    assert digests.digest(request) is None
    # Nor when they change back: the engine may have read either.
    adapter(tmp_path / "a")
    assert digests.digest(request) is None


def test_adapters_that_cannot_be_known(digests: AdapterDigests, tmp_path: Path) -> None:
    assert digests.digest(lora(tmp_path / "absent")) is None
    assert digests.digest(lora("org/some-adapter", 2)) is None
    assert digests.digest(lora(adapter(tmp_path / "a"), 3, load_inplace=True)) is None
    (tmp_path / "empty").mkdir()
    assert known(digests, lora(tmp_path / "empty", 4)) is None


def test_an_adapter_number_with_another_path_is_not_known(digests: AdapterDigests, tmp_path: Path) -> None:
    assert known(digests, lora(adapter(tmp_path / "a"))) is not None
    assert digests.digest(lora(adapter(tmp_path / "b"))) is None


def test_forms_of_an_adapter_differ(digests: AdapterDigests, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    plain = known(digests, lora(folder))
    assert digests.digest(lora(folder, is_3d_lora_weight=True)) != plain
