"""Credits and commits in the arena."""

from __future__ import annotations

import numpy as np
import pytest
from fake_daemon import PATIENCE_S, FakeDaemon, FakeSession, Request
from support import Connect, eventually

from larder.client import Client, CommitChunk, CommitPart, Credit
from larder.errors import BusyError, InvalidError, MissError, UnavailableError
from larder.v1 import engine_pb2, error_pb2, part_pb2

KEY = b"k" * 32
PARENT = b"p" * 32


def take(client: Client, length: int) -> Credit:
    return eventually(lambda: client.take_credit(length))


def chunk(*parts: CommitPart, key: bytes = KEY) -> CommitChunk:
    return CommitChunk(key=key, parent=PARENT, ordinal=0, tokens=256, parts=parts)


def write(credit: Credit, value: int) -> None:
    with credit.writing() as view:
        view[:] = value


@pytest.fixture
def client(daemon: FakeDaemon, connect: Connect) -> Client:
    del daemon
    return connect(credits={8192: 4, 4096: 4})


def test_write_commit_load(daemon: FakeDaemon, client: Client) -> None:
    big, small = take(client, 8192), take(client, 4096)
    assert (big.view.nbytes, small.view.nbytes) == (8192, 4096)
    write(big, 1)
    write(small, 2)
    reply = client.commit([chunk(CommitPart(0, big), CommitPart(1, small))]).result()
    assert list(reply.outcomes) == [engine_pb2.COMMIT_OUTCOME_KEPT, engine_pb2.COMMIT_OUTCOME_PUBLISHED]
    sent = daemon.request("commit").commit.chunks[0]
    assert (sent.key, sent.parent, sent.tokens) == (KEY, PARENT, 256)
    assert [part.length for part in sent.parts] == [8192, 4096]
    hold = client.match(b"r" * 32, KEY).result().hold_id
    with client.load(hold, 0, 1) as load:
        parts = [p.view.tobytes() for batch in load.batches(PATIENCE_S) for p in batch]
        assert load.release()
    assert parts == [b"\1" * 8192, b"\2" * 4096]
    stats = client.stats
    assert stats.outcomes == {"KEPT": 1, "PUBLISHED": 1}
    assert stats.bytes_stored == 12288


def test_guarded_mode_writes_into_the_own_segment(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.mode = engine_pb2.ARENA_MODE_GUARDED
    client = connect(credits={8192: 1})
    credit = take(client, 8192)
    assert credit.slot is not None
    assert credit.slot.segment == 65535
    write(credit, 7)
    assert daemon.bytes_at(credit.slot, 8192) == b"\7" * 8192
    assert client.arena is not None
    assert client.arena.segments[0].write is None


def test_one_question_for_all_lengths_and_again_at_half(daemon: FakeDaemon, client: Client) -> None:
    first = daemon.request("credits").credits
    assert {w.length: w.count for w in first.want} == {8192: 4, 4096: 4}
    take(client, 8192)
    assert len(daemon.session.of("credits")) == 1
    take(client, 8192)
    again = daemon.request("credits", 1).credits
    assert {w.length: w.count for w in again.want} == {8192: 2}


def test_a_length_nobody_keeps_has_no_credit(client: Client, daemon: FakeDaemon) -> None:
    daemon.request("credits")
    assert client.take_credit(1234) is None
    client.keep_credits(1234, 1)
    assert take(client, 1234).length == 1234


def test_full_is_asked_again_after_a_pause(daemon: FakeDaemon, connect: Connect) -> None:
    def full(session: FakeSession, request: Request) -> None:
        session.fail(request.id, error_pb2.ERROR_KIND_FULL, "no room", "")

    daemon.on["credits"] = full
    client = connect(credits={8192: 2})
    daemon.request("credits", 1)
    assert client.take_credit(8192) is None
    del daemon.on["credits"]
    assert take(client, 8192).length == 8192
    assert client.stats.failures.keys() == {"FULL"}
    assert client.stats.failures["FULL"] >= 2
    assert client.stats.breaker_opens == 0


def test_slots_granted_after_the_deadline_are_used(daemon: FakeDaemon, connect: Connect) -> None:
    held: list[Request] = []
    daemon.on["credits"] = lambda _, request: held.append(request)
    client = connect(credits={8192: 2}, call_timeout_s=0.01, breaker_failures=1000)
    eventually(lambda: client.stats.failures.get("UNAVAILABLE"))
    # The next question finds the pool full.
    first = daemon.wait_for(lambda: held)[0]
    del daemon.on["credits"]
    daemon.session.send(first.id, credits=daemon.grant(first.credits))
    eventually(lambda: client.stats.late_replies)
    assert take(client, 8192).slot is not None


def test_fewer_than_asked_for_are_taken(daemon: FakeDaemon, connect: Connect) -> None:
    def one(session: FakeSession, request: Request) -> None:
        del daemon.on["credits"]
        granted = daemon.grant(engine_pb2.Credits(want=[engine_pb2.CreditRequest(length=8192, count=1)]))
        session.send(request.id, credits=granted)

    daemon.on["credits"] = one
    client = connect(credits={4096: 1, 8192: 3})
    # It is for the longest length asked for that fits.
    assert take(client, 8192).length == 8192


def test_returned_credits_go_back(daemon: FakeDaemon, client: Client) -> None:
    credit = take(client, 8192)
    client.return_credit(credit)
    assert list(daemon.request("return_credits").return_credits.slots) == [credit.slot]
    with pytest.raises(InvalidError), credit.writing():
        pass
    with pytest.raises(InvalidError):
        client.commit([chunk(CommitPart(0, credit))]).result()
    client.return_credit(credit)
    client.match(b"r" * 32, KEY).result()
    assert len(daemon.session.of("return_credits")) == 1


def test_closing_gives_idle_credits_back(daemon: FakeDaemon, client: Client) -> None:
    eventually(lambda: client.stats.credits_granted == 8)
    client.close(PATIENCE_S)
    returned = [s for r in daemon.session.of("return_credits") for s in r.return_credits.slots]
    assert len(returned) == 8


def test_a_clear_gives_idle_credits_back(daemon: FakeDaemon, client: Client) -> None:
    eventually(lambda: client.stats.credits_granted == 8)
    daemon.session.send(epoch_changed=engine_pb2.EpochChanged(epoch=2))
    assert len(daemon.request("return_credits").return_credits.slots) == 8
    daemon.request("credits", 1)


def revoke(daemon: FakeDaemon, client: Client, credit: Credit) -> None:
    """Revokes and waits until the client has heard."""
    assert credit.slot is not None
    daemon.session.send(revoke=engine_pb2.Revoke(grants=[credit.slot]))
    client.match(b"r" * 32, KEY).result()


def answered(daemon: FakeDaemon) -> list[part_pb2.Slot]:
    return [slot for r in daemon.session.of("revoke_answer") for slot in r.revoke_answer.grants]


def test_a_revoke_outside_of_writing_is_answered_at_once(daemon: FakeDaemon, client: Client) -> None:
    credit = take(client, 8192)
    revoke(daemon, client, credit)
    daemon.request("revoke_answer")
    assert answered(daemon) == [credit.slot]
    with pytest.raises(MissError), credit.writing():
        pass
    reply = client.commit([chunk(CommitPart(0, credit))]).result()
    assert list(reply.outcomes) == [engine_pb2.COMMIT_OUTCOME_REJECTED]
    assert reply.errors[0].error.kind == error_pb2.ERROR_KIND_MISS
    assert daemon.session.of("commit") == []


def test_a_revoke_while_writing_is_answered_at_the_end(daemon: FakeDaemon, client: Client) -> None:
    credit = take(client, 8192)
    with credit.writing() as view:
        revoke(daemon, client, credit)
        assert daemon.session.of("revoke_answer") == []
        view[:] = 5
    daemon.request("revoke_answer")
    assert answered(daemon) == [credit.slot]
    assert credit.slot is not None
    assert daemon.bytes_at(credit.slot, 8192) == b"\5" * 8192
    with pytest.raises(MissError), credit.writing():
        pass


def test_a_commit_that_cannot_be_sent_leaves_credits_as_they_were(
    daemon: FakeDaemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, revoked = take(client, 8192), take(client, 8192)
    connection = client._supervisor.connection
    assert connection is not None

    def refuse(*_: object, **__: object) -> None:
        # A revoke that comes in this moment must not be answered yet, since
        # the credits are about to be their owner's again.
        revoke(daemon, client, revoked)
        assert daemon.session.of("revoke_answer") == []
        raise BusyError("no place")

    monkeypatch.setattr(connection.session, "ask_or_raise", refuse)
    ask = connection.session.ask

    def match_only(body: dict[str, object], *args: object, **kwargs: object) -> object:
        monkeypatch.undo()
        return ask(body, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(connection.session, "ask", match_only)
    chunks = [chunk(CommitPart(0, kept), CommitPart(0, revoked))]
    with pytest.raises(BusyError):
        client.commit(chunks).result()
    daemon.request("revoke_answer")
    assert answered(daemon) == [revoked.slot]
    with pytest.raises(MissError), revoked.writing():
        pass
    write(kept, 1)
    assert list(client.commit([chunk(CommitPart(0, kept))]).result().outcomes) == [engine_pb2.COMMIT_OUTCOME_KEPT]


def test_idle_credits_are_replaced_after_a_revoke(daemon: FakeDaemon, client: Client) -> None:
    eventually(lambda: client.stats.credits_granted == 8)
    slots = [part_pb2.Slot(segment=0, offset=8192 * i, length=8192, generation=i + 1) for i in range(8)]
    daemon.session.send(revoke=engine_pb2.Revoke(grants=slots))
    assert len(daemon.request("revoke_answer").revoke_answer.grants) == 8
    assert sum(w.count for w in daemon.request("credits", 1).credits.want) == 8
    fresh = take(client, 8192)
    assert fresh.slot not in slots


def test_the_living_go_although_others_died(daemon: FakeDaemon, client: Client) -> None:
    dead, alive = take(client, 8192), take(client, 4096)
    write(alive, 1)
    revoke(daemon, client, dead)
    reply = client.commit([chunk(CommitPart(0, dead), CommitPart(1, alive))]).result()
    assert list(reply.outcomes) == [engine_pb2.COMMIT_OUTCOME_REJECTED, engine_pb2.COMMIT_OUTCOME_KEPT]
    assert [e.index for e in reply.errors] == [0]
    assert [p.part for p in daemon.request("commit").commit.chunks[0].parts] == [1]
    assert client.stats.outcomes == {"REJECTED": 1, "KEPT": 1}


def test_errors_of_the_daemon_keep_their_places(daemon: FakeDaemon, client: Client) -> None:
    def reject(session: FakeSession, request: Request) -> None:
        reply = engine_pb2.CommitReply(outcomes=[engine_pb2.COMMIT_OUTCOME_REJECTED])
        reply.errors.add(index=0, error=error_pb2.Error(kind=error_pb2.ERROR_KIND_FULL))
        session.send(request.id, commit=reply)

    daemon.on["commit"] = reject
    dead, alive = take(client, 8192), take(client, 4096)
    revoke(daemon, client, dead)
    reply = client.commit([chunk(CommitPart(0, dead), CommitPart(1, alive))]).result()
    assert {e.index: e.error.kind for e in reply.errors} == {
        0: error_pb2.ERROR_KIND_MISS,
        1: error_pb2.ERROR_KIND_FULL,
    }


def test_a_credit_is_committed_once(daemon: FakeDaemon, client: Client) -> None:
    credit = take(client, 8192)
    with pytest.raises(InvalidError):
        client.commit([chunk(CommitPart(0, credit), CommitPart(1, credit))]).result()
    with credit.writing(), pytest.raises(InvalidError):
        client.commit([chunk(CommitPart(0, credit))]).result()
    assert daemon.session.of("commit") == []
    client.commit([chunk(CommitPart(0, credit))]).result()
    with pytest.raises(InvalidError):
        client.commit([chunk(CommitPart(0, credit))]).result()


def test_bad_input_loses_no_credit(daemon: FakeDaemon, client: Client) -> None:
    credit = take(client, 8192)
    for bad in (
        [chunk(CommitPart(2, credit))],
        [chunk(CommitPart(0, credit, 8193))],
        [chunk(CommitPart(0, credit), key=b"short")],
        [chunk()],
        [],
    ):
        with pytest.raises(InvalidError):
            client.commit(bad).result()
    write(credit, 1)
    reply = client.commit([chunk(CommitPart(0, credit))]).result()
    assert list(reply.outcomes) == [engine_pb2.COMMIT_OUTCOME_KEPT]
    assert len(daemon.session.of("commit")) == 1


def test_past_its_deadline_a_credit_is_not_written(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.limits.lease_ms = 0
    daemon.lease_s = 3600.0
    client = connect(credits={8192: 1})
    credit = take(client, 8192)
    credit.deadline_ns = 1
    with pytest.raises(MissError), credit.writing():
        pass


def test_a_credit_near_its_deadline_is_not_handed_out(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.limits.lease_ms = 1000 * 3600 * 1000
    daemon.lease_s = 60.0
    client = connect(credits={8192: 1})
    eventually(lambda: client.stats.credits_granted >= 1)
    assert client.take_credit(8192) is None
    assert len(daemon.request("return_credits").return_credits.slots) == 1


def test_a_slot_outside_of_the_arena_ends_the_connection(daemon: FakeDaemon, connect: Connect) -> None:
    def outside(session: FakeSession, request: Request) -> None:
        del daemon.on["credits"]
        reply = daemon.grant(request.credits)
        reply.granted[0].slot.segment = 3
        session.send(request.id, credits=reply)

    daemon.on["credits"] = outside
    client = connect(credits={8192: 1})
    daemon.wait_for(lambda: len(daemon.sessions) == 2)
    assert take(client, 8192).length == 8192


def test_after_a_lost_connection_credits_are_dead(daemon: FakeDaemon, client: Client) -> None:
    idle, written, open_ = take(client, 8192), take(client, 4096), take(client, 8192)
    write(written, 1)
    with open_.writing() as view:
        first = daemon.session
        first.end()
        daemon.wait_for(lambda: first.over)
        eventually(lambda: not client.ready or client.generation == 2)
        # The memory is still there, and so is the lifetime pipe.
        view[:] = np.arange(8192) % 256
    for credit in (idle, written, open_):
        with pytest.raises(MissError), credit.writing():
            pass
    daemon.wait_for(lambda: len(daemon.sessions) == 2)
    assert list(daemon.request("hello").hello.ended_sessions) == [first.token]
    assert client.wait_ready(PATIENCE_S)
    assert take(client, 8192).state.value == "granted"


def test_a_daemon_that_dies_in_a_commit_fails_it(daemon: FakeDaemon, client: Client) -> None:
    daemon.on["commit"] = lambda session, _: session.end()
    credit = take(client, 8192)
    with pytest.raises(UnavailableError):
        client.commit([chunk(CommitPart(0, credit))]).result()


def test_idle_credits_are_replaced_before_they_are_stale(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.limits.lease_ms = 800
    daemon.lease_s = 0.8
    client = connect(credits={8192: 8})

    def returned() -> list[int]:
        return [slot.generation for r in daemon.session.of("return_credits") for slot in r.return_credits.slots]

    # All of the first have gone back, unasked and in their order.
    eventually(lambda: len(returned()) >= 8)
    oldest = returned()[:8]
    assert oldest == list(range(oldest[0], oldest[0] + 8))
    assert take(client, 8192).slot is not None
    asked = [w.count for r in daemon.session.of("credits") for w in r.credits.want]
    assert asked[0] == 8
    # A quarter at a time.
    assert set(asked[1:5]) == {2}


def test_the_oldest_credit_goes_out_first(daemon: FakeDaemon, connect: Connect) -> None:
    client = connect(credits={8192: 4})
    credits_ = [take(client, 8192) for _ in range(2)]
    daemon.request("credits", 1)
    eventually(lambda: client.stats.credits_granted == 6)
    credits_ += [take(client, 8192) for _ in range(4)]
    deadlines = [c.deadline_ns for c in credits_]
    assert deadlines == sorted(deadlines)
    assert deadlines[0] < deadlines[-1]
