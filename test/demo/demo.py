"""The demo: a prompt's KV leaves a real vLLM, outlives its process, and comes back.

Run it with ``make demo``. It asks two questions about one long document

1. of an engine without Larder (the control),
2. of an engine with Larder, which it then kills with SIGKILL,
3. of a new engine with Larder, which has computed nothing yet,

and prints what that took. Everything computes in float32: in bfloat16 two tokens
may score exactly alike, and then which one wins depends on how many tokens were
reused, with or without Larder. Ends with status 1 if the new engine did not load
all of the document's full chunks from Larder, or if any answer differs from the
control's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo import document, model
from harness.daemon import Daemon, DaemonError
from harness.engine import Answer, Engine, EngineError, connector_config

REPOSITORY = Path(__file__).resolve().parents[2]
CHUNK_TOKENS = 256
ANSWER_TOKENS = 64
DISTINCT_TOKENS = 20
OPTIONS = {"dtype": "float32", "max_model_len": 8192, "max_num_batched_tokens": 8192, "max_num_seqs": 4}
PUBLISH_S = 30.0


@dataclass
class Asked:
    """What one engine process answered to the two questions."""

    first: Answer
    second: Answer

    @property
    def outputs(self) -> list[list[int]]:
        """The tokens of both answers."""
        return [self.first.token_ids, self.second.token_ids]


@dataclass
class Story:
    """What happened, for the table."""

    model: str
    source: str
    control: Asked
    stored: Asked
    loaded: Asked
    stored_chunks: int
    stored_bytes: int
    loaded_bytes: int
    wrong: list[str] = field(default_factory=list)


def say(text: str) -> None:
    """A progress line with the seconds since the start."""
    print(f"demo   {time.monotonic() - START:4.0f} s  {text}", flush=True)


def warm_up(engine: Engine) -> None:
    """Lazy set-up is paid by a prompt that is shorter than a chunk, so never stored."""
    engine.generate(list(range(10, 210)), 8)


def ask(engine: Engine, text: document.Document) -> Asked:
    """Asks both questions, one after the other."""
    warm_up(engine)
    prompts = [engine.tokenize(text.prompt(question)) for question in text.questions]
    return Asked(*(engine.generate(prompt, ANSWER_TOKENS) for prompt in prompts))


def tell(binaries: Path, model_directory: Path, text: document.Document, work: Path) -> Story:
    """Runs the three engines. Raises EngineError or DaemonError where one of them fails."""
    say("engine 1, without Larder: starting")
    engine = Engine(model_directory, work / "control.log", options=OPTIONS)
    control = ask(engine, text)
    engine.stop()
    say(f"engine 1 answered about {control.first.prompt_tokens} tokens; larderd: starting")

    daemon = Daemon(binaries, work)
    daemon.start()
    try:
        kv = connector_config(daemon.socket)
        say("engine 2, with Larder: starting")
        engine = Engine(model_directory, work / "stores.log", kv=kv, options=OPTIONS)
        stored = ask(engine, text)
        after_store = daemon.await_published(full_chunks(stored.first), PUBLISH_S)
        engine.kill()
        say("engine 2 answered, its KV is stored; killed with SIGKILL; engine 3, with Larder: starting")

        engine = Engine(model_directory, work / "loads.log", kv=kv, options=OPTIONS)
        loaded = ask(engine, text)
        after_load = daemon.counters()
        engine.stop()
        say("engine 3 answered")
    finally:
        daemon.stop()
    return Story(
        model=model_directory.name,
        source=text.source,
        control=control,
        stored=stored,
        loaded=loaded,
        stored_chunks=after_store["published_chunks"],
        stored_bytes=after_store["stored_bytes"],
        loaded_bytes=after_load["loaded_bytes"] - after_store["loaded_bytes"],
    )


def full_chunks(answer: Answer) -> int:
    """Full chunks of a prompt of which at least one token is left to compute."""
    return (answer.prompt_tokens - 1) // CHUNK_TOKENS


def judge(story: Story, known_model: bool) -> None:
    """Fills ``story.wrong`` with whatever is not as it has to be. A user's own model may repeat itself."""
    wrong = story.wrong
    if known_model and distinct(story) < DISTINCT_TOKENS:
        wrong.append(f"an answer holds only {distinct(story)} distinct tokens, under {DISTINCT_TOKENS}")
    if story.stored.first.cached_tokens:
        wrong.append(f"engine 2 found {story.stored.first.cached_tokens} tokens in an empty cache")
    chunks = full_chunks(story.loaded.first)
    if story.loaded.first.cached_tokens != chunks * CHUNK_TOKENS:
        wrong.append(f"engine 3 loaded {story.loaded.first.cached_tokens} tokens, not {chunks * CHUNK_TOKENS}")
    if story.loaded_bytes * story.stored_chunks != story.stored_bytes * chunks:
        wrong.append(f"larderd counts {story.loaded_bytes} bytes loaded, which are not {chunks} chunks")
    for name, asked in (("engine 2", story.stored), ("engine 3", story.loaded)):
        if asked.outputs != story.control.outputs:
            wrong.append(f"{name}: the greedy output differs from the run without Larder")


def distinct(story: Story) -> int:
    """Distinct tokens in the control's less varied answer."""
    return min(len(set(tokens)) for tokens in story.control.outputs)


def table(story: Story) -> str:
    """The result, for a person."""
    cold, warm = story.stored.first, story.loaded.first
    again = story.loaded.second
    same = all(asked.outputs == story.control.outputs for asked in (story.stored, story.loaded))
    verdict = "equal to" if same else "DIFFERS FROM"
    rows = [
        ("model, document", f"{story.model}, {story.source}"),
        ("prompt", f"{cold.prompt_tokens} tokens"),
        ("TTFT cold, without Larder", f"{story.control.first.ttft_s * 1e3:.0f} ms"),
        ("TTFT cold, storing", f"{cold.ttft_s * 1e3:.0f} ms"),
        ("TTFT warm, new engine process", f"{warm.ttft_s * 1e3:.0f} ms"),
        ("stored", f"{story.stored_chunks * CHUNK_TOKENS} tokens, {story.stored_bytes / 2**20:.1f} MiB"),
        ("loaded", f"{warm.cached_tokens} tokens, {story.loaded_bytes / 2**20:.1f} MiB"),
        ("hit", f"{100 * warm.cached_tokens / warm.prompt_tokens:.1f} % of the prompt"),
        ("second question", f"{again.cached_tokens} of {again.prompt_tokens} tokens reused"),
        ("greedy output, float32", f"{verdict} the run without Larder, 2 x {ANSWER_TOKENS} tokens"),
        ("distinct tokens", f"at least {distinct(story)} in each answer"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def choose_model(given: str, cache: Path, shared: Path) -> Path:
    """The model given, else a shared one, else the one made here."""
    if given:
        return Path(given).resolve()
    if (shared / "models/llama-27m/config.json").is_file():
        return shared / "models/llama-27m"
    directory = cache / "demo-model"
    say("making a small Llama with random weights")
    model.make(directory, list(document.OWN_TEXTS))
    return directory


def main() -> int:
    """Tells the story, prints the table, and returns the exit status."""
    parser = argparse.ArgumentParser(description="A prompt's KV leaves a real engine, outlives it, and comes back.")
    parser.add_argument("--model", default="", help="a local model directory")
    parser.add_argument(
        "--shared", type=Path, default=REPOSITORY.parent / "shared", help="where models and texts may lie"
    )
    parser.add_argument("--print-model", action="store_true", help="print the model's directory, and end")
    parser.add_argument("--binaries", type=Path, default=REPOSITORY / "bin")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".cache")
    arguments = parser.parse_args()
    model_directory = choose_model(arguments.model, arguments.cache, arguments.shared)
    if arguments.print_model:
        print(model_directory)
        return 0
    text = document.choose(arguments.shared)
    with tempfile.TemporaryDirectory(prefix="larder-demo-") as work:
        try:
            story = tell(arguments.binaries, model_directory, text, Path(work))
        except (EngineError, DaemonError) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
    judge(story, known_model=not arguments.model)
    print("\n" + table(story) + "\n")
    for line in story.wrong:
        print(f"demo: WRONG: {line}", file=sys.stderr)
    return 1 if story.wrong else 0


if __name__ == "__main__":
    START = time.monotonic()
    sys.exit(main())
