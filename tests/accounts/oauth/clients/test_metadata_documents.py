"""Client ID Metadata Documents (CIMD)."""

from __future__ import annotations

import json
import ssl
import time
from datetime import timedelta
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
import urllib3
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.utils import timezone
from jwt.algorithms import ECAlgorithm
from oauth2_provider import cimd
from oauth2_provider.settings import oauth2_settings

from accounts.http import outbound_calls
from accounts.models import DocumentCopy, DocumentHost, OAuthClient
from accounts.oauth.clients import (
    document_clients,
    document_fetcher,
    metadata_documents,
)
from accounts.oauth.clients.assertions import ASSERTION, authenticate_assertion
from accounts.rate_limits.errors import RateLimited
from tests.support.oauth_requests import oauth_client, request_of

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


@pytest.fixture(autouse=True)
def no_copies() -> None:
    """The hosts alone decide."""
    DocumentCopy.objects.all().delete()


def resolved_client(client_id: str) -> OAuthClient | None:
    """The client after its document was fetched; None if it cannot be used."""
    cache.clear()
    if metadata_documents.refresh(client_id, request_of(None)) is not None:
        return None
    rows = OAuthClient.objects.filter(client_id=client_id)
    found: OAuthClient | None = rows.first()
    return found


def client_of_document(
    monkeypatch: Any, document: dict[str, Any]
) -> OAuthClient | None:
    """The client of a document from a fake fetcher: no network beyond loopback."""

    class Fetcher:
        def fetch(self, client_id: str) -> tuple[dict[str, Any], int]:
            return document, 300

    monkeypatch.setattr(oauth2_settings, "CIMD_METADATA_FETCHER", Fetcher)
    return resolved_client(document["client_id"])


def test_the_validator_replaces_the_toolkits_rules() -> None:
    """Fails if a toolkit release moves the methods that Portico overrides."""
    assert issubclass(document_fetcher.DocumentFetcher, cimd.SafeMetadataFetcher)


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


KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
SIGNING = {
    **CLAUDE,
    "token_endpoint_auth_method": "private_key_jwt",
    "jwks": {"keys": [PUBLIC]},
}


@pytest.mark.spec("CIMD 6.2")
def test_a_document_with_keys_is_a_client_that_signs(monkeypatch: Any) -> None:
    """It authenticates with its key, and with nothing after its host is blocked."""
    client = client_of_document(monkeypatch, SIGNING)
    assert client is not None and client.uses_private_key_jwt
    assert client.client_type == "confidential" and client.client_jwks["keys"]
    name, end = client.client_id, int(time.time()) + 60
    claims = {"iss": name, "sub": name, "aud": settings.ISSUER_URL, "exp": end}

    def presented(jti: str) -> OAuthClient | None:
        raw = jwt.encode({**claims, "jti": jti}, KEY, algorithm="ES256")
        form = {"client_assertion_type": ASSERTION, "client_assertion": raw}
        return authenticate_assertion(SimpleNamespace(**form, client_id=None))

    assert presented("one") == client and presented("one") is None
    DocumentHost.objects.create(host="claude.ai", trusted=False)
    assert presented("two") is None


def test_a_document_that_drops_its_keys_is_a_public_client(monkeypatch: Any) -> None:
    client_of_document(monkeypatch, SIGNING)
    OAuthClient.objects.update(cimd_expires_at=timezone.now() - timedelta(days=1))
    client = client_of_document(monkeypatch, CLAUDE)
    assert client is not None and client.client_type == "public"
    assert client.client_jwks == {}


@pytest.mark.parametrize(
    "jwks",
    [
        None,
        {},
        {"keys": []},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]},
        {"keys": [ECAlgorithm.to_jwk(KEY, as_dict=True)]},
        {"keys": [{**PUBLIC, "crv": "P-1"}]},
        "https://claude.ai/jwks.json",
    ],
    ids=["null", "empty", "no keys", "symmetric", "private", "curve", "a URL"],
)
def test_documents_with_other_keys_are_refused(monkeypatch: Any, jwks: Any) -> None:
    """Symmetric, private, unknown and missing keys."""
    assert client_of_document(monkeypatch, {**SIGNING, "jwks": jwks}) is None


def test_a_document_names_one_set_of_keys(monkeypatch: Any) -> None:
    """RFC 7591 2: jwks and jwks_uri exclude each other; one of them is needed."""
    named = {**SIGNING, "jwks_uri": "https://claude.ai/jwks.json"}
    assert client_of_document(monkeypatch, named) is None
    neither = {name: value for name, value in SIGNING.items() if name != "jwks"}
    assert client_of_document(monkeypatch, neither) is None


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
    assert resolved_client(changed["client_id"]) is None


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_a_malformed_document_fetches_no_keys(
    monkeypatch: Any, broken: dict[str, Any]
) -> None:
    """Another host is asked only after the document has been checked."""
    document = {
        **CLAUDE,
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks_uri": "https://keys.example/jwks.json",
        **broken,
    }
    asked: list[str] = []

    class Fetcher:
        def fetch(self, url: str) -> tuple[dict[str, Any], int]:
            asked.append(url)
            return document, 300

    monkeypatch.setattr(oauth2_settings, "CIMD_METADATA_FETCHER", Fetcher)
    assert resolved_client(str(CLAUDE["client_id"])) is None
    assert asked == [CLAUDE["client_id"]]


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
    return resolved_client(str(CLAUDE["client_id"]))


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
    assert resolved_client(url) is None
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


# Parts of the fetch


def test_a_document_makes_a_public_client() -> None:
    """CIMD 4.1: also if it names no method."""
    document = {k: v for k, v in CLAUDE.items() if k != "token_endpoint_auth_method"}
    assert document_clients.document_columns(document) == {
        "name": "Claude Code",
        "redirect_uris": "http://localhost/callback http://127.0.0.1/callback",
        "token_endpoint_auth_method": "none",
        "client_type": "public",
        "authorization_grant_type": "authorization-code",
        "grant_types": ["authorization_code", "refresh_token"],
        "client_jwks": {},
        "registered": {},
    }


@pytest.mark.parametrize("name", ["client_secret", "client_secret_expires_at"])
def test_even_an_empty_secret_is_refused(name: str) -> None:
    with pytest.raises(cimd.CIMDError, match="secret"):
        document_clients.document_columns({**CLAUDE, name: None})


@pytest.mark.parametrize(
    ("client_id", "allowed"),
    [
        ("https://good.example/c", True),
        ("https://trusted.example/c", True),
        ("https://refused.example/c", False),
        ("https://REFUSED.example./c", False),
        ("https://a..b/c", False),
    ],
)
def test_documents_of_refused_hosts_are_not_fetched(
    client_id: str, allowed: bool
) -> None:
    DocumentHost.objects.create(host="refused.example", trusted=False)
    DocumentHost.objects.create(host="trusted.example", trusted=True)
    policy = document_fetcher.HostPolicy()
    assert policy.has_permission(None, client_id) is allowed


def test_a_host_that_did_not_answer_is_left_alone_for_30_seconds(
    monkeypatch: Any,
) -> None:
    hosts, now = document_fetcher.UnresponsiveHosts(), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    hosts.add("a:443")
    assert "a:443" in hosts and "b:443" not in hosts and "a:444" not in hosts
    now[0] = 129.9
    assert "a:443" in hosts
    now[0] = 130.0
    assert "a:443" not in hosts


def test_the_oldest_unresponsive_host_is_forgotten(monkeypatch: Any) -> None:
    assert document_fetcher.MAX_UNRESPONSIVE == 1_000
    monkeypatch.setattr(document_fetcher, "MAX_UNRESPONSIVE", 2)
    hosts = document_fetcher.UnresponsiveHosts()
    for name in "abc":
        hosts.add(name)
    assert [*hosts.until] == ["b", "c"]


@pytest.fixture
def unresponsive(monkeypatch: Any) -> Any:
    """An empty list of hosts that did not answer."""
    hosts = document_fetcher.UnresponsiveHosts()
    monkeypatch.setattr(document_fetcher, "UNRESPONSIVE", hosts)
    return hosts


def fetch(client_id: str = "https://c.example/doc") -> tuple[dict[str, Any], int]:
    return document_fetcher.DocumentFetcher().fetch(client_id)


FAILURES = [OSError("no route"), urllib3.exceptions.ReadTimeoutError(None, None, "t")]  # type: ignore[arg-type]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_a_host_that_does_not_answer_is_not_asked_again(
    monkeypatch: Any, unresponsive: Any, failure: Exception
) -> None:
    asked: list[str] = []

    def fails(self: Any, parts: Any, call: Any) -> Any:
        asked.append(parts.netloc)
        raise failure

    fetcher = document_fetcher.DocumentFetcher
    monkeypatch.setattr(fetcher, "fetch_from_any_address", fails)
    with pytest.raises(cimd.CIMDError, match="c.example:443 did not answer: "):
        fetch()
    with pytest.raises(cimd.CIMDError, match="did not answer a moment ago"):
        fetch("https://C.example/other")
    with pytest.raises(cimd.CIMDError, match="8443 did not answer: "):
        fetch("https://c.example:8443/doc")
    assert asked == ["c.example", "c.example:8443"]
    assert [*unresponsive.until] == ["c.example:443", "c.example:8443"]


def test_a_wrong_document_does_not_make_its_host_unresponsive(
    monkeypatch: Any, unresponsive: Any
) -> None:
    def wrong(self: Any, parts: Any, call: Any) -> Any:
        raise cimd.CIMDError("wrong")

    fetcher = document_fetcher.DocumentFetcher
    monkeypatch.setattr(fetcher, "fetch_from_any_address", wrong)
    with pytest.raises(cimd.CIMDError, match="wrong"):
        fetch()
    assert not unresponsive.until


def test_a_url_without_a_host_name_is_not_fetched(unresponsive: Any) -> None:
    with pytest.raises(cimd.CIMDError, match="no host name"):
        fetch("https://a..b/doc")


class Pool:
    """A connection pool that records its use; an address that is dead raises."""

    used: list[Any] = []
    status = 200

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.events: list[Any] = []
        Pool.used.append(self)

    def urlopen(self, method: str, path: str, **options: Any) -> Any:
        self.events.append((method, path, options))
        if self.options["host"].startswith("dead"):
            raise urllib3.exceptions.ProtocolError("reset")
        return self

    def release_conn(self) -> None:
        self.events.append("released")

    def close(self) -> None:
        self.events.append("closed")


@pytest.fixture
def pools(monkeypatch: Any, unresponsive: Any) -> list[Any]:
    """The pools that a fetch opens; documents are empty and valid for a minute."""
    Pool.used = []
    monkeypatch.setattr(outbound_calls, "HTTPSPool", Pool)
    monkeypatch.setattr(
        document_fetcher.DocumentFetcher,
        "_read_document",
        lambda self, response: ({}, 60),
    )
    return Pool.used


def resolve_to(monkeypatch: Any, *addresses: str) -> list[tuple[str, int]]:
    """Every name has these addresses; returns the look-ups."""
    looked_up: list[tuple[str, int]] = []

    def resolved(host: str, port: int) -> list[str]:
        looked_up.append((host, port))
        return list(addresses)

    monkeypatch.setattr(cimd, "_resolve_and_validate", resolved)
    return looked_up


def test_the_connection_uses_the_checked_address(
    monkeypatch: Any, pools: list[Any]
) -> None:
    """A second look-up could return another one (DNS rebinding)."""
    looked_up = resolve_to(monkeypatch, "192.0.2.1")
    assert fetch("https://C.example:8443/doc?a=1") == ({}, 60)
    [pool] = pools
    options = pool.options
    assert looked_up == [("c.example", 8443)]
    assert (options["host"], options["port"]) == ("192.0.2.1", 8443)
    assert options["server_hostname"] == "c.example" and options["retries"] is False
    assert 0 < options["timeout"] <= oauth2_settings.CIMD_FETCH_TIMEOUT_SECONDS
    assert options["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    accept = "application/json, application/*+json"
    sent = {"headers": {"Host": "C.example:8443", "Accept": accept}}
    sent |= {"redirect": False, "preload_content": False}  # type: ignore[dict-item]
    assert pool.events == [("GET", "/doc?a=1", sent), "released", "closed"]


def test_the_next_address_is_tried(monkeypatch: Any, pools: list[Any]) -> None:
    resolve_to(monkeypatch, "dead.1", "192.0.2.1", "192.0.2.2")
    assert fetch() == ({}, 60)
    assert [p.options["host"] for p in pools] == ["dead.1", "192.0.2.1"]
    assert {p.options["port"] for p in pools} == {443}
    assert all(p.events[-1] == "closed" for p in pools)
    assert pools[0].events[0][1] == "/doc"


def test_no_address_answers(
    monkeypatch: Any, pools: list[Any], unresponsive: Any
) -> None:
    resolve_to(monkeypatch, "dead.1", "dead.2")
    with pytest.raises(cimd.CIMDError, match="did not answer: reset"):
        fetch()
    assert len(pools) == 2 and "c.example:443" in unresponsive
    resolve_to(monkeypatch)
    with pytest.raises(cimd.CIMDError, match="no address"):
        fetch("https://other.example/doc")


@pytest.mark.spec("CIMD 6.5")
@pytest.mark.parametrize(
    ("found", "good"),
    [
        (["8.8.8.8", "8.8.8.8", "1.1.1.1"], ["8.8.8.8", "1.1.1.1"]),
        (["8.8.8.8", "10.0.0.1"], None),
        (["127.0.0.1"], None),
        (["::1"], None),
        ([], None),
    ],
    ids=str,
)
def test_a_host_has_public_addresses_only(
    monkeypatch: Any, found: list[str], good: list[str] | None
) -> None:
    def resolve(host: str, port: int, seconds: float) -> list[Any]:
        assert (host, port) == ("c.example", 443)
        assert 0 < seconds <= oauth2_settings.CIMD_FETCH_TIMEOUT_SECONDS
        return [(0, 0, 0, "", (address, port)) for address in found]

    monkeypatch.setattr(outbound_calls, "resolve", resolve)
    if good is not None:
        assert document_fetcher.resolve_public_addresses("c.example", 443) == good
        return
    with pytest.raises(cimd.CIMDError, match="no public address"):
        document_fetcher.resolve_public_addresses("c.example", 443)


def test_the_toolkit_resolves_with_these_rules() -> None:
    rules = document_fetcher.resolve_public_addresses
    assert cimd._resolve_and_validate is rules


# When a document is fetched again


@pytest.fixture
def resolved(monkeypatch: Any) -> list[str]:
    """The client ids whose documents were fetched; a slot was held for each."""
    found: list[str] = []

    class Fetcher:
        def fetch(self, client_id: str) -> Any:
            assert document_fetcher.SLOTS.in_use == {"c.example:443": 1}
            found.append(client_id)
            return {}, 60

    monkeypatch.setattr(metadata_documents, "checked_keys", lambda *a: None)
    monkeypatch.setattr(metadata_documents, "store_client", lambda *a, **k: None)
    monkeypatch.setattr(oauth2_settings, "CIMD_METADATA_FETCHER", Fetcher)
    return found


DOCUMENT = "https://c.example/doc"


def stored(source: str, seconds: int | None) -> OAuthClient:
    end = None if seconds is None else timezone.now() + timedelta(seconds=seconds)
    return oauth_client(DOCUMENT, registration_source=source, cimd_expires_at=end)


@pytest.mark.parametrize(
    ("source", "seconds", "fetched"),
    [
        ("cimd", 60, False),
        ("cimd", -1, True),
        ("cimd", None, False),
        ("manual", -1, False),
        ("dcr", -1, False),
    ],
)
def test_a_document_is_fetched_again_once_it_expired(
    resolved: list[str], source: str, seconds: int | None, fetched: bool
) -> None:
    stored(source, seconds)
    metadata_documents.refresh(DOCUMENT, "the request")
    assert resolved == ([DOCUMENT] if fetched else [])


@pytest.mark.parametrize(
    ("source", "kind"), [("cimd", "client_blocked"), ("manual", None), ("dcr", None)]
)
def test_only_a_documents_client_is_refused_by_the_rules_of_documents(
    resolved: list[str], source: str, kind: str | None
) -> None:
    """The toolkit does not know other clients that are blocked."""
    stored(source, 60)
    OAuthClient.objects.update(blocked=True)
    failure = metadata_documents.refresh(DOCUMENT, "the request")
    assert (failure.kind if failure else None) == kind


def test_a_document_lives_through_its_last_moment(monkeypatch: Any) -> None:
    client = stored("cimd", 60)
    monkeypatch.setattr(timezone, "now", lambda: client.cimd_expires_at)
    assert not metadata_documents.is_expired(client)


@pytest.mark.parametrize("client_id", ["app", "", "http://c.example/doc"])
def test_other_client_ids_are_no_documents(resolved: list[str], client_id: str) -> None:
    metadata_documents.refresh(client_id, "the request")
    assert resolved == []


def test_an_unknown_document_is_fetched_unless_switched_off(
    resolved: list[str], monkeypatch: Any
) -> None:
    metadata_documents.refresh(DOCUMENT, "the request")
    assert resolved == [DOCUMENT]
    monkeypatch.setattr(oauth2_settings, "CIMD_ENABLED", False)
    metadata_documents.refresh(DOCUMENT, "the request")
    assert resolved == [DOCUMENT]


def test_an_invalid_document_url_is_logged_and_not_fetched(
    resolved: list[str], caplog: Any
) -> None:
    caplog.set_level("INFO")
    metadata_documents.refresh("https://a..b/d\n", "the request")
    assert resolved == []
    assert "client_id https://a..b/d  is not a valid document URL" in caplog.text


def test_a_host_has_two_slots_of_eight(resolved: list[str]) -> None:
    slots = document_fetcher.SLOTS
    assert (slots.together, slots.per_host, slots.wait) == (8, 2, 0.0)
    with slots.slot("c.example:443"), slots.slot("c.example:443"):
        with pytest.raises(RateLimited) as refused:
            metadata_documents.refresh(DOCUMENT, "the request")
    assert refused.value.wait == 5 and resolved == []
