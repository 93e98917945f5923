"""During a lock-out no password is hashed; typed names are user names only."""

from __future__ import annotations

from typing import Any

import pytest
from axes.models import AccessAttempt
from django.test import Client, RequestFactory, override_settings

from accounts.authentication.lockout import NON_USER_PREFIXES, limit_attempts
from accounts.authentication.passwords.hashers import TunedArgon2PasswordHasher
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
