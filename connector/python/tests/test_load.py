"""Loads out of the arena, and the rules for revokes."""

from __future__ import annotations

import pytest
from fake_daemon import PATIENCE_S, FakeDaemon, FakeSession, Request
from support import Connect

from larder.client import Client, Load
from larder.errors import InvalidError, Kind, LarderError, MissError, UnavailableError
from larder.session import Session
from larder.v1 import engine_pb2, error_pb2

ROOT = b"r" * 32
KEYS = b"".join(bytes([i]) * 32 for i in range(4))
PARTS = [bytes(range(256)) * 32, b"b" * 4096]


@pytest.fixture
def client(daemon: FakeDaemon, connect: Connect) -> Client:
    for i in range(4):
        daemon.put(KEYS[32 * i : 32 * i + 32], PARTS)
    return connect()


def hold(client: Client) -> int:
    return client.match(ROOT, KEYS).result().hold_id


def collect(load: Load) -> dict[tuple[int, int], bytes]:
    return {(p.chunk, p.part): p.view.tobytes() for batch in load.batches(PATIENCE_S) for p in batch}


def test_every_part_arrives_as_it_was_stored(client: Client) -> None:
    with client.load(hold(client), 1, 3) as load:
        found = collect(load)
        assert load.release() is True
    assert found == {(chunk, part): PARTS[part] for chunk in (1, 2, 3) for part in (0, 1)}
    assert load.failed == []
    stats = client.stats
    assert (stats.loads, stats.loads_confirmed, stats.parts_loaded) == (1, 1, 6)
    assert stats.bytes_loaded == 3 * (8192 + 4096)


def test_only_the_parts_asked_for(daemon: FakeDaemon, client: Client) -> None:
    with client.load(hold(client), 0, 2, [1]) as load:
        assert collect(load).keys() == {(0, 1), (1, 1)}
    assert list(daemon.request("load").load.parts) == [1]
    daemon.request("release")


def test_views_cannot_be_written(client: Client) -> None:
    with client.load(hold(client), 0, 1) as load:
        part = next(load.batches(PATIENCE_S))[0]
        with pytest.raises(ValueError, match="read-only"):
            part.view[0] = 1


def test_batches_come_as_they_get_ready(daemon: FakeDaemon, client: Client) -> None:
    held: list[tuple[FakeSession, Request]] = []
    daemon.on["load"] = lambda session, request: held.append((session, request))
    load = client.load(hold(client), 0, 2)
    session, request = daemon.wait_for(lambda: held)[0]
    whole = daemon.load_reply(request.load)
    first = engine_pb2.LoadReply(ready=whole.ready[:2], deadline_ns=whole.deadline_ns)
    session.send(request.id, load=first)
    batches = load.batches(PATIENCE_S)
    assert [p.chunk for p in next(batches)] == [0, 0]
    last = engine_pb2.LoadReply(ready=whole.ready[2:3], done=True, deadline_ns=whole.deadline_ns)
    last.failed.add(chunk=1, part=1, error=error_pb2.Error(kind=error_pb2.ERROR_KIND_CORRUPT, message="damaged"))
    session.send(request.id, load=last)
    assert [(p.chunk, p.part) for p in next(batches)] == [(1, 0)]
    assert list(batches) == []
    assert [(f.chunk, f.part, f.error.kind) for f in load.failed] == [(1, 1, Kind.CORRUPT)]
    assert load.release() is True
    assert client.stats.parts_failed == 1


def test_a_hold_that_is_gone_is_a_miss(client: Client) -> None:
    load = client.load(77, 0, 1)
    with pytest.raises(MissError):
        collect(load)
    assert load.release() is False


def test_too_late_by_the_own_clock_does_not_count(daemon: FakeDaemon, client: Client) -> None:
    daemon.lease_s = -1.0
    with client.load(hold(client), 0, 1) as load:
        collect(load)
        assert load.release() is False
    assert client.stats.bytes_loaded == 0


def test_not_confirmed_does_not_count(daemon: FakeDaemon, client: Client) -> None:
    daemon.on["release"] = lambda session, request: session.send(
        request.id, release=engine_pb2.ReleaseReply(confirmed=False)
    )
    with client.load(hold(client), 0, 1) as load:
        collect(load)
        assert load.release() is False
        assert load.release() is False
    assert len(daemon.session.of("release")) == 1
    assert client.stats.bytes_loaded == 0


def test_a_deadline_ends_the_wait_and_gives_the_leases_back(daemon: FakeDaemon, client: Client) -> None:
    daemon.on["load"] = lambda _session, _request: None
    load = client.load(hold(client), 0, 1)
    with pytest.raises(UnavailableError, match="in time"), load:
        collect_within(load, 0.0)
    assert daemon.request("release").release.load_id == daemon.request("load").id


def collect_within(load: Load, deadline_s: float) -> None:
    for _ in load.batches(deadline_s):
        pass


def test_a_released_load_is_over(client: Client) -> None:
    load = client.load(hold(client), 0, 1)
    assert load.release() is True
    with pytest.raises(InvalidError):
        collect(load)


def test_bad_input_is_refused_here(daemon: FakeDaemon, client: Client, connect: Connect) -> None:
    for load in (
        client.load(1, 0, 0),
        client.load(1, -1, 1),
        client.load(1, 0, 1, [2]),
        client.load(1, 0, 33),  # 66 parts
        connect(role="scheduler").load(1, 0, 1),
    ):
        with pytest.raises(InvalidError):
            collect(load)
        assert load.release() is False
    assert all(session.of("load") == [] for session in daemon.sessions)


def test_a_slot_outside_of_the_arena_ends_the_connection(daemon: FakeDaemon, client: Client) -> None:
    def outside(session: FakeSession, request: Request) -> None:
        reply = daemon.load_reply(request.load)
        reply.ready[0].slot.offset = 1 << 40
        session.send(request.id, load=reply)

    daemon.on["load"] = outside
    load = client.load(hold(client), 0, 1)
    with pytest.raises(InvalidError, match="outside"):
        collect(load)
    assert load.release() is False
    daemon.wait_for(lambda: len(daemon.sessions) == 2)


def test_a_load_that_was_wrong_does_not_count_while_its_connection_stands(
    daemon: FakeDaemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outside(session: FakeSession, request: Request) -> None:
        reply = daemon.load_reply(request.load)
        reply.ready[0].slot.offset = 1 << 40
        session.send(request.id, load=reply)

    daemon.on["load"] = outside
    # As if its end took long.
    monkeypatch.setattr(Session, "abort", lambda _session, _reason: None)
    load = client.load(hold(client), 0, 1)
    with pytest.raises(InvalidError, match="outside"):
        collect(load)
    assert load.release() is False
    # What was leased goes back all the same.
    assert daemon.request("release").release.load_id == daemon.request("load").id
    monkeypatch.undo()


def test_a_revoke_before_the_first_batch_is_answered_at_once(daemon: FakeDaemon, client: Client) -> None:
    load = client.load(hold(client), 0, 1)
    request = daemon.request("load")
    daemon.session.send(revoke=engine_pb2.Revoke(load_ids=[request.id]))
    assert list(daemon.request("revoke_answer").revoke_answer.load_ids) == [request.id]
    with pytest.raises(MissError):
        collect(load)
    assert load.release() is False
    assert daemon.session.of("release") == []


def test_a_revoke_while_reading_is_answered_after_the_last_access(daemon: FakeDaemon, client: Client) -> None:
    load = client.load(hold(client), 0, 1)
    batch = next(load.batches(PATIENCE_S))
    request = daemon.request("load")
    daemon.session.send(revoke=engine_pb2.Revoke(load_ids=[request.id]))
    # Sent later, answered later: so the revoke has arrived.
    client.match(ROOT, KEYS).result()
    assert client.stats.revokes == 1
    assert daemon.session.of("revoke_answer") == []
    assert batch[0].view.tobytes() == PARTS[0]
    assert load.release() is False
    assert list(daemon.request("revoke_answer").revoke_answer.load_ids) == [request.id]
    assert daemon.session.of("release") == []
    assert client.stats.bytes_loaded == 0


def test_a_revoke_ends_the_wait_for_more(daemon: FakeDaemon, client: Client) -> None:
    daemon.on["load"] = lambda session, request: session.send(revoke=engine_pb2.Revoke(load_ids=[request.id]))
    load = client.load(hold(client), 0, 1)
    with pytest.raises(LarderError):
        collect(load)
    assert load.release() is False
    daemon.request("revoke_answer")


@pytest.mark.usefixtures("client")
def test_unknown_grants_and_loads_are_given_up_at_once(daemon: FakeDaemon) -> None:
    slot = daemon.chunks[KEYS[:32]][0][0]
    daemon.session.send(revoke=engine_pb2.Revoke(grants=[slot], load_ids=[99]))
    answer = daemon.request("revoke_answer").revoke_answer
    assert (list(answer.grants), list(answer.load_ids)) == ([slot], [99])


def test_a_broken_connection_ends_the_wait(daemon: FakeDaemon, client: Client) -> None:
    daemon.on["load"] = lambda session, _: session.end()
    load = client.load(hold(client), 0, 1)
    with pytest.raises(UnavailableError):
        collect(load)
    assert load.release() is False


def test_a_connection_lost_while_reading_keeps_the_bytes_but_does_not_count_them(
    daemon: FakeDaemon, client: Client
) -> None:
    load = client.load(hold(client), 0, 1)
    batch = next(load.batches(PATIENCE_S))
    first = daemon.session
    daemon.stop()
    assert batch[0].view.tobytes() == PARTS[0]
    daemon.start()
    # The old session is declared as over, which it is only once nobody reads.
    assert load.release() is False
    daemon.wait_for(lambda: len(daemon.sessions) == 2 and daemon.session.of("hello"))
    assert list(daemon.request("hello").hello.ended_sessions) == [first.token]
