"""During a lock-out no password is hashed."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client, override_settings

from accounts.authentication.passwords.hashers import TunedArgon2PasswordHasher
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
