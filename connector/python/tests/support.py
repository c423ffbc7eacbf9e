"""Small helpers of the client's tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from fake_daemon import PATIENCE_S

from larder.client import Client

# Makes a client: the fixture `connect`.
Connect = Callable[..., Client]

T = TypeVar("T")

_nothing = threading.Event()


def eventually(check: Callable[[], T | None]) -> T:
    """What check answers, once it is true. For what a client does by itself
    and announces to nobody, such as filling its pool."""
    until = time.monotonic() + PATIENCE_S
    while not (found := check()):
        assert time.monotonic() < until, "it never came to be"
        _nothing.wait(0.001)
    return found
