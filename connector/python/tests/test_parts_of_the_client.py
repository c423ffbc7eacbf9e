"""The client's small parts, alone."""

from __future__ import annotations

import math
import threading
from typing import Any

import grpc
import pytest
from fake_daemon import PATIENCE_S
from google.protobuf import any_pb2

from larder.backoff import Backoff
from larder.batcher import Batcher
from larder.calls import Call, Calls
from larder.client import Options, Tls
from larder.errors import BusyError, InvalidError, Kind, UnavailableError
from larder.rpcerror import from_rpc_error
from larder.stats import Counters
from larder.timers import Timers
from larder.v1 import error_pb2

# -- backoff ---------------------------------------------------------------------


def test_backoff_doubles_to_a_bound_and_starts_again() -> None:
    backoff = Backoff(1.0, 5.0, lambda: 0.5)
    assert [backoff.pause() for _ in range(5)] == [0.75, 1.5, 3.0, 3.75, 3.75]
    backoff.reset()
    assert backoff.pause() == 0.75


# -- batcher ---------------------------------------------------------------------


def test_batcher_keeps_one_message_under_way() -> None:
    sent: list[list[int]] = []

    def send(batch: list[int]) -> bool:
        sent.append(batch)
        return True

    batcher = Batcher(send, most=3, hold=6)
    batcher.add([1])
    batcher.add([2, 3])
    batcher.add([4, 5, 6, 7, 8])  # one too many
    assert sent == [[1]]
    batcher.answered()
    assert sent == [[1], [2, 3, 4]]
    batcher.again([9])
    assert sent[2:] == [[9, 5, 6]]
    batcher.flush()
    assert sent[3:] == [[7]]


def test_batcher_stops_where_nothing_can_be_sent() -> None:
    batcher: Batcher[int] = Batcher(lambda _: False, most=3, hold=6)
    batcher.add([1, 2, 3, 4])
    batcher.flush()


# -- calls -----------------------------------------------------------------------


def call(deadline: float = 100.0) -> Call:
    return Call(take=lambda _: True, fail=lambda _: None, deadline=deadline)


def test_calls_have_a_limit_and_a_reserve() -> None:
    calls = Calls(20)
    ids = [calls.add(call()) for _ in range(4)]
    assert ids == [1, 2, 3, 4]
    with pytest.raises(BusyError):
        calls.add(call())
    for _ in range(16):
        calls.add(call(), reserved=True)
    with pytest.raises(BusyError):
        calls.add(call(), reserved=True)
    calls.end(1)
    assert calls.find(1) is None
    assert len(calls) == 19


def test_expired_calls_keep_their_place_until_answered() -> None:
    calls = Calls(20)
    asked = [call(1.0), call(2.0), call(3.0), call(4.0)]
    ids = [calls.add(c) for c in asked]
    assert calls.sweep(0.5) == ([], 1.0)
    assert calls.sweep(1.0) == (asked[:1], 2.0)
    assert calls.sweep(1.5) == ([], 2.0)
    with pytest.raises(BusyError):
        calls.add(call())
    assert not calls.clogged
    assert calls.sweep(3.5) == (asked[1:3], 4.0)
    assert calls.clogged
    assert calls.sweep(9.0) == (asked[3:], math.inf)
    for call_id in ids:
        calls.end(call_id)
    assert not calls.clogged
    calls.add(call())


def test_a_lost_table_takes_no_more() -> None:
    calls = Calls(20)
    living = [call(1.0), call(2.0)]
    for c in living:
        calls.add(c)
    calls.sweep(1.0)
    why = UnavailableError("lost")
    assert calls.lose(why) == living[1:]
    with pytest.raises(UnavailableError):
        calls.add(call())


# -- timers ----------------------------------------------------------------------


def test_timers_run_in_order_of_time() -> None:
    now = [0.0]
    timers = Timers("larder-test", lambda: now[0])
    seen: list[int] = []
    done = threading.Event()
    timers.at(-1.0, lambda: seen.append(2))
    timers.at(-2.0, lambda: seen.append(1))
    timers.at(1e9, lambda: seen.append(9))
    timers.at(0.0, done.set)
    timers.start()
    assert done.wait(PATIENCE_S)
    assert seen == [1, 2]
    timers.close(PATIENCE_S)
    assert not timers.alive
    timers.at(-1.0, lambda: seen.append(3))
    assert 3 not in seen


def test_an_earlier_time_wakes_the_thread() -> None:
    timers = Timers("larder-test")
    timers.start()
    done = threading.Event()
    timers.at(1e12, lambda: None)
    timers.at(0.0, done.set)
    assert done.wait(PATIENCE_S)
    timers.close(PATIENCE_S)


# -- errors of gRPC ----------------------------------------------------------------


class Failed(grpc.RpcError, grpc.Call):
    """What gRPC raises."""

    def __init__(self, code: grpc.StatusCode, details: bytes | None) -> None:
        self._code = code
        self._trailing = () if details is None else (("grpc-status-details-bin", details),)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "words"

    def trailing_metadata(self) -> Any:
        return self._trailing

    def initial_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: object) -> bool:
        del callback
        return False


def status(*details: any_pb2.Any) -> bytes:
    """A google.rpc.Status: code 3, a message, details."""
    data = b"\x08\x03\x12\x05words"
    for detail in details:
        encoded = detail.SerializeToString()
        data += b"\x1a" + bytes([len(encoded)]) + encoded
    return data


def test_the_typed_error_among_the_details() -> None:
    typed = any_pb2.Any()
    typed.Pack(error_pb2.Error(kind=error_pb2.ERROR_KIND_FULL, message="no room", field="put", value="5", limit="4"))
    other = any_pb2.Any(type_url="type.googleapis.com/other", value=b"x")
    error = from_rpc_error(Failed(grpc.StatusCode.UNKNOWN, status(other, typed)))
    assert (error.kind, error.message, error.field, error.value, error.limit) == (
        Kind.FULL, "no room", "put", "5", "4",
    )  # fmt: skip


@pytest.mark.parametrize("details", [None, b"", b"\xff" * 12, b"\x1a\x05x", b"\x1a\x01x", b"\x09", status()])
def test_without_one_the_status_code_decides(details: bytes | None) -> None:
    assert from_rpc_error(Failed(grpc.StatusCode.NOT_FOUND, details)).kind is Kind.MISS
    assert from_rpc_error(Failed(grpc.StatusCode.UNAUTHENTICATED, details)).kind is Kind.DENIED
    error = from_rpc_error(Failed(grpc.StatusCode.INTERNAL, details))
    assert error.kind is Kind.UNAVAILABLE
    assert error.message == "INTERNAL: words"
    assert from_rpc_error(grpc.RpcError("odd")).kind is Kind.UNAVAILABLE


# -- options -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("role", {"role": "boss"}),
        ("instance_id", {"instance_id": b"short"}),
        ("socket", {"socket": ""}),
        ("tls", {"socket": "host:7000"}),
        ("call_timeout_s", {"call_timeout_s": 0}),
        ("backoff_max_s", {"backoff_min_s": 2.0, "backoff_max_s": 1.0}),
        ("breaker_failures", {"breaker_failures": 0}),
        ("max_in_flight", {"max_in_flight": 0}),
        ("credits", {"credits": {0: 1}}),
    ],
)
def test_options_that_cannot_work_are_named(field: str, options: dict[str, object]) -> None:
    with pytest.raises(InvalidError) as caught:
        Options(**{"socket": "/run/larder.sock", **options}).check()  # type: ignore[arg-type]
    assert caught.value.field == f"options.{field}"


def test_targets() -> None:
    assert Options(socket="/run/larder.sock").target == "unix:/run/larder.sock"
    assert Options(socket="unix:///run/larder.sock").target == "unix:/run/larder.sock"
    remote = Options(socket="host:7000", tls=Tls("ca", "cert", "key"))
    remote.check()
    assert remote.target == "host:7000"


# -- counters ----------------------------------------------------------------------


def test_a_snapshot_does_not_change() -> None:
    counters = Counters()
    counters.add(matches=1, bytes_loaded=5)
    counters.outcomes({"KEPT": 1})
    before = counters.snapshot()
    counters.add(matches=1)
    counters.outcomes({"KEPT": 1})
    counters.failure(Kind.MISS)
    assert (before.matches, before.bytes_loaded, before.outcomes, before.failures) == (1, 5, {"KEPT": 1}, {})
    assert counters.snapshot().outcomes == {"KEPT": 2}
