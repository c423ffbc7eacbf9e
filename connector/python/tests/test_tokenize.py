"""The command that the CLI calls for text."""

from __future__ import annotations

import io
import json
import sys
import types
from pathlib import Path

import pytest

from larder.tokenize import main


class FakeTokenizer:
    """Ids are code points."""

    @classmethod
    def from_file(cls, path: str) -> FakeTokenizer:
        if Path(path).read_text() != "{}":
            raise ValueError("not a tokenizer")
        return cls()

    def encode(self, text: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(ids=[ord(c) for c in text])


@pytest.fixture
def tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as a stand-in: the test environment has no engine."""
    monkeypatch.setitem(sys.modules, "tokenizers", types.SimpleNamespace(Tokenizer=FakeTokenizer))


def run(*arguments: str, text: str = "ab") -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(list(arguments), io.StringIO(text), out, err), out.getvalue(), err.getvalue()


@pytest.mark.usefixtures("tokenizers")
def test_ids_as_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    status, out, err = run(str(folder))
    assert (status, json.loads(out), err) == (0, [97, 98], "")


@pytest.mark.usefixtures("tokenizers")
@pytest.mark.parametrize("content", [None, "garbage"])
def test_a_folder_that_will_not_do(folder: Path, content: str | None) -> None:
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    status, out, err = run(str(folder))
    assert (status, out) == (2, "")
    assert "tokenizer" in err
    assert str(folder) in err


def test_without_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    status, _, err = run(str(folder))
    assert status == 2
    assert "not installed" in err


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--help"]])
def test_usage(arguments: list[str]) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert err.startswith("usage")
