"""Clients without shared memory: the same API over streams, and Objects."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from fake_daemon import PARTS, PATIENCE_S, FakeDaemon, FakeSession, Request
from support import Connect

from larder.client import Client, CommitChunk, CommitPart
from larder.errors import InvalidError, Kind, LarderError, MissError, UnavailableError
from larder.objects import PartToPut
from larder.streamed import part_id
from larder.v1 import engine_pb2, objects_pb2

ROOT = b"r" * 32
KEY = b"k" * 32
KEYS = KEY + b"l" * 32
DATA = [bytes(range(256)) * 32, b"b" * 4096]


@pytest.fixture(params=["the daemon does not", "the client does not"])
def client(request: pytest.FixtureRequest, daemon: FakeDaemon, connect: Connect) -> Client:
    """Connected without an arena."""
    daemon.shares = request.param != "the daemon does not"
    return connect(credits={8192: 2, 4096: 1}, share_memory=not daemon.shares)


def chunk(*parts: CommitPart) -> CommitChunk:
    return CommitChunk(key=KEY, parent=ROOT, ordinal=3, tokens=256, parts=parts)


def test_store_and_load(daemon: FakeDaemon, client: Client) -> None:
    assert client.arena is None
    parts = []
    for index, data in enumerate(DATA):
        credit = client.take_credit(len(data))
        assert credit is not None
        with credit.writing() as view:
            view[:] = np.frombuffer(data, np.uint8)
        parts.append(CommitPart(index, credit))
    reply = client.commit([chunk(*parts)]).result()
    assert list(reply.outcomes) == [engine_pb2.COMMIT_OUTCOME_KEPT, engine_pb2.COMMIT_OUTCOME_PUBLISHED]
    with pytest.raises(InvalidError):
        client.commit([chunk(*parts)]).result()

    hold = client.match(ROOT, KEYS).result()
    assert hold.chunks == 1
    with client.load(hold.hold_id, 0, 1) as load:
        found = {p.part: p.view.tobytes() for batch in load.batches(PATIENCE_S) for p in batch}
        assert load.release() is True
    assert found == dict(enumerate(DATA))
    stats = client.stats
    assert (stats.bytes_loaded, stats.bytes_stored, stats.loads_confirmed) == (12288, 12288, 1)
    assert stats.outcomes == {"KEPT": 1, "PUBLISHED": 1}
    assert daemon.lifetimes == []


def test_a_worker_brings_the_keys_of_a_match_elsewhere(daemon: FakeDaemon, client: Client) -> None:
    daemon.put(KEY, DATA)
    with pytest.raises(InvalidError, match="keys"):
        next(iter(client.load(5, 0, 1).batches(1.0)))
    with client.load(5, 0, 1, [1], keys=KEYS) as load:
        assert [p.view.tobytes() for batch in load.batches(PATIENCE_S) for p in batch] == [DATA[1]]
        assert load.release()


def test_what_is_absent_fails_part_by_part(daemon: FakeDaemon, client: Client) -> None:
    daemon.put(KEY, DATA)
    load = client.load(5, 0, 2, keys=KEYS)
    assert sum(len(batch) for batch in load.batches(PATIENCE_S)) == 2
    assert [(f.chunk, f.part, f.error.kind) for f in load.failed] == [(1, 0, Kind.MISS), (1, 1, Kind.MISS)]
    assert load.release()
    with pytest.raises(InvalidError):
        next(iter(load.batches(1.0)))


def test_credits_are_bounded_and_come_back(client: Client) -> None:
    taken = [client.take_credit(8192) for _ in range(3)]
    assert taken[2] is None
    assert client.take_credit(123) is None
    first, second = taken[0], taken[1]
    assert first is not None
    assert second is not None
    client.return_credit(first)
    client.return_credit(first)
    assert client.take_credit(8192) is not None
    assert client.take_credit(8192) is None
    client.commit([chunk(CommitPart(0, second))]).result()
    assert client.take_credit(8192) is not None
    client.keep_credits(123, 1)
    assert client.take_credit(123) is not None


def test_a_lost_session_is_refused(daemon: FakeDaemon, client: Client) -> None:
    credit = client.take_credit(8192)
    assert credit is not None
    daemon.session.token = b"other"
    with pytest.raises(LarderError) as caught:
        client.commit([chunk(CommitPart(0, credit))]).result()
    assert caught.value.kind == Kind.DENIED


def test_a_deadline_ends_a_load(daemon: FakeDaemon, client: Client) -> None:
    daemon.put(KEY, DATA)
    with pytest.raises(UnavailableError):
        list(client.load(1, 0, 1, keys=KEY).batches(0.0))


def test_objects_put_get_stat_delete(daemon: FakeDaemon, connect: Connect) -> None:
    objects = connect().objects
    data = np.arange(8192, dtype=np.uint8)
    head = objects_pb2.PutPart(id=part_id(KEY, PARTS[0]), parent=ROOT, tokens=256, length=8192)
    assert objects.put_parts([PartToPut(head, data)]) == [objects_pb2.PUT_OUTCOME_KEPT]
    with pytest.raises(InvalidError):
        objects.put_parts([PartToPut(head, data[:5])])
    ids = [part_id(KEY, PARTS[0]), part_id(KEY, PARTS[1])]
    there, absent = objects.get_parts(ids)
    assert there.data is not None
    assert (there.data == data).all()
    assert there.descriptor == b"d"
    assert absent.data is None
    assert isinstance(absent.error, MissError)
    assert [stat.present for stat in objects.stat_parts(ids)] == [True, False]
    assert objects.delete_chunk(KEY) is True
    assert objects.delete_chunk(KEY) is False
    assert KEY not in daemon.chunks


def test_files(daemon: FakeDaemon, connect: Connect) -> None:
    objects = connect().objects
    big = bytes(range(256)) * 4096 * 3  # three frames
    assert objects.put_file("a", big) == objects_pb2.PUT_OUTCOME_PUBLISHED
    assert objects.get_file("a").tobytes() == big == daemon.objects.files["a"]
    objects.put_file("b", iter([b"x" * 5, b"y" * 5]), length=10)
    assert objects.get_file("b").tobytes() == b"xxxxxyyyyy"
    stat = objects.stat_file("a")
    assert stat is not None
    assert stat.length == len(big)
    assert objects.stat_file("none") is None
    assert objects.delete_file("a")
    with pytest.raises(MissError):
        objects.get_file("a")
    with pytest.raises(InvalidError):
        objects.put_file("c", iter([b"x"]))

    def broken() -> Iterator[bytes]:
        yield b"x"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        objects.put_file("d", broken(), length=2)


def test_objects_of_a_dead_daemon(daemon: FakeDaemon, connect: Connect) -> None:
    objects = connect().objects
    daemon.stop()
    with pytest.raises(UnavailableError):
        objects.get_file("a")
    with pytest.raises(UnavailableError):
        objects.put_file("a", b"x")
    with pytest.raises(UnavailableError):
        objects.stat_file("a")


def test_a_revoke_means_nothing_without_slots(daemon: FakeDaemon, client: Client) -> None:
    def revoke(session: FakeSession, request: Request) -> None:
        session.send(revoke=engine_pb2.Revoke(load_ids=[request.id]))
        session.send(request.id, match=engine_pb2.MatchReply())

    daemon.on["match"] = revoke
    client.match(ROOT, KEYS).result()
    daemon.request("revoke_answer")
