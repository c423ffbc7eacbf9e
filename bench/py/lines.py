"""What the workers of the benchmarks share: commands as lines of JSON.

Each line in is an object with "do"; each line out is an object with either the
answer or "error".
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

Answer = dict[str, Any]


def cpu_seconds() -> float:
    """CPU seconds that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(run: Callable[[], None]) -> Answer:
    """Wall and CPU seconds of a call, as an arm's answer."""
    used = cpu_seconds()
    began = time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - used}


def serve(worker: object, answers: TextIO) -> None:
    """Calls the worker's method that a command names, until end of input."""
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command["do"])(command)
        except Exception as error:  # whoever drives this decides
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
