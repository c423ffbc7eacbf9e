"""CONTRACT.md names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_test_of_the_contract_is_there() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (HERE / "CONTRACT.md").read_text())
    assert len(named) > 50
    known = {file: functions(HERE / file) for file in {file for file, _ in named}}
    assert not [f"{file}::{name}" for file, name in named if name not in known[file]]


def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}
