"""Signing keys in the admin: view, rotate, retire."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.utils import timezone

from accounts.http.relative_times import exact
from accounts.models import AuditEvent, SigningKey
from accounts.models.signing_keys import KeyState
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    events_by,
    list_url,
    row_url,
    staff_member,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
PAGE: Any = admin.site.get_model_admin(SigningKey)
ROTATE = "/admin/accounts/signingkey/rotate/"


@pytest.fixture
def keys(settings: Any) -> dict[str, SigningKey]:
    """State -> a key in it."""
    settings.SIGNING_ALGORITHM = "EdDSA"
    SigningKey.objects.all().delete()
    SigningKey.objects.rotate(actor="the test")
    SigningKey.objects.rotate(actor="the test")
    SigningKey.objects.create(kid="old", algorithm="EdDSA", state="retired")
    return {str(key.state): key for key in SigningKey.objects.all()}


@pytest.fixture
def henry() -> AdminBrowser:
    """May rotate keys, has no role."""
    needed = ("view_signingkey", "change_signingkey", "change_issuedtoken")
    return AdminBrowser(staff_member("henry", *needed))


def states() -> dict[str, str]:
    return dict(SigningKey.objects.values_list("kid", "state"))


def test_keys_that_do_not_sign_are_retired(
    root: AdminBrowser, keys: dict[str, SigningKey]
) -> None:
    page = root.run(SigningKey, "retire", *keys.values())
    active, retiring = keys["active"].kid, keys["retiring"].kid
    assert f"{active} signs new tokens. Rotate the key first." in page
    assert f"{retiring} is retired." in page
    assert set(states().values()) == {"active", "retired"}
    assert states()[active] == "active"
    retired = sorted((retiring, keys["next"].kid))
    found = events_by(root.user)
    assert sorted(event[1] for event in found) == retired, "the retired one has none"
    assert {event[0] for event in found} == {"key.retired"}
    keys["retiring"].refresh_from_db()
    assert keys["retiring"].private_encrypted == b"" and keys["retiring"].retired_at


def test_a_key_with_tokens_of_users_above_is_not_retired(
    henry: AdminBrowser, keys: dict[str, SigningKey]
) -> None:
    key = keys["retiring"]
    token = add_token(account("carol", is_superuser=True), kid=key.kid)
    add_token(account("alice", "User"), kid=keys["next"].kid)
    page = henry.run(SigningKey, "retire", key)
    assert "Users with more permissions than you have tokens signed" in page
    assert states()[key.kid] == "retiring" and events_by(henry.user) == []
    page = henry.run(SigningKey, "retire", keys["next"])
    assert states()[keys["next"].kid] == "retired"
    token.delete()
    henry.run(SigningKey, "retire", key)
    assert states()[key.kid] == "retired"


def test_the_next_key_is_activated(
    henry: AdminBrowser, keys: dict[str, SigningKey]
) -> None:
    page = henry.post(ROTATE)
    successor = keys["next"].kid
    assert f"New tokens are signed with {successor}" in page.text
    assert states()[successor] == "active"
    assert states()[keys["active"].kid] == "retiring"
    assert events_by(henry.user) == [("key.rotated", f"signing key {successor}", "")]


def test_rotating_needs_its_permission_and_a_post(
    root: AdminBrowser, keys: dict[str, SigningKey]
) -> None:
    viewer, before = AdminBrowser(staff_member("vera", "view_signingkey")), states()
    last = AuditEvent.objects.count()
    page = viewer.post(ROTATE)
    assert "You do not have permission to rotate keys." in page.text
    assert root.open(ROTATE).page.status_code == 405
    assert states() == before
    assert AuditEvent.objects.filter(action="key.rotated").count() == 2
    assert AuditEvent.objects.count() >= last
    for browser, may in ((viewer, False), (root, True)):
        text = browser.open(list_url(SigningKey)).page.text
        assert (f'action="{ROTATE}"' in text) == may


def test_private_keys_are_never_shown(
    root: AdminBrowser, keys: dict[str, SigningKey]
) -> None:
    for key in keys.values():
        assert root.open(row_url(SigningKey, key)).page.status_code == 200
        assert "private" not in root.page.text.replace("Private keys are", "")
    assert "private_encrypted" not in {*PAGE.fields, *PAGE.list_display}


def test_a_key_is_shown_as_it_is_published(keys: dict[str, SigningKey]) -> None:
    text = PAGE.published_as(keys["active"])
    assert "<pre" in text and keys["active"].kid in text and "OKP" in text
    assert "not published (retired)" in PAGE.published_as(keys["retired"])


def test_the_list_says_how_long_a_key_is_needed(
    keys: dict[str, SigningKey], monkeypatch: Any
) -> None:
    assert PAGE.needed(keys["next"]) == "not used yet"
    assert PAGE.needed(keys["active"]) == "in use"
    assert PAGE.needed(keys["retired"]) == "ended"
    key = keys["retiring"]
    assert exact(key.needed_until) in PAGE.needed(key)
    end = key.needed_until
    monkeypatch.setattr(timezone, "now", lambda: end)
    assert PAGE.needed(key).startswith("no longer needed")
    monkeypatch.setattr(timezone, "now", lambda: end - timedelta(seconds=1))
    assert not PAGE.needed(key).startswith("no longer needed")


@pytest.mark.parametrize(
    ("kid", "shown"),
    [("k" * 15, "k" * 15), ("k" * 16, "k" * 12 + "...")],
)
def test_long_ids_are_shortened(kid: str, shown: str) -> None:
    assert PAGE.short_kid(SigningKey(kid=kid)) == shown


@pytest.mark.parametrize(
    ("state", "look"),
    [("active", "good"), ("retiring", "warn"), ("next", ""), ("retired", "")],
)
def test_each_state_has_its_colour(state: str, look: str) -> None:
    badge = PAGE.state_shown(SigningKey(state=state))
    assert badge == f'<span class="badge {look}">{KeyState(state).label}</span>'
