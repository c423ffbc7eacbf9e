"""The Objects service of the fake daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from larder.v1 import error_pb2, objects_pb2

if TYPE_CHECKING:
    from fake_daemon import FakeDaemon


class FakeObjects:
    """Keeps parts where the daemon's sessions find them, and files here."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon
        self.files: dict[str, bytes] = {}

    def handler(self, method: str) -> Any:
        """What answers a method of the service, or None."""
        match method:
            case "/larder.v1.Objects/Put":
                return grpc.stream_stream_rpc_method_handler(self._put)
            case "/larder.v1.Objects/Get":
                return grpc.unary_stream_rpc_method_handler(self._get)
            case "/larder.v1.Objects/Stat":
                return grpc.unary_unary_rpc_method_handler(self._stat)
            case "/larder.v1.Objects/Delete":
                return grpc.unary_unary_rpc_method_handler(self._delete)
        return None

    def _put(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        head: objects_pb2.PutHead | None = None
        data = b""
        for raw in requests:
            request = objects_pb2.PutRequest.FromString(raw)
            if request.HasField("head"):
                head, data = request.head, b""
            else:
                assert len(request.data) <= 1 << 20
                data += request.data
            assert head is not None
            if head.HasField("file"):
                if len(data) == head.file.length:
                    self.files[head.file.name] = data
                    yield _put_outcome(objects_pb2.PUT_OUTCOME_PUBLISHED)
                continue
            if len(data) < head.part.length:
                continue
            if _token(context) not in [s.token for s in self._daemon.sessions]:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "no such session")
            complete = self._daemon.keep(head.part.id.chunk_key, head.part.id.head_group, data)
            yield _put_outcome(objects_pb2.PUT_OUTCOME_PUBLISHED if complete else objects_pb2.PUT_OUTCOME_KEPT)

    def _get(self, raw: bytes, context: Any) -> Iterator[bytes]:
        request = objects_pb2.GetRequest.FromString(raw)
        if request.HasField("parts"):
            assert _token(context) == self._daemon.session.token
            for index, part in enumerate(request.parts.ids):
                found = self._daemon.chunks.get(part.chunk_key, {}).get(part.head_group)
                yield from _get_frames(index, None if found is None else self._daemon.bytes_at(*found))
        else:
            yield from _get_frames(0, self.files.get(request.file))

    def _stat(self, raw: bytes, _: Any) -> bytes:
        request = objects_pb2.StatRequest.FromString(raw)
        reply = objects_pb2.StatResponse()
        for part in request.parts.ids:
            reply.parts.add(present=part.head_group in self._daemon.chunks.get(part.chunk_key, {}))
        if request.file in self.files:
            reply.file.length = len(self.files[request.file])
        return reply.SerializeToString()

    def _delete(self, raw: bytes, _: Any) -> bytes:
        request = objects_pb2.DeleteRequest.FromString(raw)
        existed = (
            self.files.pop(request.file, None)
            if request.HasField("file")
            else self._daemon.chunks.pop(request.chunk_key, None)
        ) is not None
        return objects_pb2.DeleteResponse(existed=existed).SerializeToString()


def _token(context: Any) -> bytes | None:
    return dict(context.invocation_metadata()).get("larder-session-bin")


def _put_outcome(outcome: objects_pb2.PutOutcome) -> bytes:
    return objects_pb2.PutResponse(outcome=outcome).SerializeToString()


def _get_frames(index: int, data: bytes | None) -> Iterator[bytes]:
    if data is None:
        head = objects_pb2.GetHead(index=index, error_kind=int(error_pb2.ERROR_KIND_MISS))
        yield objects_pb2.GetResponse(head=head).SerializeToString()
        return
    head = objects_pb2.GetHead(index=index, length=len(data), descriptor=b"d")
    yield objects_pb2.GetResponse(head=head).SerializeToString()
    # Frames smaller than allowed, so that readers have to join them.
    for at in range(0, len(data), 3000):
        yield objects_pb2.GetResponse(data=data[at : at + 3000]).SerializeToString()
