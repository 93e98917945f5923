"""Connected apps: the list with its last use, and the end of a consent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import AuditEvent, Consent, IssuedToken, OAuthClient, User
from accounts.tokens.issue import issue_tokens

PAGE = "/portal/apps/"


def consent_for(user: User, client_id: str) -> Consent:
    client, _new = OAuthClient.objects.get_or_create(
        client_id=client_id, name=client_id, client_type="public"
    )
    return Consent.objects.create(user=user, client=client, scope="mcp")


def used(user: User, client_id: str, minutes: int) -> IssuedToken:
    """A token of the client that was used so many minutes ago."""
    row = issue_tokens(
        user, issued_via="authorization_code", client_id=client_id, refresh=False
    ).row
    at = timezone.now() - timedelta(minutes=minutes)
    IssuedToken.objects.filter(pk=row.pk).update(last_used_at=at)
    row.refresh_from_db()
    return row


def test_the_list_shows_the_last_use_of_each_client(
    browser: Client, alice: User, bob: User
) -> None:
    """By this user: another's use does not count, nor a token without use."""
    for client_id in ("one", "two"):
        consent_for(alice, client_id)
    consent_for(bob, "one")
    used(alice, "one", 7)
    newest = used(alice, "one", 5)
    used(alice, "one", 9)
    used(bob, "one", 1)
    issue_tokens(alice, issued_via="authorization_code", client_id="one")
    rows = browser.get(PAGE).context["apps"]
    apps = {consent.client.client_id: at for consent, at, _words in rows}
    assert apps == {"one": newest.last_used_at, "two": None}
    assert rows[0][2] == ["Use the tools that your roles allow."]


def test_revoking_ends_the_clients_tokens_of_this_user(
    browser: Client, alice: User, bob: User
) -> None:
    """Another user's consent and tokens, and another client's, stay."""
    mine, theirs = consent_for(alice, "one"), consent_for(bob, "one")
    other = consent_for(alice, "two")
    used(alice, "one", 5)
    kept = [used(alice, "two", 5).pk, used(bob, "one", 5).pk]
    answer = browser.post(PAGE, {"revoke": mine.pk})
    assert answer.status_code == 302 and answer["Location"] == PAGE
    assert {*Consent.objects.all()} == {theirs, other}
    assert {row.pk for row in IssuedToken.objects.live()} == set(kept)
    event = AuditEvent.objects.get(action="consent.withdrawn")
    assert (event.actor, event.object) == ("alice", "client one")
    assert (event.client_id, event.address) == ("one", "127.0.0.1")
    assert event.subject == f"user:{alice.pk}"
    revoked = AuditEvent.objects.get(action="token.revoked")
    assert revoked.reason == "revoked in the portal" and revoked.actor == "alice"
    assert "Access and 1 token revoked." in browser.get(PAGE).content.decode()
    used(alice, "two", 5)
    browser.post(PAGE, {"revoke": other.pk})
    assert "Access and 2 tokens revoked." in browser.get(PAGE).content.decode()


@pytest.mark.parametrize("form", [{}, {"revoke": "0"}])
def test_an_unknown_consent_is_not_found(browser: Client, form: dict[str, str]) -> None:
    assert browser.post(PAGE, form).status_code == 404
    assert not AuditEvent.objects.filter(action="consent.withdrawn").exists()


def test_a_failure_keeps_the_consent_and_its_event_together(
    browser: Client, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction: no event without the end, no end without the event."""

    def fails(*args: object, **kwargs: object) -> int:
        raise RuntimeError("no database")

    row = consent_for(alice, "one")
    monkeypatch.setattr(Consent, "end", fails)
    with pytest.raises(RuntimeError):
        browser.post(PAGE, {"revoke": row.pk})
    assert Consent.objects.filter(pk=row.pk).exists()
    assert not AuditEvent.objects.filter(action="consent.withdrawn").exists()


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"approved": True}, "registered by your administrator"),
        ({"registration_source": "manual"}, "registered by your administrator"),
        ({"registration_source": "dcr"}, "self-registered"),
    ],
)
def test_each_app_says_who_registered_it(
    browser: Client, alice: User, columns: dict[str, Any], text: str
) -> None:
    consent = consent_for(alice, "<one>")
    OAuthClient.objects.filter(pk=consent.client_id).update(**columns)
    page = browser.get(PAGE).content.decode()
    others = {"registered by your administrator", "self-registered"} - {text}
    assert text in page and not any(f">{one} " in page for one in others)
    assert "<h2>&lt;one&gt;</h2>" in page and "not used yet" in page
    assert f'name="revoke" value="{consent.pk}"' in page
