"""engine.py's times to the first token, arms in turns, and what is generated after hits."""

from __future__ import annotations

import argparse
import statistics
from contextlib import suppress
from typing import Any

from arms import Arm, Arms, Rows
from rig import Engine, EngineError, await_that

CHUNK = 256


class Turns:
    """Measures arms; what was computed without any cache is kept for all stages."""

    def __init__(self, args: argparse.Namespace, arms: Arms, rows: Rows) -> None:
        self.args = args
        self.arms = arms
        self.rows = rows
        self.controls: dict[tuple[int, int], dict[str, Any]] = {}
        self.recomputed: dict[int, dict[str, Any]] = {}
        # Digests of the shortest prompt's pages, as they were stored.
        self.written: Any = None

    def ttft(self, names: list[str], repeats: int) -> None:
        """All lengths, arms in turns."""
        arms = [self.arms.live[n] for n in names if n in self.arms.live]
        for length in self.args.lengths:
            times: dict[str, list[float]] = {}
            for arm in list(arms):
                if not self.stored(arm, length):
                    arms.remove(arm)
            before = {a.name: inside(a) for a in arms}
            for turn in range(repeats):
                for arm in [*arms[turn % len(arms) :], *arms[: turn % len(arms)]]:
                    self._turn(arm, length, times)
            for name, values in times.items():
                self._times(f"ttft.{length}.{name}", values)
            for arm in arms:
                after = inside(arm)
                each = {k: in_ms((after[k] - before[arm.name].get(k, 0)) / repeats) for k in after}
                if each:
                    self.rows.add(f"inside.{length}.{arm.name}", unit="ms", **{k: v for k, v in each.items() if v})
            for arm in arms:
                if arm.name.startswith("larder"):
                    self._compare(arm, length)

    def _prompt(self, length: int) -> list[int]:
        return [length, length]

    def stored(self, arm: Arm, length: int) -> bool:
        """The first sight of a prompt by an arm: cold, which stores, or a fresh
        process's first hit. Whether it can be measured."""
        arm.turn()
        if length in arm.stored or arm.name in self.args.variants:
            return True
        arm.stored.add(length)
        first = arm.engine.call("ask", prompt=self._prompt(length))
        fresh = arm.name.endswith(".fresh")
        self.rows.add(
            f"ttft.{length}.{arm.name}.{'first' if fresh else 'cold'}",
            value=in_ms(first["ttft_s"]), unit="ms", cached=first["cached"],
        )  # fmt: skip
        if fresh and first["cached"] < self._least(length):
            # From here on it would load what it stored itself.
            self.rows.add(
                f"ttft.{length}.{arm.name}.failed", error="a fresh process found nothing", cached=first["cached"]
            )
            return False
        if arm.name == "larder":
            self._published(arm, length)
        # A folder takes longer.
        arm.engine.call("settle", steps=300 if arm.name == "tiering" else 100)
        arm.engine.call("reset")
        if arm.name == "plain":
            return True
        # What follows a cold run in the same process may differ from the rest.
        hit = arm.engine.call("ask", prompt=self._prompt(length))
        arm.engine.call("settle", steps=20)
        enough = bool(hit["cached"] >= self._least(length))
        if not enough:
            self.rows.add(
                f"ttft.{length}.{arm.name}.failed", error="not reused", cached=hit["cached"], least=self._least(length)
            )
        return enough

    def _published(self, arm: Arm, length: int) -> None:
        """Waits for the prompt's chunks."""
        wanted = length // CHUNK

        def all_stored() -> bool:
            arm.engine.call("settle", steps=5)
            workers = arm.engine.call("counts")["workers"]
            return bool(sum(w["chunks_stored"] + w["chunks_duplicate"] for w in workers) >= wanted)

        with suppress(EngineError):
            await_that(f"{wanted} chunks stored", all_stored, 10)
        if length == self.args.lengths[0]:
            self.written = self._pages(arm, length)
        self.rows.add(f"store.{length}.larder", **worker_counts(arm.engine.call("counts")["workers"][0]))

    def _least(self, length: int) -> int:
        return (length - 1) // CHUNK * CHUNK

    def _turn(self, arm: Arm, length: int, times: dict[str, list[float]]) -> None:
        arm.turn()
        arm.engine.call("reset")
        got = arm.engine.call("ask", prompt=self._prompt(length))
        if arm.name == "plain":
            times.setdefault("recompute", []).append(got["ttft_s"])
            again = arm.engine.call("ask", prompt=self._prompt(length))
            if again["cached"] < self._least(length):
                raise EngineError(f"the engine's own cache gave {again['cached']} tokens")
            times.setdefault("hit", []).append(again["ttft_s"])
            return
        if got["cached"] < self._least(length):
            self.rows.add(f"ttft.{length}.{arm.name}.missed", cached=got["cached"])
            return
        times.setdefault(arm.name, []).append(got["ttft_s"])
        again = arm.engine.call("ask", prompt=self._prompt(length))
        times.setdefault(f"{arm.name}.hit", []).append(again["ttft_s"])
        arm.engine.call("settle", steps=3)

    def _times(self, name: str, values: list[float]) -> None:
        low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        self.rows.add(
            name,
            value=in_ms(middle),
            unit="ms",
            low=in_ms(low),
            high=in_ms(high),
            least=in_ms(min(values)),
            n=len(values),
        )

    def _compare(self, arm: Arm, length: int) -> None:
        """The tokens after a hit beside those of the plain engine."""
        arm.turn()
        arm.engine.call("reset")
        before = arm.engine.call("counts")["workers"]
        got = arm.engine.call("ask", prompt=self._prompt(length), tokens=16, logprobs=1)
        after = arm.engine.call("counts")["workers"]
        loaded = sum(w["chunks_loaded"] for w in after) - sum(w["chunks_loaded"] for w in before)
        plain = self.arms.live.get("plain")
        if plain is not None:
            self._controls(plain.engine, length, got["cached"])
        control = self.controls.get((length, got["cached"]))
        recomputed = self.recomputed.get(length)
        self.rows.add(
            f"answer.{length}.{arm.name}",
            cached=got["cached"],
            loaded_chunks=loaded,
            equals_control=control and same(control, got),
            tokens_equal_control=control and control["token_ids"] == got["token_ids"],
            tokens_equal_recompute=recomputed and recomputed["token_ids"] == got["token_ids"],
            distinct=len(set(got["token_ids"])),
        )
        if length == self.args.lengths[0] and self.written is not None:
            pages_equal = self._pages(arm, length) == self.written
            self.rows.add(f"pages.{length}.{arm.name}", equal=pages_equal, computes_alike=self._alike(arm))

    def _pages(self, arm: Arm, length: int) -> Any:
        """Digests of a prompt's whole chunks."""
        whole = self._least(length)
        return arm.engine.call("pages", prompt=[self._prompt(length)[0], whole + 1], tokens=whole)

    def _alike(self, arm: Arm) -> bool | None:
        """Whether an arm computes what the plain engine does, without any cache: Inductor chooses kernels by
        their time, in each process that compiles."""
        plain = self.arms.live.get("plain")
        if plain is None:
            return None
        answers = []
        for engine in (plain.engine, arm.engine):
            engine.call("reset")
            answers.append(engine.call("ask", prompt=[3, CHUNK - 1], tokens=16, logprobs=1))
        return same(*answers)

    def _controls(self, plain: Engine, length: int, cached: int) -> None:
        prompt = self._prompt(length)
        if length not in self.recomputed:
            plain.call("reset")
            self.recomputed[length] = plain.call("ask", prompt=prompt, tokens=16, logprobs=1)
            # A prompt that ends in the same tokens and begins with others must go on in another way.
            plain.call("reset")
            other = plain.call("ask", prompt=prompt, tokens=16, logprobs=1, other_head=CHUNK)
            self.rows.add(f"answer.{length}.other_head", equal=same(other, self.recomputed[length]))
        if (length, cached) not in self.controls:
            plain.call("reset")
            plain.call("ask", prompt=prompt, tokens=1, cut=cached)
            control = plain.call("ask", prompt=prompt, tokens=16, logprobs=1)
            if control["cached"] == cached:
                self.controls[length, cached] = control


def inside(arm: Arm) -> dict[str, float]:
    """Seconds in Larder's hooks and loads so far."""
    if not arm.name.startswith("larder"):
        return {}
    counts = arm.engine.call("counts")
    worker = counts["workers"][0]
    hooks = {f"scheduler.{k}": v for k, v in counts["scheduler"]["hook_s"].items()}
    return hooks | {f"worker.{k}": v for k, v in worker["hook_s"].items()} | {"load": worker["load_s"]}


def worker_counts(counts: dict[str, Any]) -> dict[str, Any]:
    """Counters that are not zero."""
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in counts.items() if v and not isinstance(v, dict)}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two answers are equal, scores to the bit."""
    return bool(a["token_ids"] == b["token_ids"] and a["scores"] == b["scores"])


def in_ms(seconds: float) -> float:
    """Milliseconds."""
    return round(1000 * seconds, 2)
