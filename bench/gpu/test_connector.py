"""The connector in real engines on a GPU, with a real daemon: pages byte for byte.

    make build && python3 -m pytest bench/gpu/test_connector.py

Needs a GPU and vLLM, and fails without them: it is no part of CI. Digests of pages
are taken by plain indexing in the engine's worker (inside/engine_pages.py), in the order heads,
tokens, K and V, so orders of pages can be compared with each other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import models
from checks import LENGTH, WHOLE, answers_as, load, pages, store
from rig import Daemon, Engine, daemon, with_larder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def larderd(work: Path) -> Iterator[Daemon]:
    made = daemon(work / "larder", "4GiB")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def engines(work: Path, larderd: Daemon) -> Iterator[dict[str, Engine]]:
    """All of the module's, started side by side: most of a start is waiting."""
    llama, mla = models.small(work / "llama"), models.latent(work / "mla")
    larder = {"kv_transfer_config": with_larder(larderd.socket, credit_mib=512)}
    nhd, hnd = {"VLLM_KV_CACHE_LAYOUT": "NHD"}, {"VLLM_KV_CACHE_LAYOUT": "HND"}
    kinds: dict[str, tuple[Path, dict[str, str], dict[str, Any]]] = {
        "plain": (llama, nhd, {}),
        "nhd": (llama, nhd, larder),
        "hnd": (llama, hnd, larder),
        "triton": (llama, {}, {**larder, "attention_backend": "TRITON_ATTN"}),
        "sleeper": (llama, nhd, {**larder, "enable_sleep_mode": True}),
        "latent": (mla, {}, larder),
        "latent.fresh": (mla, {}, larder),
    }
    made = {}
    for name, (model, environment, options) in kinds.items():
        made[name] = Engine(
            name, model, work / f"{name}.log", environment,
            max_model_len=4096, max_num_batched_tokens=4096, max_num_seqs=8, kv_cache_memory_bytes=1 << 30, **options,
        )  # fmt: skip
    yield made
    for engine in made.values():
        engine.kill()


@pytest.fixture(scope="module")
def followers(work: Path, larderd: Daemon) -> Iterator[dict[str, Engine]]:
    """Engines whose stores and loads go by layer: eager, and with graphs of pieces."""
    llama = models.small(work / "followed")
    config = with_larder(larderd.socket, credit_mib=512, store_layers="auto", load_layers="auto")
    pieces: dict[str, Any] = {"mode": 3, "backend": "eager", "cudagraph_mode": "FULL_AND_PIECEWISE"}
    pieces["cudagraph_capture_sizes"] = [1, 8, 4096]
    graphs: dict[str, Any] = {"enforce_eager": False, "compilation_config": pieces}
    made = {
        name: Engine(
            name, llama, work / f"{name}.log", kv_transfer_config=config, max_model_len=4096,
            max_num_batched_tokens=4096, max_num_seqs=8, kv_cache_memory_bytes=1 << 30, **options,
        )
        for name, options in {"follower": {}, "follower.graphs": graphs}.items()
    }  # fmt: skip
    yield made
    for engine in made.values():
        engine.kill()


@pytest.mark.parametrize(
    ("writer", "reader"), [("nhd", "nhd"), ("nhd", "hnd"), ("hnd", "nhd"), ("nhd", "triton"), ("triton", "nhd")]
)
def test_pages_come_back_as_they_left(engines: dict[str, Engine], writer: str, reader: str) -> None:
    a, b = engines[writer].ready(), engines[reader].ready()
    print(writer, a.call("form"), a.call("versions"))
    prompt = [ord(writer[0]) * 1000 + ord(reader[0]), LENGTH]
    store(a, prompt)
    written = pages(a, prompt)
    assert len({page for digests in written.values() for page in digests}) == 4 * 8 * (WHOLE // 16)
    load(b, prompt)
    assert pages(b, prompt) == written


@pytest.mark.parametrize(("writer", "reader"), [("follower", "follower"), ("follower.graphs", "follower")])
def test_stores_that_follow_the_layers(followers: dict[str, Engine], writer: str, reader: str) -> None:
    """In the fourth prompt, since modes of steps must be proven first; the last step's KV is stored as it comes."""
    a, b = followers[writer].ready(), followers[reader].ready()
    for i in range(3):
        store(a, [2000 + 100 * len(writer) + i, LENGTH])
    prompt = [3000 + len(writer), LENGTH]
    before = _followed(a)
    store(a, prompt)
    assert _followed(a) > before
    written = pages(a, prompt)
    assert len({page for digests in written.values() for page in digests}) == 4 * 8 * (WHOLE // 16)
    load(b, prompt)
    assert pages(b, prompt) == written


def _followed(engine: Engine) -> float:
    return float(engine.call("counts")["workers"][0]["hook_s"].get("save_layers", 0))


def test_the_answer_is_that_of_an_engine_without(engines: dict[str, Engine]) -> None:
    plain, ours = engines["plain"].ready(), engines["nhd"].ready()
    prompt = [77, LENGTH]
    store(ours, prompt)
    answers_as(plain, prompt, load(ours, prompt))


def test_latent_pages(engines: dict[str, Engine]) -> None:
    a, b = engines["latent"].ready(), engines["latent.fresh"].ready()
    prompt = [55, LENGTH]
    store(a, prompt)
    written = pages(a, prompt)
    load(b, prompt)
    assert pages(b, prompt) == written


def test_sleep_leaves_what_is_stored(engines: dict[str, Engine]) -> None:
    sleeper, reader = engines["sleeper"].ready(), engines["nhd"].ready()
    prompt = [99, LENGTH]
    first = store(sleeper, prompt)
    written = pages(sleeper, prompt)
    sleeper.call("sleep", level=1)
    load(reader, prompt)
    assert pages(reader, prompt) == written
    sleeper.call("wake")
    sleeper.call("overwrite", value=3.0)
    # Weights are the same, pages are not: a page that was taken for kept would change the answer.
    assert sleeper.call("ask", prompt=prompt, tokens=8, cut=WHOLE)["token_ids"] == first["token_ids"]
