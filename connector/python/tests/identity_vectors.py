"""The known answers in api/vectors, which the Go suite reads too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parents[3] / "api" / "vectors"


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())
    return loaded


def formula(seed: int, count: int) -> list[int]:
    """Tokens that a vector gives by seed and count."""
    out = []
    for _ in range(count):
        seed = (1664525 * seed + 1013904223) % (1 << 32)
        out.append(seed)
    return out
