"""Real engines and a real daemon whose disk keeps bundles at L1, coded by a basis that
`larder calibrate` computed from the model's own KV."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from real_engine import RealEngine

from harness.daemon import Daemon
from larder.weights import find_weight_files, weights_id

CHUNK, TOKENS = 256, 24
L1 = {"lowest_level": "L1"}
EXACT = {"lowest_level": "exact"}
# Each KV head is a part, so that there is something to bundle.
HEADS = {"head_group": 1}


def calibrate(binaries: Path, model: Path, ids: list[int], folder: Path, unit: str) -> str:
    """Write the model's basis into the folder; its name, by KV of the tokens."""
    import transformers

    with torch.no_grad():
        llama: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        cache = transformers.DynamicCache()
        llama.model(torch.tensor([ids]), past_key_values=cache, use_cache=True)
    kv = torch.stack([torch.stack([x.keys[0], x.values[0]], 2) for x in cache.layers])
    layers, heads, tokens, _, dims = kv.shape
    recorded = folder / "recorded.raw"
    kv.numpy().tofile(recorded)
    said = subprocess.run(
        [
            str(binaries / "larder"), "calibrate", str(folder), str(recorded), "--unit", unit, "--json",
            "--layers", str(layers), "--heads", str(heads), "--tokens", str(tokens),
            "--fields", f"k:fp32:{dims},v:fp32:{dims}", "--config", str(model / "config.json"),
        ],
        check=True, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip
    recorded.unlink()
    name: str = json.loads(said)["id"]
    assert (folder / f"{name}.basis").is_file()
    return name


@pytest.fixture
def make_daemon(binaries: Path, tmp_path: Path, short_folder: Path) -> Iterator[Callable[..., Daemon]]:
    """Daemons of one state and one disk, one after the other."""
    made: list[Daemon] = []

    def make(codec: str, **flags: str) -> Daemon:
        if made:
            made[-1].stop()
        folder = short_folder / f"calibrated{len(made)}"
        folder.mkdir()
        settings = {
            "state_dir": str(tmp_path / "state"),
            "nvme.path": str(tmp_path / "nvme"), "nvme.bytes": "256MiB", "nvme.reserve_bytes": "1MiB",
            "nvme.buffered": "true", "nvme.write_back": "always", "nvme.codec": codec,
        } | {f"codec.{name}": value for name, value in flags.items()}  # fmt: skip
        made.append(Daemon(binaries, folder, host_bytes="512MiB", flags=settings))
        made[-1].start()
        return made[-1]

    yield make
    if made:
        made[-1].stop()


def on_disk(daemon: Daemon) -> dict[str, Any]:
    tier: dict[str, Any] = daemon.status()["tiers"][1]
    return tier


def await_on_disk(daemon: Daemon, chunks: int) -> int:
    until = time.monotonic() + 120
    while int(on_disk(daemon).get("chunks", 0)) < chunks:
        assert time.monotonic() < until, on_disk(daemon)
        time.sleep(0.05)
    return int(on_disk(daemon)["written_bytes"])


def test_bundles_in_real_engines(
    binaries: Path,
    make_daemon: Callable[..., Daemon],
    test_model: Path,
    words: Callable[[Path], list[int]],
    tmp_path: Path,
) -> None:
    ids = words(test_model)
    short, long = ids[:3000], ids[:3200]
    bases = tmp_path / "bases"
    bases.mkdir()
    basis = calibrate(binaries, test_model, ids[4000:5500], bases, "bundle")
    weights = weights_id(find_weight_files(test_model)).hex()
    by_basis = {"bases_dir": str(bases), "bases": f"{weights}={basis}"}

    @contextlib.contextmanager
    def engine(name: str, daemon: Daemon, **extra: Any) -> Iterator[RealEngine]:
        one = RealEngine(test_model, tmp_path / f"{name}.log", socket=daemon.socket, extra=HEADS | extra)
        try:
            one.await_ready()
            yield one
        finally:
            one.kill()

    first = make_daemon("calibrated:L1", **by_basis)
    with engine("a", first) as a:
        assert a.generate(short, TOKENS)["cached"] == 0
        written = await_on_disk(first, 11)
        bytes_stored = a.stats()["bytes_stored"]
        right = a.generate(long, TOKENS, larder={"skip_store": True})["token_ids"]
        codec = codec_of(binaries, first)
    assert codec == f"calibrated:L1 bundle {basis[:16]}"
    assert written < bytes_stored / 4

    second = make_daemon("calibrated:L1", **by_basis)
    with engine("b", second, **L1) as b:
        answer = b.generate(long, TOKENS)
        assert answer["cached"] == 11 * CHUNK
        assert len(set(answer["token_ids"])) > 4
        assert answer["token_ids"][:4] == right[:4]
        assert b.stats()["chunks_loaded"] == 11
        # What was computed on it has its quality, and never answers a request for exact.
        await_on_disk(second, 12)
        assert b.stats()["chunks_stored"] == 1
        answer = b.generate(long, TOKENS, larder={**EXACT, "skip_store": True})
        assert answer["cached"] == 0
        assert answer["token_ids"] == right

    # Without the basis nothing of it can be loaded; the engine computes.
    third = make_daemon("raw")
    with engine("c", third, **L1) as c:
        answer = c.generate(long, TOKENS, larder={"skip_store": True})
        assert answer["token_ids"] == right
        assert c.stats()["chunks_loaded"] == 0


def codec_of(binaries: Path, daemon: Daemon) -> str:
    """How the chunks of the only namespace are written."""
    command = [str(binaries / "larder"), "namespaces", "--socket", str(daemon.socket), "--json"]
    listed = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    codecs = [n["codec"] for n in listed if n.get("codec")]
    assert len(codecs) == 1
    codec: str = codecs[0]
    return codec
