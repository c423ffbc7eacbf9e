"""Contract, lines 5 and 9: engines with sliding windows and several KV cache groups.

What they load and store, and how a load that fails ends, in vLLM's own scheduler
and coordinator of groups. The simulated engine checks, before each step, the pages
of whatever attention reads, window by window, and that nobody wrote the null page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hybrid_engine import HybridEngine, make_hybrid
from simulated_engine import MakeEngine, MakePrompt, Step, expected_output, larder, prefix_hashes
from stub_daemon import StubDaemon
from vllm.v1.request import RequestStatus

from larder.namespace import GroupKind
from larder.vllm import worker as worker_module
from larder.vllm.whole_loads import Restarts

CHUNK = 64
# Block, window and head size of each group.
GEMMA = ((16, 0, 32), (16, 128, 32), (16, 128, 32))
BLOCKS = ((16, 0, 64), (32, 96, 32))
ALONE = ((16, 96, 32),)
FORMS = {"gemma": GEMMA, "blocks of two sizes": BLOCKS, "windows alone": ALONE}

MakeHybrid = Callable[..., HybridEngine]


@pytest.fixture
def hybrid(engine: MakeEngine) -> MakeHybrid:
    """Makes engines of such groups; else as engine."""

    def make(groups: Any = GEMMA, blocks: int = 128, **options: Any) -> HybridEngine:
        block = groups[0][0]
        cache_config = make_hybrid(blocks, *groups)
        made = engine(kind=HybridEngine, cache_config=cache_config, block=block, blocks=blocks, **options)
        assert isinstance(made, HybridEngine)
        return made

    return make


@pytest.fixture(params=list(FORMS.values()), ids=list(FORMS))
def groups(request: pytest.FixtureRequest) -> Any:
    return request.param


def check_stored(engine: HybridEngine, daemon: StubDaemon, tokens: list[int]) -> list[int]:
    """Every stored chunk holds the canonical bytes of all groups; returns their ordinals."""
    for key, _, ordinal, _ in daemon.commits:
        engine.check_chunk(daemon.chunks[key], prefix_hashes(tokens), ordinal)
    return [ordinal for _, _, ordinal, _ in daemon.commits]


def received(steps: list[Step]) -> list[str]:
    return [r for s in steps for r in s.output.finished_recving or ()]


def stored(hybrid: MakeHybrid, daemon: StubDaemon, tokens: list[int], groups: Any = GEMMA) -> list[bytes]:
    """Stores a prompt; returns the keys of its chunks."""
    hybrid(groups).generate("stored", tokens, max_tokens=1)
    daemon.loaded.clear()
    return [key for key, *_ in daemon.commits]


def test_the_namespace_has_every_group(hybrid: MakeHybrid) -> None:
    first, *others = hybrid(GEMMA).namespace().groups
    assert (first.kind, first.layers, first.window) == (GroupKind.FULL, (0, 3), 0)
    assert [(g.kind, g.layers, g.window) for g in others] == [
        (GroupKind.SLIDING, (1, 4), 128),
        (GroupKind.SLIDING, (2, 5), 128),
    ]
    assert [(g.dk, g.dv) for g in hybrid(BLOCKS).namespace().groups] == [(64, 64), (32, 32)]


def test_every_group_is_stored_and_loaded(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt, groups: Any
) -> None:
    e = hybrid(groups)
    assert e.generate("r", prompt(300), max_tokens=1) == expected_output(prompt(300), 1)
    assert check_stored(e, daemon, prompt(300)) == [0, 1, 2, 3]
    e = hybrid(groups)
    e.add("r", prompt(300))
    steps = e.run()
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert e.external["r"] == 256
    assert e.worker.stats.chunks_loaded == 4
    assert received(steps) == ["r"]
    assert not set().union(*(s.output.invalid_block_ids for s in steps))
    # Each group is asked for from the chunk on in which its pages begin.
    made = e.namespace()
    first = [max(0, 256 - window + 1) // CHUNK if window else 0 for _, window, _ in groups]
    keys = [key for key, *_ in daemon.commits]
    want = {(key, i) for i, p in enumerate(made.parts()) for key in keys[first[p.group] : 4]}
    assert set(daemon.loaded) == want
    assert len(daemon.loaded) == len(want) < 4 * len(made.parts())


def test_pages_behind_the_window_get_none(hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt) -> None:
    stored(hybrid, daemon, prompt(300))
    e = hybrid()
    e.add("r", prompt(300))
    (step, *_) = e.run()
    (op,) = step.metadata.loads
    # Of 16 blocks, those of the last 127 tokens.
    assert [len(ids) for ids in op.blocks] == [16, 8, 8]
    assert op.skip_blocks == (0, 8, 8)
    assert 0 not in {b for ids in op.blocks for b in ids}
    assert len({b for ids in op.blocks for b in ids}) == 32


@pytest.mark.parametrize(("form", "claim"), [(GEMMA, 240), (BLOCKS, 224), (ALONE, 240)], ids=list(FORMS))
def test_a_load_leaves_the_last_token(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt, form: Any, claim: int
) -> None:
    # Computing it again would need what lies just before the window of the token after it.
    stored(hybrid, daemon, prompt(256), form)
    e = hybrid(form)
    assert e.generate("r", prompt(256)) == expected_output(prompt(256), 4)
    assert e.external["r"] == claim
    assert e.worker.stats.chunks_loaded == 4


def test_a_local_hit_and_a_load_beyond_it(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt, groups: Any
) -> None:
    stored(hybrid, daemon, prompt(600), groups)
    for local in (100, 300):
        e = hybrid(groups)
        e.generate("local", prompt(local), max_tokens=1, params={"larder": {"skip_load": True}})
        unit = max(block for block, _, _ in groups)
        assert e.generate("r", prompt(600)) == expected_output(prompt(600), 4)
        assert e.external["r"] == 576 - local // unit * unit


def test_stored_with_one_block_size_loaded_with_another(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    stored(hybrid, daemon, prompt(300), ((64, 0, 32), (64, 128, 32)))
    for block in (32, 16):
        e = hybrid(((block, 0, 32), (block, 128, 32)))
        assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
        assert e.external["r"] == 256


def test_pages_as_they_are(hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt, groups: Any) -> None:
    extra = {"layout": "opaque"}
    e = hybrid(groups, extra=extra)
    e.generate("r", prompt(300), max_tokens=1)
    made = e.namespace()
    assert [g.block_tokens for g in made.groups] == [block for block, _, _ in groups]
    assert len(made.parts()) == len(groups)
    e = hybrid(groups, extra=extra)
    assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert e.external["r"] == 256


def test_loads_longer_than_one_message_may_be(hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt) -> None:
    daemon.max_parts = 7  # one chunk of all groups, three of one
    stored(hybrid, daemon, prompt(300))
    e = hybrid()
    assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert e.worker.stats.chunks_loaded == 4
    assert len(daemon.loaded) == 4 * 2 + 2 * 4


# -- loads that fail ----------------------------------------------------------


def unwritten(engine: HybridEngine) -> list[int]:
    """Counts the copies into pages from now on."""
    count = [0]
    for adapter in larder(engine.worker).worker_half._loader._adapters.values():

        def counted(*arguments: Any, _scatter: Any = adapter.scatter) -> None:
            count[0] += 1
            _scatter(*arguments)

        adapter.scatter = counted
    return count


@pytest.mark.parametrize("bad", range(4))
def test_a_load_that_lacks_something_writes_nothing_and_the_request_begins_anew(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt, groups: Any, bad: int
) -> None:
    daemon.corrupt.add(stored(hybrid, daemon, prompt(300), groups)[bad])
    e = hybrid(groups)
    free = e.free_blocks()
    count = unwritten(e)
    e.add("r", prompt(300))
    steps = e.run()
    needed = groups is not ALONE or bad >= 2
    # Of a group of windows alone, nothing of the first chunks is needed.
    assert e.connector.stats.restarts == e.connector.stats.loads_failed == needed
    assert (count[0] == 0) == needed
    assert e.external["r"] == (0 if needed else 256)
    assert received(steps) == ["r"]
    assert not set().union(*(s.output.invalid_block_ids for s in steps))
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert e.free_blocks() == free
    assert not daemon.holds


@pytest.mark.parametrize("how", ["evicted", "unconfirmed", "late", "gone", "no hold"])
def test_however_a_load_fails_the_answer_is_right(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt, groups: Any, how: str
) -> None:
    keys = stored(hybrid, daemon, prompt(300), groups)
    e = hybrid(groups, extra={"load_deadline_ms": 50} if how == "late" else None)
    free = e.free_blocks()
    # Some of the pages are another request's too, and stay as they are.
    e.generate("local", prompt(100), max_tokens=1, params={"larder": {"skip_load": True, "skip_store": True}})
    e.add("r", prompt(300))
    if how == "evicted":
        daemon.evict(keys[3])
    elif how == "unconfirmed":
        # The slots went to others while they were read: the pages hold what nobody computed.
        daemon.unconfirmed = 9
    elif how == "late":
        daemon.stuck = True
    else:
        schedule = e.scheduler.schedule

        def gone() -> Any:
            output = schedule()
            if how == "gone":
                daemon.up = False
            else:
                daemon.holds.clear()
            return output

        e.scheduler.schedule = gone
        e.step()
        e.scheduler.schedule = schedule
    steps = e.run()
    daemon.unconfirmed = 0
    assert e.connector.stats.loads == e.connector.stats.restarts == 1
    assert e.external["r"] == 0
    assert not set().union(*(s.output.invalid_block_ids for s in steps))
    assert e.outputs["r"] == expected_output(prompt(300), 4)
    assert e.free_blocks() == free
    # Nothing wrong is in the engine's own cache, nor did any of it leave.
    daemon.up, daemon.stuck = True, False
    assert e.generate("again", prompt(300)) == expected_output(prompt(300), 4)
    e.drop_own_cache()
    assert e.generate("once more", prompt(290)) == expected_output(prompt(290), 4)


def test_others_go_on_beside_a_load_that_fails(hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt) -> None:
    keys = stored(hybrid, daemon, prompt(300))
    e = hybrid(blocks=256)
    daemon.corrupt.add(keys[2])
    e.add("running", prompt(80, seed=3), max_tokens=40)
    e.step()
    for i in range(4):
        e.add(f"r{i}", prompt(300))
    e.run()
    assert e.outputs["running"] == expected_output(prompt(80, seed=3), 40)
    assert e.worker.stats.loads_failed == 1
    for i in range(4):
        assert e.outputs[f"r{i}"] == expected_output(prompt(300), 4)


@pytest.mark.parametrize("blocks", [66, 75, 81, 87, 96])
def test_what_begins_anew_lets_ended_loads_go_first(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt, blocks: int
) -> None:
    """It needs more pages than its load had, and those that others' loads filled would be kept for ever."""
    keys = stored(hybrid, daemon, prompt(300))
    stored(hybrid, daemon, prompt(300, seed=1))
    e = hybrid(blocks=blocks)
    free = e.free_blocks()
    daemon.corrupt.add(keys[2])
    e.add("first", prompt(300))
    e.add("second", prompt(300, seed=1))
    e.run()
    assert e.connector.stats.loads == 2
    assert e.connector.stats.restarts == 1
    assert (e.external["first"], e.external["second"]) == (0, 256)
    assert e.outputs["first"] == expected_output(prompt(300), 4)
    assert e.outputs["second"] == expected_output(prompt(300, seed=1), 4)
    assert e.free_blocks() == free


def test_an_abort_during_a_load_that_fails(hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt) -> None:
    stored(hybrid, daemon, prompt(300))
    e = hybrid()
    free = e.free_blocks()
    daemon.stuck = True
    e.add("r", prompt(300))
    e.step()
    waiting = [r for r in e.scheduler.requests.values() if r.status == RequestStatus.WAITING_FOR_REMOTE_KVS]
    assert [r.request_id for r in waiting] == ["r"]
    e.abort("r")
    daemon.stuck = False
    daemon.chunks.clear()
    assert received(e.run()) == ["r"]
    assert e.free_blocks() == free
    assert not e.scheduler.failed_recving_kv_req_ids
    assert e.connector.stats.restarts == 0


def test_a_rank_that_fails_before_another_has_ended(hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt) -> None:
    stored(hybrid, daemon, prompt(300))
    e = hybrid()
    daemon.stuck = True
    request = e.add("r", prompt(300))
    e.step()
    half = e.connector.scheduler_half
    half._load_failed("r", 1, 0.0)
    half._load_failed("r", 0, 0.0)
    assert request.num_computed_tokens == 256
    daemon.stuck = False
    e.run()
    assert e.connector.stats.loads_failed == e.connector.stats.restarts == 1
    assert e.external["r"] == 0
    assert e.outputs["r"] == expected_output(prompt(300), 4)


def test_off_where_the_scheduler_cannot_be_told(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(hybrid, daemon, prompt(300))
    monkeypatch.setattr(Restarts, "of_caller", lambda: Restarts(None))
    e = hybrid()
    assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    assert e.external["r"] == 0
    assert e.connector.stats.loads == 0


# -- stores -------------------------------------------------------------------


def test_generation_completes_chunks_within_the_window(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = hybrid()
    out = e.generate("r", prompt(100), max_tokens=200)
    assert check_stored(e, daemon, prompt(100) + out) == [0, 1, 2, 3]
    other = hybrid()
    other.generate("next", prompt(100) + out)
    assert other.external["next"] == 256


def test_chunks_longer_than_the_window_are_stored_only_while_all_of_them_is_there(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = hybrid(((16, 0, 32), (16, 32, 32)), budget=40)
    out = e.generate("r", prompt(300), max_tokens=100)
    assert out == expected_output(prompt(300), 100)
    # A step computes 40 tokens: the first pages of the second chunk are taken back before it is complete.
    assert check_stored(e, daemon, prompt(300) + out) == [0]
    assert e.connector.stats.stores_behind_window == 5
    assert e.connector.stats.stores_dropped == 0
    e = hybrid(((16, 0, 32), (16, 32, 32)), budget=512)
    e.generate("s", prompt(300), max_tokens=1)
    assert check_stored(e, daemon, prompt(300)) == [0, 1, 2, 3]


def test_a_local_hit_whose_window_is_gone_is_not_stored(
    hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = hybrid()
    e.generate("r", prompt(400), max_tokens=1, params={"larder": {"skip_store": True}})
    e.generate("again", prompt(400) + prompt(200, seed=1), max_tokens=4)
    # Chunks 0 to 3 are there in the full group only; nobody could match what follows.
    assert not daemon.chunks
    assert e.connector.stats.stores_behind_window == 9


def test_pages_are_not_stored_after_others_got_them(hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt) -> None:
    # Few pages: what a window gives back goes to the other request in the same step.
    e = hybrid(((16, 0, 32), (16, 32, 32)), blocks=64, budget=48)
    e.add("a", prompt(320), max_tokens=30)
    e.add("b", prompt(320, seed=1), max_tokens=30)
    e.run()
    for name, seed in (("a", 0), ("b", 1)):
        assert e.outputs[name] == expected_output(prompt(320, seed=seed), 30)
    keys = {key: ordinal for key, _, ordinal, _ in daemon.commits}
    assert len(keys) == len(daemon.chunks)
    assert e.connector.stats.stores_behind_window > 0


def test_preempted_requests_store_and_load_rightly(hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = hybrid(((16, 0, 32), (16, 64, 32)), blocks=44, budget=512)
    for i in range(3):
        e.add(f"r{i}", prompt(120, seed=i), max_tokens=150)
    e.run()
    assert e.preemptions > 0, "the test is about preemption"
    assert e.worker.stats.chunks_loaded > 0
    for i in range(3):
        assert e.outputs[f"r{i}"] == expected_output(prompt(120, seed=i), 150)
    assert not daemon.holds


# -- what surrounds it --------------------------------------------------------


@pytest.mark.parametrize("under_way", [False, True])
def test_after_a_reset(hybrid: MakeHybrid, daemon: StubDaemon, prompt: MakePrompt, under_way: bool) -> None:
    """Other weights: what is stored is not used, nor what a load under way brings, in any group."""
    stored(hybrid, daemon, prompt(300))
    e = hybrid()
    daemon.stuck = under_way
    e.add("r", prompt(300))
    e.step()
    if not under_way:
        e.run()
    assert e.reset() is not under_way
    e.load_weights(7)
    steps = []
    if under_way:
        steps = [e.step()]
        daemon.stuck = False
        steps += e.run()
        assert received(steps) == ["r"]
        # Some pages were in use at that reset.
        assert e.reset()
    before = len(daemon.commits)
    e.generate("stores", prompt(300))
    assert not e.external["stores"]
    assert len(daemon.commits) == before + 4
    e.drop_own_cache()
    e.generate("again", prompt(300))
    assert e.external["again"] > 0


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("order", ["larder other", "other larder"])
def test_beside_another_connector(both: Any, daemon: StubDaemon, prompt: MakePrompt, order: str, damaged: bool) -> None:
    e = both(*order.split(), kind=HybridEngine, cache_config=make_hybrid(64, *GEMMA))
    assert e.generate("r", prompt(300)) == expected_output(prompt(300), 4)
    e.drop_own_cache()
    if damaged:
        daemon.corrupt.update(daemon.chunks)
    assert e.generate("s", prompt(300)) == expected_output(prompt(300), 4)
    assert e.external["s"] == (0 if damaged else 256)
    assert larder(e.connector).stats.restarts == damaged


def test_layers_that_read_anothers_kv_have_none(hybrid: MakeHybrid) -> None:
    e = hybrid()
    # The engine shows them beside the others, with the pages of the layer that they read.
    shown = e.pages | {"model.layers.9.self_attn.attn": e.pages["model.layers.4.self_attn.attn"]}
    half = larder(e.worker).worker_half
    other = worker_module.WorkerHalf(e.config, e.cache_config, half._settings, half._connect)
    other.register(shown)
    assert other.handshake() == half.handshake()
    other.shutdown()
