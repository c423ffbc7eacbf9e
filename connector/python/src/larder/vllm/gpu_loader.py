"""Loads into pages on a GPU."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

from vllm.logger import init_logger

from larder.errors import LarderError
from larder.load import LeasedPart
from larder.vllm.copiers import Copy
from larder.vllm.device import Event, wait_all
from larder.vllm.gpu_copies import PartCopy, Piece, ends, part_copy
from larder.vllm.gpu_path import GpuPath
from larder.vllm.landing import Landing, Rate
from larder.vllm.loader import BRIEF_S, Loader, LoadResult, Started
from larder.vllm.metadata import LoadOp

logger = init_logger("vllm.larder.loader")

# Seconds of copies that may be left of a load when it is reported to an engine
# that computes nothing else: what it does until its next step reaches the
# device, and less than a step for whoever comes meanwhile. By measurement.
_IDLE_AHEAD_S = 0.02
# Bytes of copies under way beyond which others wait for more to come: fewer
# launches, and more that can go layer by layer in the end. The bus needs 2 ms.
_WINDOW_BYTES = 96 << 20


class _Launched:
    """Copies that end with some events."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.events = [piece.event for piece in pieces]

    def exception(self) -> BaseException | None:
        """Waits; what went wrong."""
        try:
            wait_all(self.events)
        except Exception as error:  # noqa: BLE001
            return error
        return None

    def result(self) -> None:
        """Waits; raises what went wrong."""
        wait_all(self.events)


class GpuLoader(Loader):
    """Copies what comes at one time with one launch, on streams that first wait
    for whatever the engine had started when it asked for the load: the pages may
    still be in use by a step under way, or be read for a store.

    Where loads may be reported ahead (larder.vllm.landing) a second thread waits
    for their copies, in order, and gives the slots up; the first one goes on to
    the next load once little is left of those before.
    """

    def __init__(self, path: GpuPath, *args: Any, ahead_s: float = 0.0, **options: Any) -> None:
        """ahead_s: seconds of copies that may be left of a load when it is reported
        beside other requests; 0: none is reported before all is over."""
        # Before the thread starts, which is in here.
        self._path = path
        # By the operation's id: it lives until it was loaded.
        self._after: dict[int, list[Event]] = {}
        self._ahead_s = ahead_s
        self._rate = Rate()
        # Of the load that is under way on the loader's thread.
        self._begun: list[Started] = []
        self._pieces: list[Piece] = []
        self._flying: deque[Piece] = deque()
        self._held: list[LeasedPart] = []
        self._open = ExitStack()
        self._landings: list[Landing] = []
        self._handed: SimpleQueue[Landing | None] = SimpleQueue()
        self._lander = threading.Thread(target=self._land, name="larder-lander", daemon=True)
        self._lander.start()
        super().__init__(*args, **options)

    # -- the engine's thread -------------------------------------------------

    def submit(self, op: LoadOp) -> None:
        """See Loader."""
        path = self._path
        path.arrivals.rest()
        reads = path.reads.of(block for blocks in op.blocks for block in blocks)
        self._after[id(op)] = [path.device.record(path.device.current_stream()), *reads]
        super().submit(op)

    @property
    def busy(self) -> bool:
        """See Loader; also while copies of what was reported are under way."""
        return bool(self._pending or self._landings)

    def wait(self, timeout_s: float) -> None:
        """See Loader. Where the engine has yet to hear of a load's end, which
        comes with a step's, there is nothing to wait for."""
        if self._path.arrivals.unheard:
            return
        with self._changed:
            self._changed.wait_for(self._news, timeout_s if self._pending else min(timeout_s, BRIEF_S))

    def _news(self) -> bool:
        return bool(self._done) or any(one.near and not one.reported for one in self._landings)

    def take_done(self, *, idle: bool = False) -> list[LoadResult]:
        """See Loader; with those that may be reported ahead."""
        if not self._pending:
            return []
        with self._changed:
            left = 0
            for landing in self._landings:
                # In order, so those before are copied first.
                left += landing.left()
                if self._may_report(landing, left, idle=idle):
                    landing.reported = True
                    blocks = (block for some in landing.op.blocks for block in some)
                    self._path.arrivals.reported(landing.op.request_id, landing.pieces, blocks)
                    self._done.append(landing.ends(self._rate.seconds(left)))
            return super().take_done()

    def _may_report(self, landing: Landing, left: int, *, idle: bool) -> bool:
        if landing.reported or not landing.complete or self._void:
            return False
        return landing.near if idle else self._rate.seconds(left) <= self._ahead_s

    def _has_landed(self, op: LoadOp) -> bool:
        """See Loader: its last copy is started."""
        return super()._has_landed(op) or any(one.op is op for one in self._landings)

    def _take_landed(self, op: LoadOp) -> LoadResult:
        """See Loader."""
        left = 0
        for landing in self._landings:
            left += landing.left()
            if landing.op is op:
                landing.reported = True
                self._forget(op)
                return landing.ends(self._rate.seconds(left))
        return super()._take_landed(op)

    def _outlast(self, copies: Sequence[Copy]) -> None:
        """See Loader; on the device."""
        device = self._path.device
        for copy in copies:
            if isinstance(copy, _Launched):
                for event in copy.events:
                    device.wait(device.current_stream(), event)

    def close(self) -> None:
        """See Loader."""
        super().close()
        self._handed.put(None)
        self._lander.join(5.0)

    # -- the loader's thread -------------------------------------------------

    def _run(self) -> None:
        self._path.device.bind()
        super()._run()

    def _may_begin(self) -> bool:
        return all(landing.near for landing in self._landings)

    def _load(self, op: LoadOp) -> LoadResult:
        self._held = []
        try:
            return super()._load(op)
        finally:
            self._after.pop(id(op), None)

    def _start(self, op: LoadOp, parts: Sequence[LeasedPart]) -> Sequence[Copy]:
        self._held += parts
        flying = self._flying
        while flying and flying[0].event.query():
            flying.popleft()
        return () if sum(piece.size for piece in flying) > _WINDOW_BYTES else self._launch(op)

    def _start_rest(self, op: LoadOp) -> Sequence[Copy]:
        return self._launch(op, by_layer=self._ahead_s > 0 and self._path.by_layer)

    def _launch(self, op: LoadOp, *, by_layer: bool = False) -> Sequence[Copy]:
        """Starts the copies of what is held back."""
        parts, self._held = self._held, []
        copies: dict[tuple[int, int], list[PartCopy]] = {}
        shared: dict[Sequence[int], Sequence[int]] = {}
        for part in parts:
            target = self._target(op, part)
            if target.blocks:
                blocks = shared.setdefault(target.blocks, target.blocks)
                copies.setdefault(target.where, []).append(part_copy(blocks, target.skip, target.heads, part.view))
        pieces = self._path.loads.start(copies, self._after[id(op)], by_layer=by_layer)
        self._pieces += pieces
        self._flying += pieces
        return [_Launched(pieces)]

    def _started(self, started: Started, stack: ExitStack) -> None:
        if not self._ahead_s:
            super()._started(started, stack)
            return
        self._begun.append(started)
        self._open.push(stack.pop_all())

    def _report(self, op: LoadOp, result: LoadResult) -> None:
        begun, pieces, stack = self._begun, self._pieces, self._open
        self._begun, self._pieces, self._open = [], [], ExitStack()
        if not begun:
            super()._report(op, result)
            return
        landing = Landing(op, result, begun, pieces, stack)
        with self._changed:
            if self._is_given_up(op):
                landing.reported = True
                self._forget(op)
            self._landings.append(landing)
            self._changed.notify_all()
        self._handed.put(landing)

    # -- the landing thread ----------------------------------------------------

    def _land(self) -> None:
        self._path.device.bind()
        while (landing := self._handed.get()) is not None:
            good = self._wait_for(landing)
            with self._changed:
                self._landings.remove(landing)
                if not landing.reported:
                    result = landing.ends()
                    super()._report(landing.op, result if good else self._nothing(landing.op, result.took_s))
                self._changed.notify_all()

    def _wait_for(self, landing: Landing) -> bool:
        """Waits for a load's copies, and gives its slots up. Whether the pages
        have what they should."""
        try:
            self._follow(landing)
            for started in landing.started:
                started.finish()
        except LarderError as error:
            # Slots are not reused before they are given up, so what was read is
            # right; see larder.vllm.landing.
            logger.warning("Larder: slots that %s read were given up late: %s", landing.op.request_id, error)
        except Exception:
            logger.exception("Larder: load for %s failed", landing.op.request_id)
            return False
        finally:
            landing.stack.close()
        return True

    def _follow(self, landing: Landing) -> None:
        """Says when little is left to copy, and learns how fast it goes."""
        with self._changed:
            at = landing.last(int(_IDLE_AHEAD_S / self._rate.seconds(1)))
        before, rest = landing.pieces[:at], landing.pieces[at:]
        late = not before or before[-1].event.query()
        wait_all(ends(before))
        begin = time.perf_counter()
        with self._changed:
            landing.near = True
            self._changed.notify_all()
        wait_all([piece.event for piece in rest])
        if not late:
            with self._changed:
                self._rate.observe(sum(piece.size for piece in rest), time.perf_counter() - begin)
