"""The long documents that the demo asks about."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

TEXTS = Path(__file__).resolve().parents[1] / "text"
OWN_TEXTS = (TEXTS / "query-planning.txt", TEXTS / "pointer-passing.txt")
CHARACTERS = range(16_000, 24_000)
"""Size of a document that is several thousand tokens and fits the engine's 8192."""


@dataclass(frozen=True)
class Document:
    """A text, where it comes from, and two questions about it."""

    source: str
    text: str
    # Each begins its answer, because small models then go on in sentences instead
    # of repeating a word: an answer of few distinct tokens would prove little.
    questions: tuple[str, str] = (
        "Which problem does the text above solve? It",
        "How does this work in practice? For example, when the",
    )

    def prompt(self, question: str) -> str:
        """The document, then the question: prompts of one document share all but their end."""
        return f"{self.text}\n\n{question}"


def choose(shared: Path) -> Document:
    """The first shared document of a fitting size, else the repository's own."""
    collection = shared / "text/validation.jsonl"
    if collection.is_file():
        for line in collection.read_text().splitlines():
            entry = json.loads(line)
            if len(entry["text"]) in CHARACTERS:
                return Document(entry["source"], entry["text"])
    return Document(OWN_TEXTS[0].name, OWN_TEXTS[0].read_text()[: CHARACTERS.stop])
