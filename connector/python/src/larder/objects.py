"""Parts and files over streams: for clients without shared memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message

from larder.errors import InvalidError, LarderError, UnavailableError
from larder.errors import error as make_error
from larder.load import Bytes
from larder.rpcerror import from_rpc_error
from larder.v1 import objects_pb2, part_pb2

_SERVICE = "/larder.v1.Objects/"
_FRAME = 1 << 20
_SESSION = "larder-session-bin"

R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class PartToPut:
    """A part and its bytes."""

    head: objects_pb2.PutPart
    data: Bytes


@dataclass(frozen=True, slots=True)
class Got:
    """One answer of get_parts: data, or why there is none."""

    # Index into the ids asked for.
    index: int
    data: Bytes | None
    # Canonical descriptor (api/PART.md).
    descriptor: bytes
    error: LarderError | None


class Objects:
    """The Objects service on one connection. Calls block, at most timeout
    seconds, and raise LarderError with the daemon's kind, UNAVAILABLE at the
    deadline. Calls about parts need the session's token; files need none."""

    def __init__(self, channel: grpc.Channel, token: bytes, timeout_s: float) -> None:
        self._channel = channel
        self._metadata = ((_SESSION, token),) if token else ()
        self._timeout_s = timeout_s

    def put_parts(self, parts: Sequence[PartToPut], timeout: float | None = None) -> list[int]:
        """Stores parts; their objects_pb2.PutOutcome, in order. An error ends
        the call; what was answered before it is kept."""
        for part in parts:
            if part.data.nbytes != part.head.length:
                raise InvalidError(
                    "the part has another number of bytes than its head says",
                    "put.head.part.length",
                    str(part.data.nbytes),
                    str(part.head.length),
                )
        return self._put(_part_requests(parts), len(parts), timeout)

    def put_file(
        self, name: str, data: bytes | memoryview | Iterable[bytes], length: int = -1, timeout: float | None = None
    ) -> int:
        """Stores an opaque file; its objects_pb2.PutOutcome. length: bytes,
        needed where data is an iterable."""
        if isinstance(data, (bytes, memoryview)):
            frames: Iterable[bytes] = _frames(memoryview(data).cast("B"))
            length = memoryview(data).nbytes
        else:
            frames = data
        if length < 0:
            raise InvalidError("the length of a file must be known", "put.head.file.length", str(length))
        head = objects_pb2.PutHead(file=objects_pb2.PutFile(name=name, length=length))
        return self._put(_requests(head, frames), 1, timeout)[0]

    def get_parts(
        self, ids: Sequence[part_pb2.PartId], worst_quality: int = 0, timeout: float | None = None
    ) -> Iterator[Got]:
        """Parts in the order asked for, each once its last byte is here."""
        request = objects_pb2.GetRequest(parts=objects_pb2.GetParts(ids=ids, worst_quality=worst_quality))
        for head, frames in self._get(request, timeout):
            error = make_error(head.error_kind, "the part cannot be had") if head.error_kind else None
            data = None if error is not None else _join(frames, head.length)
            yield Got(head.index, data, head.descriptor, error)

    def get_file(self, name: str, timeout: float | None = None) -> Bytes:
        """A file's bytes. MISS where there is none of the name."""
        for head, frames in self._get(objects_pb2.GetRequest(file=name), timeout):
            if head.error_kind:
                raise make_error(head.error_kind, "the file cannot be had", "get.file", name)
            return _join(frames, head.length)
        raise UnavailableError("the daemon ended the stream without an answer", "get.file", name)

    def stat_parts(
        self, ids: Sequence[part_pb2.PartId], worst_quality: int = 0, timeout: float | None = None
    ) -> list[objects_pb2.PartStat]:
        """What is known of parts, in order."""
        parts = objects_pb2.GetParts(ids=ids, worst_quality=worst_quality)
        reply = self._call("Stat", objects_pb2.StatRequest(parts=parts), objects_pb2.StatResponse, timeout)
        return list(reply.parts)

    def stat_file(self, name: str, timeout: float | None = None) -> objects_pb2.FileStat | None:
        """What is known of a file, or None."""
        reply = self._call("Stat", objects_pb2.StatRequest(file=name), objects_pb2.StatResponse, timeout)
        return reply.file if reply.HasField("file") else None

    def delete_chunk(self, key: bytes, timeout: float | None = None) -> bool:
        """Drops a chunk with all of its parts; whether there was one."""
        request = objects_pb2.DeleteRequest(chunk_key=key)
        return self._call("Delete", request, objects_pb2.DeleteResponse, timeout).existed

    def delete_file(self, name: str, timeout: float | None = None) -> bool:
        """Drops a file; whether there was one."""
        request = objects_pb2.DeleteRequest(file=name)
        return self._call("Delete", request, objects_pb2.DeleteResponse, timeout).existed

    # -- streams -------------------------------------------------------------

    def _put(self, requests: Iterator[objects_pb2.PutRequest], count: int, timeout: float | None) -> list[int]:
        method = self._channel.stream_stream(
            _SERVICE + "Put",
            request_serializer=objects_pb2.PutRequest.SerializeToString,
            response_deserializer=objects_pb2.PutResponse.FromString,
        )
        broken: list[Exception] = []

        def guarded() -> Iterator[objects_pb2.PutRequest]:
            # gRPC pulls on a thread of its own, where the caller's iterable
            # would fail unseen; so the stream ends short and the error waits.
            try:
                yield from requests
            except Exception as error:  # noqa: BLE001
                broken.append(error)

        try:
            replies = self._start(method, guarded(), timeout)
            outcomes = [int(reply.outcome) for reply in replies]
        except grpc.RpcError as error:
            if broken:
                raise broken[0] from error
            raise from_rpc_error(error) from error
        if broken:
            raise broken[0]
        if len(outcomes) != count:
            raise UnavailableError("the daemon answered another number of parts", "put", str(len(outcomes)), str(count))
        return outcomes

    def _get(
        self, request: objects_pb2.GetRequest, timeout: float | None
    ) -> Iterator[tuple[objects_pb2.GetHead, list[bytes]]]:
        method = self._channel.unary_stream(
            _SERVICE + "Get",
            request_serializer=objects_pb2.GetRequest.SerializeToString,
            response_deserializer=objects_pb2.GetResponse.FromString,
        )
        replies = self._start(method, request, timeout)
        try:
            for reply in replies:
                head = reply.head
                frames: list[bytes] = []
                left = 0 if head.error_kind else head.length
                while left > 0:
                    data = next(replies).data
                    if not data or len(data) > left:
                        raise UnavailableError("the daemon sent garbage", "get.data", str(len(data)), str(left))
                    left -= len(data)
                    frames.append(data)
                yield head, frames
        except StopIteration:
            raise UnavailableError("the daemon ended the stream in the middle of an object") from None
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            replies.cancel()

    def _call(self, name: str, request: Any, reply: type[R], timeout: float | None) -> R:
        method = self._channel.unary_unary(
            _SERVICE + name,
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        try:
            answer: R = self._start(method, request, timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return answer

    def _start(self, method: Callable[..., Any], request: object, timeout: float | None) -> Any:
        try:
            limit_s = self._timeout_s if timeout is None else timeout
            return method(request, timeout=limit_s, metadata=self._metadata)
        except ValueError as error:
            raise UnavailableError(f"the connection is closed: {error}") from error


def _frames(view: memoryview) -> Iterator[bytes]:
    for at in range(0, view.nbytes, _FRAME):
        yield bytes(view[at : at + _FRAME])


def _part_requests(parts: Sequence[PartToPut]) -> Iterator[objects_pb2.PutRequest]:
    for part in parts:
        view = np.ascontiguousarray(part.data).data
        yield from _requests(objects_pb2.PutHead(part=part.head), _frames(view))


def _requests(head: objects_pb2.PutHead, frames: Iterable[bytes]) -> Iterator[objects_pb2.PutRequest]:
    yield objects_pb2.PutRequest(head=head)
    for frame in frames:
        for at in range(0, len(frame), _FRAME):
            yield objects_pb2.PutRequest(data=frame[at : at + _FRAME])


def _join(frames: list[bytes], length: int) -> Bytes:
    """One array; a single frame is viewed where it was received."""
    if len(frames) == 1:
        return np.frombuffer(frames[0], np.uint8)
    whole = np.empty(length, np.uint8)
    at = 0
    for frame in frames:
        whole[at : at + len(frame)] = np.frombuffer(frame, np.uint8)
        at += len(frame)
    return whole
