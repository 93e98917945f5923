"""Copies of client documents: switching off."""

from __future__ import annotations

import pytest

from accounts.models import DocumentCopy, IssuedToken, OAuthClient, RevokedToken
from tests.support.model_rows import client_row, events_of, person, token_row

pytestmark = pytest.mark.django_db


def copy_of(client: OAuthClient, name: str) -> DocumentCopy:
    url = f"https://{name}.example/c.json"
    row: DocumentCopy = DocumentCopy.objects.create(
        client_id=url, name=name, document={}
    )
    OAuthClient.objects.filter(pk=client.pk).update(document_copy=row)
    return row


def test_switching_a_copy_off_ends_the_access_of_its_clients() -> None:
    ann, one, two = person("ann"), client_row("one"), client_row("two")
    copy, other = copy_of(one, "a"), copy_of(two, "b")
    lost = token_row(ann, client_id="one")
    kept = token_row(ann, client_id="two")
    rows = DocumentCopy.objects.filter(pk=copy.pk)
    assert rows.switch_off(actor="carol", reason="why") == 1
    assert list(IssuedToken.objects.all().live()) == [kept]
    assert RevokedToken.objects.get().jti == lost.jti
    [event] = events_of("token.revoked")
    assert (event.actor, event.reason) == ("carol", "why")
    one.refresh_from_db(), two.refresh_from_db()
    assert not one.is_usable(None) and one.copy_switched_off
    assert two.is_usable(None) and not two.copy_switched_off
    assert [*copy.clients()] == [one] and [*other.clients()] == [two]


def test_copies_in_use_are_those_of_clients() -> None:
    copy = copy_of(client_row("one"), "a")
    assert list(DocumentCopy.objects.in_use()) == [copy]
    assert str(copy) == "a" and copy.last_used_at is None
    DocumentCopy.objects.filter(pk=copy.pk).mark_used()
    copy.refresh_from_db()
    assert copy.last_used_at is not None
    assert not DocumentCopy.objects.exclude(pk=copy.pk).exclude(last_used_at=None)


def test_a_client_without_a_copy_is_usable() -> None:
    assert client_row("one").is_usable(None)
