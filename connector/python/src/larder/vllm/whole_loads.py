"""Loads that count as a whole, and the engine's way on after one that failed.

With one group of full attention the pages that a load did not fill are named,
and the engine computes from the first of them on. Where there are several
groups vLLM's scheduler cannot take such names (0.26 ends the whole engine), and
behind a sliding window the pages of what comes before are not there. There a
request whose load failed gives all its pages back and begins anew, as the
scheduler itself lets it where nothing of a load is valid.

It then needs more pages than the load had, which has none for what lies before a
window, and the engine goes no further than to the first request that it has no
pages for: loads that ended behind it would keep theirs for ever. So it lets those
go first, and no other load begins meanwhile.

No hook says so. The scheduler keeps the requests whose load failed in a set,
which it looks at when it takes a request out of its waiting state; it is found
as the caller of the connector's constructor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any

from vllm.v1.core.sched.interface import SchedulerInterface
from vllm.v1.request import RequestStatus

# The scheduler's set of such requests.
_SET = "failed_recving_kv_req_ids"
# Of a request that has no pages of its own, or is yet to give them back.
_UNPLACED = (RequestStatus.WAITING, RequestStatus.PREEMPTED, RequestStatus.WAITING_FOR_REMOTE_KVS)


class Restarts:
    """Lets requests begin anew. scheduler: the engine's, which may be under
    construction; None where it is not known."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._anew: list[Any] = []

    @classmethod
    def of_caller(cls) -> Restarts:
        """For the scheduler that is making its connector just now."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            caller = frame.f_locals.get("self")
            if isinstance(caller, SchedulerInterface):
                return cls(caller)
            frame = frame.f_back
        return cls(None)

    @property
    def possible(self) -> bool:
        """Whether this engine's scheduler knows of them."""
        return isinstance(getattr(self.scheduler, _SET, None), set)

    def restart(self, request: Any) -> bool:
        """The request's load failed on some rank and has ended on all. Called
        before the scheduler hears of that end. Whether it begins anew; it does
        not if it is over."""
        if request.status != RequestStatus.WAITING_FOR_REMOTE_KVS:
            return False
        request.num_computed_tokens = 0
        getattr(self.scheduler, _SET).add(request.request_id)
        self._anew.append(request)
        return True

    @property
    def under_way(self) -> bool:
        """Whether a request that begins anew is yet to get its pages."""
        self._anew = [request for request in self._anew if request.status in _UNPLACED]
        return bool(self._anew)

    def yields(self, request: Any, requests: Iterable[Any]) -> bool:
        """Whether a request begins anew while others, of these, have pages without
        computing."""
        return (
            self.under_way
            and any(one is request for one in self._anew)
            and any(one is not request and one.status == RequestStatus.WAITING_FOR_REMOTE_KVS for one in requests)
        )
