"""Calls to other hosts and other long work stay outside transactions."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from django.core.management import call_command
from django.db import transaction
from django.test import Client, override_settings

from accounts.http import outbound_calls
from accounts.http.streaming import run_on_thread
from accounts.models import SigningKey, User
from accounts.oauth.clients.document_fetcher import (
    UNRESPONSIVE_SECONDS,
    UnresponsiveHosts,
)
from tests.support.static_files import UNCOLLECTED
from tests.support.users import PASSWORD, make_user, unguarded_users


@pytest.mark.django_db
def test_a_call_inside_a_transaction_is_refused() -> None:
    """Other writers would wait for the other host."""
    with outbound_calls.call(1):
        pass
    with transaction.atomic(), pytest.raises(outbound_calls.CallInTransaction):
        with outbound_calls.call(1):
            raise AssertionError("never reached")


@pytest.mark.parametrize(("vendor", "closed"), [("sqlite", 0), ("postgresql", 1)])
def test_a_pooled_connection_is_given_back_before_a_wait(
    monkeypatch: pytest.MonkeyPatch, vendor: str, closed: int
) -> None:
    """One in a transaction is kept."""
    ends: list[bool] = []
    idle, busy = (
        SimpleNamespace(
            vendor=vendor,
            in_atomic_block=used,
            close=lambda used=used: ends.append(used),
        )
        for used in (False, True)
    )
    known = SimpleNamespace(all=lambda initialized_only: [idle, busy])
    monkeypatch.setattr(outbound_calls, "connection", idle)
    monkeypatch.setattr(outbound_calls, "connections", known)
    outbound_calls.release_pooled_connections()
    assert ends == [False] * closed


def test_calls_are_bounded_per_host_and_in_total() -> None:
    """A slow host uses only its own slots."""
    slots = outbound_calls.Slots(together=3, per_host=2)
    with slots.slot("a"), slots.slot("a"):
        with pytest.raises(outbound_calls.TooManyOutboundCalls), slots.slot("a"):
            raise AssertionError("never reached")
        with (
            slots.slot("b"),
            pytest.raises(outbound_calls.TooManyOutboundCalls),
            slots.slot("c"),
        ):
            raise AssertionError("never reached")
    assert slots.in_use == {}


def test_a_waiting_call_gets_the_next_free_slot() -> None:
    """Many users may sign in through one provider at the same time."""
    slots = outbound_calls.Slots(together=1, per_host=1, wait=5.0)
    started = time.monotonic()

    def hold(entered: threading.Event) -> None:
        with slots.slot("a"):
            entered.set()
            time.sleep(0.1)

    entered = threading.Event()
    holder = threading.Thread(target=hold, args=(entered,))
    holder.start()
    entered.wait(5)
    with slots.slot("b"):
        assert time.monotonic() - started < 3
    holder.join()


@pytest.mark.django_db
def test_a_call_bounds_what_is_done_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inner one of two; outside, the default counts."""
    assert outbound_calls.seconds_left(9.0) == 9.0
    with outbound_calls.call(60):
        assert 50 < outbound_calls.seconds_left(9.0) <= 60
        with outbound_calls.call(2):
            assert 0 < outbound_calls.seconds_left(9.0) <= 2
        assert 50 < outbound_calls.seconds_left(9.0) <= 60
        late = time.monotonic() + 60
        monkeypatch.setattr(time, "monotonic", lambda: late)
        with pytest.raises(TimeoutError, match="deadline has passed"):
            outbound_calls.seconds_left(9.0)
        monkeypatch.undo()
    assert outbound_calls.seconds_left(9.0) == 9.0


@pytest.mark.parametrize("late", [False, True])
def test_a_socket_ends_at_the_deadline_whenever_it_was_opened(late: bool) -> None:
    """Ending the call without a deadline leaves the caller's socket open."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(2)
        made = outbound_calls.OutboundCall(60)
        steps = [lambda: made.watch(ours), made.abort]
        for step in reversed(steps) if late else steps:
            step()
        assert theirs.recv(1) == b""
        made.close()
        assert made.sockets == [] and ours.fileno() > 0


@pytest.mark.django_db
def test_what_was_read_when_the_deadline_passed_does_not_count() -> None:
    """A stream without a length only ends; its reader would take it for complete."""
    read: list[str] = []
    with (
        pytest.raises(TimeoutError, match="deadline"),
        outbound_calls.call(60) as made,
    ):
        made.abort()
        read.append("a part")
    assert read and outbound_calls.seconds_left(9.0) == 9.0
    with pytest.raises(ValueError, match="the host's own"), outbound_calls.call(60):
        raise ValueError("the host's own error")
    assert outbound_calls.seconds_left(9.0) == 9.0


@pytest.mark.django_db
def test_a_call_ends_at_its_deadline() -> None:
    """Whoever reads from a silent host then reads the end of its stream."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(2)
        with (
            pytest.raises(TimeoutError, match="the deadline has passed"),
            outbound_calls.call(0.02) as made,
        ):
            made.watch(ours)
            assert ours.recv(1) == b"" and made.expired


def test_a_call_that_ends_in_time_keeps_its_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(2)
        made = outbound_calls.OutboundCall(60)
        made.watch(ours)
        made.close()
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"


@pytest.mark.parametrize(
    ("error", "raised", "text"),
    [
        (TimeoutError("x"), "ConnectTimeoutError", "a.example accepted no connection"),
        (OSError("refused"), "NewConnectionError", "no connection: refused"),
        (
            outbound_calls.NameNotResolved("unknown"),
            "NewConnectionError",
            "no connection: unknown",
        ),
    ],
)
@pytest.mark.parametrize("kind", outbound_calls.POOLS)
def test_a_failed_connection_says_why(
    monkeypatch: pytest.MonkeyPatch, kind: str, error: OSError, raised: str, text: str
) -> None:
    """Libraries repeat, and report, a connection that was too slow in another way."""

    def fails(call: Any, host: str, port: int) -> Any:
        assert (host, port) == ("a.example", 8080)
        raise error

    monkeypatch.setattr(outbound_calls.OutboundCall, "connect", fails)
    pool: Any = outbound_calls.POOLS[kind]
    opened = pool.ConnectionCls("a.example", 8080)
    wanted = getattr(urllib3.exceptions, raised)
    with outbound_calls.call(5), pytest.raises(wanted, match=text) as caught:
        opened._new_conn()
    assert type(caught.value) is wanted and caught.value.__cause__ is error


def test_names_that_cannot_be_resolved_are_an_error() -> None:
    """Every kind of bad name raises the same error."""
    for name in ("no-such-host.invalid", "x" * 300, "a..b"):
        with pytest.raises(OSError):
            outbound_calls.resolve(name, 443, 5)
    assert outbound_calls.resolve("127.0.0.1", 443, 5)


def test_a_silent_name_server_is_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver has no deadline; the thread that waits for it goes on."""
    answered = threading.Event()

    def look_up(*about: Any, **options: Any) -> list[Any]:
        answered.wait(3)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        with pytest.raises(TimeoutError):
            outbound_calls.resolve("slow.example", 443, 0.02)
    finally:
        answered.set()


def test_a_silent_host_is_evicted_after_a_while(monkeypatch: Any) -> None:
    known = UnresponsiveHosts()
    known.add("a:443")
    assert "a:443" in known and "b:443" not in known
    later = time.monotonic() + UNRESPONSIVE_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert "a:443" not in known
    for number in range(1_100):
        known.add(str(number))
    assert len(known.until) == 1_000


@pytest.mark.django_db
@override_settings(STORAGES=UNCOLLECTED)
def test_passwords_and_keys_are_hashed_before_the_transaction() -> None:
    """tests/apps/wait_guard raises where one is made inside a transaction."""
    make_user("carol", "Admin", admin=True)
    browser = Client()
    assert browser.login(username="carol", password=PASSWORD)
    form = {"username": "newcomer", "usable_password": "true"}
    form |= dict.fromkeys(("password1", "password2"), PASSWORD)
    counts = ("role_assignments-TOTAL_FORMS", "role_assignments-INITIAL_FORMS")
    form |= dict.fromkeys(counts, "0")
    answer = browser.post("/admin/accounts/user/add/", form)
    assert answer.status_code == 302, answer.content
    assert User.objects.get(username="newcomer").check_password(PASSWORD)
    SigningKey.objects.all().delete()
    with transaction.atomic():
        SigningKey.objects.ensure_active()
    SigningKey.objects.rotate(actor=None, algorithm="RS256")
    unguarded_users().filter(is_superuser=True).delete()
    call_command("demo")
    unguarded_users().filter(is_superuser=True).delete()
    call_command("up", "--prepare-only")


def test_work_continues_while_its_progress_is_not_read() -> None:
    """An import's transaction does not wait for a slow browser."""
    done = threading.Event()

    def work() -> Iterator[int]:
        yield from range(3)
        done.set()

    source = run_on_thread(work)
    assert next(source) == 0 and done.wait(5)
    assert list(source) == [1, 2]


def test_work_is_closed_when_its_client_disconnects() -> None:
    """A transaction inside it rolls back; an error is passed on."""
    closed: list[str] = []

    def work() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(0.01)
        finally:
            closed.append("closed")

    source = run_on_thread(work)
    next(source)
    source.close()  # type: ignore[attr-defined]
    assert closed == ["closed"]

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    with pytest.raises(KeyError):
        list(run_on_thread(broken))
