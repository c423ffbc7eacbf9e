"""Pins: chunks that the daemon keeps on its disk until they are unpinned."""

from __future__ import annotations

import grpc

from larder.errors import UnavailableError
from larder.rpcerror import from_rpc_error
from larder.v1 import admin_pb2

_METHOD = "/larder.v1.Admin/Pin"


def pin(channel: grpc.Channel, request: admin_pb2.PinRequest, timeout_s: float) -> admin_pb2.PinResponse:
    """Blocks until what is pinned is durable. Raises LarderError: DENIED without
    the admin role, INVALID where the daemon has no disk, UNAVAILABLE at the
    deadline, after which the daemon may go on."""
    call = channel.unary_unary(_METHOD, admin_pb2.PinRequest.SerializeToString, admin_pb2.PinResponse.FromString)
    try:
        answer: admin_pb2.PinResponse = call(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    except ValueError as error:
        # A call on a channel that was closed meanwhile.
        raise UnavailableError(f"gRPC: {error}") from error
    return answer
