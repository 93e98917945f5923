"""Refresh families: random successors, secrets that expire, and idle limits."""

from __future__ import annotations

import base64
import hmac
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from accounts.models import IssuedToken, OAuthClient
from tests.support.mcp_client import HTTP, McpClient
from tests.support.oauth_client import error_of, refresh, signed_in
from tests.support.server import Portico, running_server
from tests.support.users import make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


def family_of(client_id: str) -> Any:
    """The rows of a client's only sign-in."""
    return IssuedToken.objects.filter(client_id=client_id)


def stored_successors(client_id: str) -> int:
    """The number of its rows with a stored successor."""
    return int(family_of(client_id).exclude(successor_sealed=None).count())


def age_rows(rows: Any, minutes: int, *columns: str) -> None:
    """Move its dates into the past by this time."""
    for row in rows:
        for column in columns:
            at = getattr(row, column)
            setattr(row, column, at and at - timedelta(minutes=minutes))
        row.save(update_fields=columns)


def test_a_successor_cannot_be_derived(
    server: Portico,
) -> None:
    """RFC 6749 10.10: stored data is not enough to derive a refresh token."""
    client_id, answer = signed_in(server)
    first = answer["refresh_token"]
    second = refresh(server, client_id, first).json()["refresh_token"]
    words = b"portico refresh successor " + first.encode()
    digest = hmac.digest(settings.SECRET_KEY.encode(), words, "sha256")
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() not in second
    row = family_of(client_id).exclude(successor_sealed=None).get()
    assert second.encode() not in bytes(row.successor_sealed)


def test_a_new_secret_key_does_not_break_a_retry(server: Portico, folder: Path) -> None:
    """A client repeats a request whose response was lost."""
    client_id, answer = signed_in(server)
    raw = answer["refresh_token"]
    second = refresh(server, client_id, raw).json()["refresh_token"]
    with running_server(folder, SECRET_KEY="another secret key " * 4) as restarted:
        again = refresh(restarted, client_id, raw)
        assert again.status_code == 200, again.text
        assert again.json()["refresh_token"] == second
        assert refresh(restarted, client_id, second).status_code == 200


def test_a_new_encryption_key_ends_only_the_retry(
    server: Portico, folder: Path
) -> None:
    """The retry gets invalid_grant; the successor stays valid."""
    client_id, answer = signed_in(server)
    raw = answer["refresh_token"]
    second = refresh(server, client_id, raw).json()["refresh_token"]
    row = family_of(client_id).exclude(successor_sealed=None).get()
    moved = bytearray(row.successor_sealed)
    moved[-1] ^= 1
    IssuedToken.objects.filter(pk=row.pk).update(successor_sealed=bytes(moved))
    assert error_of(refresh(server, client_id, raw)) == (400, "invalid_grant")
    assert refresh(server, client_id, second).status_code == 200


def test_successors_are_deleted_after_the_grace(server: Portico) -> None:
    """The next rotation of the family deletes them, or `purge` does."""
    client_id, answer = signed_in(server)
    second = refresh(server, client_id, answer["refresh_token"]).json()
    assert stored_successors(client_id) == 1
    age_rows(family_of(client_id), 2, "redeemed_at")
    assert refresh(server, client_id, second["refresh_token"]).status_code == 200
    assert stored_successors(client_id) == 1
    age_rows(family_of(client_id), 2, "redeemed_at")
    call_command("purge", verbosity=0)
    assert stored_successors(client_id) == 0


def test_without_a_grace_no_successor_is_kept(rows: None, folder: Path) -> None:
    with running_server(folder, REFRESH_TOKEN_GRACE="0") as strict:
        client_id, answer = signed_in(strict)
        raw = answer["refresh_token"]
        assert refresh(strict, client_id, raw).status_code == 200
        assert stored_successors(client_id) == 0
        assert error_of(refresh(strict, client_id, raw)) == (400, "invalid_grant")


def api(server: Portico, path: str, **body: str) -> httpx2.Response:
    return HTTP.post(f"{server.url}/api/token/{path}", json=body)


@pytest.mark.parametrize("kind", ["refresh", "retry within the grace"])
def test_a_clients_idle_limit_applies_to_its_refresh_tokens(
    server: Portico, kind: str
) -> None:
    """OAuth 2.1 4.3: else the limit of the access token has no effect."""
    client_id, answer = signed_in(server)
    OAuthClient.objects.filter(client_id=client_id).update(max_idle=300)
    raw = answer["refresh_token"]
    if kind != "refresh":
        assert refresh(server, client_id, raw).status_code == 200
    age_rows(family_of(client_id), 20, "issued_at", "last_used_at")
    assert error_of(refresh(server, client_id, raw)) == (400, "invalid_grant")
    OAuthClient.objects.filter(client_id=client_id).update(max_idle=None)
    assert refresh(server, client_id, raw).status_code == 200


def test_using_the_access_token_keeps_the_family_alive(server: Portico) -> None:
    """The newest use of any token of the family counts."""
    client_id, answer = signed_in(server)
    OAuthClient.objects.filter(client_id=client_id).update(max_idle=300)
    age_rows(family_of(client_id), 20, "issued_at")
    family_of(client_id).filter(kind="access").update(last_used_at=timezone.now())
    renewed = refresh(server, client_id, answer["refresh_token"])
    assert renewed.status_code == 200, renewed.text
    assert McpClient(server, renewed.json()["access_token"]).allowed("look")


def test_the_idle_setting_applies_to_every_refresh_token(
    rows: None, folder: Path
) -> None:
    make_user("iris", "User")
    with running_server(folder, TOKEN_MAX_IDLE="300") as strict:
        client_id, answer = signed_in(strict, "iris")
        pair = strict.issued("iris")
        fresh = strict.issued("iris")
        age_rows(family_of(client_id), 20, "issued_at", "last_used_at")
        family = IssuedToken.objects.filter(family=pair.row.family)
        age_rows(family, 20, "issued_at", "last_used_at")
        raw = answer["refresh_token"]
        assert error_of(refresh(strict, client_id, raw)) == (400, "invalid_grant")
        for path, body in (("refresh/", "refresh"), ("verify/", "token")):
            assert api(strict, path, **{body: pair.refresh}).status_code == 401
        assert api(strict, "verify/", token=fresh.refresh).status_code == 200
        assert api(strict, "refresh/", refresh=fresh.refresh).status_code == 200
