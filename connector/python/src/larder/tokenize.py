"""Turns text into token ids: python -m larder.tokenize MODEL_DIR < text

Prints one JSON list. Exit status 2 where it cannot, with the reason on
standard error. Needs the package tokenizers, which engines bring along; the
core of larder does not depend on it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TextIO

from larder.errors import InvalidError, LarderError, UnavailableError


def token_ids(model: Path, text: str) -> list[int]:
    """The ids of text under the tokenizer.json of a model's folder, with the
    special tokens that the model's own template adds. Raises LarderError:
    UNAVAILABLE without the package, INVALID for a folder that will not do."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UnavailableError(
            "the Python package tokenizers is not installed here; use the engine's Python", "tokenizers"
        ) from error
    path = model / "tokenizer.json"
    if not path.is_file():
        raise InvalidError("the model's folder has no tokenizer.json", "model", str(model))
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing more precise
        raise InvalidError(f"the tokenizer cannot be read: {error}", "model", str(path)) from error
    ids: list[int] = tokenizer.encode(text).ids
    return ids


def main(arguments: list[str], source: TextIO, sink: TextIO, errors: TextIO) -> int:
    """The command; its exit status."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        errors.write("usage: python -m larder.tokenize MODEL_DIR < text\n")
        return 2
    try:
        ids = token_ids(Path(arguments[0]), source.read())
    except UnicodeDecodeError as error:
        errors.write(f"larder.tokenize: the text is not UTF-8: {error}\n")
        return 2
    except LarderError as error:
        errors.write(f"larder.tokenize: {error}\n")
        return 2
    json.dump(ids, sink)
    sink.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin, sys.stdout, sys.stderr))
