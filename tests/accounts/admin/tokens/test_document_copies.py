"""Copies of client documents in the admin: paste, switch, fetch, delete."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accounts.admin.tokens import document_copies
from accounts.models import DocumentCopy, DocumentHost, OAuthClient, User
from accounts.oauth.clients.document_clients import store_client
from accounts.oauth.clients.document_failures import DocumentFailure
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    is_live,
    newest_event,
    row_url,
    staff_member,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
ADD = "/admin/accounts/documentcopy/add/"
URL = "https://c.example/client.json"
DOCUMENT = {
    "client_id": URL,
    "client_name": "Tester",
    "redirect_uris": ["http://127.0.0.1/callback"],
}


@pytest.fixture
def carol() -> AdminBrowser:
    return AdminBrowser(account("carol", is_staff=True, is_superuser=True))


@pytest.fixture
def pasted(carol: AdminBrowser) -> DocumentCopy:
    """A client stands on this copy, with a token of alice's."""
    paste(carol, DOCUMENT)
    copy: DocumentCopy = DocumentCopy.objects.get(client_id=URL)
    store_client(URL, DOCUMENT, 300, copy)
    return copy


def paste(browser: AdminBrowser, document: Any, path: str = ADD, **more: Any) -> None:
    browser.open(path)
    text = json.dumps(document)
    browser.submit(browser.form("_save"), "_save", document=text, **more)


def test_an_empty_form_does_not_say_null(carol: AdminBrowser) -> None:
    """`null` would be JSON to correct before the pasted text."""
    form = carol.open(ADD).form("_save")
    assert form.fields["document"].strip() == ""


def errors(browser: AdminBrowser, document: Any, path: str = ADD) -> str:
    """The page of a refused document; it still shows the pasted text."""
    before = list(DocumentCopy.objects.values())
    paste(browser, document, path)
    assert list(DocumentCopy.objects.values()) == before
    assert "Please correct the error" in browser.page.text
    return browser.page.text


def test_a_pasted_document_becomes_a_copy(pasted: DocumentCopy) -> None:
    assert (pasted.name, pasted.source, pasted.enabled) == ("Tester", "pasted", True)
    assert pasted.document == DOCUMENT
    event = newest_event("document_copy.added")
    assert (event.actor, event.object) == ("carol", "Tester")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"client_secret": "x"}, "a document must not contain a secret"),
        ({"redirect_uris": ["http://evil.example/"]}, "The document is not valid"),
        ({"client_id": "https://c.example"}, "must contain a path"),
        ({"client_id": "https://blocked.example/c"}, "blocked.example is blocked"),
        ({"client_id": URL}, f"There is a copy of {URL} already."),
    ],
    ids=str,
)
def test_a_refused_document_is_explained(
    carol: AdminBrowser, pasted: DocumentCopy, changed: dict[str, Any], problem: str
) -> None:
    DocumentHost.objects.create(host="blocked.example", trusted=False)
    page = errors(carol, {**DOCUMENT, **changed})
    assert problem in page and "redirect_uris" in page


def test_a_row_keeps_its_url(carol: AdminBrowser, pasted: DocumentCopy) -> None:
    path = row_url(DocumentCopy, pasted)
    page = errors(carol, {**DOCUMENT, "client_id": f"{URL}x"}, path)
    assert f"This row is the copy of {URL}." in page


def test_a_changed_copy_applies_to_its_client(
    carol: AdminBrowser, pasted: DocumentCopy
) -> None:
    DocumentCopy.objects.update(source="shipped")
    newer = {**DOCUMENT, "redirect_uris": ["http://127.0.0.1/other"]}
    paste(carol, newer, row_url(DocumentCopy, pasted))
    pasted.refresh_from_db()
    assert (pasted.document, pasted.source) == (newer, "pasted")
    client = OAuthClient.objects.get(client_id=URL)
    assert client.redirect_uris == "http://127.0.0.1/other"
    assert client.document_copy == pasted


def test_the_switch_of_the_form_ends_the_access(
    carol: AdminBrowser, pasted: DocumentCopy
) -> None:
    token = add_token(account("alice", "User"), client_id=URL)
    paste(carol, DOCUMENT, row_url(DocumentCopy, pasted), enabled=None)
    assert not is_live(token)
    assert newest_event("token.revoked").actor == "carol"
    assert newest_event("document_copy.changed").changes == {"enabled": [True, False]}


def test_the_actions_switch_off_and_on(
    carol: AdminBrowser, pasted: DocumentCopy
) -> None:
    token = add_token(account("alice", "User"), client_id=URL)
    carol.run(DocumentCopy, "switch_off", pasted)
    pasted.refresh_from_db()
    assert not pasted.enabled and not is_live(token)
    carol.run(DocumentCopy, "switch_on", pasted)
    pasted.refresh_from_db()
    assert pasted.enabled
    assert newest_event("document_copy.changed").changes == {"enabled": [False, True]}


def test_a_fetch_reports_its_result(
    carol: AdminBrowser, pasted: DocumentCopy, monkeypatch: Any
) -> None:
    answers = [DocumentFailure("timeout", "c.example"), None]
    fetch = lambda copy: answers.pop(0)  # noqa: E731
    monkeypatch.setattr(document_copies, "fetch_copy", fetch)
    page = carol.run(DocumentCopy, "fetch", pasted)
    text = "Tester: c.example did not answer this server in time."
    assert f'<li class="error">{text}' in page
    page = carol.run(DocumentCopy, "fetch", pasted)
    assert '<li class="success">Tester was fetched.' in page


def test_a_pasted_copy_can_be_deleted_with_its_client(
    carol: AdminBrowser, pasted: DocumentCopy
) -> None:
    token = add_token(account("alice", "User"), client_id=URL)
    assert carol.delete(DocumentCopy, pasted).status_code == 200
    assert not DocumentCopy.objects.filter(pk=pasted.pk).exists()
    assert not is_live(token) and not OAuthClient.objects.filter(client_id=URL)
    assert newest_event("token.revoked").actor == "carol"


def test_a_shipped_copy_cannot_be_deleted(carol: AdminBrowser) -> None:
    shipped = DocumentCopy.objects.get(name="Claude Code")
    assert carol.delete(DocumentCopy, shipped).status_code == 403
    carol.send(DocumentCopy, "delete_selected", shipped)
    assert DocumentCopy.objects.filter(pk=shipped.pk).exists()


def test_a_copy_of_a_more_privileged_users_client_cannot_be_switched_off(
    carol: AdminBrowser, pasted: DocumentCopy
) -> None:
    token = add_token(User.objects.get(username="carol"), client_id=URL)
    names = ["view_documentcopy", "change_documentcopy"]
    mallory = AdminBrowser(staff_member("mallory", *names, roles=("Guest",)))
    page = mallory.run(DocumentCopy, "switch_off", pasted)
    assert "Users with more permissions than you have tokens" in page
    pasted.refresh_from_db()
    assert pasted.enabled and is_live(token)
