"""Typed errors out of gRPC statuses."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from larder.errors import Kind, LarderError, UnavailableError
from larder.errors import error as make_error
from larder.v1 import error_pb2

_KINDS = {
    grpc.StatusCode.NOT_FOUND: Kind.MISS,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.BUSY,
    grpc.StatusCode.DATA_LOSS: Kind.CORRUPT,
    grpc.StatusCode.INVALID_ARGUMENT: Kind.INVALID,
    grpc.StatusCode.OUT_OF_RANGE: Kind.INVALID,
    grpc.StatusCode.UNIMPLEMENTED: Kind.INVALID,
    grpc.StatusCode.PERMISSION_DENIED: Kind.DENIED,
    grpc.StatusCode.UNAUTHENTICATED: Kind.DENIED,
}
_DETAILS = "grpc-status-details-bin"


def from_proto(sent: error_pb2.Error) -> LarderError:
    """The error of a session reply."""
    return make_error(sent.kind, sent.message, sent.field, sent.value, sent.limit)


def from_rpc_error(error: grpc.RpcError) -> LarderError:
    """The error that a failed call carries: the larder.v1.Error among its
    details, else one made from the status code."""
    # What gRPC raises is a grpc.Call as well, though its types do not say so.
    call: object = error
    if not isinstance(call, grpc.Call):
        return UnavailableError(f"gRPC: {error}")
    code, text, metadata = call.code(), call.details(), call.trailing_metadata()
    for key, value in metadata or ():
        if key == _DETAILS and isinstance(value, bytes):
            try:
                for detail in _details(value):
                    typed = error_pb2.Error()
                    if detail.Unpack(typed):
                        return from_proto(typed)
            except (DecodeError, ValueError):
                break  # the status code says enough
    kind = _KINDS.get(code, Kind.UNAVAILABLE)
    return make_error(kind, f"{code.name}: {text or 'no details'}")


def _details(status: bytes) -> Iterator[any_pb2.Any]:
    """The Anys of an encoded google.rpc.Status (field 3). Read by hand: the
    message's own package is no dependency of gRPC's, and engines pin theirs."""
    at = 0
    while at < len(status):
        tag, at = _varint(status, at)
        if tag & 7 == 0:
            _, at = _varint(status, at)
        elif tag & 7 == 2:
            size, at = _varint(status, at)
            if at + size > len(status):
                raise ValueError("status details are cut short")
            if tag >> 3 == 3:
                yield any_pb2.Any.FromString(status[at : at + size])
            at += size
        else:
            raise ValueError(f"status details hold wire type {tag & 7}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("status details hold a bad number")
