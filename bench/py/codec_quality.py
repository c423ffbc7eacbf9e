"""What coding costs in quality: real KV of a model, real bytes of the coder.

For each document the KV of the first 3072 tokens is computed in float32, kept
as bfloat16, written to a file, coded and decoded by the command `larder codec`,
and the next 1024 tokens are scored by teacher forcing with what came back.
KL is the mean over tokens of KL(exact || decoded) of the next-token
distributions, exact being the same continuation with the uncoded bfloat16 KV.

The bases of calibrated variants are computed by `larder calibrate` from the KV of
other documents, which are never scored.

Every document's figures are kept in --work, so that a run can be continued;
rows are written once all documents have theirs.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

PREFIX = 3072
TOKENS = 4096


@dataclass(frozen=True)
class Variant:
    """One way to code: tokens of a chunk, arguments of `larder codec encode`
    beside the shape, the levels to score, and the unit of the basis, if any. The
    heads of a part are parts of their own."""

    name: str
    chunk: int
    args: tuple[str, ...]
    levels: tuple[int, ...]
    unit: str = ""


VARIANTS = (
    Variant("plain", 256, ("--levels", "0-3"), (0, 1, 2, 3)),
    Variant("plain.64", 64, ("--levels", "0-3"), (2,)),
    Variant("finest", 256, ("--levels", "0"), ()),
    Variant("lossless", 256, ("--mode", "lossless"), (0,)),
    Variant("bundle", 256, ("--mode", "calibrated", "--levels", "0-3"), (1, 2), "bundle"),
    Variant("bundle.finest", 256, ("--mode", "calibrated", "--levels", "0"), (), "bundle"),
    Variant("part", 256, ("--mode", "calibrated", "--levels", "0-3"), (2,), "part"),
)
UNITS = ("bundle", "part")


class Scorer:
    """A model, and the continuation of documents with given KV."""

    def __init__(self, model: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [0, *ids[: TOKENS - 1]]

    def prefix(self, ids: list[int]) -> torch.Tensor:
        """Return the KV of the first tokens as bf16 [layer, head, token, K or V, dim]."""
        cache = transformers.DynamicCache()
        self.model.model(torch.tensor([ids[:PREFIX]]), past_key_values=cache, use_cache=True)
        return torch.stack([torch.stack([x.keys[0], x.values[0]], 2) for x in cache.layers]).to(torch.bfloat16)

    def continuation(self, ids: list[int], kv: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities after each of the tokens behind the prefix."""
        cache = transformers.DynamicCache()
        for layer in range(kv.shape[0]):
            cache.update(kv[layer, :, :, 0][None].float(), kv[layer, :, :, 1][None].float(), layer)
        positions = torch.arange(PREFIX, len(ids))[None]
        hidden = self.model.model(
            torch.tensor([ids[PREFIX:]]), past_key_values=cache, use_cache=True, position_ids=positions
        ).last_hidden_state[0]
        return torch.log_softmax(self.model.lm_head(hidden).float(), -1)


def chunks(kv: torch.Tensor, size: int) -> torch.Tensor:
    """Return kv as parts, one after another: [chunk, layer, head, token, K or V, dim]."""
    layers, heads, tokens, _, dims = kv.shape
    return kv.reshape(layers, heads, tokens // size, size, 2, dims).permute(2, 0, 1, 3, 4, 5).contiguous()


def shape_of(parts: torch.Tensor) -> list[str]:
    _, layers, heads, tokens, _, _ = parts.shape
    return ["--layers", str(layers), "--heads", str(heads), "--tokens", str(tokens)]


def basis_of(unit: str, work: Path) -> Path:
    return work / f"{unit}.basis"


def calibrate(scorer: Scorer, larder: Path, model: Path, work: Path, texts: list[str]) -> None:
    """Compute the bases that are not there yet from the KV of other documents."""
    missing = [u for u in UNITS if not basis_of(u, work).exists()]
    files: list[Path] = []
    shape: list[str] = []
    for i, text in enumerate(texts if missing else []):
        parts = chunks(scorer.prefix(scorer.tokens(text)), 256)
        shape = shape_of(parts)
        files.append(work / f"calibration{i}.raw")
        parts.view(torch.int16).numpy().tofile(files[-1])
    for unit in missing:
        command = [
            str(larder),
            "calibrate",
            str(basis_of(unit, work)),
            *map(str, files),
            *shape,
            "--unit",
            unit,
            "--json",
        ]
        command += ["--config", str(model / "config.json")]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        (work / f"{unit}.json").write_bytes(said)
    for f in files:
        f.unlink()


def code(
    larder: Path, work: Path, kv: torch.Tensor, variant: Variant
) -> tuple[list[dict[str, Any]], Callable[[int], torch.Tensor]]:
    """Code kv through files. Returns what `larder codec encode` says of each
    part, and a function that decodes at a level."""
    parts = chunks(kv, variant.chunk)
    groups = parts.split(1, 2) if variant.unit == "part" else (parts,)
    basis = ["--basis", str(basis_of(variant.unit, work))] if variant.unit else []
    described: list[dict[str, Any]] = []
    for i, group in enumerate(groups):
        raw, coded = work / f"kv{i}.raw", work / f"kv{i}.coded"
        group.contiguous().view(torch.int16).numpy().tofile(raw)
        dims = group.shape[-1]
        command = [
            str(larder),
            "codec",
            "encode",
            str(raw),
            str(coded),
            "--json",
            *shape_of(group),
            "--fields",
            f"k:bf16:{dims},v:bf16:{dims}",
            *variant.args,
            *basis,
        ]
        if variant.unit:
            command += ["--first-head", str(i)]
        said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        stored = sum(part["stored_bytes"] for part in said)
        if coded.stat().st_size != stored:
            raise RuntimeError(f"{coded.stat().st_size} bytes on disk, {stored} reported")
        described += said

    def decode(level: int) -> torch.Tensor:
        got = []
        for i, group in enumerate(groups):
            coded, back = work / f"kv{i}.coded", work / f"kv{i}.back"
            command = [str(larder), "codec", "decode", str(coded), str(back), "--level", str(level), *basis]
            subprocess.run(command, check=True)
            got.append(torch.from_numpy(np.fromfile(back, dtype=np.int16)).view(torch.bfloat16).view(group.shape))
        return torch.cat(got, 2).permute(1, 2, 0, 3, 4, 5).reshape(kv.shape)

    return described, decode


def compare(exact: torch.Tensor, other: torch.Tensor, ids: list[int]) -> dict[str, float]:
    kl = (exact.exp() * (exact - other)).sum(-1)
    target = torch.tensor(ids[PREFIX + 1 :])[:, None]
    return {
        "kl": kl.mean().item(),
        "kl_p99": kl.quantile(0.99).item(),
        "top1": (exact.argmax(-1) == other.argmax(-1)).float().mean().item(),
        "nll_exact": -exact[:-1].gather(1, target).mean().item(),
        "nll": -other[:-1].gather(1, target).mean().item(),
    }


def document(scorer: Scorer, larder: Path, work: Path, text: str) -> dict[str, Any]:
    """Return bytes and quality of every variant and level for one document."""
    ids = scorer.tokens(text)
    if len(ids) < TOKENS:
        raise RuntimeError(f"the document has {len(ids)} tokens, fewer than {TOKENS}")
    kv = scorer.prefix(ids)
    exact = scorer.continuation(ids, kv)
    out: dict[str, Any] = {"elements": kv.numel()}
    for variant in VARIANTS:
        parts, decode = code(larder, work, kv, variant)
        sizes: dict[int, int] = {}
        for part in parts:
            for level in part["levels"]:
                sizes[level["level"]] = sizes.get(level["level"], 0) + level["prefix_bytes"]
        for level, size in sizes.items():
            entry: dict[str, Any] = {"bytes": size}
            if level in variant.levels:
                got = decode(level)
                if variant.name == "lossless" and not torch.equal(got.view(torch.int16), kv.view(torch.int16)):
                    raise RuntimeError("lossless changed a bit")
                same = exact if variant.name == "lossless" else scorer.continuation(ids, got)
                entry |= compare(exact, same, ids)
            out[f"{variant.name}.L{level}"] = entry
    return out


class Summary:
    """Means over documents, with 90 % bootstrap intervals."""

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        self.documents = documents
        draw = np.random.default_rng(1)
        self.samples = draw.integers(0, len(documents), (2000, len(documents)))

    def values(self, key: str, what: str) -> npt.NDArray[Any]:
        return np.array([d[key][what] for d in self.documents], dtype=np.float64)

    def interval(self, statistic: Callable[[npt.NDArray[Any]], float]) -> tuple[float, float, float]:
        every = np.arange(len(self.documents))
        low, high = np.quantile([statistic(s) for s in self.samples], [0.05, 0.95])
        return statistic(every), float(low), float(high)

    def mean(self, key: str, what: str) -> tuple[float, float, float]:
        v = self.values(key, what)
        return self.interval(lambda s: float(v[s].mean()))

    def ratio(self, key: str) -> tuple[float, float, float]:
        size, elements = self.values(key, "bytes"), np.array([d["elements"] for d in self.documents])
        return self.interval(lambda s: float(2 * elements[s].sum() / size[s].sum()))

    def cost(self, key: str, beside: str) -> tuple[float, float, float]:
        a, b = self.values(key, "bytes"), self.values(beside, "bytes")
        return self.interval(lambda s: float(100 * (a[s].sum() / b[s].sum() - 1)))

    def perplexity(self, key: str) -> tuple[float, float, float]:
        a, b = self.values(key, "nll"), self.values(key, "nll_exact")
        return self.interval(lambda s: 100 * (math.exp(float((a[s] - b[s]).mean())) - 1))

    def note(self, key: str) -> str:
        kl, p99, top1, ppl = (
            self.mean(key, "kl"),
            self.mean(key, "kl_p99"),
            self.mean(key, "top1"),
            self.perplexity(key),
        )
        bits = 16 / self.ratio(key)[0]
        return (
            f"{bits:.3f} bits; KL {kl[0]:.5f} ({kl[1]:.5f}..{kl[2]:.5f}), p99 {p99[0]:.4f}; "
            f"top-1 {100 * top1[0]:.2f} % ({100 * top1[1]:.2f}..{100 * top1[2]:.2f}); "
            f"perplexity {ppl[0]:+.3f} % ({ppl[1]:+.3f}..{ppl[2]:+.3f})"
        )


def basis_note(unit: str, work: Path) -> tuple[float, str]:
    """Return the size of a basis in MB, and what it costs."""
    b = json.loads((work / f"{unit}.json").read_text())
    seconds = b["reading_cpu_seconds"] + b["solving_cpu_seconds"]
    note = (
        f"{unit}, from {b['tokens']} tokens in {seconds:.0f} s of one core and "
        f"{b['calibration_memory_bytes'] / 1e6:.0f} MB; {b['memory_bytes'] / 1e6:.1f} MB in memory, "
        f"{b['products_per_token'] / 1e6:.2f} M products a token each way"
    )
    return b["bytes"] / 1e6, note


def rows(documents: list[dict[str, Any]], work: Path) -> list[dict[str, Any]]:
    s = Summary(documents)

    def row(name: str, unit: str, v: tuple[float, float, float], op: str | None, bar: float | None, note: str) -> None:
        bounds = {"value": v[0], "low": v[1], "high": v[2]}
        out.append({"name": name, "unit": unit, **bounds, "n": len(documents), "op": op, "bar": bar, "note": note})

    out: list[dict[str, Any]] = []
    row("codec.plain.ratio", "x", s.ratio("plain.L2"), ">=", 5.2, "L2 of an object L0..L3; " + s.note("plain.L2"))
    row("codec.near.plain", "x", s.ratio("plain.L1"), ">=", 3.2, "L1 of the same; " + s.note("plain.L1"))
    row("codec.lossless.ratio", "x", s.ratio("lossless.L0"), ">=", 1.5, "bit for bit; " + s.note("lossless.L0"))
    row("codec.nested.cost", "%", s.cost("plain.L0", "finest.L0"), "<=", 1.5, "L0..L3 in one object beside L0 alone")
    chunk = s.cost("plain.64.L2", "plain.L2")
    row("codec.chunk64.cost", "%", chunk, "<=", 8, "L2, chunks of 64 beside 256; " + s.note("plain.64.L2"))
    apart = "; the basis is reported apart"
    ratio = s.ratio("bundle.L2")
    row("codec.calibrated.ratio", "x", ratio, ">=", 9.0, "bundle, L2 of L0..L3; " + s.note("bundle.L2") + apart)
    ratio = s.ratio("part.L2")
    row("codec.calibrated.part.ratio", "x", ratio, ">=", 6.5, "a head a part, L2; " + s.note("part.L2") + apart)
    row("codec.near.calibrated", "x", s.ratio("bundle.L1"), ">=", 5, "L1 of the bundle; " + s.note("bundle.L1") + apart)
    nested = s.cost("bundle.L0", "bundle.finest.L0")
    row("codec.nested.calibrated.cost", "%", nested, "<=", 3, "bundle, L0..L3 in one object beside L0 alone")
    for unit in UNITS:
        size, note = basis_note(unit, work)
        row(f"codec.calibrated.basis.{unit}", "MB", (size, size, size), None, None, note)
    for level in (0, 3):
        row(f"codec.plain.l{level}", "x", s.ratio(f"plain.L{level}"), None, None, s.note(f"plain.L{level}"))
    return out


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--larder", type=Path, required=True, help="the command, with `codec`")
    p.add_argument("--model", type=Path, required=True, help="folder of a Llama-like model with its tokenizer")
    p.add_argument("--documents", type=Path, required=True, help="JSON lines with `text`, of 4096 tokens or more")
    p.add_argument("--calibration", type=Path, required=True, help="the same, other documents: for bases")
    p.add_argument("--work", type=Path, required=True, help="folder for what each document gave; kept")
    p.add_argument("--out", type=Path, required=True, help="file for the rows")
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    texts, others = (
        [json.loads(line)["text"] for line in f.read_text(encoding="utf-8").splitlines()]
        for f in (a.documents, a.calibration)
    )
    if set(texts) & set(others):
        raise RuntimeError("a document is in both files")
    scorer = None
    done: list[dict[str, Any]] = []
    for i, text in enumerate(texts):
        path = a.work / f"{i:03d}.json"
        if not path.exists():
            if scorer is None:
                scorer = Scorer(a.model, a.threads)
                calibrate(scorer, a.larder, a.model, a.work, others)
            path.write_text(json.dumps(document(scorer, a.larder, a.work, text)))
            print(f"document {i} of {len(texts)}", flush=True)
        done.append(json.loads(path.read_text()))
    a.out.write_text(json.dumps(rows(done, a.work), indent=1) + "\n")


if __name__ == "__main__":
    main()
