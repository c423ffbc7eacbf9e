"""Requests and replies on one connection."""

from __future__ import annotations

import threading

import pytest
from fake_daemon import PATIENCE_S, FakeDaemon, FakeSession, Request
from support import Connect, eventually

from larder.client import NO_HOLD
from larder.errors import BusyError, InvalidError, Kind, LarderError, MissError, UnavailableError
from larder.v1 import engine_pb2, error_pb2

ROOT = b"r" * 32
KEYS = b"".join(bytes([i]) * 32 for i in range(4))


def parts() -> list[bytes]:
    return [b"a" * 8192, b"b" * 4096]


def test_match_counts_leading_chunks(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.put(KEYS[:32], parts())
    daemon.put(KEYS[32:64], parts())
    daemon.put(KEYS[96:], parts())
    client = connect()
    reply = client.match(ROOT, KEYS).result()
    assert reply.chunks == 2
    assert reply.hold_id in daemon.holds
    sent = daemon.request("match").match
    assert (sent.root, sent.keys, sent.hold_ms) == (ROOT, KEYS, 0)
    assert client.match(ROOT, KEYS, hold_ms=NO_HOLD).result().hold_id == 0
    stats = client.stats
    assert (stats.matches, stats.chunks_asked, stats.chunks_matched) == (2, 8, 4)


def test_replies_out_of_order(daemon: FakeDaemon, connect: Connect) -> None:
    held: list[Request] = []

    def hold_back(session: FakeSession, request: Request) -> None:
        held.append(request)
        if len(held) == 3:
            for late in reversed(held):
                session.send(late.id, match=engine_pb2.MatchReply(chunks=late.match.hold_ms))

    daemon.on["match"] = hold_back
    client = connect()
    asked = [client.match(ROOT, KEYS, hold_ms=n) for n in (1, 2, 3)]
    assert [pending.result().chunks for pending in asked] == [1, 2, 3]


def test_poll_and_callback(daemon: FakeDaemon, connect: Connect) -> None:
    go = threading.Event()
    called = threading.Event()

    def wait(session: FakeSession, request: Request) -> None:
        go.wait(PATIENCE_S)
        session.send(request.id, match=engine_pb2.MatchReply(chunks=1))

    daemon.on["match"] = wait
    client = connect()
    pending = client.match(ROOT, KEYS)
    assert pending.poll() is None
    pending.add_callback(lambda _: called.set())
    with pytest.raises(UnavailableError):
        pending.result(0.0)
    go.set()
    assert called.wait(PATIENCE_S)
    reply = pending.poll()
    assert reply is not None
    assert reply.chunks == 1


@pytest.mark.parametrize("kind", list(Kind))
def test_errors_keep_their_kind(daemon: FakeDaemon, connect: Connect, kind: Kind) -> None:
    def refuse(session: FakeSession, request: Request) -> None:
        session.fail(request.id, int(kind), "because", "match.keys")

    daemon.on["match"] = refuse
    client = connect()
    with pytest.raises(LarderError) as caught:
        client.match(ROOT, KEYS).result()
    assert (caught.value.kind, caught.value.message, caught.value.field) == (kind, "because", "match.keys")
    assert client.stats.failures == {kind.name: 1}


def test_holds_are_renewed_and_ended_together(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.put(KEYS[:32], parts())
    answered: list[Request] = []
    client = connect()
    holds = [client.match(ROOT, KEYS).result().hold_id for _ in range(5)]
    assert client.renew_hold(holds[0]).result().hold_deadline_ns > 0

    # The first message is under way until it is answered; the others gather.
    daemon.on["end_holds"] = lambda _, request: answered.append(request)
    client.end_holds(holds[:1])
    first = daemon.request("end_holds")
    for hold in holds[1:]:
        client.end_holds([hold])
    del daemon.on["end_holds"]
    daemon.session.send(first.id, end_holds=engine_pb2.EndHoldsReply())
    assert list(daemon.request("end_holds", 1).end_holds.hold_ids) == holds[1:]
    with pytest.raises(MissError):
        client.renew_hold(holds[1]).result()


def test_what_is_computed_is_said_and_nobody_waits(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.put(KEYS[:32], parts())
    client = connect()
    hold = client.match(ROOT, KEYS).result().hold_id
    client.skip(hold, 0, KEYS[:32], 0.25, 0.125)
    said = daemon.request("skip").skip
    assert (said.hold_id, said.first_chunk, said.key) == (hold, 0, KEYS[:32])
    assert (said.load_ns, said.compute_ns) == (250_000_000, 125_000_000)
    # A daemon that does not know it answers with an error, which changes nothing.
    eventually(lambda: client.stats.failures == {Kind.INVALID.name: 1})
    # Nor does it what no field can hold.
    client.skip(hold, 0, KEYS[:32], 1e30, -1.0)
    said = daemon.request("skip", 1).skip
    assert (said.load_ns, said.compute_ns) == ((1 << 64) - 1, 0)
    assert client.match(ROOT, KEYS).result().chunks == 1
    client.close()
    client.skip(hold, 0, KEYS[:32], 0.25, 0.125)


def test_prefetch(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.put(KEYS[:32], parts())
    assert connect().prefetch(ROOT, KEYS).result().resident == 1


def test_a_late_match_gives_its_hold_back(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.put(KEYS[:32], parts())
    held: list[Request] = []
    daemon.on["match"] = lambda _, request: held.append(request)
    client = connect()
    with pytest.raises(UnavailableError):
        client.match(ROOT, KEYS, timeout=0.01).result()
    late = daemon.wait_for(lambda: held)[0]
    reply = daemon.match_reply(late.match)
    daemon.session.send(late.id, match=reply)
    assert list(daemon.request("end_holds").end_holds.hold_ids) == [reply.hold_id]
    assert client.stats.late_replies == 1


def test_busy_before_the_daemon_says_so(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.limits.max_in_flight = 20
    held: list[tuple[FakeSession, Request]] = []
    daemon.on["match"] = lambda session, request: held.append((session, request))
    client = connect()
    asked = [client.match(ROOT, KEYS) for _ in range(4)]
    with pytest.raises(BusyError) as caught:
        client.match(ROOT, KEYS).result()
    assert caught.value.limit == "4"
    # Notices still get through.
    client.end_holds([1])
    daemon.request("end_holds")
    daemon.wait_for(lambda: len(held) == 4)
    for session, request in held:
        session.send(request.id, match=engine_pb2.MatchReply(chunks=1))
    assert [pending.result().chunks for pending in asked] == [1] * 4
    del daemon.on["match"]
    assert client.match(ROOT, KEYS).result().chunks == 0


def test_bad_input_is_refused_here(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.limits.max_message_bytes = 4096
    client = connect()
    for root, keys in [(b"short", KEYS), (ROOT, b""), (ROOT, b"x" * 33)]:
        with pytest.raises(InvalidError):
            client.match(root, keys).result()
    with pytest.raises(InvalidError) as caught:
        client.match(ROOT, b"k" * 32 * 1000).result()
    assert caught.value.limit == "4096 bytes"
    assert client.match(ROOT, KEYS).result().chunks == 0


def test_a_longer_prompt_asks_for_what_may_be_asked(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.limits.max_match_chunks = 2
    connect().match(ROOT, KEYS).result()
    assert daemon.request("match").match.keys == KEYS[:64]


def test_draining_takes_no_new_work_and_leaves_once_all_is_done(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.put(KEYS[:32], parts())
    client = connect(credits={4096: 1})
    hold = client.match(ROOT, KEYS).result().hold_id
    load = client.load(hold, 0, 1)
    batches = load.batches(PATIENCE_S)
    next(batches)
    session = daemon.session
    session.send(draining=engine_pb2.Draining(deadline_ms=1000))
    # Idle credits go back: the event has been heard.
    daemon.request("return_credits")
    assert not client.ready
    with pytest.raises(UnavailableError, match="draining"):
        client.match(ROOT, KEYS).result()
    assert client.stats.breaker_opens == 0
    assert len(daemon.sessions) == 1
    # Who waits, waits for the next session.
    assert not client._supervisor.wait_connected(0.0)
    # What is under way ends as usual, and then the session.
    assert load.release() is True
    assert client.wait_ready(PATIENCE_S)
    assert session.over
    assert client.generation == 2


def test_events_of_a_later_version_are_ignored(daemon: FakeDaemon, connect: Connect) -> None:
    client = connect()
    daemon.session.send_raw(b"\xa2\x06\x00")  # field 100, empty
    assert client.match(ROOT, KEYS).result().chunks == 0
    assert client.generation == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff",
        engine_pb2.SessionResponse(error=error_pb2.Error(kind=error_pb2.ERROR_KIND_INVALID)).SerializeToString(),
    ],
)
def test_garbage_ends_the_connection(daemon: FakeDaemon, connect: Connect, garbage: bytes) -> None:
    daemon.on["match"] = lambda session, _: session.send_raw(garbage)
    client = connect()
    with pytest.raises(UnavailableError, match="garbage"):
        client.match(ROOT, KEYS).result()
    del daemon.on["match"]
    daemon.wait_for(lambda: len(daemon.sessions) == 2)
    assert client.wait_ready(PATIENCE_S)
    assert client.match(ROOT, KEYS).result().chunks == 0
    assert client.generation == 2


def test_an_answer_of_another_kind_is_garbage(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.on["match"] = lambda session, request: session.send(request.id, credits=engine_pb2.CreditsReply())
    client = connect()
    with pytest.raises(UnavailableError):
        client.match(ROOT, KEYS).result()
    daemon.wait_for(lambda: len(daemon.sessions) == 2)


def test_hello_says_who_is_there(daemon: FakeDaemon, connect: Connect) -> None:
    client = connect(instance_id=b"i" * 16, role="worker", tenant="acme", engine="test 1")
    hello = daemon.request("hello").hello
    assert (hello.major, hello.instance_id, hello.role) == (1, b"i" * 16, engine_pb2.ROLE_WORKER)
    assert (hello.tenant, hello.engine, hello.ranks.tensor_size) == ("acme", "test 1", 1)
    assert client.hello is not None
    assert client.hello.tenant_key == b"t" * 32
    assert client.epoch == 1
    daemon.session.send(epoch_changed=engine_pb2.EpochChanged(epoch=7))
    client.match(ROOT, KEYS).result()
    assert client.epoch == 7
