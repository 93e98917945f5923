"""Calls to other hosts: outside transactions, with a deadline, so many at once.

A host may accept a connection and say nothing, or send one byte at a time. That costs
its own call: no lock, no pooled database connection and no other host waits for it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

import requests
import urllib3
from django.db import connections
from requests.adapters import HTTPAdapter

MAX_LOOKUPS = 16
"""Names resolved at the same time. The system's resolver has no deadline of its own,
so a thread may outlive the call that began it."""

_resolvers = threading.BoundedSemaphore(MAX_LOOKUPS)
_current = threading.local()


class TooManyOutboundCalls(Exception):
    """Too many calls wait for this host, or for all hosts together."""


class CallInTransaction(RuntimeError):
    """A call inside a transaction: everybody would wait for the other host."""


def refuse_in_transaction() -> None:
    """Raises CallInTransaction; a test case's own transaction does not count."""
    for connection in connections.all(initialized_only=True):
        blocks = getattr(connection, "atomic_blocks", [])
        if any(not getattr(block, "_from_testcase", False) for block in blocks):
            raise CallInTransaction("Call other hosts before or after the transaction.")


def release_connections() -> None:
    """Give pooled database connections back; the next query takes one again."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


class Slots:
    """How many calls are under way, per host and together."""

    def __init__(self, together: int, per_host: int, wait: float = 0.0) -> None:
        self.together, self.per_host, self.wait = together, per_host, wait
        self.taken: dict[str, int] = {}
        self.change = threading.Condition()

    @contextmanager
    def slot(self, host: str) -> Iterator[None]:
        """One call to `host`. Raises Busy after `wait` seconds without a place."""
        with self.change:
            if not self.change.wait_for(lambda: self.free(host), self.wait):
                raise TooManyOutboundCalls(host)
            self.taken[host] = self.taken.get(host, 0) + 1
        try:
            yield
        finally:
            with self.change:
                self.taken[host] -= 1
                if not self.taken[host]:
                    del self.taken[host]
                self.change.notify_all()

    def free(self, host: str) -> bool:
        """Whether one more call fits."""
        room = sum(self.taken.values()) < self.together
        return room and self.taken.get(host, 0) < self.per_host


class OutboundCall:
    """The sockets of one call. At its deadline they are shut.

    A socket's own timeout begins anew with every byte, so it bounds no call.
    """

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.sockets: list[socket.socket] = []
        self.lock = threading.Lock()
        self.over = False
        self.alarm = threading.Timer(seconds, self.cut)
        self.alarm.daemon = True

    @property
    def left(self) -> float:
        """Seconds until the deadline. Raises TimeoutError when it has passed."""
        seconds = self.ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the deadline has passed")
        return seconds

    def watch(self, opened: socket.socket) -> None:
        """Shut this one too. TLS takes the original over, hence the duplicate."""
        copy = socket.socket(fileno=os.dup(opened.fileno()))
        with self.lock:
            self.sockets.append(copy)
            if self.over:
                self.shut()

    def cut(self) -> None:
        """End whatever is waited for."""
        with self.lock:
            self.over = True
            self.shut()

    def shut(self) -> None:
        """Both directions: who reads gets the end of the stream."""
        for one in self.sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """The call is done."""
        self.alarm.cancel()
        with self.lock:
            for one in self.sockets:
                one.close()
            self.sockets.clear()

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to the first address that takes one. Raises OSError."""
        wrong: OSError = OSError(f"{host} has no address")
        for family, kind, proto, _name, address in resolve(host, port, self.left):
            opened = socket.socket(family, kind, proto)
            try:
                opened.settimeout(self.left)
                opened.connect(address)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.watch(opened)
                return opened
            except OSError as error:
                opened.close()
                wrong = error
        raise wrong


@contextmanager
def call(seconds: float) -> Iterator[OutboundCall]:
    """Bound an exchange with another host. Raises CallInTransaction, TimeoutError."""
    refuse_in_transaction()
    release_connections()
    outer, made = getattr(_current, "call", None), OutboundCall(seconds)
    _current.call = made
    made.alarm.start()
    try:
        yield made
        if made.over:
            # A stream that was shut looks complete where nobody announced its length.
            raise TimeoutError("the deadline has passed")
    finally:
        _current.call = outer
        made.close()


def left(default: float) -> float:
    """Seconds that this thread's call has left, `default` outside one.

    Raises TimeoutError.
    """
    current: OutboundCall | None = getattr(_current, "call", None)
    return default if current is None else current.left


def resolve(host: str, port: int, seconds: float) -> list[Any]:
    """The addresses of a name, as getaddrinfo gives them. Raises OSError."""
    if not _resolvers.acquire(blocking=False):
        raise OSError("too many names are being looked up")
    answers: SimpleQueue[Any] = SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(found)
        except (OSError, ValueError) as error:
            answers.put(OSError(f"{host} cannot be resolved: {error}"))
        finally:
            _resolvers.release()

    threading.Thread(target=look_up, name="portico-dns", daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except Empty as error:
        raise TimeoutError(f"{host} was not resolved in time") from error
    if isinstance(found, OSError):
        raise found
    return list(found)


class DeadlineConnectionMixin:
    """Of urllib3's connections: opened through the call of this thread."""

    _dns_host: str
    port: int

    def _new_conn(self) -> socket.socket:
        try:
            opened: socket.socket = _current.call.connect(self._dns_host, self.port)
        except TimeoutError as error:
            told = f"{self._dns_host} took no connection in time"
            raise urllib3.exceptions.ConnectTimeoutError(self, told) from error
        except OSError as error:
            told = f"no connection: {error}"
            raise urllib3.exceptions.NewConnectionError(self, told) from error  # type: ignore[arg-type]
        return opened


class HTTPConnection(DeadlineConnectionMixin, urllib3.connection.HTTPConnection):
    """http."""


class HTTPSConnection(DeadlineConnectionMixin, urllib3.connection.HTTPSConnection):
    """https."""


class HTTPPool(urllib3.HTTPConnectionPool):
    """Of such connections."""

    ConnectionCls = HTTPConnection


class HTTPSPool(urllib3.HTTPSConnectionPool):
    """Of such connections."""

    ConnectionCls = HTTPSConnection


POOLS = {"http": HTTPPool, "https": HTTPSPool}


class DeadlineAdapter(HTTPAdapter):
    """requests over such pools, through a proxy of the environment as well."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As requests does."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Likewise."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager


class DeadlineSession(requests.Session):
    """A session each of whose requests takes a slot and ends at its deadline."""

    def __init__(self, slots: Slots, seconds: float) -> None:
        super().__init__()
        self.slots, self.seconds = slots, seconds
        for scheme in ("http://", "https://"):
            self.mount(scheme, DeadlineAdapter())

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        """As requests'. Raises requests.ConnectionError where it is too busy."""
        host = urllib3.util.parse_url(str(url)).netloc or ""
        refuse_in_transaction()
        release_connections()
        try:
            with self.slots.slot(host), call(self.seconds) as made:
                kwargs["timeout"] = made.left
                return super().request(method, url, *args, **kwargs)
        except TooManyOutboundCalls as error:
            raise requests.ConnectionError(f"too many calls to {host}") from error
        except TimeoutError as error:
            raise requests.Timeout(str(error)) from error
