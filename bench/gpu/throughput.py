"""engine.py's throughput while decoding, with stores of what is decoded."""

from __future__ import annotations

import argparse
import statistics

from arms import Rows
from rig import Engine


def decode(args: argparse.Namespace, rows: Rows, plain: Engine, ours: Engine, seed: int) -> None:
    """plain, larder, plain, in rounds."""
    runs: dict[str, list[dict[str, float]]] = {"plain": [], "larder": [], "again": []}
    before = ours.call("counts")["workers"][0]
    for _ in range(args.rounds):
        seed += 1000
        for name, engine in (("plain", plain), ("larder", ours), ("again", plain)):
            engine.call("reset")
            runs[name].append(
                engine.call("decode", seed=seed + (500 if name == "again" else 0), requests=args.requests,
                            prompt=args.decode_prompt, tokens=args.decode_tokens)
            )  # fmt: skip
            engine.call("settle", steps=20)
    after = ours.call("counts")["workers"][0]
    stored = {k: after[k] - before[k] for k in after if isinstance(after[k], int) and after[k] != before[k]}
    for key in ("decode_tok_s", "all_tok_s"):
        for name, results in runs.items():
            values = [r[key] for r in results]
            rows.add(f"{key}.{name}", value=round(statistics.median(values)), unit="tok/s", low=round(min(values)),
                     high=round(max(values)), n=len(values))  # fmt: skip
        ratios = [
            o[key] / ((p[key] + q[key]) / 2)
            for p, o, q in zip(runs["plain"], runs["larder"], runs["again"], strict=True)
        ]
        control = [q[key] / p[key] for p, q in zip(runs["plain"], runs["again"], strict=True)]
        _ratio(rows, f"{key}.ratio", ratios)
        _ratio(rows, f"{key}.control", control)
    rows.add("decode.stored", **stored)


def _ratio(rows: Rows, name: str, values: list[float]) -> None:
    rows.add(name, value=round(statistics.median(values), 4), low=round(min(values), 4), high=round(max(values), 4),
             n=len(values))  # fmt: skip
