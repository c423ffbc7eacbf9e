"""Making one connection: channel, hello, hand-over, mapping."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from larder import __version__
from larder.arena import Arena, Mappings, announced
from larder.breaker import Breaker
from larder.errors import DeniedError, FullError, InvalidError, LarderError, UnavailableError
from larder.handover import open_lane, receive
from larder.leases import Leases
from larder.objects import Objects
from larder.options import Options
from larder.pool import CreditPool, StreamPool
from larder.session import Events, Session
from larder.stats import Counters
from larder.streamed import StreamedCommits
from larder.timers import Timers
from larder.v1 import engine_pb2

_LOG = logging.getLogger("larder")

API_MAJOR = 1
API_MINOR = 0

_ROLES = {
    "scheduler": engine_pb2.ROLE_SCHEDULER,
    "worker": engine_pb2.ROLE_WORKER,
    "client": engine_pb2.ROLE_CLIENT,
}
_MAX_ENDED = 64
# A closed channel ends the calls of the thread that is waited for.
_JOIN_S = 1.0
_MAX_RECEIVE = 64 << 20


@dataclass
class Connection:
    """A session and what belongs to it."""

    channel: grpc.Channel
    session: Session
    hello: engine_pb2.HelloReply
    objects: Objects
    # None: no shared memory; then `commits` sends what is stored.
    arena: Arena | None
    # None: a scheduler, which neither loads nor stores.
    pool: CreditPool | StreamPool | None
    commits: StreamedCommits | None
    # Write end of the lifetime pipe, -1 without an arena.
    lifetime: int

    def farewell(self) -> None:
        """Gives back what is idle and says that this side is done."""
        if isinstance(self.pool, CreditPool):
            self.pool.close()
        if self.commits is not None:
            self.commits.close()
        self.session.finish()

    def close(self) -> None:
        """Ends the channel; the arena stays mapped as long as views exist."""
        if self.commits is not None:
            self.commits.close()
        if isinstance(self.pool, CreditPool):
            self.pool.end()
        if self.arena is not None:
            self.arena.end()
        self.channel.close()
        self.session.join(_JOIN_S)
        if self.commits is not None:
            self.commits.join(_JOIN_S)


@dataclass
class _Ended:
    """An earlier session whose slots are in quarantine at the daemon's until
    it is told that nobody here touches them any more."""

    token: bytes
    leases: Leases
    lifetime: int

    def forget(self) -> None:
        """It was declared, or the daemon that knew it is gone."""
        if self.lifetime >= 0:
            os.close(self.lifetime)
            self.lifetime = -1


class Connector:
    """Makes connections, one after the other, on the client's own thread."""

    def __init__(self, options: Options, timers: Timers, breaker: Breaker, counters: Counters) -> None:
        self._options = options
        self._timers = timers
        self._breaker = breaker
        self._counters = counters
        self._mappings = Mappings(prefault=options.prefault, mapped=options.mapped)
        self._ended: list[_Ended] = []
        self._opening: Session | None = None
        self._stopped = False
        self.targets: dict[int, int] = dict(options.credits)
        # Encoded once, and here, so that a wrong one is told to its maker.
        self._namespace = b"" if options.namespace is None else options.namespace.encode()

    def connect(self, events: Callable[[], Events]) -> Connection:
        """Connects; blocks at most connect_timeout_s for each of hello and
        hand-over, and call_timeout_s for copies of earlier sessions to end.
        Raises LarderError."""
        options = self._options
        # A session is told which earlier ones are over; so copies that still
        # run get a moment to end.
        until = time.monotonic() + options.call_timeout_s
        over = [ended for ended in self._ended if ended.leases.wait_idle(until)][:_MAX_ENDED]
        channel = self._channel()
        session = Session(
            channel,
            self._timers,
            self._breaker,
            self._counters,
            events(),
            options.max_in_flight,
            options.call_timeout_s,
        )
        self._opening = session
        try:
            if self._stopped:
                raise UnavailableError("the client is closed")
            hello = session.greet(self._hello(over), options.connect_timeout_s)
            for ended in over:
                self._ended.remove(ended)
                ended.forget()
            return self._furnish(channel, session, hello)
        except BaseException:
            session.discard()
            channel.close()
            session.join(_JOIN_S)
            if session.hello.session_token:
                self.ended(session.hello, session, -1)
            raise
        finally:
            self._opening = None

    def stop(self) -> None:
        """Ends an attempt under way, and all later ones."""
        self._stopped = True
        opening = self._opening
        if opening is not None:
            opening.abort(UnavailableError("the client is closed"))

    def close(self) -> None:
        """No session will follow that could declare the earlier ones as ended:
        the end of their pipes says so, where nobody touches their slots. Else
        the end of this process does."""
        for ended in self._ended:
            if not ended.leases.busy:
                ended.forget()

    def ended(self, hello: engine_pb2.HelloReply, session: Session, lifetime: int) -> None:
        """A session is over; the next one declares it."""
        self._ended.append(_Ended(hello.session_token, session.leases, lifetime))
        idle = [ended for ended in self._ended if not ended.leases.busy]
        for ended in idle[: max(0, len(self._ended) - _MAX_ENDED)]:
            self._ended.remove(ended)
            ended.forget()

    def _hello(self, over: list[_Ended]) -> engine_pb2.Hello:
        options = self._options
        ranks = options.ranks
        hello = engine_pb2.Hello(
            major=API_MAJOR,
            minor=API_MINOR,
            instance_id=options.instance_id,
            role=_ROLES[options.role],
            ranks=engine_pb2.Ranks(
                data=ranks.data,
                pipeline=ranks.pipeline,
                tensor=ranks.tensor,
                data_size=ranks.data_size,
                pipeline_size=ranks.pipeline_size,
                tensor_size=ranks.tensor_size,
            ),
            tenant=options.tenant,
            engine=options.engine,
            client=f"larder-python {__version__}",
            ended_sessions=[ended.token for ended in over],
        )
        if self._namespace:
            hello.namespace = self._namespace
            hello.fingerprint = hashlib.sha256(self._namespace).digest()
        return hello

    def _furnish(self, channel: grpc.Channel, session: Session, hello: engine_pb2.HelloReply) -> Connection:
        options = self._options
        objects = Objects(channel, hello.session_token, options.call_timeout_s)
        arena: Arena | None = None
        lifetime = -1
        if options.role != "scheduler" and options.share_memory and hello.HasField("arena"):
            arena, lifetime = self._map(hello)
        if options.lane and options.share_memory and hello.lane_socket:
            self._take_lane(session, hello)
        pool: CreditPool | StreamPool | None = None
        commits: StreamedCommits | None = None
        if options.role == "scheduler":
            pass
        elif arena is not None:
            pool = CreditPool(session, arena, self._timers, self._counters, self.targets)
        else:
            pool = StreamPool(session, self.targets, options.stream_bytes)
            commits = StreamedCommits(objects, hello.parts, pool.done)
        return Connection(channel, session, hello, objects, arena, pool, commits, lifetime)

    def _map(self, hello: engine_pb2.HelloReply) -> tuple[Arena | None, int]:
        info = hello.arena
        try:
            handed = receive(
                info.handover_socket, hello.session_token, announced(info), self._options.connect_timeout_s
            )
        except (DeniedError, FullError) as error:
            _LOG.warning("larder goes on without shared memory, more slowly: %s", error)
            return None, -1
        try:
            arena = Arena(info, handed.segments, self._mappings)
        except (OSError, ValueError) as error:
            os.close(handed.lifetime)
            raise UnavailableError(f"the arena cannot be mapped: {error}", "arena") from error
        except LarderError:
            os.close(handed.lifetime)
            raise
        finally:
            # A mapping keeps its memory by itself.
            for fd in handed.segments:
                os.close(fd)
        return arena, handed.lifetime

    def _take_lane(self, session: Session, hello: engine_pb2.HelloReply) -> None:
        try:
            lane = open_lane(hello.lane_socket, hello.session_token, self._options.connect_timeout_s)
        except LarderError as error:
            # Whatever is wrong with the daemon, the stream shows it, too.
            _LOG.warning("larder goes on without a lane, more slowly: %s", error)
            return
        session.take_lane(lane)

    def _channel(self) -> grpc.Channel:
        options = self._options
        settings: list[tuple[str, int | str]] = [
            # A connection of its own for each attempt: gRPC's back-off and
            # shared subchannels would stand between ours and the daemon.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", _MAX_RECEIVE),
            ("grpc.max_send_message_length", _MAX_RECEIVE),
        ]
        if options.tls is None:
            settings.append(("grpc.default_authority", "localhost"))
            return grpc.insecure_channel(options.target, options=settings)
        tls = options.tls
        try:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=Path(tls.ca).read_bytes(),
                private_key=Path(tls.key).read_bytes(),
                certificate_chain=Path(tls.certificate).read_bytes(),
            )
        except OSError as error:
            raise InvalidError(f"a file for TLS cannot be read: {error}", "options.tls") from error
        if tls.server_name:
            settings.append(("grpc.ssl_target_name_override", tls.server_name))
        return grpc.secure_channel(options.target, credentials, options=settings)
