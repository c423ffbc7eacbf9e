"""Memory registered with a device, by a driver within the test."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

from larder.arena import Segment
from larder.registered import RegisteredMemory

SIZE = 1 << 16


class FakeDriver:
    """Remembers what it was told."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.bound: list[int] = []
        self.held: dict[int, tuple[int, bool]] = {}
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    def bind(self) -> None:
        self.bound.append(threading.get_ident())

    def register(self, address: int, size: int, *, writable: bool) -> str:
        self.entered.set()
        assert self.go.wait(60)
        if not self.error:
            self.held[address] = (size, writable)
        return self.error

    def unregister(self, address: int) -> None:
        # Mapped until now: else this ends the process.
        assert f"{address:x}-" in Path("/proc/self/maps").read_text()
        del self.held[address]


def segment(*, writable: bool = True) -> Segment:
    fd = os.memfd_create("arena")
    os.ftruncate(fd, SIZE)
    try:
        return Segment(fd, SIZE, writable=writable, prefault=False)
    finally:
        os.close(fd)


def test_segments_are_registered_until_their_last_view_is_gone() -> None:
    driver = FakeDriver()
    memory = RegisteredMemory(driver)
    one, two = segment(), segment(writable=False)
    memory.mapped(one)
    memory.mapped(two)
    assert memory.settled(60)
    assert driver.held == {one.address: (SIZE, True), two.address: (SIZE, False)}
    assert memory.size == 2 * SIZE
    address = one.address
    assert memory.covers(address, SIZE)
    assert memory.covers(address + 100, SIZE - 100)
    assert not memory.covers(address + 1, SIZE)
    # They may lie next to each other.
    assert not memory.covers(min(address, two.address) - 1, 1)
    view = one.read[10:20]
    del one
    gc.collect()
    assert memory.covers(address, SIZE)
    del view
    gc.collect()
    assert not memory.covers(address, 1)
    assert list(driver.held) == [two.address]
    memory.close()
    assert not driver.held
    assert not memory.covers(two.address, 1)
    assert driver.bound != [threading.get_ident()]


def test_what_is_refused_is_not_covered() -> None:
    driver = FakeDriver("out of something")
    memory = RegisteredMemory(driver)
    one = segment()
    memory.mapped(one)
    assert memory.settled(60)
    assert not memory.covers(one.address, 1)
    memory.close()


def test_between_pause_and_resume_nothing_is_registered() -> None:
    driver = FakeDriver()
    memory = RegisteredMemory(driver)
    driver.go.clear()
    one, two = segment(), segment()
    memory.mapped(one)
    assert driver.entered.wait(60)
    assert not memory.pause(0.01), "one is under way"
    memory.mapped(two)
    driver.go.set()
    assert memory.pause(60)
    assert list(driver.held) == [one.address]
    assert not memory.settled(0.01)
    memory.resume()
    assert memory.settled(60)
    assert set(driver.held) == {one.address, two.address}
    memory.close()


def test_one_that_is_gone_before_its_turn_is_left_out() -> None:
    driver = FakeDriver()
    memory = RegisteredMemory(driver)
    memory.pause()
    memory.mapped(segment())
    gc.collect()
    memory.resume()
    assert memory.settled(60)
    assert not driver.entered.is_set()
    memory.close()
    memory.mapped(segment())
    assert memory.settled(60)
    assert not driver.held


def test_closing_while_one_is_registered() -> None:
    driver = FakeDriver()
    memory = RegisteredMemory(driver)
    driver.go.clear()
    one = segment()
    memory.mapped(one)
    assert driver.entered.wait(60)
    closing = threading.Thread(target=memory.close)
    closing.start()
    driver.go.set()
    closing.join(60)
    assert not driver.held
    assert not memory.covers(one.address, 1)
