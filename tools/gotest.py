"""Reads ``go test -json`` on stdin, prints what a person needs, and fails on skips.

Prints one line for each package, the output of the tests that failed or were
skipped, and of those that passed the lines with what they counted ("counted: ...");
closes with a count. Its exit status is 1 if a test failed or was
skipped, if a package did not build, or if no test ran at all.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

# A test whose figures a reader should see marks the line.
COUNTED = "counted: "


@dataclass
class Run:
    """What has been seen so far. Output is kept per test until its verdict."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    broken_packages: int = 0
    output: defaultdict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def take(self, event: dict[str, Any]) -> None:
        """Handles one event of ``go doc test2json``."""
        action, test = event["Action"], event.get("Test", "")
        key = (event.get("Package", ""), test)
        if action == "build-output":
            sys.stdout.write(event["Output"])
        elif action == "output":
            self.output[key].append(event["Output"])
        elif action in ("pass", "fail", "skip"):
            lines = self.output.pop(key, [])
            if test:
                self._test(action, lines)
            else:
                self._package(action, lines)

    def _test(self, action: str, lines: list[str]) -> None:
        if action == "pass":
            self.passed += 1
            sys.stdout.writelines(line for line in lines if COUNTED in line)
            return
        if action == "fail":
            self.failed += 1
        else:
            self.skipped += 1
        sys.stdout.writelines(lines)

    def _package(self, action: str, lines: list[str]) -> None:
        if action == "fail":
            self.broken_packages += 1
            sys.stdout.writelines(lines)
        elif action == "pass":
            sys.stdout.writelines(line for line in lines if line.startswith("ok"))

    def close(self) -> int:
        """Prints the counts and returns the exit status."""
        for (package, test), lines in self.output.items():  # a process that ended in mid-test
            sys.stdout.write(f"--- no verdict: {package} {test}\n")
            sys.stdout.writelines(lines)
        if self.skipped:
            sys.stdout.write("a skipped test is a failure\n")
        if not self.passed:
            sys.stdout.write("no test ran\n")
        sys.stdout.write(f"go: {self.passed} passed, {self.failed} failed, {self.skipped} skipped\n")
        bad = self.failed or self.skipped or self.broken_packages or self.output or not self.passed
        return 1 if bad else 0


def main() -> int:
    """Filters stdin."""
    run = Run()
    for line in sys.stdin:
        if line.startswith("{"):
            run.take(json.loads(line))
        else:
            sys.stdout.write(line)
        sys.stdout.flush()
    return run.close()


if __name__ == "__main__":
    sys.exit(main())
