"""What the daemon is known to have: saves copies, never decides correctness."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence


class PresentKeys:
    """Keys stored or matched lately, each with the time of that knowledge.

    What a step stores counts as there from its planning on, whatever is answered
    to who asked before the step's output came. under_way: steps that the engine
    schedules before a step's output comes."""

    def __init__(self, under_way: int, most: int = 1 << 16) -> None:
        self._most = most
        self._under_way = under_way
        self._step = 0
        self._planned: deque[tuple[int, bytes]] = deque()
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._answered: OrderedDict[bytes, float] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def matched(self, keys: Sequence[bytes], count: int, asked: float) -> None:
        """The daemon had the first count of a prompt's chunks when asked, and not the
        others; what is known of these since stays."""
        self.add(keys[:count], asked)
        for key in keys[count:]:
            if self._known.get(key, asked) < asked:
                del self._known[key]
            self._answered.pop(key, None)
        if count:
            self._answered[keys[count - 1]] = asked
            self._answered.move_to_end(keys[count - 1])
        if len(self._answered) > self._most:
            self._answered.popitem(last=False)

    def since(self, last: bytes, when: float) -> bool:
        """Whether it said, asked then or later, that it has a prompt's chunks up to this
        one. What was only given to it may have been refused."""
        return self._answered.get(last, -math.inf) >= when

    def add(self, keys: Iterable[bytes], now: float) -> None:
        """The daemon has these."""
        for key in keys:
            self._known[key] = now
            self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def storing(self, keys: Iterable[bytes]) -> None:
        """The step that is being built stores these."""
        keys = list(keys)
        self.add(keys, math.inf)
        self._planned.extend((self._step, key) for key in keys)

    def built(self) -> None:
        """A step is built."""
        self._step += 1

    def ended(self, now: float, *, last: bool = False) -> None:
        """The output of a step came; last: no request is left, and so no output may
        come for long, in which the daemon may lose what was stored."""
        planned = self._planned
        while planned and (last or planned[0][0] <= self._step - self._under_way):
            key = planned.popleft()[1]
            if key in self._known:
                self._known[key] = now

    def remove(self, key: bytes) -> None:
        """A store failed."""
        self._known.pop(key, None)
        self._answered.pop(key, None)

    def clear(self) -> None:
        """Nothing is known of another daemon."""
        self._known.clear()
        self._answered.clear()
        self._planned.clear()
