"""The client and the real daemon."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_daemon import PATIENCE_S
from larderd import (
    CHUNK_TOKENS,
    PART_BYTES,
    REPOSITORY,
    ROOT,
    Larderd,
    keys,
    load,
    load_in_the_end,
    namespace,
    payload,
    store,
    store_in_the_end,
    take,
    writing,
)
from support import Connect, eventually

from larder.client import NO_HOLD, Client, CommitChunk, CommitPart, Pending
from larder.errors import InvalidError, Kind, LarderError, MissError, UnavailableError
from larder.load import LeasedPart, Load
from larder.v1 import admin_pb2, engine_pb2, objects_pb2

PUBLISHED = engine_pb2.COMMIT_OUTCOME_PUBLISHED
KEPT = engine_pb2.COMMIT_OUTCOME_KEPT

Real = Callable[..., Larderd]


@pytest.fixture
def client_of(connect: Connect) -> Connect:
    """Clients of one namespace, with credits."""

    def make(name: str = "test", **options: object) -> Client:
        options = {"namespace": namespace(name), "credits": {PART_BYTES: 32}, "role": "client", **options}
        return connect(**options)

    return make


@pytest.mark.parametrize("share_memory", [True, False])
@pytest.mark.parametrize("mode", ["shared", "guarded"])
def test_bytes_come_back_in_another_process_of_the_engine(
    real: Real, client_of: Connect, mode: str, share_memory: bool
) -> None:
    daemon = real(host__mode=mode, host__write_segment_bytes="8MiB")
    writer = client_of(role="worker", share_memory=share_memory)
    assert (writer.arena is not None) == share_memory
    prompt = keys("a", 8)
    assert PUBLISHED in store(writer, prompt)
    # The match sees it at once, and so does another engine.
    reader = client_of(share_memory=share_memory)
    found = reader.match(ROOT, b"".join([*prompt, *keys("other", 2)])).result()
    assert found.chunks == 8
    assert load(reader, prompt, found.hold_id, 8)
    stats = reader.stats
    assert (stats.parts_loaded, stats.bytes_loaded) == (16, 16 * PART_BYTES)
    assert writer.stats.bytes_stored == 16 * PART_BYTES
    counters = daemon.status().counters
    assert (counters.published_chunks, counters.stored_parts) == (8, 16)
    assert (counters.loaded_parts, counters.loaded_bytes) == (16, 16 * PART_BYTES)
    reader.end_holds([found.hold_id])
    eventually(lambda: not any(s.holds for s in daemon.status().sessions))


def test_a_scheduler_matches_for_its_worker(real: Real, client_of: Connect) -> None:
    real()
    instance = b"i" * 16
    scheduler = client_of(role="scheduler", instance_id=instance, credits={})
    worker = client_of(role="worker", instance_id=instance)
    prompt = keys("a", 3)
    assert scheduler.match(ROOT, b"".join(prompt)).result().chunks == 0
    store(worker, prompt)
    found = scheduler.match(ROOT, b"".join(prompt)).result()
    assert found.chunks == 3
    assert load(worker, prompt, found.hold_id, 3)
    assert scheduler.renew_hold(found.hold_id, 5000).result().hold_deadline_ns > found.hold_deadline_ns - 10**10
    scheduler.end_holds([found.hold_id])
    eventually(lambda: is_gone(scheduler, found.hold_id))
    with pytest.raises(MissError):
        next(iter(worker.load(found.hold_id, 0, 1).batches(PATIENCE_S)))
    assert scheduler.prefetch(ROOT, b"".join(prompt)).result().resident == 3


def is_gone(client: Client, hold_id: int) -> bool:
    try:
        client.renew_hold(hold_id).result()
    except MissError:
        return True
    return False


def test_another_namespace_misses(real: Real, client_of: Connect) -> None:
    real()
    prompt = keys("a", 2)
    store(client_of(), prompt)
    assert client_of("other").match(ROOT, b"".join(prompt)).result().chunks == 0


def test_the_first_stays(real: Real, client_of: Connect) -> None:
    real()
    client = client_of()
    prompt = keys("a", 1)
    store(client, prompt)
    assert store(client, prompt) == [engine_pb2.COMMIT_OUTCOME_DUPLICATE] * 2
    other = take(client)
    with other.writing() as view:
        view[:] = 1
    chunk = CommitChunk(prompt[0], ROOT, 0, CHUNK_TOKENS, [CommitPart(0, other)])
    assert list(client.commit([chunk]).result().outcomes) == [engine_pb2.COMMIT_OUTCOME_CONFLICT]
    found = client.match(ROOT, prompt[0]).result()
    assert load(client, prompt, found.hold_id, 1)
    assert client.stats.outcomes == {"PUBLISHED": 2, "DUPLICATE": 2, "CONFLICT": 1}


def test_half_a_chunk_is_invisible(real: Real, client_of: Connect) -> None:
    real()
    client = client_of()
    key = keys("a", 1)[0]
    credit = take(client)
    with credit.writing() as view:
        view[:] = payload(key, 0)
    reply = client.commit([CommitChunk(key, ROOT, 0, CHUNK_TOKENS, [CommitPart(0, credit)])]).result()
    assert list(reply.outcomes) == [KEPT]
    assert client.match(ROOT, key).result().chunks == 0


def test_a_full_arena_loses_nothing(real: Real, client_of: Connect) -> None:
    real(host__bytes="8MiB", host__granted_percent="100")
    client = client_of(credits={PART_BYTES: 8})
    prompt = keys("a", 40)  # 5 MiB
    store_in_pieces(client, prompt)
    held = client.match(ROOT, b"".join(prompt), hold_ms=60_000).result()
    assert held.chunks == 40
    # What is held cannot be evicted, so credits run out, and only credits.
    taken = []

    def refused() -> bool:
        while (credit := client.take_credit(PART_BYTES)) is not None:
            taken.append(credit)
        return client.stats.failures.get("FULL", 0) > 0

    eventually(refused)
    assert load(client, prompt, held.hold_id, 40)
    for credit in taken:
        client.return_credit(credit)
    client.end_holds([held.hold_id])
    # Now the old makes room for the new.
    newer = keys("b", 40)
    store_in_pieces(client, newer)
    assert client.match(ROOT, b"".join(newer), hold_ms=NO_HOLD).result().chunks == 40


def store_in_pieces(client: Client, prompt: list[bytes]) -> None:
    for end in range(4, len(prompt) + 1, 4):
        assert PUBLISHED in store(client, prompt[:end], first=end - 4)


def test_a_credit_is_revoked_while_it_is_written(real: Real, client_of: Connect) -> None:
    daemon = real(session__lease="200ms", session__revoke_grace="1m")
    client = client_of(credits={PART_BYTES: 1})
    with writing(client) as (credit, view):
        eventually(lambda: client.stats.revokes > 0 and credit.revoke_waits)
        assert daemon.status().host.granted >= PART_BYTES
        view[:] = 9
    with pytest.raises(MissError), credit.writing():
        pass
    chunk = CommitChunk(keys("a", 1)[0], ROOT, 0, CHUNK_TOKENS, [CommitPart(0, credit)])
    assert list(client.commit([chunk]).result().outcomes) == [engine_pb2.COMMIT_OUTCOME_REJECTED]
    # The session goes on, with fresh credits.
    assert client.generation == 1
    store_in_the_end(client, keys("b", 1))


def test_a_load_is_revoked_while_it_is_read(real: Real, client_of: Connect) -> None:
    real(session__lease="500ms", session__revoke_grace="1m", session__hold_max="1h")
    client = client_of()
    prompt = keys("a", 2)
    store_in_the_end(client, prompt)
    found = client.match(ROOT, b"".join(prompt), hold_ms=3_600_000).result()

    def whole() -> tuple[Load, list[LeasedPart]] | None:
        loading = client.load(found.hold_id, 0, 2)
        try:
            return loading, [part for batch in loading.batches(PATIENCE_S) for part in batch]
        except (MissError, UnavailableError):
            loading.release()
            return None  # revoked before it was complete

    loading, parts = eventually(whole)
    eventually(lambda: loading._revoked)  # type: ignore[attr-defined]
    # Late, but the slot is still this part's.
    assert (parts[0].view == payload(prompt[0], parts[0].part)).all()
    assert loading.release() is False
    assert client.stats.bytes_loaded == 0
    load_in_the_end(client, prompt, found.hold_id, 2)
    assert client.generation == 1


def test_idle_credits_are_renewed_for_ever(real: Real, client_of: Connect) -> None:
    daemon = real(session__lease="100ms", session__revoke_grace="1m")
    client = client_of(credits={PART_BYTES: 4})
    # Ten times over.
    eventually(lambda: client.stats.credits_granted >= 40)
    assert client.generation == 1
    assert daemon.status().counters.quarantined_sessions == 0
    prompt = keys("a", 1)
    store_in_the_end(client, prompt)
    assert client.match(ROOT, prompt[0], hold_ms=NO_HOLD).result().chunks == 1


def test_killed_and_started_again(real: Real, client_of: Connect) -> None:
    daemon = real()
    client = client_of()
    prompt = keys("a", 4)
    store(client, prompt)
    held = client.match(ROOT, b"".join(prompt)).result()
    loading = client.load(held.hold_id, 0, 4)
    batches = loading.batches(PATIENCE_S)
    part = next(batches)[0]
    credit = take(client)
    with credit.writing() as view:
        daemon.kill()
        # Reads and writes go on in memory that nobody else has.
        assert (part.view == payload(prompt[part.chunk], part.part)).all()
        view[:] = 3
    assert loading.release() is False
    eventually(lambda: not client.ready)
    with pytest.raises(LarderError):
        client.match(ROOT, prompt[0]).result()
    daemon.start()
    assert client.wait_ready(PATIENCE_S)
    assert client.generation == 2
    with pytest.raises(MissError), credit.writing():
        pass
    # A new arena, and everything works in it.
    assert client.match(ROOT, b"".join(prompt)).result().chunks == 0
    assert store(client, prompt)[-1] == PUBLISHED
    found = client.match(ROOT, b"".join(prompt)).result()
    assert load(client, prompt, found.hold_id, 4)


def outcome(pending: Pending[engine_pb2.MatchReply]) -> int | Kind:
    """Chunks matched, or the kind of the failure."""
    try:
        return pending.result().chunks
    except LarderError as error:
        return error.kind


def test_killed_at_any_time_calls_end(real: Real, client_of: Connect) -> None:
    daemon = real()
    client = client_of()
    prompt = keys("a", 8)
    for turn in range(3):
        pending = []
        for i in range(20):
            pending.append(client.match(ROOT, b"".join(prompt)))
            if i == 10 + turn:
                daemon.signal(signal.SIGKILL)
        outcomes = {outcome(one) for one in pending}
        assert outcomes <= {0, 8, Kind.UNAVAILABLE}
        assert Kind.UNAVAILABLE in outcomes
        daemon.kill()
        daemon.start()
        eventually(lambda turn=turn: client.generation == turn + 2 and client.ready)  # type: ignore[misc]
        store(client, prompt)
        assert client.match(ROOT, b"".join(prompt)).result().chunks == 8


@pytest.mark.parametrize("mode", ["shared", "guarded"])
def test_the_memory_of_a_dead_daemon_is_given_up(real: Real, client_of: Connect, mode: str) -> None:
    """Also where it dies while a load is open, and without the garbage collector, which may take its time."""
    daemon = real(host__mode=mode, host__write_segment_bytes="8MiB")
    client = client_of()
    before = mapped()
    assert before > 0
    gc.disable()
    try:
        for _ in range(3):
            prompt = keys("a", 8)
            assert PUBLISHED in store(client, prompt)
            found = client.match(ROOT, b"".join(prompt)).result()
            with pytest.raises(LarderError):
                read_while_it_dies(client, found.hold_id, daemon)
            eventually(lambda: mapped() == 0)
            daemon.start()
            assert client.wait_ready(PATIENCE_S)
            assert mapped() == before
    finally:
        gc.enable()


def read_while_it_dies(client: Client, hold_id: int, daemon: Larderd) -> None:
    """Ends by an error, with a view of the arena at hand."""
    with client.load(hold_id, 0, 8) as loading:
        batch = next(loading.batches(PATIENCE_S))
        daemon.kill()
        eventually(lambda: not client.ready)
        assert mapped() > 0, "views last"
        next(loading.batches(PATIENCE_S))
        assert not batch, "there was an error to come"


def mapped() -> int:
    """How many segments of arenas this process has mapped."""
    return Path("/proc/self/maps").read_text().count("memfd:larder-")


def test_a_daemon_that_stands_still(real: Real, client_of: Connect) -> None:
    daemon = real()
    client = client_of(breaker_failures=2, breaker_open_s=3600.0)
    prompt = keys("a", 2)
    store(client, prompt)
    daemon.stop()
    for _ in range(2):
        with pytest.raises(UnavailableError):
            client.match(ROOT, b"".join(prompt), timeout=0.01).result()
    assert client.stats.breaker_opens == 1
    daemon.signal(signal.SIGCONT)
    # The late answers brought holds, which are given back.
    eventually(lambda: client.stats.late_replies == 2)
    eventually(lambda: client.ready)
    assert client.match(ROOT, b"".join(prompt), hold_ms=NO_HOLD).result().chunks == 2
    eventually(lambda: not any(s.holds for s in daemon.status().sessions))
    assert client.generation == 1


def test_what_a_broken_connection_held_is_free_after_the_next_hello(real: Real, client_of: Connect) -> None:
    daemon = real()
    client = client_of(credits={PART_BYTES: 4})
    credit = take(client)
    connection = client._supervisor.connection
    assert connection is not None
    with credit.writing() as view:
        connection.session.abort(UnavailableError("the test says so"))
        eventually(lambda: not client.ready)
        eventually(lambda: daemon.status().host.quarantined >= PART_BYTES)
        view[:] = 1
    assert client.wait_ready(PATIENCE_S)
    eventually(lambda: daemon.status().host.quarantined == 0)


def test_close_leaves_nothing_behind(real: Real, client_of: Connect) -> None:
    daemon = real()
    client = client_of(credits={PART_BYTES: 4})
    eventually(lambda: client.stats.credits_granted >= 4)
    client.close(PATIENCE_S)
    eventually(lambda: not daemon.status().sessions)
    host = daemon.status().host
    assert (host.granted, host.quarantined, host.used) == (0, 0, 0)


def test_a_clear_is_heard(real: Real, client_of: Connect) -> None:
    daemon = real()
    client = client_of()
    prompt = keys("a", 2)
    store(client, prompt)
    before = client.epoch
    credit = take(client)
    with credit.writing() as view:
        view[:] = payload(prompt[0], 0)
    cleared = daemon.admin("Clear", admin_pb2.ClearRequest(everything=True), admin_pb2.ClearResponse)
    assert cleared.chunks == 2
    eventually(lambda: client.epoch != before)
    assert client.match(ROOT, b"".join(prompt)).result().chunks == 0
    # A grant from before the clear is refused, one from after it is not.
    chunk = CommitChunk(prompt[0], ROOT, 0, CHUNK_TOKENS, [CommitPart(0, credit)])
    assert list(client.commit([chunk]).result().outcomes) == [engine_pb2.COMMIT_OUTCOME_REJECTED]
    eventually(lambda: PUBLISHED in store(client, prompt))


def test_sigterm_is_heard_and_a_successor_is_found(real: Real, client_of: Connect) -> None:
    daemon = real(drain="1h")  # which it would take if this client stayed
    client = client_of()
    daemon.signal(signal.SIGTERM)
    eventually(lambda: not client.ready)
    assert daemon.process.wait(PATIENCE_S) == 0
    daemon.start()
    assert client.wait_ready(PATIENCE_S)
    assert store(client, keys("a", 1))[-1] == PUBLISHED


def test_a_refused_hello_says_why(real: Real, connect: Connect) -> None:
    real(auth__tenants=f"uid:{os.getuid()}=acme")
    client = connect(ready=False, namespace=namespace(), tenant="somebody-else")
    eventually(lambda: client.last_error and client.last_error.kind is not Kind.UNAVAILABLE)
    assert client.last_error is not None
    assert client.last_error.kind is Kind.DENIED
    assert client.last_error.field == "hello.tenant"


def test_files_and_parts_without_shared_memory(real: Real, client_of: Connect) -> None:
    real()
    client = client_of()
    objects = client.objects
    text = b"the quick brown fox" * 100_000
    assert objects.put_file("notes", text) == objects_pb2.PUT_OUTCOME_PUBLISHED
    assert objects.put_file("notes", text) == objects_pb2.PUT_OUTCOME_DUPLICATE
    assert objects.get_file("notes").tobytes() == text
    stat = objects.stat_file("notes")
    assert stat is not None
    assert stat.length == len(text)
    assert objects.delete_file("notes")
    with pytest.raises(MissError):
        objects.get_file("notes")
    with pytest.raises(InvalidError):
        objects.put_file("", b"x")

    prompt = keys("a", 1)
    store(client, prompt)
    assert client.hello is not None
    from larder.streamed import part_id

    ids = [part_id(prompt[0], spec) for spec in client.hello.parts]
    got = list(objects.get_parts(ids))
    for part, one in enumerate(got):
        assert one.data is not None
        assert (one.data == payload(prompt[0], part)).all()
        assert one.descriptor
    assert all(stat.present for stat in objects.stat_parts(ids))
    assert objects.delete_chunk(prompt[0])
    assert isinstance(next(objects.get_parts(ids)).error, MissError)


# What becomes of a commit whose slot was taken away meanwhile: on the next
# session the client itself knows that the slot is dead. At once, it depends on
# what the client has heard: of the revoke, or of the session's end, or of
# nothing, and then the commit ends with the session.
LATE = {"back": {"COMMIT_OUTCOME_REJECTED"}, "at once": {"COMMIT_OUTCOME_REJECTED", str(Kind.UNAVAILABLE)}}


@pytest.mark.parametrize("when", LATE)
def test_stopped_between_grant_and_copy(real: Real, client_of: Connect, when: str) -> None:
    daemon = real(host__bytes="8MiB", session__lease="1s", session__revoke_grace="1s")
    slow = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "slow_writer.py"), daemon.socket, when],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "connector/python/src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert slow.stdout is not None
    assert slow.stdin is not None
    try:
        assert slow.stdout.readline() == "writing\n"
        slow.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, slow.pid, os.WSTOPPED | os.WNOWAIT)
        eventually(lambda: daemon.status().host.quarantined >= PART_BYTES)
        # Everything else fills up, and fills up again.
        client = client_of(credits={PART_BYTES: 8})
        prompt = keys("others", 120)
        for end in range(4, len(prompt) + 1, 4):
            store_in_the_end(client, prompt[:end], first=end - 4)
        slow.send_signal(signal.SIGCONT)
        slow.stdin.write("go on\n")
        slow.stdin.flush()
        assert slow.stdout.readline().strip() in LATE[when]
        # No byte of anybody else's has changed, and the slot is free again.
        present = 0
        for key in prompt:
            found = client.match(ROOT, key).result()
            if found.chunks:
                present += 1
                load_in_the_end(client, [key], found.hold_id, 1)
                client.end_holds([found.hold_id])
        assert present > 30
        assert client.match(ROOT, keys("slow", 1)[0]).result().chunks == 0
        eventually(lambda: daemon.status().host.quarantined == 0)
    finally:
        slow.kill()
        slow.communicate()
