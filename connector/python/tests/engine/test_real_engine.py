"""The connector in real engines, with a real daemon.

What comes back is what left, and the answers are those of an engine without it. All
of it computes in float32 except where it says so; in bfloat16 two tokens may score
alike, and which one wins depends on how many tokens were reused.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_versions import smallest_block
from real_engine import RealEngine

from harness.daemon import Daemon
from larder.client import Client, CommitChunk, CommitPart, Options
from larder.credits import Credit
from larder.keys import chunk_keys, root_key
from larder.namespace import NamespaceDescriptor

CHUNK = 256
TOKENS = 24
MakeEngine = Callable[..., RealEngine]
PARTS = 2
ALONE = {"skip_load": True, "skip_store": True}


@pytest.fixture(scope="module")
def work(short_folder: Path) -> Path:
    return short_folder


@pytest.fixture(scope="module")
def larderd(binaries: Path, work: Path) -> Iterator[Daemon]:
    """One daemon for the module; its counters are compared as differences."""
    daemon = Daemon(binaries, work, host_bytes="1GiB")
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def prompts(test_model: Path, words: Callable[[Path], list[int]]) -> dict[str, Any]:
    """Prompts of real text, no two of which share a chunk unless they are made to."""
    ids = words(test_model)
    return {
        "long": ids[:3000],
        "shared": ids[:1700] + ids[5000:5600],
        "inside": ids[:1700] + ids[7000:7100],
        "many": ids[3000:4500],
        "short": ids[4500:5000],
        "poison": ids[5600:7000],
        "aborted": ids[7000:8600],
        "preempted": [ids[i * 700 : i * 700 + 600] for i in range(4)],
    }


@pytest.fixture(scope="module")
def engines(test_model: Path, work: Path, larderd: Daemon) -> Iterator[MakeEngine]:
    """Makes engines, one at a time: the machine may have two cores."""
    made: list[RealEngine] = []

    def make(name: str, socket: Path | None = larderd.socket, **options: Any) -> RealEngine:
        for engine in made:
            engine.kill()
        made[:] = [RealEngine(test_model, work / f"{name}.log", socket=socket, **options)]
        if socket is not None and "distributed_executor_backend" not in options:
            made[0].await_ready()
        return made[0]

    yield make
    for engine in made:
        engine.kill()


@pytest.fixture(scope="module")
def control(engines: MakeEngine, prompts: dict[str, Any]) -> dict[str, list[int]]:
    """What an engine without Larder answers."""
    engine = engines("control", socket=None)
    flat = {k: v for k, v in prompts.items() if k != "preempted"}
    answers = {name: engine.generate(prompt, TOKENS)["token_ids"] for name, prompt in flat.items()}
    answers |= {f"preempted{i}": engine.generate(p, 200)["token_ids"] for i, p in enumerate(prompts["preempted"])}
    assert all(len(set(a)) > 4 for a in answers.values()), "answers of one word prove little"
    return answers


def full(prompt: list[int]) -> int:
    return len(prompt) // CHUNK * CHUNK


@contextlib.contextmanager
def loaded(engine: RealEngine, larderd: Daemon, chunks: int) -> Iterator[None]:
    """Fails unless so many chunks, of two parts each, come from the daemon meanwhile: by the engine's count and by
    the daemon's own."""
    stats, counters = engine.stats(), larderd.counters()
    yield
    assert engine.stats()["chunks_loaded"] - stats["chunks_loaded"] == chunks
    assert larderd.counters()["loaded_parts"] - counters["loaded_parts"] == PARTS * chunks


@pytest.fixture(scope="module")
def stored(
    engines: MakeEngine, larderd: Daemon, prompts: dict[str, Any], control: dict[str, list[int]]
) -> dict[str, list[str]]:
    """Cold engine: everything is computed and stored. Returns the hashes of its pages; it is killed."""
    engine = engines("cold", kv_events_config={"enable_kv_cache_events": True, "publisher": "null"})
    before = larderd.counters()
    for name in ("long", "many", "short", "aborted"):
        answer = engine.generate(prompts[name], TOKENS)
        assert answer["token_ids"] == control[name]
        assert answer["cached"] == 0
    # Generated tokens complete further chunks now and then.
    chunks = sum((len(prompts[n]) + TOKENS - 1) // CHUNK for n in ("long", "many", "short", "aborted"))
    after = larderd.await_published(before["published_chunks"] + chunks, 60)
    parts = after["stored_parts"] - before["stored_parts"]
    assert parts == PARTS * chunks
    stats = engine.stats()
    assert stats["chunks_stored"] == stats["chunks_published"] == chunks
    # What was answered after the last step is announced with the next one.
    engine.generate(prompts["poison"][:100], 2, larder=ALONE)
    assert engine.stats("scheduler")["events_stored"] == chunks
    assert stats["dropped_rejected"] == stats["dropped_failed"] == 0
    return {
        name: engine.ask("pages", prompt=prompts[name], chunks=len(prompts[name]) // CHUNK) for name in ("long", "many")
    }


def test_cold_and_stored(stored: dict[str, list[str]]) -> None:
    assert [len(v) for v in stored.values()] == [11, 5]


@pytest.fixture(scope="class")
def engine(stored: dict[str, list[str]], engines: MakeEngine) -> RealEngine:
    """The engine of TestWarm."""
    return engines("warm")


class TestWarm:
    """A new engine process, whose own cache is empty."""

    def test_all_full_chunks_are_loaded_byte_for_byte(
        self,
        engine: RealEngine,
        larderd: Daemon,
        stored: dict[str, list[str]],
        prompts: dict[str, Any],
        control: dict[str, list[int]],
    ) -> None:
        before = larderd.counters()
        answer = engine.generate(prompts["long"], TOKENS)
        assert answer == {"token_ids": control["long"], "cached": full(prompts["long"])}
        after = larderd.counters()
        stats = engine.stats()
        assert stats["chunks_loaded"] == 11
        assert after["loaded_bytes"] - before["loaded_bytes"] == stats["bytes_loaded"]
        assert stats["bytes_loaded"] == after["stored_bytes"] // after["stored_parts"] * 22
        scheduler = engine.stats("scheduler")
        assert scheduler["tokens_loaded"] == scheduler["tokens_matched"] == full(prompts["long"])
        assert engine.ask("pages", prompt=prompts["long"], chunks=11) == stored["long"]

    def test_a_shared_prefix_beyond_a_local_hit(
        self, engine: RealEngine, larderd: Daemon, prompts: dict[str, Any], control: dict[str, list[int]]
    ) -> None:
        assert engine.ask("reset")
        engine.generate(prompts["shared"][:600], 1, larder=ALONE)  # 4 blocks of 128: 2 chunks
        with loaded(engine, larderd, 4):
            answer = engine.generate(prompts["shared"], TOKENS)
        # 1700 of its tokens are those of a stored prompt: 6 chunks.
        assert answer == {"token_ids": control["shared"], "cached": 1536}

    def test_a_local_hit_that_ends_inside_a_chunk(
        self,
        engine: RealEngine,
        larderd: Daemon,
        stored: dict[str, list[str]],
        prompts: dict[str, Any],
        control: dict[str, list[int]],
    ) -> None:
        assert engine.ask("reset")
        engine.generate(prompts["long"][:900], 1, larder=ALONE)  # 7 blocks of 128: 3 chunks and a half
        with loaded(engine, larderd, 8):
            answer = engine.generate(prompts["long"], TOKENS)
        assert answer == {"token_ids": control["long"], "cached": full(prompts["long"])}
        assert engine.ask("pages", prompt=prompts["long"], chunks=11)[4:] == stored["long"][4:]

    def test_a_partial_prefix(
        self, engine: RealEngine, larderd: Daemon, prompts: dict[str, Any], control: dict[str, list[int]]
    ) -> None:
        assert engine.ask("reset")
        with loaded(engine, larderd, 6):
            answer = engine.generate(prompts["inside"], TOKENS)
        assert answer == {"token_ids": control["inside"], "cached": 1536}

    def test_eight_equal_prompts_load_once(
        self, engine: RealEngine, larderd: Daemon, prompts: dict[str, Any], control: dict[str, list[int]]
    ) -> None:
        assert engine.ask("reset")
        one = engine.stats()["bytes_loaded"]
        assert engine.generate(prompts["many"], TOKENS)["cached"] == full(prompts["many"])
        one = engine.stats()["bytes_loaded"] - one
        assert engine.ask("reset")
        before = larderd.counters()["loaded_bytes"]
        answers = engine.generate_all([{"prompt": prompts["many"], "tokens": TOKENS}] * 8)
        assert [a["token_ids"] for a in answers] == [control["many"]] * 8
        assert all(a["cached"] >= full(prompts["many"]) for a in answers)
        assert larderd.counters()["loaded_bytes"] - before <= 1.1 * one

    def test_an_abort_during_the_load_leaves_nothing(
        self, engine: RealEngine, prompts: dict[str, Any], control: dict[str, list[int]]
    ) -> None:
        assert engine.ask("reset")
        before = engine.stats("scheduler")
        request = {"prompt": prompts["aborted"], "tokens": TOKENS}
        answers = engine.generate_all([{**request, "abort_after": 1}, {**request, "abort_after": 2}, request])
        assert answers[2]["token_ids"] == control["aborted"]
        assert engine.stats("scheduler")["loads"] > before["loads"]
        engine.ask("step", times=50)
        assert engine.ask("leftovers") == dict.fromkeys(["blocks", "requests", "states", "matches", "loads"], 0)

    def test_skip_load_and_skip_store(
        self, engine: RealEngine, larderd: Daemon, prompts: dict[str, Any], control: dict[str, list[int]]
    ) -> None:
        assert engine.ask("reset")
        before = larderd.counters()
        answer = engine.generate(prompts["short"], TOKENS, larder=ALONE)
        assert answer == {"token_ids": control["short"], "cached": 0}
        after = larderd.counters()
        for name in ("match_requests", "loaded_bytes", "stored_bytes"):
            assert after[name] == before[name]

    def test_another_salt_misses(
        self, engine: RealEngine, prompts: dict[str, Any], control: dict[str, list[int]]
    ) -> None:
        assert engine.ask("reset")
        answer = engine.generate(prompts["short"], TOKENS, salt="somebody else's")
        assert answer == {"token_ids": control["short"], "cached": 0}

    def test_poison_changes_the_output(
        self, engine: RealEngine, larderd: Daemon, prompts: dict[str, Any], control: dict[str, list[int]]
    ) -> None:
        """Wrong KV under right keys, with valid checksums: were the answer the same, loads would prove nothing."""
        namespace = NamespaceDescriptor.decode(bytes.fromhex(engine.ask("namespace")))
        prompt = prompts["poison"]
        with contextlib.closing(Client(Options(str(larderd.socket), namespace=namespace))) as client:
            assert client.wait_ready(10)
            length = namespace.parts()[0].raw_length
            client.keep_credits(length, 2 * len(namespace.parts()) * (len(prompt) // CHUNK))
            assert client.hello is not None
            root = root_key(namespace.fingerprint(), client.hello.tenant_key)
            keys = chunk_keys(root, prompt, CHUNK)
            chunks = [keys[i : i + 32] for i in range(0, len(keys), 32)]
            for ordinal, key in enumerate(chunks):
                parts = [CommitPart(p, fill(client, length)) for p in range(len(namespace.parts()))]
                chunk = CommitChunk(key, chunks[ordinal - 1] if ordinal else root, ordinal, CHUNK, parts)
                client.commit([chunk]).result(10)
        answer = engine.generate(prompt, TOKENS)
        assert answer["cached"] == full(prompt)
        assert answer["token_ids"] != control["poison"]

    def test_nothing_of_before_a_reset_is_used_after(
        self, engine: RealEngine, larderd: Daemon, prompts: dict[str, Any], control: dict[str, list[int]]
    ) -> None:
        prompt = prompts["short"]
        assert engine.ask("reset")
        with loaded(engine, larderd, 1):
            assert engine.generate(prompt, TOKENS) == {"token_ids": control["short"], "cached": CHUNK}
        assert engine.ask("reset", connector=True)
        # Which resets, too.
        engine.ask("sleep")
        # The worker hears of it with a step.
        engine.generate(prompt[:10], 1)
        engine.await_ready()
        before = larderd.counters()["published_chunks"]
        with loaded(engine, larderd, 0):
            assert engine.generate(prompt, TOKENS) == {"token_ids": control["short"], "cached": 0}
        larderd.await_published(before + (len(prompt) + TOKENS - 1) // CHUNK, 60)
        assert engine.ask("reset")
        with loaded(engine, larderd, 1):
            assert engine.generate(prompt, TOKENS) == {"token_ids": control["short"], "cached": CHUNK}

    def test_nothing_is_left(self, engine: RealEngine) -> None:
        assert engine.ask("leftovers") == dict.fromkeys(["blocks", "requests", "states", "matches", "loads"], 0)
        stats = engine.stats()
        # Of the aborted requests' loads some were cancelled under way.
        assert stats["loads_failed"] == stats["loads_cancelled"]
        assert stats["dropped_rejected"] == stats["chunks_conflict"] == 0


def fill(client: Client, length: int) -> Credit:
    """A credit full of small wrong numbers, once one is granted."""
    deadline = time.monotonic() + 60
    while (credit := client.take_credit(length)) is None:
        assert time.monotonic() < deadline, "no credit"
        time.sleep(0.01)
    with credit.writing() as view:
        view.view(np.float32)[: length // 4] = np.linspace(-1, 1, length // 4, dtype=np.float32)
    return credit


def test_block_32_in_an_engine_of_several_processes(
    stored: dict[str, list[str]],
    engines: MakeEngine,
    larderd: Daemon,
    prompts: dict[str, Any],
    control: dict[str, list[int]],
) -> None:
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_OMP_THREADS_BIND": "0-1"}
    engine = engines("block32", block_size=32, environment=environment, distributed_executor_backend="mp")
    before = larderd.counters()["loaded_parts"]
    for name in ("long", "many"):
        answer = engine.generate(prompts[name], TOKENS)
        assert answer == {"token_ids": control[name], "cached": full(prompts[name])}
    assert larderd.counters()["loaded_parts"] - before == PARTS * 16


def test_the_smallest_block_and_preemption_on_few_pages(
    stored: dict[str, list[str]], engines: MakeEngine, prompts: dict[str, Any], control: dict[str, list[int]]
) -> None:
    # Pages for 3500 tokens.
    block = smallest_block()
    extra = {"load_or_recompute": True}
    pages = {"block_size": block, "num_gpu_blocks_override": 3520 // block}
    engine = engines("small", **pages, max_model_len=3200, extra=extra)
    answer = engine.generate(prompts["long"], TOKENS)
    assert answer == {"token_ids": control["long"], "cached": full(prompts["long"])}
    assert engine.ask("pages", prompt=prompts["long"], chunks=11) == stored["long"]
    requests = [{"prompt": p, "tokens": 200} for p in prompts["preempted"]] * 2
    answers = engine.generate_all(requests)
    assert [a["token_ids"] for a in answers] == [control[f"preempted{i}"] for i in range(4)] * 2
    stats = engine.stats("scheduler")
    assert stats["preempted"] > 0, "the test is about preemption"
    assert stats["steps_measured"] > 0
    assert engine.ask("leftovers") == dict.fromkeys(["blocks", "requests", "states", "matches", "loads"], 0)


def test_bfloat16_against_as_many_tokens_reused_without_larder(
    engines: MakeEngine, larderd: Daemon, prompts: dict[str, Any]
) -> None:
    engine = engines("bfloat16", dtype="bfloat16")
    prompt, reused = prompts["long"], full(prompts["long"])
    engine.generate(prompt[: reused + 1], 1, larder=ALONE)
    want = engine.generate(prompt, TOKENS, larder=ALONE)
    assert want["cached"] == reused
    pages = engine.ask("raw_pages", prompt=prompt, tokens=reused)
    # Stores what the engine has.
    engine.generate(prompt[: reused + 1], TOKENS)
    assert engine.stats()["chunks_stored"] == 11
    assert engine.ask("reset")
    with loaded(engine, larderd, 11):
        have = engine.generate(prompt, TOKENS)
    assert have == want
    assert engine.ask("raw_pages", prompt=prompt, tokens=reused) == pages
