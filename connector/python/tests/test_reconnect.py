"""A daemon that is absent, refuses, dies, comes back, or only seems alive."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from fake_daemon import PATIENCE_S, FakeDaemon, FakeSession, Handler, Request
from support import Connect, eventually

from larder.backoff import Backoff
from larder.client import Client, Options
from larder.errors import InvalidError, Kind, LarderError, UnavailableError
from larder.namespace import NamespaceDescriptor
from larder.v1 import engine_pb2, error_pb2

ROOT = b"r" * 32
KEYS = b"k" * 64


class RecordedBackoff(Backoff):
    """Remembers the pauses and does not take them."""

    def __init__(self, least_s: float, most_s: float) -> None:
        super().__init__(least_s, most_s, lambda: 1.0)
        self.pauses: list[float] = []

    def pause(self) -> float:
        self.pauses.append(super().pause())
        return 0.0


def answers(client: Client) -> bool:
    """Whether a match is answered, on a session that may end at any moment."""
    try:
        return client.match(ROOT, KEYS).result() is not None
    except LarderError:
        return False


def test_without_a_daemon_nothing_blocks(folder: Path, connect: Connect) -> None:
    client = connect(ready=False, credits={4096: 1})
    assert not client.ready
    with pytest.raises(UnavailableError, match="not connected"):
        client.match(ROOT, KEYS).result()
    with pytest.raises(UnavailableError):
        client.commit([]).result()
    with pytest.raises(UnavailableError):
        next(iter(client.load(1, 0, 1).batches(1.0)))
    with pytest.raises(UnavailableError):
        _ = client.objects
    assert client.take_credit(4096) is None
    client.end_holds([1])
    assert client.hello is None
    assert client.arena is None
    eventually(lambda: client.last_error)
    assert isinstance(client.last_error, UnavailableError)
    assert client.stats.failures == {"UNAVAILABLE": 3}
    # It comes later.
    daemon = FakeDaemon(folder)
    try:
        assert client.wait_ready(PATIENCE_S)
        assert client.last_error is None
        assert client.match(ROOT, KEYS).result().chunks == 0
        client.close()
    finally:
        daemon.close()


def test_pauses_grow_to_a_bound(folder: Path, connect: Connect) -> None:
    del folder
    backoff = RecordedBackoff(1.0, 8.0)
    connect(ready=False, backoff=backoff)
    eventually(lambda: len(backoff.pauses) >= 6)
    assert backoff.pauses[:6] == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_pauses_grow_too_where_sessions_end_at_once(daemon: FakeDaemon, connect: Connect) -> None:
    def greet_and_leave(session: FakeSession, request: Request) -> None:
        session.send(request.id, hello=daemon.hello_reply(session))
        session.end()

    daemon.on["hello"] = greet_and_leave
    backoff = RecordedBackoff(1.0, 8.0)
    client = connect(ready=False, backoff=backoff, backoff_max_s=3600.0)
    eventually(lambda: len(backoff.pauses) >= 5)
    assert backoff.pauses[:5] == [1.0, 2.0, 4.0, 8.0, 8.0]
    # One that answers is of use, and the next failure is a first one.
    stay: list[FakeSession] = []

    def greet_and_stay(session: FakeSession, request: Request) -> None:
        session.send(request.id, hello=daemon.hello_reply(session))
        stay.append(session)

    daemon.on["hello"] = greet_and_stay
    # The newest of now may still be about to leave, and may already be to stay.
    eventually(lambda: stay and client.ready and answers(client))
    known = len(backoff.pauses)
    daemon.session.end()
    eventually(lambda: len(backoff.pauses) > known)
    assert backoff.pauses[known] == 1.0


def test_a_refused_hello_names_the_field(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.on["hello"] = lambda session, request: session.fail(
        request.id, error_pb2.ERROR_KIND_INVALID, "another major version", "hello.major"
    )
    client = connect(ready=False)
    eventually(lambda: client.last_error)
    assert isinstance(client.last_error, InvalidError)
    assert client.last_error.field == "hello.major"
    assert not client.ready


def test_attempts_leave_no_thread_behind(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.on["hello"] = refusal(Kind.INVALID)
    connect(ready=False)
    daemon.wait_for(lambda: len(daemon.sessions) >= 3)
    before = threading.active_count()
    daemon.wait_for(lambda: len(daemon.sessions) >= 40)
    eventually(lambda: threading.active_count() < before + 10)


def test_a_wrong_namespace_is_told_to_its_maker(folder: Path) -> None:
    wrong = NamespaceDescriptor(weights_id=b"short", config=(), kv_dtype="bfloat16", groups=())
    with pytest.raises(InvalidError, match="weights_id"):
        Client(Options(socket=str(folder / "larder.sock"), namespace=wrong))


def test_a_silent_hello_ends_the_attempt(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.on["hello"] = lambda _session, _request: None
    client = connect(ready=False, connect_timeout_s=0.1)
    daemon.wait_for(lambda: len(daemon.sessions) >= 2)
    assert isinstance(client.last_error, UnavailableError)
    assert "hello" in str(client.last_error)


def test_calls_under_way_fail_when_the_daemon_dies(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.on["match"] = lambda _session, _request: None
    client = connect()
    asked = [client.match(ROOT, KEYS) for _ in range(3)]
    daemon.request("match", 2)
    daemon.stop()
    for pending in asked:
        with pytest.raises(UnavailableError):
            pending.result()
    assert not client.ready
    del daemon.on["match"]
    daemon.start()
    assert client.wait_ready(PATIENCE_S)
    assert client.match(ROOT, KEYS).result().chunks == 0
    assert client.generation == 2
    assert client.stats.reconnects == 1


def test_ended_sessions_are_declared_once(daemon: FakeDaemon, connect: Connect) -> None:
    client = connect()
    for _ in range(2):
        session = daemon.session
        session.end()
        daemon.wait_for(lambda old=session: daemon.session is not old and daemon.session.of("hello"))  # type: ignore[misc]
        assert list(daemon.session.of("hello")[0].hello.ended_sessions) == [session.token]
    eventually(lambda: client.generation == 3)
    # The lifetime pipes of declared sessions are closed, the current one is not.
    for lifetime in daemon.lifetimes[:2]:
        assert os.read(lifetime, 1) == b""
    os.set_blocking(daemon.lifetimes[2], False)
    with pytest.raises(BlockingIOError):
        os.read(daemon.lifetimes[2], 1)


def test_the_arena_is_mapped_once(daemon: FakeDaemon, connect: Connect) -> None:
    client = connect()
    assert client.arena is not None
    first = client.arena.segments[0]
    daemon.session.end()
    eventually(lambda: client.generation == 2 and client.arena)
    assert client.arena is not None
    assert client.arena.segments[0] is first


def test_the_breaker_opens_and_a_probe_closes_it(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.on["match"] = lambda _session, _request: None
    client = connect(breaker_failures=3, breaker_open_s=3600.0)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="in time"):
            client.match(ROOT, KEYS, timeout=0.001).result()
    assert client.stats.breaker_opens == 1
    with pytest.raises(UnavailableError, match="breaker"):
        client.match(ROOT, KEYS, timeout=0.001).result()
    assert not client.ready
    # The time is over. The first call after it is the probe; it fails, and the
    # breaker is open again.
    client._breaker.hasten()
    with pytest.raises(UnavailableError, match="in time"):
        client.match(ROOT, KEYS, timeout=0.001).result()
    with pytest.raises(UnavailableError, match="breaker"):
        client.match(ROOT, KEYS).result()
    del daemon.on["match"]
    client._breaker.hasten()
    for _ in range(10):
        client.match(ROOT, KEYS).result()


def refusal(kind: Kind) -> Handler:
    def refuse(session: FakeSession, request: Request) -> None:
        session.fail(request.id, int(kind))

    return refuse


def test_refusals_do_not_open_the_breaker(daemon: FakeDaemon, connect: Connect) -> None:
    client = connect(breaker_failures=1)
    for kind in set(Kind) - {Kind.UNAVAILABLE}:
        daemon.on["match"] = refusal(kind)
        with pytest.raises(LarderError) as caught:
            client.match(ROOT, KEYS).result()
        assert caught.value.kind is kind
        assert client.ready
    daemon.on["match"] = refusal(Kind.UNAVAILABLE)
    with pytest.raises(UnavailableError):
        client.match(ROOT, KEYS).result()
    assert not client.ready


def test_a_new_connection_gets_its_probe_at_once(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.on["match"] = lambda _session, _request: None
    client = connect(breaker_failures=1, breaker_open_s=3600.0)
    with pytest.raises(UnavailableError):
        client.match(ROOT, KEYS, timeout=0.001).result()
    assert not client.ready
    del daemon.on["match"]
    daemon.stop()
    daemon.start()
    eventually(lambda: client.generation == 2 and client.ready)
    assert client.match(ROOT, KEYS).result().chunks == 0


def test_a_daemon_that_answers_nothing_is_given_up(daemon: FakeDaemon, connect: Connect) -> None:
    daemon.limits.max_in_flight = 20
    daemon.on["match"] = lambda _session, _request: None
    client = connect(breaker_failures=1000)
    while len(daemon.sessions) == 1:
        with pytest.raises(LarderError):
            client.match(ROOT, KEYS, timeout=0.001).result()


def test_close_ends_everything_in_any_state(daemon: FakeDaemon, folder: Path) -> None:
    options = Options(socket=str(folder / "larder.sock"), credits={4096: 2})
    for _ in range(5):
        Client(options).close()  # while it connects
    daemon.on["match"] = lambda _session, _request: None
    client = Client(options)
    assert client.wait_ready(PATIENCE_S)
    pending = client.match(ROOT, KEYS, timeout=PATIENCE_S)
    client.close()
    client.close()
    with pytest.raises(UnavailableError):
        pending.result()
    with pytest.raises(UnavailableError, match="closed"):
        client.match(ROOT, KEYS).result()
    assert not client.ready
    assert client.take_credit(4096) is None


def test_close_ends_the_lifetime_pipe_of_slots_that_nobody_touches(daemon: FakeDaemon, connect: Connect) -> None:
    client = connect(credits={4096: 1})
    eventually(lambda: client.stats.credits_granted)
    client.close(PATIENCE_S)
    assert os.read(daemon.lifetimes[0], 1) == b""
    writer = connect(credits={4096: 1})
    with eventually(lambda: writer.take_credit(4096)).writing():
        writer.close(PATIENCE_S)
        # The daemon must not give the slot to anybody else.
        os.set_blocking(daemon.lifetimes[1], False)
        with pytest.raises(BlockingIOError):
            os.read(daemon.lifetimes[1], 1)


def test_close_does_not_wait_for_a_daemon_that_hangs(daemon: FakeDaemon, folder: Path) -> None:
    daemon.on["hello"] = lambda _session, _request: None
    client = Client(Options(socket=str(folder / "larder.sock")))
    daemon.request("hello")
    client.close()


def test_a_scheduler_never_maps_the_arena(daemon: FakeDaemon, connect: Connect) -> None:
    client = connect(role="scheduler")
    assert client.arena is None
    assert daemon.lifetimes == []
    assert client.take_credit(4096) is None
    with pytest.raises(InvalidError):
        client.commit([]).result()
    assert daemon.request("hello").hello.role == engine_pb2.ROLE_SCHEDULER
