"""How many slots a rank keeps granted ahead, and what it says where they are too few."""

from __future__ import annotations

import pytest

from larder.stats import ClientStats
from larder.vllm.identity import RankPart
from larder.vllm.layout import PartHeads
from larder.vllm.settings import Settings
from larder.vllm.slots_ahead import SlotsAhead

MIB = 1 << 20


def parts(*lengths: int, writes: bool = True) -> list[RankPart]:
    return [RankPart(i, 0, 0, PartHeads(i, 1), writes, n) for i, n in enumerate(lengths)]


def test_two_steps_by_default() -> None:
    assert Settings().credit_mib == 0
    ahead = SlotsAhead(parts(*[4 * MIB] * 8), 256, 8192, 0)
    assert ahead.counts == {4 * MIB: 8 * 66}
    assert str(ahead) == "2112 MiB for 66 chunks, what two steps of 8192 tokens fill"
    # A step that ends inside of a chunk begins inside of one.
    assert SlotsAhead(parts(MIB), 256, 100, 0).counts == {MIB: 4}


def test_whole_chunks_of_what_is_allowed() -> None:
    mixed = parts(4 * MIB, 4 * MIB, MIB)
    ahead = SlotsAhead(mixed, 256, 8192, 100 * MIB)
    assert ahead.counts == {4 * MIB: 22, MIB: 11}
    assert str(ahead) == "99 MiB for 11 chunks, as credit_mib says; two steps of 8192 tokens fill 594 MiB"
    assert SlotsAhead(mixed, 256, 8192, 1).counts == {4 * MIB: 2, MIB: 1}
    assert SlotsAhead(mixed, 256, 256, 10_000 * MIB).counts == SlotsAhead(mixed, 256, 256, 0).counts


def test_a_rank_that_writes_nothing() -> None:
    ahead = SlotsAhead(parts(MIB, writes=False), 256, 8192, 0)
    assert ahead.counts == {}
    assert str(ahead) == "none: another rank writes what this one holds"


@pytest.mark.parametrize(
    ("most", "stats", "why"),
    [
        (0, ClientStats(), None),
        (
            0,
            ClientStats(credits_granted=1),
            "or not in time; if larder_host_grants_full_total grows, raise larderd's host.bytes",
        ),
        (0, ClientStats(credits_granted=1, credit_limit=2112 * MIB), "or not in time"),
        (
            0,
            ClientStats(credits_granted=1, credit_limit=64 * MIB),
            "64 MiB as of now, of 2112 MiB: raise larderd's host.bytes or",
        ),
        (256 * MIB, ClientStats(credits_granted=1, credit_limit=64 * MIB), "64 MiB as of now, of 256 MiB"),
        (
            256 * MIB,
            ClientStats(credits_granted=1, credit_limit=512 * MIB),
            "credit_mib lets 8 be granted ahead, and two steps fill 66",
        ),
        (256 * MIB, ClientStats(credits_granted=1), "credit_mib lets 8"),
    ],
)
def test_each_reason_is_said_once_with_its_remedy(most: int, stats: ClientStats, why: str | None) -> None:
    said: list[str] = []
    ahead = SlotsAhead(parts(*[4 * MIB] * 8), 256, 8192, most)
    ahead.complain(stats, said.append)
    ahead.complain(stats, said.append)
    assert len(said) == (why is not None)
    assert all(why is not None and why in text for text in said)
    ahead.complain(ClientStats(credits_granted=1, credit_limit=1), said.append)
    assert "fewer slots granted ahead than it wants" in said[-1]
