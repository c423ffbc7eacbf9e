"""Results to come."""

from __future__ import annotations

import threading

import pytest

from larder.errors import LarderError, MissError, UnavailableError
from larder.pending import Pending


def test_a_value() -> None:
    pending: Pending[int] = Pending(5.0)
    assert pending.poll() is None
    assert not pending.done
    pending.resolve(3)
    assert (pending.done, pending.poll(), pending.result(), pending.result(0.0)) == (True, 3, 3, 3)


def test_the_first_outcome_stays() -> None:
    pending: Pending[int] = Pending(5.0)
    pending.fail(MissError("gone"))
    pending.resolve(3)
    for ask in (pending.poll, pending.result):
        with pytest.raises(MissError):
            ask()
    assert isinstance(pending.error, MissError)


def test_every_waiter_wakes() -> None:
    pending: Pending[int] = Pending(20.0)
    got: list[int] = []
    waiters = [threading.Thread(target=lambda: got.append(pending.result())) for _ in range(4)]
    for waiter in waiters:
        waiter.start()
    pending.resolve(7)
    for waiter in waiters:
        waiter.join()
    assert got == [7] * 4


def test_a_wait_ends_without_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    pending: Pending[int] = Pending(5.0)
    with pytest.raises(UnavailableError):
        pending.result(0.0)
    pending.resolve(1)
    assert pending.result() == 1
    # And by itself, where nobody is left to resolve it.
    monkeypatch.setattr("larder.pending._SLACK_S", 0.0)
    with pytest.raises(UnavailableError):
        Pending[int](0.001).result()


def test_callbacks_before_and_after() -> None:
    pending: Pending[int] = Pending(5.0)
    seen: list[str] = []
    pending.add_callback(lambda p: seen.append(f"before {p.poll()}"))
    pending.resolve(2)
    pending.add_callback(lambda p: seen.append(f"after {p.poll()}"))
    pending.resolve(3)
    assert seen == ["before 2", "after 2"]


def test_a_callback_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def bad(_: Pending[int]) -> None:
        raise RuntimeError("oops")

    pending: Pending[int] = Pending(5.0)
    seen: list[int] = []
    pending.add_callback(bad)
    pending.add_callback(lambda p: seen.append(p.result()))
    pending.resolve(2)
    assert seen == [2]
    assert "oops" in caplog.text


def test_ready_made() -> None:
    assert Pending.of(4).result() == 4
    failed: Pending[int] = Pending.failed(MissError("gone"))
    with pytest.raises(LarderError):
        failed.poll()
