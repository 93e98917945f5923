"""During a lock-out no password is hashed; typed names are user names only."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from django.contrib.auth import authenticate
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.test import Client, RequestFactory, override_settings
from django.utils import timezone

from accounts.authentication import lockout
from accounts.authentication.lockout import NON_USER_PREFIXES, limit_attempts
from accounts.authentication.passwords import hashers
from accounts.authentication.passwords.hashers import TunedArgon2PasswordHasher
from accounts.models import AuditEvent, User
from accounts.rate_limits.errors import RateLimited
from tests.support.model_rows import client_row, open_transactions, record_locks
from tests.support.static_files import UNCOLLECTED
from tests.support.users import PASSWORD


@override_settings(LOCKOUT_AFTER=2, AXES_FAILURE_LIMIT=2)
@pytest.mark.parametrize("name", ["alice", "nobody-here"])
def test_a_locked_attempt_is_not_hashed(
    alice: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Covers every hasher, for accounts that exist and for unknown names."""
    hashed: list[str] = []
    for verb in ("encode", "verify"):
        theirs = getattr(TunedArgon2PasswordHasher, verb)

        def spied(self: Any, *args: Any, _theirs: Any = theirs) -> Any:
            hashed.append(args[0])
            return _theirs(self, *args)

        monkeypatch.setattr(TunedArgon2PasswordHasher, verb, spied)
    client = Client()
    for password in ("wrong", "wronger"):
        client.post("/api/token/", {"username": name, "password": password}, JSON)
    assert set(hashed) == {"wrong", "wronger"}
    hashed.clear()
    body = {"username": name, "password": PASSWORD}
    assert client.post("/api/token/", body, JSON).status_code == 429
    assert hashed == []


JSON = "application/json"
BEFORE = ("", " ", "\t", "\u00a0", "\u3000", "\x00", "\x00 ", "\u200b ")
"""What somebody could type in front; forms and NFKC take most of it away."""


@override_settings(LOCKOUT_AFTER=2, LIMIT_PASSWORD="off", STORAGES=UNCOLLECTED)
@pytest.mark.parametrize("prefix", NON_USER_PREFIXES)
def test_no_typed_name_counts_for_another_secret(db: None, prefix: str) -> None:
    """A stranger must not use up the attempts of a client, registration or device."""
    client, name = Client(), f"{prefix.strip()}alice"
    for typed in (*(before + name for before in BEFORE), name.upper()):
        body = {"username": typed, "password": "wrong"}
        client.post("/api/token/", body, JSON)
        client.post("/accounts/login/", {"login": typed, "password": "wrong"})
    names = AccessAttempt.objects.values_list("username", flat=True)
    assert [counted for counted in names if counted.startswith(NON_USER_PREFIXES)] == []
    assert name in names
    assert limit_attempts(RequestFactory().post("/"), f"{prefix}alice", lambda: True)


ADDRESS = "192.0.2.1"


def request_from(address: str = ADDRESS) -> Any:
    return RequestFactory().post("/x", REMOTE_ADDR=address)


def attempt(name: str, address: str = ADDRESS, right: bool = False) -> str:
    """How an attempt ends: right, wrong, locked or busy."""
    try:
        result = limit_attempts(request_from(address), name, lambda: right)
    except lockout.LockedOut:
        return "locked"
    except RateLimited:
        return "busy"
    return "right" if result else "wrong"


def counted(name: str, address: str | None, many: int = 1, agent: str = "-") -> None:
    AccessAttempt.objects.create(
        username=name,
        ip_address=address,
        user_agent=agent,
        failures_since_start=many,
        attempt_time=timezone.now(),
    )


@pytest.fixture
def three(settings: Any, db: None) -> None:
    """Three failures lock out; nobody waits for attempts in flight."""
    settings.LOCKOUT_AFTER = settings.AXES_FAILURE_LIMIT = 3
    settings.HASHING_WAIT = 0
    settings.STORAGES = UNCOLLECTED


@pytest.mark.parametrize("address", [ADDRESS, ""])
@pytest.mark.parametrize("prefix", ["", *NON_USER_PREFIXES])
def test_failures_count_until_they_are_too_old(
    three: None, settings: Any, prefix: str, address: str
) -> None:
    """Of people, and of every other secret; also from no address."""
    name = f"{prefix}x"
    counted(name, address or None, 3)
    assert attempt(name, address) == "locked"
    at = timezone.now() - settings.AXES_COOLOFF_TIME
    AccessAttempt.objects.update(attempt_time=at + timedelta(minutes=1))
    assert attempt(name, address) == "locked"
    AccessAttempt.objects.update(attempt_time=at)
    assert attempt(name, address) == "wrong"


def test_the_third_failure_locks_the_pair(three: None) -> None:
    """Another address and another name are free; spellings are one name."""
    assert [attempt(n) for n in ("alice", "ALICE", "ａlice")] == ["wrong"] * 3
    assert attempt("alice", right=True) == "locked"
    assert attempt("alice", "192.0.2.2", right=True) == "right"
    assert attempt("bob", right=True) == "right"


@pytest.mark.parametrize("prefix", NON_USER_PREFIXES)
def test_the_third_wrong_secret_locks_its_pair(three: None, prefix: str) -> None:
    assert [attempt(f"{prefix}x") for _ in range(3)] == ["wrong"] * 3
    assert attempt(f"{prefix}x", right=True) == "locked"
    assert attempt(f"{prefix}x", "192.0.2.2", right=True) == "right"


def test_two_failures_lock_nothing(three: None) -> None:
    assert [attempt("alice") for _ in range(2)] == ["wrong"] * 2
    assert attempt("alice", right=True) == "right"


def test_addresses_of_one_ipv6_household_count_together(three: None) -> None:
    """A client has a /64 of addresses."""
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::a:b:c:3"):
        assert attempt("alice", address) == "wrong"
    assert attempt("alice", "2001:db8::4", right=True) == "locked"
    assert attempt("alice", "2001:db8:0:1::4", right=True) == "right"
    (row,) = AccessAttempt.objects.all()
    assert (row.ip_address, row.failures_since_start) == ("2001:db8::", 3)
    assert lockout.attempt_address(request_from("")) is None


@pytest.mark.parametrize(("many", "ends"), [(29, "right"), (30, "locked")])
def test_ten_times_the_limit_locks_the_account_everywhere(
    three: None, many: int, ends: str
) -> None:
    for n in range(many):
        counted("alice", f"198.51.100.{n}")
    assert attempt("alice", right=True) == ends
    assert attempt("bob", right=True) == "right"


@pytest.mark.parametrize(("many", "ends"), [(29, "right"), (30, "locked")])
@pytest.mark.parametrize("address", [ADDRESS, ""])
def test_ten_times_the_limit_locks_the_address(
    three: None, many: int, ends: str, address: str
) -> None:
    """All clients at a Unix socket count as one address."""
    for n in range(many):
        counted(f"name-{n}", address or None)
    assert attempt("alice", address, right=True) == ends
    assert attempt("alice", "192.0.2.2", right=True) == "right"


@pytest.mark.parametrize("prefix", NON_USER_PREFIXES)
def test_other_secrets_do_not_lock_users_of_their_address(
    three: None, prefix: str
) -> None:
    """Nor do users lock the secrets of their address."""
    counted(f"{prefix}one", ADDRESS, 300)
    assert attempt("alice", right=True) == "right"
    counted("bob", ADDRESS, 300)
    assert attempt(f"{prefix}two", right=True) == "right"
    assert attempt(f"{prefix}one", right=True) == "locked"


@pytest.mark.parametrize("prefix", NON_USER_PREFIXES)
def test_random_secrets_are_counted_per_address_only(three: None, prefix: str) -> None:
    """Device codes are short: they are counted over all addresses, too."""
    for n in range(30):
        counted(f"{prefix}one", f"198.51.100.{n}", 2)
    pair_only = prefix in lockout.PAIR_ONLY_PREFIXES
    assert attempt(f"{prefix}one", right=True) == ("right" if pair_only else "locked")
    assert {*lockout.PAIR_ONLY_PREFIXES} == {" client:", " registration:"}
    assert {*NON_USER_PREFIXES} - {*lockout.PAIR_ONLY_PREFIXES} == {" device:"}


def test_attempts_in_flight_count_before_they_end(three: None) -> None:
    """Parallel guesses get no more comparisons; a finished one frees its place."""
    requests = [request_from() for _ in range(3)]
    for request in requests:
        lockout.reserve_attempt(request, "Alice")
    rows = AccessAttempt.objects.filter(username="alice", ip_address=ADDRESS)
    assert rows.filter(user_agent__startswith=lockout.IN_FLIGHT).count() == 3
    assert attempt("alice", right=True) == "busy"
    with pytest.raises(RateLimited) as refused:
        lockout.reserve_attempt(request_from(), "alice")
    assert refused.value.wait == 1
    assert attempt("alice", "192.0.2.2", right=True) == "right"
    lockout.release_attempt(requests[0])
    lockout.release_attempt(requests[0])
    assert requests[0].portico_in_flight is None
    assert rows.count() == 2 and attempt("alice", right=True) == "right"


def sign_in(request: Any) -> str:
    user = authenticate(request, username="alice", password=PASSWORD)
    return str(user)


def enter_code(request: Any) -> str:
    return limit_attempts(request, "alice", lambda: "alice")


@pytest.mark.parametrize("tried", [sign_in, enter_code])
def test_an_attempt_waits_for_those_in_flight(
    alice: Any, three: None, settings: Any, monkeypatch: pytest.MonkeyPatch, tried: Any
) -> None:
    """They may all succeed. While it waits, others may hash and use its connection."""
    settings.HASHING_WAIT = 60
    others, pauses = [request_from() for _ in range(4)], list[float]()
    with override_settings(LOCKOUT_AFTER=5):
        for other in others:
            lockout.reserve_attempt(other, "alice")
    released: list[str] = []
    monkeypatch.setattr(
        lockout, "release_pooled_connections", lambda: released.append("released")
    )

    def pause(seconds: float) -> None:
        free = hashers._slots().acquire(blocking=False)
        hashers._slots().release()
        assert free and len(released) == len(pauses) + 1
        pauses.append(seconds)
        lockout.release_attempt(others.pop())

    monkeypatch.setattr(time, "sleep", pause)
    assert tried(request_from()) == "alice"
    assert pauses == [lockout.IN_FLIGHT_PAUSE] * 2
    assert AccessAttempt.objects.count() == 2


@pytest.mark.parametrize("tried", [sign_in, enter_code])
def test_an_attempt_waits_no_longer_than_for_a_slot(
    alice: Any, three: None, settings: Any, monkeypatch: pytest.MonkeyPatch, tried: Any
) -> None:
    """A process that died leaves attempts in flight; a locked name waits for none."""
    settings.HASHING_WAIT, pauses = 10, list[float]()
    clock = SimpleNamespace(
        monotonic=lambda: 100 + 4 * len(pauses), sleep=lambda s: pauses.append(s)
    )
    monkeypatch.setattr(lockout, "time", clock)
    counted("alice", ADDRESS, 3, agent=f"{lockout.IN_FLIGHT}1")
    with pytest.raises(lockout.TooManyInFlight) as refused:
        tried(request_from())
    assert refused.value.wait == 1 and len(pauses) == 3
    counted("alice", ADDRESS, 3)
    with suppress(lockout.LockedOut):
        assert tried(request_from()) == "None"
    assert len(pauses) == 3


def test_a_locked_name_is_refused_before_its_password_is_hashed(three: None) -> None:
    """Django audits this exception as a failed sign-in; axes answers it."""
    counted("alice", ADDRESS, 3)
    request = request_from()
    with pytest.raises(PermissionDenied):
        lockout.reserve_attempt(request, "alice")
    request.axes_credentials = {"username": "alice"}
    refusal = lockout.lockout_refusal(request)
    assert refusal is not None and 800 < refusal.wait <= 900
    assert lockout.lockout_refusal(request_from()) is None
    answer = lockout.lockout_response(request, None, None)
    assert answer.status_code == 429 and int(answer["Retry-After"]) > 800
    answer = lockout.lockout_response(request_from(), None, None)
    assert answer.status_code == 429 and answer["Retry-After"] == "1"


def test_the_wait_ends_with_the_newest_failure(three: None, settings: Any) -> None:
    """A lock that has expired refuses nothing; the wait counts its own rows only."""
    counted("alice", ADDRESS, 3)
    counted("bob", "192.0.2.9", 1)
    request = request_from()
    AxesProxyHandler.update_request(request)
    handler, tried = lockout.LockoutHandler(), {"username": "alice"}
    ago = timezone.now() - timedelta(seconds=600)
    AccessAttempt.objects.filter(username="alice").update(attempt_time=ago)
    assert 298 < handler.wait(request, tried) <= 300
    assert handler.wait(request, {"username": "bob"}) == 1
    assert handler.get_failures(request, tried) == 3
    ago = timezone.now() - settings.AXES_COOLOFF_TIME - timedelta(seconds=1)
    AccessAttempt.objects.filter(username="alice").update(attempt_time=ago)
    assert attempt("alice", right=True) == "right"


def test_old_failures_do_not_count_with_new_ones(three: None, settings: Any) -> None:
    """The row of the pair starts again; rows of others stay."""
    counted("alice", ADDRESS, 2, agent="")
    counted("bob", "192.0.2.9", 2, agent="")
    ago = timezone.now() - settings.AXES_COOLOFF_TIME - timedelta(seconds=1)
    AccessAttempt.objects.filter(username="alice").update(attempt_time=ago)
    assert [attempt("alice") for _ in range(2)] == ["wrong"] * 2
    rows = AccessAttempt.objects.values_list("username", "failures_since_start")
    assert dict(rows) == {"alice": 2, "bob": 2}
    assert attempt("alice", right=True) == "right"


@pytest.mark.parametrize("newest", ["pair", "account", "address"])
def test_the_wait_is_that_of_the_last_lock(three: None, newest: str) -> None:
    """Of the pair, the account and the address, if all of them are locked."""
    rows = {
        "pair": ("alice", ADDRESS, 3),
        "account": ("alice", "192.0.2.9", 30),
        "address": ("bob", ADDRESS, 30),
    }
    for name, row in rows.items():
        counted(*row)
        ago = timedelta(seconds=100 if name == newest else 600)
        rows_of = AccessAttempt.objects.filter(username=row[0], ip_address=row[1])
        rows_of.update(attempt_time=timezone.now() - ago)
    request = request_from()
    AxesProxyHandler.update_request(request)
    wait = lockout.LockoutHandler().wait(request, {"username": "alice"})
    assert 798 < wait <= 800


def test_each_failure_prolongs_the_count(three: None) -> None:
    """The row has the time and the route of the newest failure."""
    for _ in range(2):
        assert attempt("alice") == "wrong"
        ago = timezone.now() - timedelta(seconds=600)
        AccessAttempt.objects.update(attempt_time=ago, path_info="/old")
    assert attempt("alice") == "wrong"
    (row,) = AccessAttempt.objects.all()
    assert row.failures_since_start == 3 and row.path_info == "/"
    assert timezone.now() - row.attempt_time < timedelta(seconds=60)


def test_a_failure_leaves_other_attempts_in_flight(three: None) -> None:
    counted("alice", ADDRESS, agent=f"{lockout.IN_FLIGHT}1")
    assert attempt("alice") == "wrong"
    rows = AccessAttempt.objects.values_list("user_agent", "failures_since_start")
    assert dict(rows) == {f"{lockout.IN_FLIGHT}1": 1, "": 1}


def test_an_attempt_is_stored_under_the_lock_of_its_name(
    three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the route; nothing else was counted then."""
    order: list[Any] = []
    rows = AccessAttempt.objects.all()
    monkeypatch.setattr(
        lockout,
        "serialize_attempts",
        lambda _r, name: order.append((name, len(rows), open_transactions())),
    )
    request = request_from()
    request.resolver_match = SimpleNamespace(route="api/token/")
    lockout.reserve_attempt(request, "Alice")
    assert order == [("Alice", 0, 1)]
    assert AccessAttempt.objects.get().path_info == "/api/token/"


def test_the_row_of_a_pair_is_locked(
    three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite ignores row locks, so no other test notices one that is missing."""
    locked = record_locks(monkeypatch)
    attempt("alice")
    assert "AccessAttempt" in locked


def test_a_sign_in_without_failures_deletes_nothing(
    three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most have none, and need no transaction."""
    asked: list[str] = []
    rows = lockout.LockoutHandler.filter_user_attempts

    def filtered(self: Any, *about: Any) -> Any:
        asked.append("rows")
        return rows(self, *about)

    monkeypatch.setattr(lockout.LockoutHandler, "filter_user_attempts", filtered)
    request = request_from()
    AxesProxyHandler.update_request(request)
    for many in (0, 1):
        lockout.clear_failures(request, "alice")
        assert len(asked) == many
        counted("alice", ADDRESS)


def test_a_complete_sign_in_resets_the_pair_only(three: None) -> None:
    """Not the address's other names, nor attempts in flight."""
    for name, address in (("alice", ADDRESS), ("bob", ADDRESS), ("alice", "192.0.2.2")):
        counted(name, address)
    counted("alice", ADDRESS, agent=f"{lockout.IN_FLIGHT}1")
    request = request_from()
    AxesProxyHandler.update_request(request)
    lockout.clear_failures(request, "Alice")
    rows = AccessAttempt.objects.values_list("username", "ip_address", "user_agent")
    assert set(rows) == {
        ("bob", ADDRESS, "-"),
        ("alice", "192.0.2.2", "-"),
        ("alice", ADDRESS, f"{lockout.IN_FLIGHT}1"),
    }


def test_a_sign_in_ends_its_attempt_with_its_own_transaction(
    alice: Any, three: None
) -> None:
    """Until then it counts; with the failures it is gone, or with the block."""
    counted("alice", ADDRESS, 1)
    tried = AccessAttempt.objects.filter(user_agent__startswith=lockout.IN_FLIGHT)
    for ends in (False, True):
        request = request_from()
        with lockout.ending_attempt(request):
            user = authenticate(request, username="alice", password=PASSWORD)
            assert user is not None and tried.count() == 1
            if ends:
                lockout.end_attempt(request, "alice")
                assert not tried.exists(), "in the same transaction"
        assert not tried.exists()
        assert AccessAttempt.objects.count() == (0 if ends else 1)
    with pytest.raises(OSError), lockout.ending_attempt(request):
        lockout.reserve_attempt(request, "alice")
        raise OSError
    assert not tried.exists()


def test_elsewhere_a_right_password_ends_the_attempt(alice: Any, three: None) -> None:
    assert authenticate(request_from(), username="alice", password=PASSWORD)
    assert not AccessAttempt.objects.exists()


def test_attempts_without_an_address_are_counted(three: None) -> None:
    """Of a client at a Unix socket."""
    for _ in range(3):
        request = request_from("")
        assert lockout.attempt_address(request) is None
        assert limit_attempts(request, "alice", lambda: False) is False
    with pytest.raises(RateLimited):
        lockout.refuse_if_locked_out(request, "alice")
    lockout.clear_failures(request, "alice")
    lockout.refuse_if_locked_out(request, "alice")
    assert not AccessAttempt.objects.exists()


def test_a_failure_stores_the_route_and_nothing_that_was_sent(three: None) -> None:
    """It replaces the attempt in flight; the next one adds to the row."""
    for _ in range(2):
        body = {"username": "alice", "password": "wrong"}
        assert Client().post("/api/token/?x=1", body, JSON).status_code == 401
        assert AccessAttempt.objects.get().path_info == "/api/token/"
    (row,) = AccessAttempt.objects.all()
    assert (row.username, row.ip_address) == ("alice", "127.0.0.1")
    assert (row.failures_since_start, row.path_info) == (2, "/api/token/")
    assert row.user_agent == row.get_data == row.post_data == row.http_accept == ""
    assert lockout.route_of_request(request_from()) == "/"


def test_the_attempt_that_locks_is_recorded_once(three: None) -> None:
    """Later attempts are failed sign-ins and do not prolong the lock."""
    body = {"username": "alice", "password": "wrong"}
    for expected in (401, 401, 429, 429):
        assert Client().post("/api/token/", body, JSON).status_code == expected
    (event,) = AuditEvent.objects.filter(action="user.locked_out")
    assert (event.object, event.address) == ("alice", "127.0.0.1")
    assert (event.decision, event.reason) == ("denied", "attempts")
    assert AccessAttempt.objects.get().failures_since_start == 3
    failed = AuditEvent.objects.filter(action="user.sign_in_failed").order_by("pk")
    assert [e.reason for e in failed][:2] == ["credentials"] * 2
    assert failed[len(failed) - 1].reason == "locked_out"


def test_a_secret_is_compared_under_the_lock_of_its_name(
    three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parallel guesses would be compared before the first of them counts."""
    order: list[str] = []
    monkeypatch.setattr(
        lockout, "serialize_attempts", lambda _request, name: order.append(name)
    )

    def compare() -> bool:
        order.append(f"compared in {open_transactions()} transaction")
        return False

    assert limit_attempts(request_from(), "alice", compare) is False
    assert order == ["alice", "compared in 1 transaction"]
    with transaction.atomic(), pytest.raises(RuntimeError):
        limit_attempts(request_from(), "alice", compare)


def test_a_lock_out_that_is_not_recorded_is_not_counted(
    three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are stored together."""
    counted("alice", ADDRESS, 2, agent="")

    def fails(*args: Any, **about: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(lockout, "record", fails)
    request = request_from()
    AxesProxyHandler.update_request(request)
    with pytest.raises(OSError):
        lockout.LockoutHandler().user_login_failed(None, {"username": "alice"}, request)
    assert AccessAttempt.objects.get().failures_since_start == 2


def test_a_failure_without_a_request_counts_nothing(three: None) -> None:
    lockout.LockoutHandler().user_login_failed(None, {"username": "alice"}, None)
    assert not AccessAttempt.objects.exists()


def test_a_wrong_secret_is_recorded_under_its_kind(three: None) -> None:
    """A user's code is a failed sign-in, a client's secret is not."""
    attempt("alice")
    for name in (" client:one", " registration:", " device:bob"):
        attempt(name)
    columns = ("action", "object", "client_id", "reason", "address", "decision")
    refused = ("credentials", ADDRESS, "denied")
    assert list(AuditEvent.objects.order_by("pk").values_list(*columns)) == [
        ("user.sign_in_failed", "alice", "", "second_factor", ADDRESS, "denied"),
        ("secret.refused", "client one", "one", *refused),
        ("secret.refused", "client registration", "", *refused),
        ("secret.refused", "device codes of bob", "", *refused),
    ]


def test_failures_are_those_of_one_name(three: None) -> None:
    """In every spelling of it."""
    counted("bob", ADDRESS)
    counted(" device:alice", ADDRESS)
    found = {name: lockout.failures_of(name) for name in ("bob", "ＢＯＢ", "alice", "")}
    assert found == {"bob": True, "ＢＯＢ": True, "alice": False, "": False}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alice", "alice"),
        (" client:app", "client App"),
        (" client:gone", "client gone"),
        (" registration:", "client registration"),
        (" device:alice", "device codes of alice"),
        (" device:%s", "device codes of %s"),
    ],
)
def test_readers_see_what_is_counted(db: None, name: str, words: str) -> None:
    client_row("app", name="App")
    assert lockout.name_in_words(name) == words
    assert lockout.attempted(name)["object"] == words


@pytest.mark.parametrize(
    ("about", "left"),
    [
        ({"username": "ALICE"}, {"bob", "carol", "dave"}),
        ({"address": ADDRESS}, {"carol", "dave"}),
        ({"address": "2001:db8::9"}, {"alice", "bob", "carol"}),
        ({"username": "alice", "address": "2001:db8::9"}, {"bob", "carol"}),
        ({"address": ADDRESS, "keep": ["BOB"]}, {"bob", "carol", "dave"}),
        ({"username": "alice", "address": "192.0.2.2"}, {"bob", "dave"}),
        ({}, {"alice", "bob", "carol", "dave"}),
    ],
)
def test_an_administrator_unlocks_names_or_addresses(
    three: None, about: dict[str, Any], left: set[str]
) -> None:
    """The event names both and the number; kept names stay locked."""
    rows = {"alice": ADDRESS, "bob": ADDRESS, "carol": "192.0.2.2"}
    for name, address in (rows | {"dave": "2001:db8::"}).items():
        counted(name, address)
    deleted = lockout.unlock(actor="carol", **about)
    assert set(AccessAttempt.objects.values_list("username", flat=True)) == left
    assert deleted == 4 - len(left)
    event = AuditEvent.objects.get(action="user.unlocked")
    assert event.changes == {"attempts": deleted} and event.actor == "carol"
    names = (about.get("username", ""), about.get("address", ""))
    assert event.object == " ".join(filter(None, names))


def test_unlocking_is_in_the_history_of_the_account(alice: User, three: None) -> None:
    mine = f"user:{alice.pk}"
    for name, subject in (("alice", mine), ("ａlice", mine), ("nobody", "")):
        lockout.unlock(username=name, actor="carol")
        event = AuditEvent.objects.filter(action="user.unlocked").latest("pk")
        assert event.subject == subject


def test_unlocking_a_client_names_it_for_readers(three: None) -> None:
    client_row("app", name="App")
    counted(" client:app", ADDRESS)
    assert lockout.unlock(username=" client:app", actor="carol") == 1
    event = AuditEvent.objects.get(action="user.unlocked")
    assert (event.object, event.subject) == ("client App", "")


@pytest.fixture
def backend(three: None, settings: Any) -> lockout.PasswordBackend:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    User.objects.create_user("alice", password="right")
    return lockout.PasswordBackend()


def test_a_right_password_leaves_no_attempt(backend: Any) -> None:
    """A wrong one stays counted as in flight until Django's signal."""
    request = request_from()
    assert backend.authenticate(request, "alice", "right").username == "alice"
    assert not AccessAttempt.objects.exists()
    assert backend.authenticate(request, "alice", "wrong") is None
    assert AccessAttempt.objects.get().user_agent.startswith(lockout.IN_FLIGHT)
    assert backend.authenticate(None, "alice", "right").username == "alice"
    assert backend.authenticate(None, "alice", "wrong") is None
    assert AccessAttempt.objects.count() == 1


@pytest.mark.parametrize("given", [(None, "right"), ("alice", None)])
def test_an_incomplete_sign_in_is_no_attempt(backend: Any, given: Any) -> None:
    assert backend.authenticate(request_from(), *given) is None
    assert not AccessAttempt.objects.exists()


def test_postgresql_locks_name_and_address_in_one_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two attempts that wait for each other's lock would both fail."""
    locked: list[int] = []

    class Cursor:
        def execute(self, statement: str, arrays: list[list[int]]) -> None:
            assert statement.startswith("SELECT pg_advisory_xact_lock(n) FROM unnest(")
            (numbers,) = arrays
            locked.extend(numbers)

    class Connection:
        vendor, queries_logged = "postgresql", True

        def cursor(self) -> Any:
            return nullcontext(Cursor())

    monkeypatch.setattr(lockout, "connection", Connection())
    request = request_from()
    request.axes_ip_address = ADDRESS
    lockout.serialize_attempts(request, "Alice")
    keys = ("name alice", f"address {ADDRESS}")
    assert locked == sorted(map(lockout.lock_number, keys))
    assert all(-(2**63) <= number < 2**63 for number in locked)
    assert lockout.lock_number("a") != lockout.lock_number("b")


@pytest.mark.parametrize(
    ("typed", "name"),
    [("ALICE", "alice"), ("ａlice", "alice"), ("a\x00b", "ab"), ("x" * 200, "x" * 150)],
)
def test_spellings_of_a_name_share_a_count(typed: str, name: str) -> None:
    assert lockout.normalize_username(typed) == name
    assert lockout.attempted_username(None, {"username": typed}) == name
    assert lockout.attempted_username(None, None) == ""


def test_only_the_attempt_that_locks_out_is_recorded(db: None, rf: Any) -> None:
    """Later ones are failed sign-ins; axes sends its signal for them, too."""
    request = rf.post("/admin/login/")
    lockout.on_lock_out(request, "alice", "192.0.2.1")
    assert not AuditEvent.objects.filter(action="user.locked_out").exists()
    request.axes_failures_since_start = 5
    lockout.on_lock_out(request, "alice", "192.0.2.1")
    event = AuditEvent.objects.get(action="user.locked_out")
    assert event.address == "127.0.0.1"
    assert (event.object, event.decision, event.reason) == (
        "alice",
        "denied",
        "attempts",
    )


PLACES = ("192.0.2.1", "192.0.2.2", "2001:db8::", None)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["alice", *(f"{p}alice" for p in NON_USER_PREFIXES)])
def test_rows_are_counted_as_the_conditions_say(
    db: None, name: str, place: str | None
) -> None:
    """`in_counts` says in Python what `counted_rows` says in SQL."""
    names = ["alice", "bob", *(f"{p}alice" for p in NON_USER_PREFIXES)]
    for username in names:
        for address in PLACES:
            AccessAttempt.objects.create(
                username=username, ip_address=address, failures_since_start=1
            )
    request = request_from()
    request.axes_ip_address = place
    counts = lockout.counted_rows(request, {"username": name})
    found = [set(AccessAttempt.objects.filter(q)) for q in counts]
    assert len(found) == lockout.count_of_counts(name)
    for row in AccessAttempt.objects.all():
        said = lockout.in_counts(row, name, place)
        assert said == [row in rows for rows in found], row
    assert lockout.same_address("2001:db8::", "2001:DB8:0::0")


def test_the_attempt_that_locks_out_learns_how_long(three: None) -> None:
    """The 429 of a page names the wait."""
    counted("alice", ADDRESS, 2)
    request = request_from()
    AxesProxyHandler.update_request(request)
    handler = lockout.LockoutHandler()
    handler.user_login_failed(None, {"username": "alice"}, request)
    refused = lockout.lockout_refusal(request)
    assert request.axes_locked_out and refused is not None and refused.wait > 1
    assert lockout.lockout_refusal(request_from()) is None


def test_a_person_is_unlocked_with_the_device_codes(three: None) -> None:
    """But no client of that name."""
    for prefix in ("", *NON_USER_PREFIXES):
        counted(f"{prefix}alice", "192.0.2.2")
    assert lockout.unlock(username="alice", actor="carol") == 2
    left = set(AccessAttempt.objects.values_list("username", flat=True))
    assert left == {" client:alice", " registration:alice"}
