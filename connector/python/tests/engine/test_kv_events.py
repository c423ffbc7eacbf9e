"""KV cache events: what routers hear of chunks in Larder, in the engine's own names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine
from stub_daemon import FULL, StubDaemon
from vllm.config.kv_events import KVEventsConfig
from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved, BlockStored, KVEventBatch

from larder.errors import LarderError
from larder.vllm import kv_events
from larder.vllm.kv_events import KVEvents
from larder.vllm.metadata import StoreOp
from larder.vllm.page_groups import PageGroup, PageGroups
from larder.vllm.settings import Settings
from larder.vllm.stats import SchedulerStats

ON = {"kv_events_config": KVEventsConfig(enable_kv_cache_events=True, publisher="null")}


class Router:
    """What a subscriber of the engine's events knows: blocks by medium."""

    def __init__(self, engine: SimulatedEngine) -> None:
        self.events: list[Any] = []
        self.blocks: dict[str, dict[bytes, tuple[Any, ...]]] = {"GPU": {}, "CPU": {}}
        engine.scheduler.kv_event_publisher = self

    def publish(self, batch: KVEventBatch) -> None:
        """In place of vLLM's publisher, after the encoding that it uses."""
        for event in msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=KVEventBatch).events:
            self.events.append(event)
            if isinstance(event, BlockStored):
                self._stored(event)
            elif isinstance(event, BlockRemoved):
                for name in event.block_hashes:
                    del self.blocks[event.medium or ""][name]
            else:
                assert isinstance(event, AllBlocksCleared)

    def shutdown(self) -> None: ...

    def _stored(self, event: BlockStored) -> None:
        size = event.block_size
        assert len(event.token_ids) == size * len(event.block_hashes)
        parent = event.parent_block_hash
        extra = event.extra_keys or [None] * len(event.block_hashes)
        for i, (name, keys) in enumerate(zip(event.block_hashes, extra, strict=True)):
            tokens = tuple(event.token_ids[i * size : (i + 1) * size])
            seen = parent, tokens, keys, event.lora_name, event.group_idx
            assert self.blocks[event.medium or ""].setdefault(name, seen) == seen
            parent = name

    def of(self, medium: str, kind: Any) -> list[Any]:
        """Events of a medium."""
        return [e for e in self.events if isinstance(e, kind) and e.medium == medium]


def chunks(router: Router) -> int:
    """Chunks of 64 tokens that the router knows to be in Larder."""
    return len(router.blocks["CPU"]) // 4


def test_a_stored_chunk_is_announced_by_the_engines_names(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine(**ON)
    router = Router(e)
    e.generate("r", prompt(300), cache_salt="secret")
    assert len(daemon.chunks) == 4
    assert chunks(router) == 4
    # Hash, parent, tokens and extra keys are those that the engine gives for its own pages.
    own, ours = router.blocks["GPU"], router.blocks["CPU"]
    assert ours == {name: own[name] for name in ours}
    assert any(keys for _, _, keys, *_ in ours.values())
    # Consecutive chunks of a step come as one, and name the block before them.
    stored = router.of("CPU", BlockStored)
    assert [len(event.block_hashes) for event in stored] == [16]
    assert stored[0].parent_block_hash is None
    # 0.25 does not say where.
    assert getattr(stored[0], "locality", "LOCAL") == "LOCAL"


def test_chunks_of_later_steps_name_their_parent(engine: MakeEngine, prompt: MakePrompt) -> None:
    e = engine(**ON, budget=64)
    router = Router(e)
    e.generate("r", prompt(250), max_tokens=20)
    assert chunks(router) == 4
    stored = router.of("CPU", BlockStored)
    assert len(stored) > 1
    for before, after in pairwise(stored):
        assert after.parent_block_hash == before.block_hashes[-1]


def test_nothing_is_said_unless_the_engine_publishes(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine()
    router = Router(e)
    e.generate("r", prompt(300))
    engine().generate("again", prompt(300))
    assert len(daemon.chunks) == 4
    assert not router.events
    assert not e.connector.scheduler_half.events._announced
    assert not e.connector.scheduler_half.events._storing


def test_what_the_daemon_did_not_take_is_not_announced(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = engine(**ON)
    router = Router(e)
    daemon.refuse_commit = FULL
    e.generate("r", prompt(300))
    assert not router.blocks["CPU"]
    assert not e.connector.scheduler_half.events._storing


def test_a_match_announces_what_others_stored_and_withdraws_what_is_gone(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    engine().generate("r", prompt(300))
    keys = [key for key, *_ in daemon.commits]
    e = engine(**ON)
    router = Router(e)
    e.generate("hit", prompt(300))
    assert e.external["hit"] == 256
    assert chunks(router) == 4
    e.drop_own_cache()
    e.generate("again", prompt(300))
    assert e.external["again"] == 256
    assert len(router.of("CPU", BlockStored)) == 1

    daemon.evict(keys[1])
    e.drop_own_cache()
    e.generate("less", prompt(300))
    assert e.external["less"] == 64
    # The second is stored again, and the two after it are found only then.
    (removed,) = router.of("CPU", BlockRemoved)
    assert len(removed.block_hashes) == 12
    e.drop_own_cache()
    e.generate("more", prompt(300))
    assert e.external["more"] == 256
    assert chunks(router) == 4


def test_what_could_not_be_loaded_is_withdrawn(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine(**ON)
    router = Router(e)
    e.generate("r", prompt(300))
    daemon.corrupt.add(daemon.commits[2][0])
    e.drop_own_cache()
    e.generate("again", prompt(300))
    assert e.connector.stats.loads_failed == 1
    (removed,) = router.of("CPU", BlockRemoved)
    assert len(removed.block_hashes) == 8


@pytest.mark.parametrize("how", ["restart", "reset"])
def test_everything_is_withdrawn(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, how: str) -> None:
    e = engine(**ON)
    router = Router(e)
    e.generate("r", prompt(300))
    assert chunks(router) == 4
    if how == "restart":
        daemon.restart()
    else:
        assert e.scheduler.reset_prefix_cache(reset_connector=True)
    e.generate("other", prompt(40, seed=1))
    assert not router.blocks["CPU"]


def test_requests_without_hashes_are_left_out(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = engine(**ON, enable_prefix_caching=False)
    e._hasher = None
    router = Router(e)
    e.generate("r", prompt(300))
    assert len(daemon.chunks) == 4
    assert not router.blocks["CPU"]


def test_the_medium_is_the_operators_choice(engine: MakeEngine, prompt: MakePrompt) -> None:
    e = engine(**ON, extra={"event_medium": "CPU_TIER1"})
    router = Router(e)
    router.blocks["CPU_TIER1"] = {}
    e.generate("r", prompt(300))
    assert len(router.blocks["CPU_TIER1"]) == 16
    with pytest.raises(LarderError, match="event_medium"):
        Settings.parse({"event_medium": ""})


class TestBounds:
    """Whatever happens, memory and messages stay small."""

    def request(self, blocks: int) -> Any:
        return SimpleNamespace(
            block_hashes=[i.to_bytes(32, "big") for i in range(blocks)],
            all_token_ids=list(range(blocks * 16)),
            lora_request=None, mm_features=[], cache_salt=None, prompt_embeds=None,
        )  # fmt: skip

    def events(self, **bounds: int) -> tuple[KVEvents, SchedulerStats]:
        stats = SchedulerStats()
        events = KVEvents(PageGroups((PageGroup(16),), 16), "CPU", stats, on=True, **bounds)
        events.start(64)
        return events, stats

    def keys(self, count: int) -> list[bytes]:
        return [i.to_bytes(32, "little") for i in range(count)]

    def test_too_many_in_a_step(self) -> None:
        events, stats = self.events(most_waiting=3)
        events.matched(self.request(40), self.keys(10), 10, 0.0, 0.0)
        assert (stats.events_stored, stats.events_dropped) == (3, 7)
        assert [len(e.block_hashes) for e in events.take()] == [12]
        # They are said with the next match.
        events.matched(self.request(40), self.keys(10), 10, 1.0, 1.0)
        assert stats.events_stored == 6

    def test_too_many_at_all(self) -> None:
        events, stats = self.events(most_announced=4)
        events.matched(self.request(40), self.keys(10), 10, 0.0, 0.0)
        assert len(events._announced) == 4
        events.clear()
        assert stats.events_removed == 4

    def test_stores_that_are_never_answered(self) -> None:
        events, _ = self.events(most_waiting=5)
        key = bytes(32)
        states: Any = {"r": SimpleNamespace(request=self.request(40))}
        ops: Sequence[StoreOp] = [StoreOp("r", i, key, key, ((),)) for i in range(10)]
        events.storing(ops, states)
        assert len(events._storing) == 5

    def test_a_long_withdrawal_is_several_events(self) -> None:
        events, _ = self.events()
        events.matched(self.request(4000), self.keys(1000), 1000, 0.0, 0.0)
        events.take()
        events.clear()
        sizes = [len(e.block_hashes) for e in events.take()]
        assert sum(sizes) == 4000
        assert max(sizes) <= kv_events._MOST_HASHES

    def test_an_old_answer_does_not_withdraw_what_was_stored_since(self) -> None:
        events, _ = self.events()
        request, keys = self.request(8), self.keys(2)
        states: Any = {"r": SimpleNamespace(request=request)}
        events.storing([StoreOp("r", 0, keys[0], keys[0], ((),))], states)
        events.answered({("r", 0)}, (), 5.0)
        events.matched(request, keys, 0, 4.0, 6.0)
        assert [type(e) for e in events.take()] == [BlockStored]
        events.matched(request, keys, 0, 7.0, 8.0)
        assert [type(e) for e in events.take()] == [BlockRemoved]
