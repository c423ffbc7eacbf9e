"""What an engine computes on top of lossy KV says so, however the pages came to it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from other_connector import CLAIM
from simulated_engine import MakeEngine, MakePrompt, SimulatedEngine, prefix_hashes
from stub_daemon import StubDaemon

from larder.errors import InvalidError
from larder.vllm.lineage import Lineage
from larder.vllm.request_policy import RequestPolicy
from larder.vllm.request_state import RequestState
from larder.vllm.settings import Settings

L2 = 3
ACCEPTS_L2 = {"lowest_level": "L2"}


def stored(daemon: StubDaemon, since: int = 0) -> list[tuple[int, int]]:
    """Ordinal and quality of the chunks committed since then."""
    return [(ordinal, daemon.qualities[key]) for key, _, ordinal, _ in daemon.commits[since:]]


def lose(daemon: StubDaemon, keys: Sequence[bytes]) -> None:
    """A tier keeps these at L2. Their bytes stay, so that pages can be checked."""
    daemon.qualities.update(dict.fromkeys(keys, L2))


def exact(engine: MakeEngine, daemon: StubDaemon, prompt: list[int]) -> list[bytes]:
    """Another engine stores a prompt's chunks; their keys."""
    engine().generate("before", prompt, max_tokens=1)
    assert stored(daemon) == [(i, 0) for i in range(len(prompt) // 64)]
    return [key for key, *_ in daemon.commits]


def test_exact_is_the_default(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    keys = exact(engine, daemon, prompt(300))
    lose(daemon, keys[2:])
    e = engine()
    e.generate("r", prompt(300), max_tokens=1)
    assert e.external["r"] == 128
    assert stored(daemon, 4) == [(2, 0), (3, 0)]


@pytest.mark.parametrize(("level", "tokens"), [("exact", 0), ("L0", 0), ("L1", 0), ("L2", 256), ("L3", 256)])
def test_the_lowest_level(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, level: str, tokens: int) -> None:
    lose(daemon, exact(engine, daemon, prompt(300)))
    e = engine(extra={"lowest_level": level})
    e.generate("r", prompt(300), max_tokens=1)
    assert e.external.get("r", 0) == tokens


def longer(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> SimulatedEngine:
    """An engine that has loaded four lossy chunks and computed a fifth on top."""
    lose(daemon, exact(engine, daemon, prompt(300)))
    e = engine(extra=ACCEPTS_L2)
    e.generate("r", prompt(330), max_tokens=1)
    assert e.external["r"] == 256
    return e


def test_what_is_computed_on_top(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    longer(engine, daemon, prompt)
    assert stored(daemon, 4) == [(4, L2)]
    # An engine that wants exact chunks gets none of them; what it computes is.
    other = engine()
    other.generate("exact", prompt(330), max_tokens=1)
    assert not other.external.get("exact")
    assert stored(daemon, 5) == [(i, 0) for i in range(5)]


def test_other_prompts_are_exact(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = longer(engine, daemon, prompt)
    e.generate("other", [7, *prompt(300)], max_tokens=1)
    assert stored(daemon, 5) == [(i, 0) for i in range(4)]
    # Also where the engine's own cache covers their beginning.
    e.generate("other again", [7, *prompt(400)], max_tokens=1)
    assert stored(daemon, 9) == [(4, 0), (5, 0)]


def test_pages_of_the_engines_own_cache(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    """The next request has the lossy pages without a load; so has the one after
    it, which goes on from there."""
    e = longer(engine, daemon, prompt)
    e.generate("again", prompt(400), max_tokens=1)
    assert not e.external.get("again")
    assert stored(daemon, 5) == [(5, L2)]
    e.generate("further", prompt(460), max_tokens=1)
    assert stored(daemon, 6) == [(6, L2)]


def test_what_was_loaded_is_not_stored_as_exact(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    e = longer(engine, daemon, prompt)
    keys = [key for key, *_ in daemon.commits[:5]]
    for key in keys:
        daemon.evict(key)
        del daemon.qualities[key]
    daemon.restart()
    e.generate("again", prompt(330), max_tokens=1)
    assert stored(daemon, 5) == [(i, L2) for i in range(5)]


def test_half_a_chunk_is_enough(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    """Only the fourth chunk is lossy, and the engine's cache gives its first half
    to a prompt that then goes elsewhere: another chunk, of half-lossy pages."""
    keys = exact(engine, daemon, prompt(300))
    e = engine(extra=ACCEPTS_L2)
    e.generate("first", prompt(200), max_tokens=1)
    lose(daemon, keys[3:])
    e.generate("r", prompt(300), max_tokens=1)
    assert e.external["r"] > 0
    fork = [*prompt(192 + 32), *(token + 1 for token in prompt(300)[192 + 32 :])]
    before = len(daemon.commits)
    e.generate("fork", fork, max_tokens=1)
    assert stored(daemon, before) == [(3, L2)]
    # And what covers that chunk as a whole, though nobody loaded it.
    e.generate("fork again", [*fork, *range(64)], max_tokens=1)
    assert stored(daemon, before + 1)[0] == (4, L2)


def test_a_salt_that_only_larder_knows(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    """The engine's cache serves both requests from the same pages; Larder's keys differ."""
    e = longer(engine, daemon, prompt)
    e.generate("salted", prompt(400), max_tokens=1, params={"larder": {"salt": "b"}})
    assert not e.external.get("salted")
    assert stored(daemon, 5) == [(i, L2) for i in range(6)]
    e.generate("by itself", prompt(300), max_tokens=1, cache_salt="the engine's")
    assert stored(daemon, 11) == [(i, 0) for i in range(4)]


def test_another_tenant_key_after_a_reconnect(engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    """All keys are others, the engine's pages the same; so are those of a request that runs."""
    e = longer(engine, daemon, prompt)
    e.add("runs", prompt(330), max_tokens=80)
    for _ in range(3):
        e.step()
    daemon.tenant_key = bytes(32)
    daemon.restart()
    e.run()
    assert stored(daemon, 5) == [(5, L2)]
    e.generate("again", prompt(400), max_tokens=1)
    assert stored(daemon, 6) == [(i, L2) for i in range(6)]


EXACT = {"larder": {"lowest_level": "exact"}}


def computed(e: SimulatedEngine, name: str, tokens: list[int], params: object = None, **more: str) -> int:
    """How many tokens of a prompt a request has computed."""
    e.add(name, tokens, max_tokens=1, params=params, **more)
    return sum(step.scheduled.get(name, 0) for step in e.run())


def test_a_request_for_exact_on_an_engine_with_lossy_pages(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = longer(engine, daemon, prompt)
    assert computed(e, "exact", prompt(330), EXACT) == 330
    assert stored(daemon, 5) == [(i, 0) for i in range(5)]
    # Those that want the same share the engine's cache among themselves,
    assert computed(e, "exact too", prompt(400), EXACT) == 400 - 320
    assert stored(daemon, 10) == [(5, 0)]
    # but not across a salt of their own.
    assert computed(e, "salted", prompt(330), EXACT, cache_salt="a") == 330
    # The others have the pages of before.
    assert computed(e, "r again", prompt(330)) == 330 - 320
    # Larder's keys know nothing of the engine's salt.
    e.drop_own_cache()
    assert computed(e, "exact anew", prompt(400), EXACT) == 400 - 384
    assert e.external["exact anew"] == 384
    other = engine()
    assert computed(other, "by another engine", prompt(400)) == 400 - 384


def test_a_request_for_less_loss_than_its_engine_takes(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    keys = exact(engine, daemon, prompt(300))
    lose(daemon, keys[1:])
    daemon.qualities[keys[0]] = 1
    e = engine(extra=ACCEPTS_L2)
    e.generate("r", prompt(300), max_tokens=1)
    assert e.external["r"] == 256
    e.generate("L0", prompt(300), max_tokens=1, params={"larder": {"lowest_level": "L0"}})
    assert e.external["L0"] == 64
    assert stored(daemon, 4) == [(1, 1), (2, 1), (3, 1)]
    e.generate("exact", prompt(300), max_tokens=1, params=EXACT)
    assert stored(daemon, 7) == [(i, 0) for i in range(4)]
    # Worse than the engine takes is no worse than it takes.
    lose(daemon, keys)
    f = engine(extra={"lowest_level": "L1"})
    assert computed(f, "L3", prompt(300), {"larder": {"lowest_level": "L3"}}) == 300


def test_one_that_cannot_be_understood_has_no_lossy_pages(
    engine: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
) -> None:
    e = longer(engine, daemon, prompt)
    assert computed(e, "wrong level", prompt(330), {"larder": {"lowest_level": "L9"}}) == 330
    # Nor other pages than exact ones.
    assert computed(e, "not cached", prompt(330), {"larder": {"lowest_level": "exact", "salt": 1}}) == 330 - 320
    assert sum(e.connector.stats.uncached.values()) == 2
    assert len(daemon.commits) == 5


def test_hashes_of_blocks_are_the_engines_for_the_salt(engine: MakeEngine, prompt: MakePrompt) -> None:
    """Whatever the engine hashes later goes on from what was hashed anew."""
    e = engine(extra=ACCEPTS_L2)
    for name, tokens in (("long", prompt(40)), ("short", prompt(10))):
        made = e.add(name, tokens, max_tokens=40, params=EXACT, cache_salt="own")
        assert made.cache_salt.startswith("own\0larder/0/")
        e.run()
        same = e.add(name + " plain", made.all_token_ids, max_tokens=1, cache_salt=made.cache_salt)
        assert made.block_hashes == same.block_hashes[: len(made.block_hashes)]
        assert len(made.block_hashes) >= 3
        e.abort(same.request_id)
    plain = engine().add("plain", prompt(40), params=EXACT, cache_salt="own")
    # An engine that loads nothing lossy has nothing to set apart.
    assert plain.cache_salt == "own"


@pytest.mark.parametrize("asynchronous", [0, 1])
class TestAnotherConnectorsPages:
    """Under MultiConnector; what lossy tiers that one has is unknown."""

    @pytest.fixture
    def brought(self, asynchronous: int, both: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> MakeEngine:
        def make(extra: dict[str, str]) -> SimulatedEngine:
            e = both("other", "larder", extra=extra)
            e.others_bring = True
            monkeypatch.setitem(CLAIM, "tokens", 160)
            monkeypatch.setitem(CLAIM, "async", asynchronous)
            return e

        return make

    def test_are_not_stored_nor_what_is_on_top(
        self, brought: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        e = brought(ACCEPTS_L2)
        e.generate("r", prompt(300))
        assert e.external["r"] == 160
        monkeypatch.setitem(CLAIM, "tokens", 0)
        e.generate("own cache", prompt(400))
        e.generate("fork", [*prompt(150), *prompt(150, seed=1)])
        assert stored(daemon) == []
        e.generate("other", [7, *prompt(300)])
        assert stored(daemon) == [(i, 0) for i in range(4)]

    def test_are_noted_also_without_a_daemon(
        self, brought: MakeEngine, daemon: StubDaemon, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        e = brought(ACCEPTS_L2)
        daemon.up = False
        e.generate("r", prompt(300))
        daemon.up = True
        monkeypatch.setitem(CLAIM, "tokens", 0)
        e.generate("again", prompt(400))
        assert stored(daemon) == []

    def test_count_as_exact_for_an_engine_that_wants_only_exact(
        self, brought: MakeEngine, daemon: StubDaemon, prompt: MakePrompt
    ) -> None:
        e = brought({})
        e.generate("r", prompt(300))
        assert e.external["r"] == 160
        assert sorted(stored(daemon)) == [(i, 0) for i in range(4)]


def test_own_loads_beside_another_connector(both: MakeEngine, daemon: StubDaemon, prompt: MakePrompt) -> None:
    both("other", "larder", extra=ACCEPTS_L2).generate("r", prompt(300))
    e = both("other", "larder", extra=ACCEPTS_L2)
    e.generate("r", prompt(330), max_tokens=1)
    assert e.external["r"] == 256
    e.generate("again", prompt(400), max_tokens=1)
    assert stored(daemon) == [(i, 0) for i in range(6)]


def state_of(tokens: list[int], chunk: int = 64, block: int = 16, *, hashed: bool = True) -> RequestState:
    hashes = [b"%d" % h for h in prefix_hashes(tokens)[block - 1 :: block]] if hashed else []

    class Request:
        request_id = "r"
        num_prompt_tokens = len(tokens)
        prompt_token_ids = all_token_ids = tokens
        block_hashes = hashes

    state = RequestState(Request(), RequestPolicy())
    state.make_keys(bytes(32), bytes(32), chunk, len(tokens))
    return state


def test_what_is_forgotten_counts_for_everything() -> None:
    lineage = Lineage(64, 16, most=3)
    states = [state_of([n] * 128) for n in range(3)]
    lineage.lost(states[0], 0, 2, 2)
    assert lineage.store(states[0], [0, 1]) == [2, 2]
    assert lineage.store(states[1], [0, 1]) == [0, 0]
    lineage.lost(states[1], 1, 2, 4)
    assert lineage.store(states[1], [0, 1]) == [0, 4]
    lineage.lost(states[2], 0, 1, 1)  # the fourth
    assert lineage.store(state_of([9] * 128), [0, 1]) == [2, 2]


def test_without_hashes_of_blocks_a_request_answers_for_itself() -> None:
    lineage = Lineage(64, 16)
    loads, other = (state_of([1] * 192, hashed=False) for _ in range(2))
    lineage.lost(loads, 1, 2, 3)
    assert lineage.store(loads, [0, 1, 2]) == [0, 3, 3]
    assert lineage.store(other, [0, 1, 2]) == [0, 0, 0]


def test_a_wrong_level_is_named() -> None:
    assert Settings.parse({}).worst_quality == 0
    assert Settings.parse({"lowest_level": "L3"}).worst_quality == 4
    with pytest.raises(InvalidError, match="lowest_level"):
        Settings.parse({"lowest_level": "L4"})
