"""Calls to other hosts: outside transactions, with a deadline and limited in number.

A host may accept a connection and send nothing, or one byte at a time. Only its own
call waits then: it holds no lock, no pooled database connection and no other host up.
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
from django.db import connection, connections
from requests.adapters import HTTPAdapter

from accounts.http.private_addresses import AddressRefused, may_contact

MAX_LOOKUPS = 16
"""Names resolved at the same time. The system's resolver has no deadline, so a thread
may outlive its call."""

_resolvers = threading.BoundedSemaphore(MAX_LOOKUPS)
_current = threading.local()


class TooManyOutboundCalls(Exception):
    """No slot is free for this host, or for all hosts together."""


class NameNotResolved(OSError):
    """DNS has no address for a name, or did not answer."""


class LookUpTimeout(NameNotResolved, TimeoutError):
    """DNS did not answer in time."""


class CallInTransaction(RuntimeError):
    """A call inside a transaction, whose locks would wait for the other host."""


def refuse_in_transaction() -> None:
    """Raises CallInTransaction; the transaction of a test case is allowed."""
    for each in connections.all(initialized_only=True):
        blocks = getattr(each, "atomic_blocks", [])
        if any(not getattr(block, "_from_testcase", False) for block in blocks):
            raise CallInTransaction("Call other hosts before or after the transaction.")


def release_connections() -> None:
    """Return database connections to the pool; the next query takes one."""
    for each in connections.all(initialized_only=True):
        if not each.in_atomic_block:
            each.close()


def release_pooled_connections() -> None:
    """As `release_connections`, before a wait in which nothing is sent.

    SQLite has no pool, and opening a connection takes longer than a query.
    """
    if connection.vendor != "sqlite":
        release_connections()


class Slots:
    """Limits the calls in progress, per host and in total."""

    def __init__(self, together: int, per_host: int, wait: float = 0.0) -> None:
        self.together, self.per_host, self.wait = together, per_host, wait
        self.in_use: dict[str, int] = {}
        self.change = threading.Condition()

    @contextmanager
    def slot(self, host: str) -> Iterator[None]:
        """Hold a slot for `host`. Raises TooManyOutboundCalls after `wait` seconds."""
        with self.change:
            if not self.change.wait_for(lambda: self.has_room(host), self.wait):
                raise TooManyOutboundCalls(host)
            self.in_use[host] = self.in_use.get(host, 0) + 1
        try:
            yield
        finally:
            with self.change:
                self.in_use[host] -= 1
                if not self.in_use[host]:
                    del self.in_use[host]
                self.change.notify_all()

    def has_room(self, host: str) -> bool:
        """Whether one more call to `host` may start; the caller holds the lock."""
        room = sum(self.in_use.values()) < self.together
        return room and self.in_use.get(host, 0) < self.per_host


class OutboundCall:
    """The sockets of one call; they are shut down at its deadline.

    A socket timeout restarts with every byte, so it cannot bound a call.
    """

    def __init__(self, seconds: float, *, guarded: bool = False) -> None:
        self.deadline = time.monotonic() + seconds
        self.guarded = guarded
        self.sockets: list[socket.socket] = []
        self.lock = threading.Lock()
        self.expired = False
        self.alarm = threading.Timer(seconds, self.abort)
        self.alarm.daemon = True

    @property
    def left(self) -> float:
        """Seconds until the deadline. Raises TimeoutError when it has passed."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the deadline has passed")
        return seconds

    def watch(self, opened: socket.socket) -> None:
        """Shut this socket down at the deadline, too.

        TLS takes ownership of the original, so a duplicate is kept.
        """
        copy = socket.socket(fileno=os.dup(opened.fileno()))
        with self.lock:
            self.sockets.append(copy)
            if self.expired:
                self._shut_down()

    def abort(self) -> None:
        """Mark the call as expired and shut its sockets down."""
        with self.lock:
            self.expired = True
            self._shut_down()

    def _shut_down(self) -> None:
        for watched in self.sockets:
            with suppress(OSError):
                watched.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cancel the deadline and close the duplicates."""
        self.alarm.cancel()
        with self.lock:
            for watched in self.sockets:
                watched.close()
            self.sockets.clear()

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to the first address that accepts. Raises OSError.

        A guarded call raises AddressRefused if one address is forbidden.
        """
        failure: OSError = OSError(f"{host} has no address")
        found = resolve(host, port, self.left)
        if self.guarded:
            refuse_private_addresses(found)
        for family, kind, proto, _name, address in found:
            opened = socket.socket(family, kind, proto)
            try:
                opened.settimeout(self.left)
                opened.connect(address)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.watch(opened)
                return opened
            except OSError as error:
                opened.close()
                failure = error
        raise failure


def refuse_private_addresses(found: list[Any]) -> None:
    """Raises AddressRefused if one of these results of getaddrinfo is forbidden."""
    for *_kind, address in found:
        if not may_contact(address[0]):
            raise AddressRefused(address[0])


@contextmanager
def call(seconds: float, *, guarded: bool = False) -> Iterator[OutboundCall]:
    """Bound an exchange with another host. Raises CallInTransaction, TimeoutError.

    A guarded call reaches public addresses and UPSTREAM_PRIVATE_NETWORKS only.
    """
    refuse_in_transaction()
    release_connections()
    outer = getattr(_current, "call", None)
    current = OutboundCall(seconds, guarded=guarded)
    _current.call = current
    current.alarm.start()
    try:
        yield current
        if current.expired:
            # Without Content-Length a stream that was shut down looks complete.
            raise TimeoutError("the deadline has passed")
    finally:
        _current.call = outer
        current.close()


def seconds_left(default: float) -> float:
    """Seconds until this thread's call ends; `default` outside a call.

    Raises TimeoutError.
    """
    current: OutboundCall | None = getattr(_current, "call", None)
    return default if current is None else current.left


def resolve(host: str, port: int, seconds: float) -> list[Any]:
    """Resolve a name to the tuples of getaddrinfo. Raises OSError."""
    if not _resolvers.acquire(blocking=False):
        raise OSError("too many names are being looked up")
    answers: SimpleQueue[Any] = SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            answers.put(NameNotResolved(f"{host} cannot be resolved: {error}"))
        finally:
            _resolvers.release()

    threading.Thread(target=look_up, name="portico-dns", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty as error:
        raise LookUpTimeout(f"{host} was not resolved in time") from error
    if isinstance(answer, OSError):
        raise answer
    return list(answer)


class DeadlineConnectionMixin:
    """Opens a urllib3 connection through the OutboundCall of this thread."""

    _dns_host: str
    port: int

    def _new_conn(self) -> socket.socket:
        try:
            opened: socket.socket = _current.call.connect(self._dns_host, self.port)
        except TimeoutError as error:
            message = f"{self._dns_host} accepted no connection in time"
            raise urllib3.exceptions.ConnectTimeoutError(self, message) from error
        except OSError as error:
            message = f"no connection: {error}"
            raise urllib3.exceptions.NewConnectionError(self, message) from error  # type: ignore[arg-type]
        return opened


class HTTPConnection(DeadlineConnectionMixin, urllib3.connection.HTTPConnection):
    pass


class HTTPSConnection(DeadlineConnectionMixin, urllib3.connection.HTTPSConnection):
    pass


class HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = HTTPConnection


class HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = HTTPSConnection


POOLS = {"http": HTTPPool, "https": HTTPSPool}


class DeadlineAdapter(HTTPAdapter):
    """Uses these pools for direct connections and for HTTP(S)_PROXY."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager


class DeadlineSession(requests.Session):
    """A session whose requests each take a slot and end after `seconds`."""

    def __init__(self, slots: Slots, seconds: float) -> None:
        super().__init__()
        self.slots, self.seconds = slots, seconds
        for scheme in ("http://", "https://"):
            self.mount(scheme, DeadlineAdapter())

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        """Send a request. Raises requests.ConnectionError if no slot is free."""
        host = urllib3.util.parse_url(str(url)).netloc or ""
        refuse_in_transaction()
        release_connections()
        try:
            with self.slots.slot(host), call(self.seconds) as current:
                kwargs["timeout"] = current.left
                return super().request(method, url, *args, **kwargs)
        except TooManyOutboundCalls as error:
            raise requests.ConnectionError(f"too many calls to {host}") from error
        except TimeoutError as error:
            raise requests.Timeout(str(error)) from error
