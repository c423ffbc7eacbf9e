"""Writes vectors.json: answers for rans64/1, computed from FORMAT.md alone.

Run in this directory: python3 vectors.py. Standard library only; exact
fractions where the format compares fractions; no cleverness.
"""

import json
import random
from fractions import Fraction

LANES, SLOTS, LOW = 64, 256, 256


def normalize(counts: list[int]) -> list[int]:
    k = 0
    while max(counts) >> k >= 1 << 24:
        k += 1
    c = [max(1, n >> k) if n else 0 for n in counts]
    total = sum(c)
    f = [max(1, SLOTS * n // total) if n else 0 for n in c]
    present = [s for s in range(len(c)) if c[s]]
    while sum(f) < SLOTS:
        s = max(present, key=lambda s: (Fraction(c[s] ** 2, f[s] * (f[s] + 1)), -s))
        f[s] += 1
    while sum(f) > SLOTS:
        s = min((s for s in present if f[s] > 1), key=lambda s: (Fraction(c[s] ** 2, f[s] * (f[s] - 1)), s))
        f[s] -= 1
    return f


def first_slots(freq: list[int], *, ascending: bool) -> dict[int, int]:
    sign = 1 if ascending else -1
    first, slot = {}, 0
    for s in sorted(range(len(freq)), key=lambda s: (sign * freq[s], s)):
        if freq[s]:
            first[s] = slot
            slot += freq[s]
    return first


def encode(states: list[int], codes: list[tuple[list[int], dict[int, int]]], symbols: list[int]) -> bytes:
    """codes[i] is the code of symbols[i]; states move to where the body begins."""
    out = bytearray()
    for i in reversed(range(len(symbols))):
        freq, first = codes[i]
        s, lane = symbols[i], i % LANES
        f, x = freq[s], states[lane]
        if x >= 256 * f:
            out.append(x % 256)
            x //= 256
        states[lane] = 256 * (x // f) + x % f + first[s]
    return bytes(reversed(out))


def states_hex(states: list[int]) -> str:
    return b"".join(x.to_bytes(2, "little") for x in states).hex()


def table_hex(freq: list[int]) -> str:
    present = [s for s in range(SLOTS) if freq[s]]
    lo, hi = present[0], present[-1]
    return (bytes([lo, hi - lo]) + (bytes(freq[lo : hi + 1]) if hi > lo else b"")).hex()


def count(symbols: list[int], n: int = SLOTS) -> list[int]:
    c = [0] * n
    for s in symbols:
        c[s] += 1
    return c


def gauss(rng: random.Random, n: int, sigma: float, middle: int, most: int) -> list[int]:
    return [middle + max(-most, min(most, round(rng.gauss(0, sigma)))) for _ in range(n)]


def table_body(
    parts: list[list[int]],
) -> tuple[list[tuple[list[int], dict[int, int]]], list[int], list[dict[str, object]]]:
    """One run for each part; all but the last are whole steps."""
    codes, symbols, runs = [], [], []
    for part in parts:
        freq = normalize(count(part))
        code = (freq, first_slots(freq, ascending=False))
        codes += [code] * len(part)
        symbols += part
        runs.append({"table": table_hex(freq), "steps": -(-len(part) // LANES)})
    return codes, symbols, runs


def main() -> None:
    rng = random.Random(20261125)  # noqa: S311  # no secret
    tables = []
    for name, counts in {
        "thirds": {1: 1, 2: 1, 3: 1},
        "rare": {0: 1, 255: 1 << 20},
        "beyond 24 bits": {1: 1, 2: 2**32 - 1, 3: 2**32 - 1, 9: 77777777},
        "too many at once": {s: (1 if s % 2 else 1000 + 37 * s) for s in range(200)},
        "all": {s: 1 + s**3 for s in range(256)},
        "gauss": dict(enumerate(count(gauss(rng, 5000, 3, 40, 20)))),
    }.items():
        full = [counts.get(s, 0) for s in range(SLOTS)]
        tables.append({"name": name, "counts": full, "table": table_hex(normalize(full))})

    chains = []
    for name, bodies in {
        "empty": [[]],
        "one symbol": [[[7]]],
        "63": [[gauss(rng, 63, 1, 31, 9)]],
        "64": [[gauss(rng, 64, 1, 31, 9)]],
        "65": [[gauss(rng, 65, 1, 31, 9)]],
        "single": [[[200] * 100]],
        "skewed": [[gauss(rng, 1000, 0.2, 3, 3)]],
        "wide": [[[rng.randrange(256) for _ in range(700)]]],
        "runs": [[gauss(rng, 256, 0.6, 31, 9), [31] * 128, gauss(rng, 64, 4, 31, 20), gauss(rng, 203, 20, 128, 100)]],
        "chain": [[gauss(rng, 320, 1, 31, 9)], [gauss(rng, 320, 2, 31, 9)], [gauss(rng, 100, 3, 31, 9)]],
    }.items():
        states = [LOW] * LANES
        coded = []
        for parts in reversed(bodies):
            codes, symbols, runs = table_body(parts)
            body = encode(states, codes, symbols)
            coded.append({"runs": runs, "symbols": bytes(symbols).hex(), "body": body.hex()})
        chains.append({"name": name, "states": states_hex(states), "bodies": coded[::-1]})

    ternary = []
    for name, counts3, n in (
        ("one context", [[10, 20, 30]], 200),
        ("constant", [[0, 9, 0], [5, 0, 0]], 130),
        ("many", [[rng.randrange(50), 1 + rng.randrange(500), rng.randrange(9)] for _ in range(21)], 1000),
        ("none", [[0, 0, 0]], 64),
    ):
        freqs = [normalize(c) if any(c) else [0, SLOTS, 0] for c in counts3]
        ctx = [rng.randrange(len(freqs)) for _ in range(n)]
        symbols = [rng.choices(range(3), freqs[c])[0] for c in ctx]
        per = [(f, first_slots(f, ascending=True)) for f in freqs]
        states = [LOW] * LANES
        body = encode(states, [per[c] for c in ctx], symbols)
        ternary.append(
            {
                "name": name,
                "counts": counts3,
                "frequencies": freqs,
                "contexts": bytes(ctx).hex(),
                "symbols": bytes(symbols).hex(),
                "states": states_hex(states),
                "body": body.hex(),
            }
        )

    with open("vectors.json", "w", encoding="utf-8") as f:
        json.dump({"format": "rans64/1", "tables": tables, "chains": chains, "ternary": ternary}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
