"""Revoked tokens: added by pasting a token or its id."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.utils import timezone

from accounts.admin.tokens.revoked_tokens import (
    RevokeForm,
    find_pasted_token,
    strip_bearer,
)
from accounts.crypto.secrets import secret_hash
from accounts.models import IssuedToken, RevokedToken
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    events_by,
    is_live,
    list_url,
    row_url,
    staff_member,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
ADD = "/admin/accounts/revokedtoken/add/"
RAW = "pat_something-that-nobody-guesses"


@pytest.fixture
def henry() -> AdminBrowser:
    """The helpdesk."""
    needed = ("view_revokedtoken", "add_revokedtoken", "change_issuedtoken")
    return AdminBrowser(staff_member("henry", *needed))


def test_a_pasted_id_revokes_its_token_only(root: AdminBrowser) -> None:
    alice = account("alice")
    row, other = add_token(alice), add_token(alice)
    root.save(ADD, token_or_id=f" Bearer {row.jti.upper()}\n", reason="lost laptop")
    assert not is_live(row) and is_live(other)
    revoked = RevokedToken.objects.get()
    assert (revoked.jti, revoked.reason, revoked.revoked_by) == (
        row.jti,
        "lost laptop",
        "root",
    )
    assert revoked.until == row.expires_at
    assert events_by(root.user) == [
        ("token.revoked", "access token of alice", "lost laptop")
    ]


def test_a_pasted_token_is_not_stored(root: AdminBrowser) -> None:
    row = add_token(account("alice"), kind="personal", secret_hash=secret_hash(RAW))
    root.save(ADD, token_or_id=RAW)
    assert RevokedToken.objects.get().reason == "revoked in the admin"
    assert not is_live(row) and RAW not in root.page.text


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("unknown", "This is neither a token issued here nor a token ID."),
        ("revoked", "This token is already revoked."),
        ("expired", "This token has already expired."),
        ("revoked and expired", "This token is already revoked."),
    ],
)
def test_a_token_that_needs_no_revocation_is_named(
    root: AdminBrowser, state: str, text: str
) -> None:
    row = add_token(account("alice"))
    if "revoked" in state:
        IssuedToken.objects.filter(pk=row.pk).revoke(actor="x", reason="y")
    if "expired" in state:
        past = timezone.now() - timedelta(seconds=1)
        IssuedToken.objects.filter(pk=row.pk).update(expires_at=past)
    before = RevokedToken.objects.count()
    pasted = "f" * 32 if state == "unknown" else row.jti
    assert text in root.refused_save(ADD, token_or_id=pasted)
    assert text.split(".")[0] in root.refused_save(ADD, token_or_id=pasted)
    assert RevokedToken.objects.count() == before and events_by(root.user) == []


def test_the_id_of_a_token_of_users_above_is_not_enough(henry: AdminBrowser) -> None:
    """The whole token is: its holder may end it."""
    carol = account("carol", is_superuser=True)
    row = add_token(carol, secret_hash=secret_hash(RAW))
    for pasted in (row.jti, row.jti.upper(), f"Bearer {row.jti}"):
        text = henry.refused_save(ADD, token_or_id=pasted)
        assert "carol has more permissions than you" in text
    assert is_live(row)
    henry.save(ADD, token_or_id=f"Bearer {RAW}")
    assert not is_live(row)
    hers = add_token(account("alice", "User"))
    henry.save(ADD, token_or_id=hers.jti)
    assert not is_live(hers)


def test_a_token_without_an_account_is_revoked_by_its_id(henry: AdminBrowser) -> None:
    row = add_token(account("gone"))
    IssuedToken.objects.filter(pk=row.pk).update(user=None)
    henry.save(ADD, token_or_id=row.jti)
    assert not is_live(row)


def test_revocations_are_viewed_but_not_edited(root: AdminBrowser) -> None:
    row = add_token(account("alice"))
    IssuedToken.objects.filter(pk=row.pk).revoke(actor="x", reason="y")
    revoked = RevokedToken.objects.get()
    path = row_url(RevokedToken, revoked)
    assert root.open(path).page.status_code == 200 and "token_or_id" not in (
        root.page.text
    )
    assert root.post(path, token_or_id=row.jti).status_code == 403
    assert root.delete(RevokedToken, revoked).status_code == 403
    assert row.jti in root.open(f"{list_url(RevokedToken)}?q={row.jti[:6]}").page.text
    assert row.jti not in root.open(f"{list_url(RevokedToken)}?q=root").page.text
    page: Any = admin.site.get_model_admin(RevokedToken)
    assert page.get_fields(None, None) == ("token_or_id", "reason")
    fields = ("jti", "revoked_at", "revoked_by", "reason", "until")
    assert page.get_fields(None, revoked) == fields


def test_ids_and_tokens_are_found_in_pasted_text() -> None:
    row = add_token(account("alice"), secret_hash=secret_hash(RAW))
    assert strip_bearer(f" Bearer  {RAW[:9]}\n{RAW[9:]} ") == RAW
    assert find_pasted_token(f"Bearer {RAW}") == row
    assert find_pasted_token(row.jti.upper()) == row
    assert find_pasted_token(row.jti[:-1]) is None
    assert find_pasted_token("g" * 32) is None
    assert RevokeForm.base_fields["token_or_id"].required
