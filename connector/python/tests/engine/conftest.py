"""The engine's environment, and what all of these tests share."""

# ruff: noqa: E402 - the engine reads its environment when it is imported

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from simulated_engine import MakeEngine, MakePrompt

# What takes more engines than CI has time for.
collect_ignore_glob = [] if os.environ.get("LARDER_NIGHTLY") else ["test_nightly_*"]

REPOSITORY = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(REPOSITORY / "test"))

from harness.engine import ENVIRONMENT

# Before the engine is imported: it reads some of these only then.
os.environ.update(ENVIRONMENT | {"VLLM_LOGGING_LEVEL": "ERROR"})
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
# Nothing may depend on the order of sets or on hashes of strings.
os.environ.pop("PYTHONHASHSEED", None)


import torch
from gpu_engine import gpu  # noqa: F401 - a fixture
from other_connector import CLAIM
from simulated_config import VOCABULARY, make_config, write_config
from simulated_engine import SimulatedEngine
from step_cases import step_engines, step_kind  # noqa: F401 - fixtures
from stub_daemon import StubDaemon
from vllm.config import KVTransferConfig

from larder import namespace

# Several parts for each chunk, also of a model so small that one would do.
namespace._MIN_DEFAULT_PART_BYTES = 1


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two small layers, config only."""
    return write_config(tmp_path_factory.mktemp("model"))


@pytest.fixture
def daemon() -> StubDaemon:
    """An empty daemon within the test."""
    return StubDaemon()


@pytest.fixture
def engine(model_folder: Path, daemon: StubDaemon) -> Iterator[MakeEngine]:
    """Makes simulated engines that talk to the daemon; keyword arguments as make_config's. kind:
    a class like SimulatedEngine."""
    made = []
    # So small tensors gain nothing from two threads, and lose much on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def make(
        connect: Any = daemon.connect, cache_config: Any = None, kind: Any = SimulatedEngine, **options: Any
    ) -> Any:
        made.append(kind(make_config(model_folder, **options), connect, cache_config))
        return made[-1]

    yield make
    for one in made:
        one.close()
    torch.set_num_threads(threads)


@pytest.fixture
def both(model_folder: Path, daemon: StubDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeEngine]:
    """Makes engines of Larder's and another connector, in an order; extra as make_config's."""
    made = []

    def make(
        *order: str, extra: dict[str, Any] | None = None, cache_config: Any = None, kind: Any = SimulatedEngine
    ) -> Any:
        config = make_config(model_folder, extra=extra)
        own = config.kv_transfer_config
        larder = {
            "kv_connector": "LarderConnector", "kv_connector_module_path": "larder.vllm", "kv_role": "kv_both",
            "kv_connector_extra_config": own.kv_connector_extra_config,
        }  # fmt: skip
        other = {
            "kv_connector": "OtherConnector",
            "kv_connector_module_path": "other_connector",
            "kv_role": "kv_both",
        }
        which = {"larder": larder, "other": other}
        config.kv_transfer_config = KVTransferConfig(
            kv_connector="MultiConnector",
            kv_role="kv_both",
            kv_connector_extra_config={"connectors": [which[name] for name in order]},
        )
        made.append(kind(config, daemon.connect, cache_config))
        return made[-1]

    for key, nothing in {"tokens": 0, "async": 0, "fails": 0}.items():
        monkeypatch.setitem(CLAIM, key, nothing)
    yield make
    for one in made:
        one.close()


@pytest.fixture
def prompt() -> MakePrompt:
    """Makes prompts: prompt(300), or another one with prompt(300, seed=1)."""

    def make(tokens: int, seed: int = 0) -> list[int]:
        source = random.Random(seed)  # noqa: S311
        return [source.randrange(VOCABULARY) for _ in range(tokens)]

    return make


@pytest.fixture(scope="session")
def binaries() -> Path:
    """Where larderd and larder are."""
    folder = Path(os.environ.get("LARDER_BIN", REPOSITORY / "bin"))
    assert (folder / "larderd").is_file(), f"no larderd in {folder}: make build"
    return folder


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path: that of a Unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ldr") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def test_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model: LARDER_TEST_MODEL, else a shared one, else one made here."""
    named = os.environ.get("LARDER_TEST_MODEL")
    shared = REPOSITORY.parent / "shared/models/llama-27m"
    if named or shared.is_dir():
        return Path(named or shared)
    from demo import document, model

    folder = tmp_path_factory.mktemp("made")
    model.make(folder, list(document.OWN_TEXTS))
    return folder


@pytest.fixture(scope="session")
def words() -> Callable[[Path], list[int]]:
    """Tokens of the repository's own texts, by a model's tokenizer."""

    def tokens(model: Path) -> list[int]:
        from transformers import AutoTokenizer

        from demo import document

        tokenizer = AutoTokenizer.from_pretrained(str(model))
        ids = []
        for text in document.OWN_TEXTS:
            ids += tokenizer(text.read_text())["input_ids"]
        assert len(ids) >= 9000, f"only {len(ids)} tokens of text"
        return ids

    return tokens
