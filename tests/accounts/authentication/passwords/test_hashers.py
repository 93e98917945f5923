"""Hashing: one at a time, a short wait, then 429 without hashing."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.hashers import check_password, make_password
from django.test import Client, override_settings

from accounts.authentication.passwords import hashers
from accounts.authentication.passwords.hashers import hash_in_slot, hashing_slot
from accounts.http import outbound_calls
from accounts.rate_limits.errors import RateLimited
from tests.support.quick_hashing import shipped_cost
from tests.support.static_files import UNCOLLECTED
from tests.support.users import PASSWORD

HASHER = "accounts.authentication.passwords.hashers.TunedArgon2PasswordHasher"


class BusyThread(threading.Thread):
    """A thread that hashes and does not finish."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.done = threading.Event(), threading.Event()

    def run(self) -> None:
        with hashing_slot():
            self.begun.set()
            self.done.wait(20)

    def __enter__(self) -> None:
        self.start()
        self.begun.wait(20)

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.join()


@pytest.mark.once
@override_settings(HASHING_WAIT=0.01, PASSWORD_HASHERS=[HASHER])
def test_a_hash_that_waits_too_long_is_refused() -> None:
    """The limit covers making and checking; only the thread with the slot frees it."""
    with hashing_slot():
        known = make_password(PASSWORD)
    with BusyThread():
        for work in (lambda: make_password("x"), lambda: check_password("x", known)):
            with pytest.raises(RateLimited, match="in a moment"):
                work()
    assert check_password(PASSWORD, known)


@pytest.mark.once
@override_settings(HASHING_WAIT=0.01)
@pytest.mark.parametrize("vendor", ["postgresql", "sqlite"])
def test_who_waits_gives_a_pooled_connection_back(
    monkeypatch: pytest.MonkeyPatch, vendor: str
) -> None:
    released: list[str] = []
    own = SimpleNamespace(vendor=vendor)
    monkeypatch.setattr(outbound_calls, "connection", own)
    monkeypatch.setattr(
        outbound_calls, "release_connections", lambda: released.append(vendor)
    )
    with hashing_slot():
        assert released == []
    with BusyThread(), pytest.raises(RateLimited), hashing_slot():
        pass
    assert released == (["postgresql"] if vendor == "postgresql" else [])


@pytest.mark.once
@override_settings(PASSWORD_HASHERS=[HASHER])
def test_hashing_runs_on_one_thread() -> None:
    """A thread per request must not keep 19 MiB each."""
    threads = {hash_in_slot(threading.get_ident) for _ in range(3)}
    for _ in range(3):
        asker = threading.Thread(
            target=lambda: threads.add(hash_in_slot(threading.get_ident))
        )
        asker.start()
        asker.join()
    assert len(threads) == 1 and threading.get_ident() not in threads
    assert check_password(PASSWORD, make_password(PASSWORD))


@pytest.mark.spec("RFC 6585 4")
@override_settings(HASHING_WAIT=0.01, PASSWORD_HASHERS=[HASHER], STORAGES=UNCOLLECTED)
@pytest.mark.parametrize("accept", ["*/*", "text/html,*/*"])
@pytest.mark.parametrize("path", ["/api/token/", "/accounts/login/"])
def test_a_busy_sign_in_answers_429(alice: Any, path: str, accept: str) -> None:
    """Pages and APIs answer at once, with Retry-After."""
    body = urlencode({"username": "alice", "login": "alice", "password": PASSWORD})
    form = "application/x-www-form-urlencoded"
    with BusyThread():
        answer = Client().post(path, body, form, headers={"accept": accept})
    assert answer.status_code == 429 and answer["Retry-After"] == "1"
    assert not AccessAttempt.objects.exists(), "nothing was compared"
    page = accept.startswith("text") and "login" in path
    assert (
        b"Try again later" in answer.content
        if page
        else b"many_requests" in answer.content
    )


@pytest.mark.once
@override_settings(PASSWORD_HASHERS=[HASHER])
def test_a_prehashed_password_is_hashed_once_and_used_once() -> None:
    """For this text only, and inside the block only."""
    with hashers.prehashed_password("one"):
        ready = dict(hashers._local.ready)
        assert make_password("one") == ready["one"]
        assert make_password("one") != ready["one"]
    with pytest.raises(KeyError), hashers.prehashed_password("one"):
        raise KeyError
    assert hashers._local.ready == {}, "no other request may use it"
    with hashers.prehashed_password(""):
        assert hashers._local.ready == {}
    assert hashers._local.ready == {}
    assert check_password("one", ready["one"])


@pytest.mark.once
def test_passwords_are_hashed_with_owasps_parameters() -> None:
    """OWASP Password Storage: argon2id, 19 MiB, two passes, one lane."""
    hasher: Any = hashers.TunedArgon2PasswordHasher()
    with shipped_cost():
        found = (hasher.memory_cost, hasher.time_cost, hasher.parallelism)
        encoded = hasher.encode("x", "saltsaltsalt")
    assert found == (19 * 1024, 2, 1)
    assert encoded.startswith("argon2$argon2id$v=19$m=19456,t=2,p=1$")
    secret: Any = hashers.ClientSecretHasher()
    assert (secret.algorithm, secret.iterations) == ("accounts_client_secret", 1)


@pytest.mark.once
def test_an_error_frees_the_slot() -> None:
    """Inner uses of the same thread do not."""
    with pytest.raises(KeyError), hashing_slot(), hashing_slot():
        raise KeyError("x")
    assert not hashers._local.has_slot
    with hashing_slot():
        with hashing_slot():
            pass
        assert hashers._local.has_slot
