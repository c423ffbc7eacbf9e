"""What steps teach about the cost of a prompt's tokens."""

from __future__ import annotations

import random

import pytest

from larder.fading_fit import FadingFit
from larder.prefill_cost import PrefillCost

FIXED, EACH, PAIR = 0.004, 2e-5, 3e-9


def seconds(begin: int, tokens: int, slower: float = 1.0) -> float:
    """What a step of an engine takes."""
    return slower * (FIXED + EACH * tokens + PAIR * tokens * (begin + tokens / 2))


def teach(cost: PrefillCost, steps: int, source: random.Random, slower: float = 1.0) -> None:
    for _ in range(steps):
        begin, tokens = source.randrange(0, 30000), source.choice([100, 512, 2048, 2048])
        noise = source.uniform(0.95, 1.05)
        cost.observe(tokens, tokens * (begin + tokens / 2), seconds(begin, tokens, slower) * noise)


def whole(begin: int, end: int) -> float:
    """A prompt's tokens in steps of 2048."""
    return sum(seconds(at, min(2048, end - at)) for at in range(begin, end, 2048))


@pytest.fixture
def source() -> random.Random:
    return random.Random(1)  # noqa: S311


def test_it_finds_the_cost_by_position(source: random.Random) -> None:
    cost = PrefillCost()
    # The first steps of an engine are like no other.
    for _ in range(3):
        cost.observe(100, 5000, 10.0)
    teach(cost, 5, source)
    assert not cost.measured
    teach(cost, 60, source)
    assert cost.measured
    for begin, end in ((0, 2048), (0, 16384), (16384, 32768)):
        assert cost.prompt(begin, end, 0, 2048) == pytest.approx(whole(begin, end), rel=0.1)
    assert cost.prompt(16384, 32768, 0, 2048) > 1.5 * cost.prompt(0, 16384, 0, 2048)


def test_others_take_their_part_of_each_step(source: random.Random) -> None:
    cost = PrefillCost()
    teach(cost, 80, source)
    alone = cost.prompt(0, 8192, 0, 2048)
    beside = cost.prompt(0, 8192, 1024, 2048)
    assert beside == pytest.approx(alone + 4 * FIXED + 8 * EACH * 1024, rel=0.1)
    # Others that fill the step do not for ever.
    assert cost.prompt(0, 8192, 2048, 2048) < 10 * alone


def test_steps_that_stood_still_do_not_count_for_much(source: random.Random) -> None:
    cost = PrefillCost()
    teach(cost, 80, source)
    before = cost.prompt(0, 8192, 0, 2048)
    for _ in range(4):
        cost.observe(2048, 2048 * 1024, 30.0)
        teach(cost, 5, source)
    assert cost.prompt(0, 8192, 0, 2048) == pytest.approx(before, rel=0.3)


@pytest.mark.parametrize("slower", [20.0, 0.05])
def test_an_engine_that_changed_is_learnt_anew(source: random.Random, slower: float) -> None:
    cost = PrefillCost()
    teach(cost, 80, source)
    before = cost.prompt(0, 8192, 0, 2048)
    teach(cost, 20, source, slower)
    assert cost.prompt(0, 8192, 0, 2048) == pytest.approx(slower * before, rel=0.2)


def test_steps_that_are_all_alike_say_enough_about_their_like() -> None:
    cost = PrefillCost()
    for _ in range(20):
        cost.observe(1024, 1024 * 512, 0.05)
    assert cost.prompt(0, 1024, 0, 1024) == pytest.approx(0.05, rel=0.01)
    assert cost.prompt(0, 4096, 0, 1024) >= 0.19


def test_parameters_are_never_negative() -> None:
    fit = FadingFit(2, 16)
    assert list(fit.parameters()) == [0, 0]
    # Falling with size: the best line has a negative slope.
    for x, y in ((1.0, 5.0), (2.0, 4.0), (3.0, 3.0)):
        fit.add((1.0, x), y, 1.0)
    fixed, each = fit.parameters()
    assert each == 0
    assert fixed == pytest.approx(4.0, rel=0.05)
