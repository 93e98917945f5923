"""Copies of documents: shipped ones, their rules, and when they are used."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.utils import timezone
from oauth2_provider.settings import oauth2_settings

from accounts.models import AuditEvent, DocumentCopy, DocumentHost, OAuthClient, User
from accounts.oauth.clients import document_copies, metadata_documents
from accounts.oauth.clients.document_clients import described_client, store_client
from accounts.oauth.clients.document_copies import check_document, shipped_copies
from accounts.oauth.clients.document_failures import DocumentFailure, FetchFailed
from accounts.oauth.clients.key_sets import KeySet
from tests.support.model_rows import events_of
from tests.support.oauth_requests import oauth_client, request_of
from tests.support.users import account

pytestmark = pytest.mark.django_db
URL = "https://c.example/client.json"
DOCUMENT = {
    "client_id": URL,
    "client_name": "Tester",
    "redirect_uris": ["http://127.0.0.1/callback"],
    "token_endpoint_auth_method": "none",
}
TIMEOUT = DocumentFailure("timeout", "c.example", "c.example did not answer")
GONE = DocumentFailure("status", "c.example", "HTTP status 410", 410)


def shipped(name: str) -> DocumentCopy:
    row: DocumentCopy = DocumentCopy.objects.get(name=name)
    return row


# The shipped file


def test_the_well_known_clients_are_shipped() -> None:
    names = "Claude|Claude Code|Codex|Goose|Visual Studio Code|opencode".split("|")
    rows = DocumentCopy.objects.order_by("name")
    assert sorted(row.name for row in rows) == names
    assert all(row.enabled and row.origin and row.last_used_at is None for row in rows)
    assert {row.source for row in rows} == {"shipped"}


@pytest.mark.parametrize("copy", shipped_copies(), ids=str)
def test_a_shipped_copy_meets_the_rules_of_fetched_documents(
    copy: DocumentCopy,
) -> None:
    client = check_document(copy.document)
    assert (client.client_id, client.name) == (copy.client_id, copy.name)
    assert "authorization_code" in client.grant_types
    assert client.client_type == "public" and copy.read_on <= timezone.localdate()


def migrated(**changed: Any) -> None:
    document_copies.add_shipped_copies(
        None, **{"apps": apps, "using": "default", **changed}
    )


def test_migrate_renews_shipped_copies_but_not_the_switch() -> None:
    DocumentCopy.objects.filter(name="Codex").update(
        enabled=False, read_on=date(2026, 1, 1), document={}
    )
    DocumentCopy.objects.filter(name="Goose").update(
        source="pasted", read_on=date(2026, 1, 1), document={"mine": 1}
    )
    DocumentCopy.objects.filter(name="Claude").delete()
    DocumentCopy.objects.filter(name="opencode").update(document={"read": "today"})
    migrated()
    assert shipped("opencode").document == {"read": "today"}, "not older"
    assert shipped("Codex").document["client_name"] == "Codex"
    assert not shipped("Codex").enabled
    assert shipped("Goose").document == {"mine": 1} and shipped("Claude").enabled
    assert DocumentCopy.objects.count() == len(shipped_copies())


def test_migrate_renews_every_column_of_a_shipped_copy() -> None:
    (given,) = [one for one in shipped_copies() if one.name == "Codex"]
    row = shipped("Codex")
    old = {"name": "Old", "document": {}, "origin": "", "read_on": date(2026, 1, 1)}
    DocumentCopy.objects.filter(pk=row.pk).update(**old)
    migrated()
    row.refresh_from_db()
    for name in old:
        assert getattr(row, name) == getattr(given, name) != old[name]
    entries = json.loads(document_copies.SHIPPED.read_text("utf-8"))
    found = {(one.origin, str(one.read_on)) for one in shipped_copies()}
    assert found == {(entry["origin"], entry["read_on"]) for entry in entries}


@pytest.mark.parametrize(("larger", "allowed"), [(0, True), (1, False)])
def test_a_document_is_as_large_as_a_fetched_one_may_be(
    monkeypatch: Any, larger: int, allowed: bool
) -> None:
    """In bytes, of which some characters have several."""
    document = {**DOCUMENT, "client_name": "Größe"}
    most = len(json.dumps(document, ensure_ascii=False).encode()) - larger
    monkeypatch.setattr(oauth2_settings, "CIMD_MAX_DOCUMENT_SIZE", most)
    if allowed:
        assert check_document(document).name == "Größe"
        return
    with pytest.raises(ValidationError, match=f"{most + 1} bytes; {most} are allowed"):
        check_document(document)


def test_a_migration_backwards_ends_without_the_table() -> None:
    class Before:
        def get_model(self, *names: str) -> None:
            raise LookupError

    DocumentCopy.objects.all().delete()
    migrated(apps=Before())
    assert not DocumentCopy.objects.exists()


# A pasted document

BROKEN: list[Any] = [
    [],
    "text",
    {},
    {**DOCUMENT, "client_id": "http://c.example/x"},
    {**DOCUMENT, "client_id": "https://c.example"},
    {**DOCUMENT, "client_id": "https://c.example/a/../b"},
    {**DOCUMENT, "client_secret": "x"},
    {**DOCUMENT, "token_endpoint_auth_method": "client_secret_post"},
    {**DOCUMENT, "redirect_uris": ["http://evil.example/cb"]},
    {**DOCUMENT, "redirect_uris": []},
    {**DOCUMENT, "client_name": ""},
    {**DOCUMENT, "x": "x" * 17_000},
    {**DOCUMENT, "client_id": f"{URL}?{'x' * 300}"},
]


@pytest.mark.parametrize("document", BROKEN, ids=lambda d: str(d)[:60])
def test_a_pasted_document_meets_the_rules_of_fetched_ones(document: Any) -> None:
    with pytest.raises(ValidationError, match="The document is not valid: "):
        check_document(document)


def test_the_url_of_an_administrators_client_cannot_be_taken() -> None:
    OAuthClient.objects.create(client_id=URL, registration_source="manual")
    with pytest.raises(ValidationError, match="client of an administrator"):
        check_document(DOCUMENT)


# When a copy is used


@pytest.fixture
def user() -> User:
    return account("alice", "User")


@pytest.fixture
def copy() -> DocumentCopy:
    DocumentCopy.objects.all().delete()
    row: DocumentCopy = DocumentCopy.objects.create(
        client_id=URL, name="Tester", document=DOCUMENT
    )
    return row


@pytest.fixture
def answers(monkeypatch: Any) -> list[Any]:
    """What the host answers next: failures or documents; the last one repeats."""
    found: list[Any] = [TIMEOUT]

    class Fetcher:
        def fetch(self, client_id: str) -> tuple[dict[str, Any], int]:
            assert client_id == URL
            answer = found.pop(0) if len(found) > 1 else found[0]
            if isinstance(answer, DocumentFailure):
                raise FetchFailed(answer)
            return answer, 300

    monkeypatch.setattr(oauth2_settings, "CIMD_METADATA_FETCHER", Fetcher)
    cache.clear()
    return found


def ask(user: User) -> DocumentFailure | None:
    return metadata_documents.refresh(URL, request_of(user))


def client() -> OAuthClient:
    row: OAuthClient = OAuthClient.objects.get(client_id=URL)
    return row


def test_a_copy_is_used_while_the_host_does_not_answer(
    user: User, copy: DocumentCopy, answers: list[Any]
) -> None:
    assert ask(user) is None and client().is_usable(None)
    assert client().document_copy == copy and not client().verified
    assert client().redirect_uris == "http://127.0.0.1/callback"
    left = client().cimd_expires_at - timezone.now()
    assert timedelta(minutes=59) < left < timedelta(minutes=61)
    copy.refresh_from_db()
    assert copy.last_used_at is not None
    [event] = events_of("client.document_failed")
    assert (event.actor, event.client_id) == ("alice", URL)
    assert event.reason == "timeout: c.example did not answer" and event.address
    assert event.via == f"copy of {copy.read_on}"


def test_the_hosts_own_document_replaces_the_copy(
    user: User, copy: DocumentCopy, answers: list[Any]
) -> None:
    ask(user)
    OAuthClient.objects.update(cimd_expires_at=timezone.now() - timedelta(seconds=1))
    answers[:] = [{**DOCUMENT, "client_name": "Newer"}]
    cache.clear()
    assert ask(user) is None
    assert client().name == "Newer" and client().document_copy is None


@pytest.mark.parametrize("status", [404, 410, 301])
def test_a_copy_is_not_used_against_the_hosts_answer(
    user: User, copy: DocumentCopy, answers: list[Any], status: int
) -> None:
    answers[:] = [DocumentFailure("status", "c.example", "", status)]
    failure = ask(user)
    assert failure is not None and failure.status == status
    assert not OAuthClient.objects.exists()


def test_a_copy_is_not_used_for_a_document_that_breaks_a_rule(
    user: User, copy: DocumentCopy, answers: list[Any]
) -> None:
    answers[:] = [{**DOCUMENT, "client_secret": "x"}]
    failure = ask(user)
    assert failure is not None and failure.kind == "invalid"
    assert not OAuthClient.objects.exists()


def test_a_fetched_document_is_kept_instead_of_a_copy(
    user: User, copy: DocumentCopy, answers: list[Any]
) -> None:
    store_client(URL, {**DOCUMENT, "client_name": "Fetched"}, -1)
    assert ask(user) is None
    assert client().name == "Fetched" and client().document_copy is None


def test_a_blocked_host_has_no_copy(
    user: User, copy: DocumentCopy, answers: list[Any]
) -> None:
    DocumentHost.objects.create(host="c.example", trusted=False)
    failure = ask(user)
    assert failure is not None and failure.kind == "host_blocked"
    assert not OAuthClient.objects.exists()
    DocumentHost.objects.update(trusted=True)
    assert ask(user) is None and client().verified
    DocumentHost.objects.update(trusted=False)
    failure = ask(user)
    assert failure is not None and failure.kind == "host_blocked"


def test_a_blocked_client_is_told_so(
    user: User, copy: DocumentCopy, answers: list[Any]
) -> None:
    ask(user)
    OAuthClient.objects.update(blocked=True)
    failure = ask(user)
    assert failure is not None and failure.kind == "client_blocked"


def test_a_copy_that_is_switched_off_is_not_used(
    user: User, copy: DocumentCopy, answers: list[Any]
) -> None:
    assert ask(user) is None
    DocumentCopy.objects.filter(pk=copy.pk).switch_off(actor="carol", reason="why")
    assert not client().is_usable(None)
    failure = ask(user)
    assert failure is not None and failure.copy_off and failure.kind == "timeout"
    DocumentCopy.objects.update(enabled=True)
    assert ask(user) is None and client().is_usable(None)


def test_no_document_is_fetched_with_fetches_switched_off(
    user: User, copy: DocumentCopy, answers: list[Any], settings: Any
) -> None:
    settings.FETCH_CLIENT_DOCUMENTS = False
    answers[:] = [RuntimeError("fetched")]
    assert ask(user) is None and client().document_copy == copy
    DocumentCopy.objects.all().delete()
    failure = ask(user)
    assert failure is not None and failure.kind == "off"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_event_of_a_failure_names_a_copy_that_is_used(
    user: User, copy: DocumentCopy, answers: list[Any], enabled: bool
) -> None:
    DocumentCopy.objects.update(enabled=enabled)
    ask(user)
    [event] = events_of("client.document_failed")
    assert event.via == (f"copy of {copy.read_on}" if enabled else "")
    assert (event.object, event.actor_id) == (f"document of {URL}", user.pk)


@pytest.mark.parametrize(("seconds", "events"), [(59, 1), (61, 2)])
def test_a_failure_is_recorded_again_after_a_minute(
    user: User, answers: list[Any], monkeypatch: Any, seconds: int, events: int
) -> None:
    """Of the same client: another client's failure is recorded at once.

    Other events of the client do not count.
    """
    AuditEvent(action="consent.given", client_id=URL).save()
    ask(user)
    later = timezone.now() + timedelta(seconds=seconds)
    monkeypatch.setattr(timezone, "now", lambda: later)
    cache.clear()
    ask(user)
    assert len(events_of("client.document_failed")) == events
    metadata_documents.record_failure(f"{URL}2", TIMEOUT, request_of(user), None)
    assert len(events_of("client.document_failed")) == events + 1


@pytest.mark.parametrize("answer", [TIMEOUT, GONE, None], ids=str)
def test_a_host_is_asked_again_a_minute_after_a_failure(
    user: User, answers: list[Any], monkeypatch: Any, answer: Any
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(cache, "set", lambda *given: kept.append(given))
    answers[:] = [answer]
    failure = ask(user)
    [(_key, remembered, seconds)] = kept
    assert remembered == failure and failure is not None
    assert seconds == oauth2_settings.CIMD_FAILURE_BACKOFF_SECONDS == 60


def test_a_failure_is_remembered_and_recorded_once_a_minute(
    user: User, answers: list[Any], monkeypatch: Any
) -> None:
    answers[:] = [TIMEOUT, GONE]
    assert ask(user) == TIMEOUT and ask(user) == TIMEOUT
    assert len(events_of("client.document_failed")) == 1
    assert events_of("client.document_failed")[0].via == ""
    later = timezone.now() + timedelta(seconds=61)
    monkeypatch.setattr(timezone, "now", lambda: later)
    cache.clear()
    assert ask(user) == GONE
    assert len(events_of("client.document_failed")) == 2


def test_no_document_causes_an_unhandled_error(
    user: User, answers: list[Any], caplog: Any
) -> None:
    answers[:] = [None]
    failure = ask(user)
    assert failure is not None and failure.kind == "unexpected"
    assert "cannot be read" in caplog.text


def test_two_requests_store_one_client(
    user: User, copy: DocumentCopy, monkeypatch: Any, caplog: Any
) -> None:
    caplog.set_level("INFO")
    store_client(URL, DOCUMENT, 300)
    monkeypatch.setattr(
        OAuthClient.objects, "filter", lambda **k: OAuthClient.objects.none()
    )
    store_client(URL, {**DOCUMENT, "client_name": "Loser"}, 300)
    assert client().name == "Tester" and "stored at the same time" in caplog.text


def test_a_block_during_a_fetch_stays(copy: DocumentCopy, monkeypatch: Any) -> None:
    store_client(URL, DOCUMENT, 300)
    clean = OAuthClient.full_clean

    def blocks(self: OAuthClient, **options: Any) -> None:
        clean(self, **options)
        OAuthClient.objects.update(blocked=True)

    monkeypatch.setattr(OAuthClient, "full_clean", blocks)
    store_client(URL, {**DOCUMENT, "client_name": "Newer"}, 300)
    assert client().blocked and client().name == "Newer"


def test_a_document_changes_its_own_client(copy: DocumentCopy) -> None:
    other = oauth_client("other", name="Other", redirect_uris="https://o.example")
    for name in ("Tester", "Newer"):
        store_client(URL, {**DOCUMENT, "client_name": name}, 300)
    assert client().name == "Newer"
    before = OAuthClient.objects.values().get(pk=other.pk)
    assert (before["name"], before["redirect_uris"]) == ("Other", "https://o.example")


@pytest.mark.parametrize("uri", ["https://c.example/j", "https://c.example/new"])
def test_a_client_keeps_the_keys_of_the_same_uri(copy: DocumentCopy, uri: str) -> None:
    """A document that names another set has no keys until they are fetched."""
    signed = {**DOCUMENT, "token_endpoint_auth_method": "private_key_jwt"}
    found = KeySet("https://c.example/j", {"keys": [{"kty": "EC"}]}, 5.0)
    store_client(URL, {**signed, "jwks_uri": found.uri}, 300, keys=found)
    moved = described_client(URL, {**signed, "jwks_uri": uri})
    kept = uri == found.uri
    assert moved.client_jwks == (found.keys if kept else {})
    assert moved.registered == (
        found.columns["registered"] if kept else {"jwks_uri": uri}
    )


def test_the_use_of_a_copy_is_noted_each_time(
    user: User, copy: DocumentCopy, answers: list[Any]
) -> None:
    for _use in ("first", "stored"):
        DocumentCopy.objects.update(last_used_at=None)
        assert ask(user) is None
        copy.refresh_from_db()
        assert copy.last_used_at is not None


# Fetched by an administrator


def test_a_copy_is_fetched_again(copy: DocumentCopy, answers: list[Any]) -> None:
    store_client(URL, DOCUMENT, 300, copy)
    copy.read_on = date(2026, 1, 1)
    copy.save()
    changed = {**DOCUMENT, "client_name": "Newer"}
    answers[:] = [TIMEOUT, {**changed, "client_id": f"{URL}x"}, changed]
    assert document_copies.fetch_copy(copy) == TIMEOUT
    wrong = document_copies.fetch_copy(copy)
    assert wrong is not None and wrong.kind == "invalid"
    copy.refresh_from_db()
    assert (copy.name, copy.source) == ("Tester", "pasted")
    assert document_copies.fetch_copy(copy) is None
    copy.refresh_from_db()
    assert (copy.name, copy.source, copy.document) == ("Newer", "fetched", changed)
    assert copy.origin == URL
    assert copy.read_on == timezone.localdate() and client().name == "Newer"


@pytest.mark.parametrize("enabled", [False, True])
def test_a_copy_that_is_switched_off_changes_no_client(
    copy: DocumentCopy, answers: list[Any], enabled: bool
) -> None:
    """Its clients get the new document when it is switched on again."""
    store_client(URL, DOCUMENT, 60, copy)
    copy.enabled = enabled
    copy.save()
    copy.refresh_from_db()
    answers[:] = [{**DOCUMENT, "client_name": "Newer"}]
    assert document_copies.fetch_copy(copy) is None
    assert client().name == ("Newer" if enabled else "Tester")


def test_a_copy_that_no_client_stands_on_makes_none(
    copy: DocumentCopy, answers: list[Any]
) -> None:
    answers[:] = [DOCUMENT]
    assert document_copies.fetch_copy(copy) is None
    assert not OAuthClient.objects.filter(client_id=URL).exists()
