"""The scheduler half: what to load, what to store, and who waits for whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vllm.logger import init_logger

from larder.client import NO_HOLD, Client, Options
from larder.errors import LarderError
from larder.keys import KEY_BYTES
from larder.load_costs import LoadCosts
from larder.namespace import NamespaceDescriptor
from larder.stats import ClientStats
from larder.vllm.answer_waits import AnswerWaits
from larder.vllm.choosing import Choosing
from larder.vllm.epochs import Epochs
from larder.vllm.holds import Holds
from larder.vllm.in_step import InStep
from larder.vllm.inflight import InFlight, InFlightLoads
from larder.vllm.kv_events import KVEvents
from larder.vllm.lineage import Lineage
from larder.vllm.lora import AdapterDigests
from larder.vllm.matching import Match, MatchClient
from larder.vllm.metadata import Handshake, LoadOp, StepMetadata, StoreOp, WorkerReport, common_namespace
from larder.vllm.own_cache import OwnCache
from larder.vllm.own_salt import OwnSalts
from larder.vllm.page_groups import PageGroups
from larder.vllm.pins import Pins
from larder.vllm.present import PresentKeys
from larder.vllm.request_policy import policy_of
from larder.vllm.request_state import RequestState
from larder.vllm.resting import RestingChunks
from larder.vllm.settings import Settings
from larder.vllm.stats import SchedulerStats, timed
from larder.vllm.storing import StorePlanner
from larder.vllm.unproven import Unproven
from larder.vllm.warn_once import WarnOnce
from larder.vllm.whole_loads import Restarts

logger = init_logger("vllm.larder.scheduler")

# After a load's deadline its workers have this long to say so.
_GRACE_S = 1.0
# Matches for one request at most: after each preemption, lapsed hold or new
# connection another one.
_MOST_MATCHES = 16
# A prompt that the engine itself has, and Larder had less long ago, is not asked for.
_KNOWN_S = 5.0


class SchedulerHalf:
    """Everything runs on the scheduler's thread, and none of it waits longer
    than Settings allows. Until start is called, and where Larder is off,
    nothing is claimed and nothing stored."""

    def __init__(
        self,
        settings: Settings,
        options: Callable[[NamespaceDescriptor], Options],
        groups: PageGroups,
        step_tokens: int,
        *,
        loads: bool = True,
        stores: bool = True,
        events: bool = False,
        under_way: int = 2,
        restarts: Restarts | None = None,
        in_step: bool = False,
        connect: Callable[[Options], MatchClient] = Client,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stats = SchedulerStats()
        self._settings = settings
        self._options = options
        self._groups = groups
        self._restarts = restarts or Restarts(None)
        self._step_tokens = step_tokens
        self._loads = loads
        self._stores = stores
        self._connect = connect
        self._clock = clock
        self._client: MatchClient | None = None
        self._closed = False
        self._chunk_tokens = 0
        self._fingerprint = b""
        self.epochs = Epochs(settings.keep_on_reset)
        self.own_cache = OwnCache(groups)
        self._generation = -1
        self._states: dict[str, RequestState] = {}
        self._inflight = InFlightLoads(patience_s=2 * (settings.load_deadline_ms / 1000 + _GRACE_S))
        self._starting: list[LoadOp] = []
        self._present = PresentKeys(under_way)
        self._adapters = AdapterDigests()
        self._resting = RestingChunks()
        self._unproven = Unproven(groups, under_way)
        self._planner: StorePlanner | None = None
        self._lineage: Lineage | None = None
        self.events = KVEvents(groups, settings.event_medium, self.stats, on=events)
        # Got pages in this step, for some of which another connector may load.
        self._placed: list[RequestState] = []
        # With a connection, unless everything is to be loaded.
        self._choosing: Choosing | None = None
        self._waits = AnswerWaits(settings)
        self._in_step = InStep(self._restarts.scheduler, groups, settings, self.stats, on=in_step)
        self._warn = WarnOnce(logger)
        self._holds = Holds(settings, self._states, self.stats)
        self._salts = OwnSalts()
        self._pins = Pins(self.stats)

    # -- start and end -------------------------------------------------------

    def start(self, handshakes: Iterable[Handshake]) -> None:
        """Takes what the workers say about the namespace."""
        said = list(handshakes)
        if not said or self.epochs.started or self._closed or any(h.off for h in said):
            return
        if self._groups.whole_loads and not self._restarts.possible:
            # It would be asked to go on with pages that nothing filled.
            self._warn("off: this engine cannot recompute a load that failed with several KV cache groups")
            return
        namespace = common_namespace(said)
        self.epochs.start(namespace)
        self._chunk_tokens = namespace.chunk_tokens
        self.events.start(namespace.chunk_tokens)
        costs = LoadCosts(namespace.chunk_tokens, self._step_tokens, self._settings.load_deadline_ms / 1000)
        self._in_step.start(costs, namespace.chunk_tokens)
        if self._settings.load_or_recompute:
            self._choosing = Choosing(costs, self._states, self.stats)
        self._open()

    def reset(self) -> bool:
        """The engine dropped its cache, as it does when weights change: nothing
        that was stored before is used after."""
        self.stats.resets += 1
        if self.epochs.reset() and not self._closed:
            if self._client is not None:
                self._holds.end_all()
                self._client.close()
            self._client = self._planner = self._lineage = None
            self.events.clear()
            for state in self._states.values():
                state.restart()
            self._open()
        return True

    def _open(self) -> None:
        """Goes on in the present namespace, if there is one."""
        namespace = self.epochs.namespace
        if namespace is None:
            return
        self._fingerprint = namespace.fingerprint()
        self._generation = -1
        self._lineage = Lineage(namespace.chunk_tokens, self._groups.hash_tokens)
        more = self._settings.backfill_chunks
        self._planner = StorePlanner(
            namespace.chunk_tokens, self._groups, more, self._present, self.stats, self._lineage, self._unproven
        )
        self._client = self._connect(self._options(namespace))

    def shutdown(self) -> None:
        """Ends the connection, and with it all holds."""
        self._closed = True
        self._adapters.close()
        self._pins.close()
        if self._client is not None:
            self._client.close()

    @property
    def client_stats(self) -> ClientStats | None:
        """The counters of the connection, None before the first."""
        return None if self._client is None else self._client.stats

    # -- requests ------------------------------------------------------------

    @timed
    def new_request(self, request: Any) -> None:
        """A request arrived: its match begins, while it waits for its turn."""
        state = self._admit(request)
        if state.apart:
            self._salts.set_apart(request, state.policy.worst_quality)
        if self._holds.has_room(state):
            self._ask(state, early=True)

    @timed
    def matched_tokens(self, request: Any, local: int) -> tuple[int | None, bool]:
        """How many tokens after the first local ones can be loaded; None: ask again later."""
        state = self._states.get(request.request_id) or self._admit(request)
        state.local, state.external, state.choice, state.in_step = local, 0, None, False
        now = self._clock()
        if self._in_step.under_way or self._restarts.yields(request, (s.request for s in self._states.values())):
            self.stats.waits_for_load += 1
            return None, False
        chunks = self._loadable(state, now)
        if chunks is None:
            return None, False
        # A load may cover the prompt: the engine then computes the last token
        # again, but has taken back what a window before that token needs.
        most = request.num_tokens - self._groups.whole_loads
        # Parts of a block are of no use to it.
        tokens = min(chunks * self._chunk_tokens, most) // self._groups.unit * self._groups.unit
        if tokens <= local:
            return 0, False
        first = local // self._chunk_tokens
        last = -(-tokens // self._chunk_tokens)
        keys = [state.name(c) for c in range(first, last)]
        under_way = self._inflight.under_way(state, keys, now)
        if self._choosing is not None:
            last = self._choosing.last(state, first, last, under_way, now)
            tokens = min(tokens, last * self._chunk_tokens)
        if any(first + i < last for i in under_way):
            self.stats.waits_for_load += 1
            return None, False
        resting = next((i for i, key in enumerate(keys) if self._resting.holds(key, now)), None)
        if resting is not None:
            tokens = min(tokens, (first + resting) * self._chunk_tokens)
        alone = tokens > local and len(self._states) == 1 and not self._inflight
        here = self._in_step.fits(state, first, tokens, now) if alone else 0
        return (here or max(tokens, local)) - local, tokens > local and not here

    @timed
    def allocated(self, request: Any, blocks: Sequence[Sequence[int]], external: int) -> None:
        """The engine gave the request its pages; external: tokens to load."""
        state = self._states.get(request.request_id)
        if state is None:
            return
        match, now = state.match, self._clock()
        if self._choosing is not None:
            self._choosing.settled(state, external, now)
        if external == 0:
            # Nothing to load, a load's second call, or another connector's.
            if self._settings.worst_quality:
                self._placed.append(state)
            if not state.loading:
                self._holds.end_of(state)
            return
        state.external = external
        end = state.local + external
        first, last = state.local // self._chunk_tokens, -(-end // self._chunk_tokens)
        skips, pages = self._groups.to_load(blocks, first * self._chunk_tokens, state.local, end)
        deadline = now + self._settings.load_deadline_ms / 1000
        # Without a hold the load fails, and the engine computes.
        hold = match.hold_id if match is not None else 0
        op = LoadOp(request.request_id, hold, first, last - first, skips, pages, deadline, state.policy.priority)
        if self._lineage is not None and match is not None:
            # Before any other request can use the pages.
            self._lineage.lost(state, first, last, match.quality)
        keys = tuple(state.name(c) for c in range(first, last))
        runs = () if match is None else tuple(match.runs(first, last, now))
        load = InFlight(request, match, keys, deadline + _GRACE_S, runs, tokens=external, begun=now)
        self._inflight.start(load)
        self._starting.append(self._in_step.begin(state, load, op))
        if self._choosing is not None:
            self._choosing.started(load, now)
        state.loading = True
        self.stats.loads += 1
        self.stats.tokens_claimed += external

    @timed
    def finished(self, request: Any) -> None:
        """The request is over. A load under way goes on until its workers say
        that it has ended; only then does the engine free its pages."""
        state = self._states.pop(request.request_id, None)
        if state is not None:
            self._learn(state)
            self._pins.ask(self._client, state, self._chunk_tokens)
            if not state.loading:
                self._holds.end_of(state)
        if not self._states:
            self._present.ended(self._clock(), last=True)

    # -- steps ---------------------------------------------------------------

    @timed
    def build(self, output: Any) -> StepMetadata:
        """Closes the scheduling of a step: what its workers do."""
        now = self._clock()
        self._meet()
        # What other connectors bring, before a request can use pages of it.
        if self._placed and self._lineage is not None and self._lineage.brought(self._placed):
            self._warn("pages that another connector brings, and what is computed on top, are not stored")
        self._placed.clear()
        loads, self._starting = self._starting, []
        self._in_step.built(output)
        self._unproven.scan(output, self._states, self._in_step.loads)
        stores = self._plan(output)
        self._present.built()
        self.events.storing(stores, self._states)
        self._holds.keep(now)
        idle = 0.0
        if not output.total_num_scheduled_tokens:
            idle = self._settings.idle_wait_s(loading=bool(self._inflight), asking=self._waits.awaited)
        self._waits.begin_step()
        number, arrived = 0, self._inflight.take_arrived()
        if self._choosing is not None:
            number = self._choosing.begin_step(output, bool(self._inflight or arrived), now)
        if stores:
            self.epochs.used()
        session, namespace = self.epochs.session, self.epochs.tell()
        return StepMetadata(loads, stores, idle, number, arrived=arrived, session=session, namespace=namespace)

    @timed
    def output(self, connector_output: Any) -> None:
        """What the workers reported after a step."""
        now = self._clock()
        report = connector_output.kv_connector_worker_meta
        self._unproven.failed(connector_output.invalid_block_ids, self._lineage, self._chunk_tokens)
        if self._choosing is not None:
            self._choosing.end_step(report, self._inflight, now)
        if isinstance(report, WorkerReport):
            if report.handshakes:
                self.start(report.handshakes)
            if self._planner is not None:
                self._planner.dropped(self._states, report.dropped)
            self.events.answered(report.published, report.dropped, now)
            for request_id, chunk in report.failed.items():
                self._load_failed(request_id, chunk, now)
            self._inflight.took(report.took_s)
        self._present.ended(now)
        here = self._in_step.ended(report, connector_output.invalid_block_ids, self._inflight, now)
        for request_id in (*here, *(connector_output.finished_recving or ())):
            load = self._inflight.end(request_id)
            if load is None:
                continue
            anew = load.failed and self._groups.whole_loads
            self.stats.restarts += anew and self._restarts.restart(load.request)
            self.stats.load_ended(0 if anew else load.tokens, load.took_s, now - load.begun)
            self._holds.end(request_id, load.match)
            state = self._states.get(request_id)
            if state is not None:
                state.loading = False
        self._inflight.sweep(now)

    # -- matching ------------------------------------------------------------

    def _admit(self, request: Any) -> RequestState:
        worst = self._settings.worst_quality
        policy = policy_of(request, self._adapters.digest, self._warn, worst, self._settings.tenant)
        self.stats.count_request(policy.uncached)
        state = RequestState(request, policy, bytes([policy.worst_quality]) if policy.worst_quality < worst else b"")
        state.no_load = bool(policy.uncached) or policy.skip_load or not self._loads
        self._states[request.request_id] = state
        return state

    def _ask(self, state: RequestState, *, early: bool = False) -> None:
        """Starts a match, where one is of use; early: before the engine says what it has."""
        client = self._client
        hello = None if client is None or not client.ready else client.hello
        stores = self._stores and not state.policy.skip_store
        if client is None or hello is None or state.policy.uncached or (state.no_load and not stores):
            return
        if state.matches >= _MOST_MATCHES:
            state.no_load = True
            return
        chunks = self._keys(state, hello, state.request.num_tokens)
        if not chunks:
            return
        self._meet()
        covered = early and self.own_cache.covers(state.request, chunks * self._chunk_tokens)
        if covered and not state.policy.pin and self._present.since(state.name(chunks - 1), self._clock() - _KNOWN_S):
            return
        hold_ms = NO_HOLD if state.no_load or covered else self._settings.hold_ms
        self.stats.matches += 1
        state.matches += 1
        state.waited, state.waiting_since = False, None
        state.match = match = Match(
            client, state.root, state.all_keys(chunks), hold_ms, self._clock(), state.policy.worst_quality
        )
        self._holds.add(state.request_id, match)

    def _keys(self, state: RequestState, hello: Any, tokens: int) -> int:
        """Makes a request's keys for so many tokens; returns how many chunks have one."""
        if state.policy.uncached:
            return 0
        try:
            return state.make_keys(self._fingerprint, hello.tenant_key, self._chunk_tokens, tokens)
        except LarderError as error:
            self._warn(f"a request without keys: {error}")
            return 0

    def _loadable(self, state: RequestState, now: float) -> int | None:
        """Leading chunks that can be loaded and are held; None: not known yet."""
        client, planner = self._client, self._planner
        if client is None or planner is None or state.no_load or not client.ready or self._restarts.under_way:
            return 0
        if state.request.num_tokens // self._chunk_tokens * self._chunk_tokens <= state.local:
            # The engine has all that there may be.
            return 0
        match = state.match
        self._learn(state)
        preempted = state.request.num_preemptions != state.preemptions
        if match is None or preempted or match.lapsed(time.monotonic_ns()) or planner.outdated(state, match):
            self._holds.end_of(state)
            state.match = None
            state.preemptions = state.request.num_preemptions
            self._ask(state)
            match = state.match
            if match is None or state.no_load:
                return 0
        self._waits.wait(state, match)
        if not match.done:
            if state.waiting_since is None:
                state.waiting_since = now
            if now - state.waiting_since < self._settings.match_deadline_ms / 1000:
                self.stats.waits_for_match += 1
                self._waits.awaited = True
                return None
            self.stats.match_timeouts += 1
            return 0
        if match.failed:
            self.stats.match_failures += 1
            state.no_load = True
            return 0
        self._learn(state)
        return match.chunks

    def _load_failed(self, request_id: str, chunk: int, now: float) -> None:
        """A load failed from a chunk on: it is recomputed and stored again, and nobody loads it for a while."""
        load = self._inflight.get(request_id)
        if load is None:
            return
        # Ranks come to it in steps of their own.
        self.stats.loads_failed += not load.failed
        lost = load.lost(chunk, self._chunk_tokens)
        for key in lost:
            self._present.remove(key)
        self._resting.add(lost, now + self._settings.failed_pause_s)
        self.events.failed(name[:KEY_BYTES] for name in lost)
        state = self._states.get(request_id)
        if state is not None:
            state.no_load = True

    def _learn(self, state: RequestState) -> None:
        """Remembers what an answer says about the daemon, once."""
        match = state.match
        if match is None or match.learnt or not match.done or match.failed or match.generation != self._generation:
            return
        match.learnt = True
        keys = [match.keys[i : i + 32] for i in range(0, len(match.keys), 32)]
        names = [key + state.apart for key in keys] if state.apart else keys
        self._present.matched(names, match.chunks, match.asked)
        self.stats.answered(len(keys) * self._chunk_tokens, match.chunks * self._chunk_tokens, match.took_s)
        self.events.matched(state.request, keys, match.chunks, match.asked, self._clock())

    def _meet(self) -> None:
        """Notices another connection: what was known of the last is void."""
        client = self._client
        if client is not None and client.generation != self._generation:
            self._generation = client.generation
            self._present.clear()
            self._resting.clear()
            self.events.clear()

    # -- storing -------------------------------------------------------------

    def _plan(self, output: Any) -> list[StoreOp]:
        stores: list[StoreOp] = []
        scheduled = output.num_scheduled_tokens
        client, planner = self._client, self._planner
        hello = client.hello if client is not None and self._stores and client.ready else None
        for new in output.scheduled_new_reqs:
            state = self._states.get(new.req_id)
            if state is not None:
                state.pages.set(new.block_ids)
                if planner is not None and hello is not None:
                    after = new.num_computed_tokens + scheduled[new.req_id]
                    stores += self._plan_one(planner, state, hello, new.num_computed_tokens, after)
        cached = output.scheduled_cached_reqs
        for name, ids, computed in zip(cached.req_ids, cached.new_block_ids, cached.num_computed_tokens, strict=True):
            state = self._states.get(name)
            if state is None:
                continue
            if name in cached.resumed_req_ids:
                state.pages.clear()
                self.stats.preempted += 1
            if ids is not None:
                state.pages.add(ids)
            after = computed + scheduled[name]
            if planner is not None and hello is not None and planner.due(state, after):
                stores += self._plan_one(planner, state, hello, computed, after)
        return stores

    def _plan_one(
        self, planner: StorePlanner, state: RequestState, hello: Any, before: int, after: int
    ) -> list[StoreOp]:
        if state.policy.uncached or state.policy.skip_store:
            return []
        state.pages.at_step(before)
        request = state.request
        # Tokens that were sampled ahead and may yet be rejected do not count.
        known = request.num_tokens if self._settings.store_generated else request.num_prompt_tokens
        after = min(after, known)
        chunks = self._keys(state, hello, after)
        match = state.match
        if match is not None and not match.done and planner.unclear(state, min(before, known), chunks):
            self._waits.wait(state, match)
        self._learn(state)
        return planner.plan(state, min(before, known), after, chunks)
