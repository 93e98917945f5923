"""Client documents (CIMD), the registration switch, and cleaning up."""

from __future__ import annotations

import json
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
import urllib3
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from oauth2_provider import cimd
from oauth2_provider.settings import oauth2_settings

from accounts.models import AuditEvent, DocumentHost, OAuthClient, User
from accounts.oauth.clients import metadata_documents
from accounts.oauth.clients.register import register
from accounts.tokens.issue import issue_tokens

pytestmark = pytest.mark.django_db
CLAUDE = {
    "client_id": "https://claude.ai/oauth/claude-code-client-metadata",
    "client_name": "Claude Code",
    "client_uri": "https://claude.ai",
    "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
    "grant_types": [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
    ],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}
VSCODE = {
    "client_id": "https://vscode.dev/oauth/client-metadata.json",
    "client_name": "Visual Studio Code",
    "redirect_uris": [
        "https://insiders.vscode.dev/redirect",
        "https://vscode.dev/redirect",
        "http://127.0.0.1/",
        "http://127.0.0.1:33418/",
    ],
    "grant_types": [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
    ],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
    "application_type": "native",
}


def client_of_document(
    monkeypatch: Any, document: dict[str, Any]
) -> OAuthClient | None:
    """The client of a document from a fake fetcher: no network beyond loopback."""

    class Fetcher:
        def fetch(self, client_id: str) -> tuple[dict[str, Any], int]:
            return document, 300

    monkeypatch.setattr(oauth2_settings, "CIMD_METADATA_FETCHER", Fetcher)
    cache.clear()
    found: OAuthClient | None = cimd.resolve_cimd_application(
        str(document.get("client_id", "https://x.example/doc")), request=None
    )
    return found


def test_the_validator_replaces_the_toolkits_rules() -> None:
    """Fails if a toolkit release moves the methods that Portico overrides."""
    assert cimd._build_application_kwargs is metadata_documents.document_columns
    assert cimd.SafeMetadataFetcher is not None


@pytest.mark.spec("RFC 8252 7.3: any loopback port")
@pytest.mark.spec("MCP REG: client id metadata documents")
@pytest.mark.spec("CIMD 4.1")
@pytest.mark.parametrize("document", [CLAUDE, VSCODE], ids=["claude", "vscode"])
def test_published_documents_are_accepted(
    monkeypatch: Any, document: dict[str, Any]
) -> None:
    """CIMD 4.1: as Claude Code and VS Code publish them; any loopback port."""
    client = client_of_document(monkeypatch, document)
    assert client is not None and client.client_id == document["client_id"]
    assert client.name == document["client_name"] and not client.verified
    assert "authorization_code" in client.grant_types
    if document is CLAUDE:
        assert client.redirect_uri_allowed("http://localhost:53999/callback")
        assert client.redirect_uri_allowed("http://127.0.0.1:1/callback")
    assert not client.redirect_uri_allowed("http://localhost.evil.example/callback")
    assert not client.redirect_uri_allowed("http://127.0.0.1:1/other")


BROKEN: list[dict[str, Any]] = [
    {"client_id": "https://claude.ai/another"},
    {"client_secret": "x"},
    {"client_secret_expires_at": 0},
    {"token_endpoint_auth_method": "client_secret_basic"},
    {"client_name": ""},
    {"client_name": ["x"]},
    {"redirect_uris": []},
    {"redirect_uris": ["http://evil.example/cb"]},
    {"redirect_uris": ["javascript:alert(1)"]},
    {"redirect_uris": "https://claude.ai/cb"},
    {"grant_types": ["client_credentials"]},
    {"grant_types": "authorization_code"},
]


@pytest.mark.spec("CIMD 6.2: no shared secrets")
@pytest.mark.spec("CIMD 4.1")
@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_malformed_documents_are_refused(
    monkeypatch: Any, broken: dict[str, Any]
) -> None:
    """CIMD 4.1, 6.2."""
    document = {**CLAUDE, **broken}
    changed = {**document, "client_id": CLAUDE["client_id"]}

    class Fetcher:
        def fetch(self, client_id: str) -> tuple[dict[str, Any], int]:
            return document, 300

    monkeypatch.setattr(oauth2_settings, "CIMD_METADATA_FETCHER", Fetcher)
    cache.clear()
    assert cimd.resolve_cimd_application(changed["client_id"], request=None) is None


def client_of_response(
    monkeypatch: Any, body: bytes, **options: Any
) -> OAuthClient | None:
    """The client of a document from a local server, through the real fetcher."""
    response = urllib3.HTTPResponse(
        BytesIO(body),
        headers={"content-type": options.get("kind", "application/json")},
        status=options.get("status", 200),
        preload_content=False,
    )
    monkeypatch.setattr(cimd, "_resolve_and_validate", lambda *a: ["192.0.2.1"])
    monkeypatch.setattr(
        urllib3.HTTPSConnectionPool, "urlopen", lambda *a, **k: response
    )
    cache.clear()
    found: OAuthClient | None = cimd.resolve_cimd_application(
        CLAUDE["client_id"], request=None
    )
    return found


@pytest.mark.spec("CIMD 4: 200 and JSON only, no redirects, small")
@pytest.mark.parametrize(
    ("options", "good"),
    [
        ({}, True),
        ({"kind": "application/client+json; charset=utf-8"}, True),
        ({"status": 302}, False),
        ({"status": 404}, False),
        ({"status": 500}, False),
        ({"kind": "text/html"}, False),
        ({"body": b"x" + b" " * 20_000}, False),
        ({"body": b"not json"}, False),
        ({"body": b"[]"}, False),
    ],
    ids=str,
)
def test_a_document_has_to_be_json(
    monkeypatch: Any, options: dict[str, Any], good: bool
) -> None:
    """CIMD 4, 4.4, 6.6: a failure stores no client."""
    body = options.pop("body", json.dumps(CLAUDE).encode())
    client = client_of_response(monkeypatch, body, **options)
    assert (client is not None) is good
    assert OAuthClient.objects.filter(client_id=CLAUDE["client_id"]).exists() is good


@pytest.mark.spec("CIMD 3: URL rules")
@pytest.mark.spec("CIMD 6.5")
@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/doc",
        "https://localhost/doc",
        "https://[::1]/doc",
        "https://10.0.0.1/doc",
        "https://169.254.169.254/latest",
        "https://[::ffff:127.0.0.1]/doc",
        "https://0.0.0.0/doc",
        "http://claude.ai/doc",
        "https://claude.ai",
        "https://u@claude.ai/doc",
        "https://claude.ai/doc#f",
        "https://claude.ai/a/../doc",
    ],
)
def test_private_addresses_and_odd_urls_are_not_fetched(url: str) -> None:
    """CIMD 3, 6.5: tested with the real fetcher."""
    cache.clear()
    assert cimd.resolve_cimd_application(url, request=None) is None
    with pytest.raises(cimd.CIMDError):
        cimd.SafeMetadataFetcher().fetch(url)


@pytest.mark.spec("MCP SEC Trust: policy by host")
def test_the_list_of_document_hosts_decides(monkeypatch: Any) -> None:
    """CIMD 6.8: trusted hosts are verified, blocked hosts refused."""
    DocumentHost.objects.create(host="claude.ai", trusted=True)
    client = client_of_document(monkeypatch, CLAUDE)
    assert client is not None and client.verified
    DocumentHost.objects.create(host="vscode.dev", trusted=False)
    assert client_of_document(monkeypatch, VSCODE) is None
    assert client.is_usable(None)
    DocumentHost.objects.update(trusted=False)
    assert not client.is_usable(None), "refused later too"


SPELLINGS = [
    ("Evil.Example", "https://evil.example/c.json"),
    ("evil.example.", "https://evil.example/c.json"),
    ("evil.example", "https://EVIL.example./c.json"),
    ("evil.example", "https://evil.example:8443/c.json"),
    ("evil.example", "https://evil\u3002example/c.json"),
    ("\uff45\uff56\uff49\uff4c.example", "https://evil.example/c.json"),
    ("B\u00fccher.example", "https://xn--bcher-kva.example/c.json"),
    ("xn--bcher-kva.example", "https://b\u00fccher.example/c.json"),
    ("1.1.1.1", "https://16843009/c.json"),
    ("0x1010101", "https://1.1.1.1/c.json"),
    ("1.1.257", "https://[::ffff:1.1.1.1]/c.json"),
    ("[2606:4700::0:1111]", "https://[2606:4700:0::1111]/c.json"),
]
"""(host as an administrator writes it, client id at that host)."""


@pytest.mark.parametrize(("written", "client_id"), SPELLINGS)
def test_a_host_is_refused_in_every_spelling(
    monkeypatch: Any, written: str, client_id: str
) -> None:
    """CIMD 6.8: a resolver reads all these spellings as one host."""
    document = {**CLAUDE, "client_id": client_id}
    client = client_of_document(monkeypatch, document)
    assert client is not None and client.is_usable(None) and not client.verified
    row = DocumentHost.objects.create(host=written, trusted=True)
    assert client.verified and row.host == DocumentHost.objects.get().host
    row.trusted = False
    row.save()
    assert not client.is_usable(None) and [*row.clients()] == [client]
    client.delete()
    assert client_of_document(monkeypatch, document) is None
    with pytest.raises(ValidationError, match="already exists"):
        DocumentHost(host=written).full_clean()


@pytest.mark.parametrize(
    "client_id",
    ["https://evil.example../c", "https://a b/c", "https://*.example/c"]
    + ["https://1.2.3.4.5/c", "https://evil%2eexample/c", f"https://{'a' * 64}.b/c"],
)
def test_a_document_without_a_host_makes_no_client(
    monkeypatch: Any, client_id: str
) -> None:
    """CIMD 3: an administrator could not block such a host."""
    assert client_of_document(monkeypatch, {**CLAUDE, "client_id": client_id}) is None


@pytest.mark.parametrize(
    "written",
    ["https://evil.example", "//evil.example", "evil.example:443", "*.evil.example"]
    + ["evil.example/path", "a b.example", ".example", "u@evil.example", "?", "a..b"]
    + ["evil.example,good.example", "[::1]:443", "fe80::1%eth0", "-a.b", "1.2.3.256"],
)
def test_an_invalid_host_cannot_be_listed(written: str) -> None:
    with pytest.raises(ValidationError, match="is not a host name"):
        DocumentHost(host=written).full_clean()
    with pytest.raises(ValidationError, match="is not a host name"):
        DocumentHost.objects.create(host=written)


def post(body: dict[str, Any], **headers: Any) -> Any:
    path = "/oauth/register"
    return Client().post(path, body, content_type="application/json", **headers)


@pytest.mark.spec("RFC 7591 3")
def test_the_registration_switch(settings: Any) -> None:
    """RFC 7591 3: open, with an initial access token, off."""
    body = {"redirect_uris": ["https://a.example/cb"]}
    assert post(body).status_code == 201
    settings.CLIENT_REGISTRATION = "token"
    settings.REGISTRATION_TOKEN = "initial-access-token-1"
    assert post(body).status_code == 401
    bad = {"HTTP_AUTHORIZATION": "Bearer wrong"}
    assert post(body, **bad).status_code == 401
    good = {"HTTP_AUTHORIZATION": "Bearer initial-access-token-1"}
    assert post(body, **good).status_code == 201
    settings.CLIENT_REGISTRATION = "off"
    assert post(body, **good).status_code == 403
    found = Client().get("/.well-known/oauth-authorization-server").json()
    assert "registration_endpoint" not in found
    assert AuditEvent.objects.filter(action="client.registered").exists()


@pytest.mark.spec("RFC 7591 5: unused registrations expire")
def test_unused_clients_are_purged_and_used_ones_kept(alice: User) -> None:
    """A client with a live token is never deleted."""
    body = {"redirect_uris": ["https://a.example/cb"]}
    idle, used = register(body)[0], register(body)[0]
    issue_tokens(alice, issued_via="command", client_id=used.client_id)
    old = timezone.now() - timedelta(days=60)
    OAuthClient.objects.filter(pk__in=[idle.pk, used.pk]).update(created=old)
    fresh = register(body)[0]
    call_command("purge")
    left = set(OAuthClient.objects.values_list("pk", flat=True))
    assert idle.pk not in left and {used.pk, fresh.pk} <= left
