"""What each layer of a coded prompt costs in quality at each level, and in bytes.

The table that codec/deadline takes: for each layer and pass, the mean KL of the
continuation when this layer alone is what the passes up to there give, in all
chunks, and all others are exact; and the bytes of each layer in each pass.
Documents, chunks and KL are those of codec_quality.py.

That losses add up over layers and chunks is what the controller assumes; on
--check documents, others than those of the table, the same is measured once more,
and mixtures of levels beside the sum of their entries: drawn for each layer and
chunk, those that a link which breaks off leaves, and a suffix computed anew on what
came before it.

Every document's figures are kept in --work, so that a run can be continued.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from codec_quality import PREFIX, TOKENS, Scorer, Variant, code, compare
from numpy.typing import NDArray

from larder.codec import parse

CHUNK = 256
PASSES = 4
COARSEST = PASSES - 1
EXACT, COMPUTED = -1, -2
NESTED = Variant("plain", CHUNK, ("--levels", "0-3"), ())


class Coded:
    """The KV of a document at all levels: [pass][layer, head, token, K or V, dim]."""

    def __init__(self, scorer: Scorer, larder: Path, work: Path, text: str) -> None:
        self.ids = scorer.tokens(text)
        if len(self.ids) < TOKENS:
            raise RuntimeError(f"the document has {len(self.ids)} tokens, fewer than {TOKENS}")
        self.scorer = scorer
        self.kv = scorer.prefix(self.ids)
        self.exact = scorer.continuation(self.ids, self.kv)
        described, decode = code(larder, work, self.kv, NESTED)
        self.passes = [decode(COARSEST - p) for p in range(PASSES)]
        stored, self.sizes, self.headers = (work / "kv0.coded").read_bytes(), [], []
        for part in described:
            o = parse(stored[: part["stored_bytes"]], 1 << 30)
            stored = stored[part["stored_bytes"] :]
            bounds = o.starts[:: o.units // o.layers]
            self.sizes.append(np.diff(bounds).reshape(PASSES, o.layers).tolist())
            self.headers.append(int(o.starts[0]))

    @property
    def layers(self) -> int:
        return int(self.kv.shape[0])

    def kl(self, state: NDArray[np.int64]) -> float:
        """Return the KL when layer l of chunk c is at pass state[c, l], EXACT, or
        COMPUTED, as all chunks behind it then are."""
        kv = self.kv.clone()
        for chunk, passes in enumerate(state):
            span = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
            for layer, p in enumerate(passes):
                if p >= 0:
                    kv[layer, :, span] = self.passes[p][layer, :, span]
        computed = np.flatnonzero((state == COMPUTED).all(1))
        if computed.size:
            self._compute(kv, int(computed[0]) * CHUNK)
        return compare(self.exact, self.scorer.continuation(self.ids, kv), self.ids)["kl"]

    def _compute(self, kv: torch.Tensor, begin: int) -> None:
        """Replace the KV of the tokens from begin on by what the model makes of
        them behind those before."""
        cache = transformers.DynamicCache()
        for layer in range(self.layers):
            cache.update(kv[layer, :, :begin, 0][None].float(), kv[layer, :, :begin, 1][None].float(), layer)
        positions = torch.arange(begin, PREFIX)[None]
        ids = torch.tensor([self.ids[begin:PREFIX]])
        self.scorer.model.model(ids, past_key_values=cache, use_cache=True, position_ids=positions)
        for layer, x in enumerate(cache.layers):
            kv[layer, :, begin:] = torch.stack([x.keys[0], x.values[0]], 2)[:, begin:].to(kv.dtype)

    def everywhere(self, p: int) -> NDArray[np.int64]:
        return np.full((PREFIX // CHUNK, self.layers), p)


def table(d: Coded) -> dict[str, Any]:
    loss = []
    for p in range(PASSES):
        row = []
        for layer in range(d.layers):
            state = d.everywhere(EXACT)
            state[:, layer] = p
            row.append(d.kl(state))
        loss.append(row)
    return {"sizes": d.sizes, "headers": d.headers, "loss": loss}


NAMES = (
    *(f"L{COARSEST - p}" for p in range(PASSES)),
    *(f"drawn {i + 1}" for i in range(4)),
    *(
        name
        for level in ("L3", "L2")
        for name in (
            f"{level}, half of the layers one finer",
            f"{level}, half of the chunks one finer",
            f"{level}, second half exact",
            f"{level}, second half computed",
        )
    ),
)


def mixtures(d: Coded, seed: int) -> list[NDArray[np.int64]]:
    """Return states: all of one pass, random ones, and what is there when the
    refinements of a pass have come up to some layer, or up to some chunk, when a
    suffix is exact, and when it is computed."""
    draw = np.random.default_rng(seed)
    shape = (PREFIX // CHUNK, d.layers)
    out = [d.everywhere(p) for p in range(PASSES)]
    out += [draw.integers(0, PASSES, shape) for _ in range(4)]
    for p in (0, 1):
        by_layer, by_chunk = d.everywhere(p), d.everywhere(p)
        by_layer[:, : d.layers // 2] = p + 1
        by_chunk[: shape[0] // 2] = p + 1
        exact, computed = d.everywhere(p), d.everywhere(p)
        exact[shape[0] // 2 :] = EXACT
        computed[shape[0] // 2 :] = COMPUTED
        out += [by_layer, by_chunk, exact, computed]
    return out


def check(d: Coded, seed: int) -> list[dict[str, Any]]:
    return [{"state": state.tolist(), "kl": d.kl(state)} for state in mixtures(d, seed)]


def mean(values: list[Any]) -> NDArray[np.float64]:
    return np.asarray(np.mean(np.array(values, dtype=np.float64), axis=0))


def losses(tables: list[dict[str, Any]]) -> list[list[float]]:
    return [[float(f"{v:.4g}") for v in row] for row in mean([t["loss"] for t in tables])]


def expected(state: NDArray[np.int64], loss: list[list[float]]) -> float:
    share = 1 / state.shape[0]
    return share * math.fsum(loss[p][layer] for chunk in state for layer, p in enumerate(chunk) if p >= 0)


def summary(
    tables: list[dict[str, Any]], others: list[dict[str, Any]], checks: list[list[dict[str, Any]]]
) -> dict[str, Any]:
    loss, other = losses(tables), losses(others)
    mixed = []
    for name, same in zip(NAMES, zip(*checks, strict=True), strict=True):
        state = np.array(same[0]["state"])
        kl = [c["kl"] for c in same]
        entry = {"table": expected(state, loss), "other": expected(state, other), "measured": float(np.mean(kl))}
        mixed.append({"name": name} | {k: float(f"{v:.4g}") for k, v in entry.items()})
    return {
        "documents": len(tables),
        "chunk_tokens": CHUNK,
        "headers": np.rint(mean([t["headers"] for t in tables])).astype(int).tolist(),
        "sizes": np.rint(mean([t["sizes"] for t in tables])).astype(int).tolist(),
        "loss": loss,
        "other_loss": other,
        "mixed": mixed,
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--larder", type=Path, required=True, help="the command, with `codec`")
    p.add_argument("--model", type=Path, required=True, help="folder of a Llama-like model with its tokenizer")
    p.add_argument("--documents", type=Path, required=True, help="JSON lines with `text`: for the table")
    p.add_argument("--check", type=Path, required=True, help="the same, others: for a second table and mixtures")
    p.add_argument("--count", type=int, default=4, help="how many of each are used")
    p.add_argument("--work", type=Path, required=True, help="folder for what each document gave; kept")
    p.add_argument("--out", type=Path, required=True, help="file for the table")
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    scorer = None
    results: dict[str, list[Any]] = {}
    jobs = (
        ("table", a.documents, lambda d, _: table(d)),
        ("check", a.check, check),
        ("other", a.check, lambda d, _: table(d)),
    )
    for name, source, measure in jobs:
        for i, line in enumerate(source.read_text(encoding="utf-8").splitlines()[: a.count]):
            path = a.work / f"{name}{i:02d}.json"
            if not path.exists():
                scorer = scorer or Scorer(a.model, a.threads)
                # Mixtures are the same for all documents.
                found = measure(Coded(scorer, a.larder, a.work, json.loads(line)["text"]), 1)
                path.write_text(json.dumps(found))
                print(f"{name} {i + 1} of {a.count}", flush=True)
            results.setdefault(name, []).append(json.loads(path.read_text()))
    a.out.write_text(json.dumps(summary(results["table"], results["other"], results["check"])) + "\n")


if __name__ == "__main__":
    main()
