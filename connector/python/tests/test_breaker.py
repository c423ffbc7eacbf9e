"""The circuit breaker, on a clock of its own."""

from __future__ import annotations

import pytest

from larder.breaker import Breaker


class Fixture:
    def __init__(self) -> None:
        self.now = 0.0
        self.opened = 0
        self.breaker = Breaker(3, 10.0, self._opened, lambda: self.now)

    def _opened(self) -> None:
        self.opened += 1

    def trip(self) -> Breaker:
        for _ in range(3):
            assert self.breaker.admit()
            self.breaker.failure()
        return self.breaker


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_failures_in_a_row_open_it(fixture: Fixture) -> None:
    breaker = fixture.breaker
    for _ in range(5):
        breaker.failure()
        breaker.failure()
        breaker.success()
    assert breaker.closed
    fixture.trip()
    assert not breaker.closed
    assert not breaker.admit()
    assert fixture.opened == 1


def test_one_probe_after_the_time(fixture: Fixture) -> None:
    breaker = fixture.trip()
    fixture.now = 9.9
    assert not breaker.admit()
    fixture.now = 10.0
    assert breaker.closed
    assert breaker.admit()
    assert not breaker.closed
    assert not breaker.admit()
    breaker.success()
    assert breaker.closed
    assert breaker.admit()
    # Closed for good: it takes three failures again.
    breaker.failure()
    assert breaker.closed


def test_a_failed_probe_opens_it_again(fixture: Fixture) -> None:
    breaker = fixture.trip()
    fixture.now = 10.0
    assert breaker.admit()
    breaker.failure()
    fixture.now = 19.9
    assert not breaker.admit()
    fixture.now = 20.0
    assert breaker.admit()


def test_a_probe_without_verdict_makes_room_for_another(fixture: Fixture) -> None:
    breaker = fixture.trip()
    fixture.now = 10.0
    assert breaker.admit()
    breaker.forget()
    assert breaker.admit()


def test_a_new_connection_probes_at_once(fixture: Fixture) -> None:
    breaker = fixture.trip()
    breaker.hasten()
    assert breaker.admit()
    breaker.hasten()
    assert not breaker.admit()
    fresh = Fixture().breaker
    fresh.hasten()
    assert fresh.closed
