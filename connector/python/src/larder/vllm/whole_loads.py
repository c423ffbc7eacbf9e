"""Loads that count as a whole, and the engine's way on after one that failed.

With one group of full attention the pages that a load did not fill are named,
and the engine computes from the first of them on. Where there are several
groups vLLM's scheduler cannot take such names (0.26 ends the whole engine), and
behind a sliding window the pages of what comes before are not there. There a
request whose load failed gives all its pages back and begins anew, as the
scheduler itself lets it where nothing of a load is valid.

No hook says so. The scheduler keeps the requests whose load failed in a set,
which it looks at when it takes a request out of its waiting state; it is found
as the caller of the connector's constructor.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from vllm.v1.core.sched.interface import SchedulerInterface
from vllm.v1.request import RequestStatus

# The scheduler's set of such requests.
_SET = "failed_recving_kv_req_ids"


class Restarts:
    """Lets requests begin anew. scheduler: the engine's, which may be under
    construction; None where it is not known."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

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
        return True
