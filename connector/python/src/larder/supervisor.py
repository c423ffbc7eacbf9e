"""The thread that keeps a client connected."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import grpc

from larder.backoff import Backoff
from larder.breaker import Breaker
from larder.connection import Connection, Connector
from larder.errors import LarderError, UnavailableError
from larder.options import Options
from larder.pool import CreditPool
from larder.session import Events
from larder.stats import Counters

_LOG = logging.getLogger("larder")


class Supervisor:
    """Connects, reads the session until it ends, waits, and again. Waits
    double from one failed attempt to the next, also where a session was
    greeted and then ended without answering anything."""

    def __init__(
        self,
        options: Options,
        connector: Connector,
        breaker: Breaker,
        counters: Counters,
        events: Callable[[], Events],
        backoff: Backoff,
    ) -> None:
        self._options = options
        self._connector = connector
        self._breaker = breaker
        self._counters = counters
        self._events = events
        self._backoff = backoff
        self._closing = threading.Event()
        self._up = threading.Condition()
        self.connection: Connection | None = None
        self.generation = 0
        self.last_error: LarderError | None = None
        self._thread = threading.Thread(target=self._run, name="larder-session", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wait_connected(self, timeout_s: float) -> bool:
        """Waits for a connection that takes new work: not for one whose daemon
        is leaving or gone, which may still stand for a while."""
        with self._up:
            return self._up.wait_for(self._connected, timeout_s)

    def _connected(self) -> bool:
        connection = self.connection
        return connection is not None and connection.session.alive and not connection.session.draining

    def close(self, timeout_s: float) -> None:
        """Ends session and thread."""
        until = time.monotonic() + timeout_s
        self._closing.set()
        connection = self.connection
        if connection is not None:
            connection.farewell()
            self._thread.join(timeout_s / 2)
            if self._thread.is_alive():
                connection.session.abort(UnavailableError("the client is closed"))
        self._connector.stop()
        self._thread.join(max(0.0, until - time.monotonic()))
        if not self._thread.is_alive():
            self._connector.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            if self._once():
                self._backoff.reset()
            if self._closing.wait(self._backoff.pause()):
                break

    def _once(self) -> bool:
        """One connection from beginning to end; whether it was of use."""
        try:
            connection = self._connector.connect(self._events)
        except LarderError as error:
            self._note(error)
            return False
        except (OSError, ValueError, grpc.RpcError) as error:
            # Whatever it is, the engine goes on and the next attempt may do.
            self._note(UnavailableError(f"cannot connect: {error!r}"))
            return False
        # Before anybody sees the connection: who waited for it finds it ready.
        self._breaker.hasten()
        with self._up:
            self.connection = connection
            self.generation += 1
            self.last_error = None
            self._up.notify_all()
        self._counters.add(connects=1, reconnects=1 if self.generation > 1 else 0)
        if isinstance(connection.pool, CreditPool):
            connection.pool.start()
        if self._closing.is_set():
            # Closed while it was being made, so nobody else will end it.
            connection.session.abort(UnavailableError("the client is closed"))
        began = time.monotonic()
        reason = connection.session.run()
        lasted_s = time.monotonic() - began
        with self._up:
            self.connection = None
        if not self._closing.is_set():
            if not connection.session.draining:
                self._breaker.failure()
            self._note(reason)
        connection.close()
        self._connector.ended(connection.hello, connection.session, connection.lifetime)
        return connection.session.proven or lasted_s > self._options.backoff_max_s

    def _note(self, error: LarderError) -> None:
        # One line for each new reason, not for each attempt.
        if self.last_error is None or str(self.last_error) != str(error):
            _LOG.warning("larder is not connected to %s: %s", self._options.socket, error)
        self.last_error = error
