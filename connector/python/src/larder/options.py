"""What a client is told at its making."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from larder.arena import Segment
from larder.errors import InvalidError, LarderError
from larder.namespace import NamespaceDescriptor

RoleName = Literal["scheduler", "worker", "client"]


@dataclass(frozen=True)
class Ranks:
    """Where a process stands in its engine; sizes count processes."""

    data: int = 0
    pipeline: int = 0
    tensor: int = 0
    data_size: int = 1
    pipeline_size: int = 1
    tensor_size: int = 1


@dataclass(frozen=True)
class Tls:
    """Files (PEM) for mutual TLS; the only way in over TCP."""

    ca: str
    certificate: str
    key: str
    # Overrides the host name that the daemon's certificate is checked against.
    server_name: str = ""


@dataclass(frozen=True)
class Options:
    """Options of a Client. Times are in seconds unless the name says else."""

    # Path of the daemon's Unix socket, or host:port together with tls.
    socket: str
    # A scheduler matches and holds and never maps the arena; a worker loads
    # and stores; a client does both.
    role: RoleName = "client"
    # 16 random bytes shared by all processes of one engine instance.
    instance_id: bytes = field(default_factory=lambda: os.urandom(16))
    # None: a session that handles opaque files only.
    namespace: NamespaceDescriptor | None = None
    # Empty: the tenant that the daemon gives to the caller's identity.
    tenant: str = ""
    ranks: Ranks = Ranks()
    # For people: "vllm 0.26.0".
    engine: str = ""
    tls: Tls | None = None

    # Default deadline of each call. Hazard: under about 10 ms a busy host
    # makes calls fail that would have been answered.
    call_timeout_s: float = 1.0
    # Bound on connecting: greeting, hand-over of descriptors, mapping.
    connect_timeout_s: float = 5.0
    # Waits between attempts to connect double from min to max, each one
    # multiplied by a random factor in [0.5, 1).
    backoff_min_s: float = 0.05
    backoff_max_s: float = 5.0
    # This many failures in a row (timeouts, UNAVAILABLE) open the breaker.
    breaker_failures: int = 5
    # An open breaker refuses calls for this long, then lets one probe through.
    breaker_open_s: float = 5.0
    # Unanswered requests; the daemon's own limit holds where it is lower.
    max_in_flight: int = 256
    # Part length in bytes -> slots kept granted ahead. Hazard: they count
    # against the daemon's budget whether used or not.
    credits: Mapping[int, int] = field(default_factory=dict)
    # Without shared memory they are buffers of this process, of so many bytes
    # at most, or one of each length.
    stream_bytes: int = 256 << 20
    # False: never map the arena; bytes move through streams, as for a client
    # on another host.
    share_memory: bool = True
    # False: messages stay on the gRPC stream even where the daemon offers a
    # lane. Without shared memory there is none.
    lane: bool = True
    # Maps every page of the arena when connecting, rather than at its first
    # touch. Hazard: takes about a second for each few GiB.
    prefault: bool = False
    # Told of each segment that was mapped, on the thread that connects.
    mapped: Callable[[Segment], None] | None = None

    def check(self) -> None:
        """Raises LarderError INVALID where the options cannot work."""
        if self.role not in ("scheduler", "worker", "client"):
            raise _invalid("role", self.role, "scheduler, worker or client")
        if len(self.instance_id) != 16:
            raise _invalid("instance_id", f"{len(self.instance_id)} bytes", "16 bytes")
        if not self.socket:
            raise _invalid("socket", "''", "a path or host:port")
        if self.tls is None and not self.is_unix:
            raise _invalid("tls", "none", f"tls for {self.socket}: TCP is served with mutual TLS only")
        for name in ("call_timeout_s", "connect_timeout_s", "backoff_min_s", "breaker_open_s"):
            if getattr(self, name) <= 0:
                raise _invalid(name, str(getattr(self, name)), "more than 0")
        if self.backoff_max_s < self.backoff_min_s:
            raise _invalid("backoff_max_s", str(self.backoff_max_s), f"at least {self.backoff_min_s}")
        if self.breaker_failures < 1:
            raise _invalid("breaker_failures", str(self.breaker_failures), "at least 1")
        if self.max_in_flight < 1:
            raise _invalid("max_in_flight", str(self.max_in_flight), "at least 1")
        for length, count in self.credits.items():
            if length < 1 or count < 1:
                raise _invalid("credits", f"{count} slots of {length} bytes", "at least 1 of each")

    @property
    def is_unix(self) -> bool:
        """Whether the socket is a path rather than host:port."""
        return self.socket.startswith("unix:") or "/" in self.socket

    @property
    def target(self) -> str:
        """The gRPC target."""
        if not self.is_unix:
            return self.socket
        path = self.socket.removeprefix("unix:")
        while path.startswith("//"):
            path = path[1:]
        return "unix:" + os.path.abspath(path)


def _invalid(name: str, value: str, limit: str) -> LarderError:
    return InvalidError("the option cannot work", f"options.{name}", value, limit)
