"""LMCache's adapter for files (fs_native, with O_DIRECT), as an arm of a benchmark.

Runs in an environment with lmcache. The adapter is driven as LMCache's own
`bench l2` does it: so many keys a task, from one registered buffer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from typing import Any

from lines import Answer, serve, timed

os.environ.setdefault("LMCACHE_LOG_LEVEL", "ERROR")
os.environ.setdefault("LMCACHE_TRACK_USAGE", "false")

KEYS = 32  # of a task


class Worker:
    """State between commands."""

    def __init__(self) -> None:
        self._first = 0
        self._stored: list[Any] = []

    def open(self, c: Answer) -> Answer:
        """dir: where files go; bytes of a part; parts of an arm of stores."""
        import torch
        from lmcache.cli.commands.bench.l2_adapter_bench import data
        from lmcache.v1.distributed.l2_adapters import create_l2_adapter
        from lmcache.v1.distributed.l2_adapters.config import parse_args_to_l2_adapters_config

        torch.set_num_threads(1)
        self._data, self._n, self._parts = data, c["bytes"], c["parts"] // KEYS * KEYS
        buffer = data.make_aligned_tensor(2 * KEYS * self._n, 4096)
        spec = json.dumps({"type": "fs_native", "base_path": c["dir"], "use_odirect": True})
        adapters = parse_args_to_l2_adapters_config(argparse.Namespace(l2_adapter=[spec])).adapters
        memory = data.create_l1_memory_desc(buffer, align_bytes=4096)
        self._adapter = create_l2_adapter(adapters[0], l1_memory_desc=memory)
        self._from = data.make_memory_objects(buffer, KEYS, self._n, 0)
        for piece in self._from:
            piece.raw_data.copy_(torch.randint(0, 256, (self._n,), dtype=torch.uint8))
        self._to = data.make_memory_objects(buffer, KEYS, self._n, KEYS * self._n, fill_offset=1)
        return {"parts": self._parts}

    def store(self, _: Answer) -> Answer:
        """Stores an arm of new parts; those of the arm before are deleted first."""
        self._delete()
        tasks = self._keys()
        answer = timed(lambda: self._run("store", tasks, self._from))
        self._stored = tasks
        return answer

    def load(self, _: Answer) -> Answer:
        """Loads an arm of what the last store stored, in random order."""
        tasks = random.sample(self._stored, len(self._stored))
        return timed(lambda: self._run("load", tasks, self._to))

    def _keys(self) -> list[Any]:
        tasks = []
        for _ in range(self._parts // KEYS):
            tasks.append(self._data.make_object_keys(KEYS, key_offset=self._first))
            self._first += KEYS
        return tasks

    def _run(self, op: str, tasks: list[Any], memory: list[Any]) -> None:
        from lmcache.cli.commands.bench.l2_adapter_bench import runner

        bench = runner.bench_store if op == "store" else runner.bench_load
        result = bench(
            self._adapter,
            in_flight=1,
            num_keys=KEYS,
            data_size=self._n,
            rounds=len(tasks),
            keys_for_round=lambda r: [tasks[r]],
            objs_for_round=lambda _: [memory],
            log=lambda _: None,
        )
        if result.total_success != len(tasks) * KEYS:
            raise RuntimeError(f"{result.total_success} of {len(tasks) * KEYS} parts: {op}")

    def _delete(self) -> None:
        for keys in self._stored:
            self._adapter.delete(keys)
        self._stored = []


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(Worker(), channel)
    sys.stdout.flush()
    os._exit(0)  # its own threads do not end
