"""Keys at the `jwks_uri` of a client metadata document, over real TLS."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.conf import settings
from django.core.cache import cache
from django.utils import timezone
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from oauth2_provider import cimd
from oauth2_provider.settings import oauth2_settings

from accounts.http import outbound_calls
from accounts.models import AuditEvent, DocumentCopy, DocumentHost, OAuthClient, User
from accounts.oauth.clients import (
    document_copies,
    document_fetcher,
    key_sets,
    metadata_documents,
)
from accounts.oauth.clients.assertions import ASSERTION, authenticate_assertion
from accounts.oauth.clients.document_failures import DocumentFailure, FetchFailed
from accounts.oauth.clients.key_sets import fetch_keys
from tests.support.oauth_requests import oauth_client, request_of
from tests.support.proxy_files import certificates

pytestmark = pytest.mark.django_db

FIRST, SECOND = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
RSA = rsa.generate_private_key(65537, 2048)


def jwk(key: Any, kid: str | None = "one", **members: Any) -> dict[str, Any]:
    kind: Any = RSAAlgorithm if key is RSA else ECAlgorithm
    named = {} if kid is None else {"kid": kid}
    return {**kind.to_jwk(key.public_key(), as_dict=True), **named, **members}


class Host(ThreadingHTTPServer):
    """Serves `answers`: path -> (status, headers, body, seconds between bytes)."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://localhost:{self.server_port}"
        self.client_id = f"{self.url}/oauth/client.json"
        self.uri = f"{self.url}/oauth/jwks.json"
        self.answers: dict[str, tuple[int, dict[str, str], bytes, float]] = {}
        self.asked: list[str] = []

    def handle_error(self, *args: Any) -> None:
        """Clients that hang up are expected."""

    def serve(self, path: str, body: Any, status: int = 200, **options: Any) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": options.get("kind", "application/json")}
        headers = {**kind, **options.get("headers", {})}
        self.answers[path] = status, headers, raw, options.get("pause", 0.0)

    def serve_document(self, **changed: Any) -> None:
        """The document that ChatGPT publishes, at this host."""
        document = {
            "client_id": self.client_id,
            "client_uri": "https://chatgpt.com/",
            "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"],
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "client_name": "ChatGPT",
            "token_endpoint_auth_signing_alg": "RS256",
            "jwks_uri": self.uri,
            **changed,
        }
        self.serve("/oauth/client.json", document)

    def serve_keys(self, *keys: dict[str, Any], **options: Any) -> None:
        self.serve("/oauth/jwks.json", {"keys": list(keys)}, **options)


class Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, headers, body, pause = self.server.answers[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            for byte in body if pause else ():
                self.wfile.write(bytes([byte]))
                time.sleep(pause)
            self.wfile.write(b"" if pause else body)

    def log_message(self, *args: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: Any) -> tuple[Path, Path]:
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def host(monkeypatch: Any, certificate: tuple[Path, Path]) -> Iterator[Host]:
    """A host of documents at a loopback address, which counts as public here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    public = cimd._ip_is_public
    monkeypatch.setattr(
        cimd, "_ip_is_public", lambda ip: ip in ("127.0.0.1", "::1") or public(ip)
    )
    hosts = document_fetcher.UnresponsiveHosts()
    monkeypatch.setattr(document_fetcher, "UNRESPONSIVE", hosts)
    DocumentCopy.objects.all().delete()
    cache.clear()
    running = Host(context)
    threading.Thread(target=running.serve_forever, args=(0.01,)).start()
    running.serve_document()
    running.serve_keys(jwk(FIRST))
    yield running
    running.shutdown()
    running.server_close()


def refreshed(host: Host) -> DocumentFailure | None:
    """Why the document or its keys cannot be used after another fetch."""
    cache.clear()
    past = timezone.now() - timedelta(seconds=1)
    OAuthClient.objects.update(cimd_expires_at=past)
    return metadata_documents.refresh(host.client_id, request_of(User()))


def assertion(host: Host, key: Any, kid: str | None = "one") -> str:
    claims = {
        "iss": host.client_id,
        "sub": host.client_id,
        "aud": settings.ISSUER_URL,
        "exp": int(time.time()) + 60,
        "jti": str(time.perf_counter_ns()),
    }
    algorithm = "RS256" if key is RSA else "ES256"
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


def signed_in(host: Host, key: Any, kid: str | None = "one") -> bool:
    raw = assertion(host, key, kid)
    form = {"client_assertion_type": ASSERTION, "client_assertion": raw}
    return authenticate_assertion(SimpleNamespace(**form, client_id=None)) is not None


@pytest.mark.spec("RFC 7591 2: jwks_uri")
@pytest.mark.parametrize("key", [FIRST, RSA], ids=["EC", "RSA"])
@pytest.mark.parametrize("kid", ["one", None])
def test_a_client_signs_with_a_key_at_its_jwks_uri(
    host: Host, key: Any, kid: str | None
) -> None:
    host.serve_keys(jwk(SECOND, "other"), jwk(key, kid))
    assert refreshed(host) is None
    client = OAuthClient.objects.get(client_id=host.client_id)
    assert client.uses_private_key_jwt and client.client_type == "confidential"
    assert client.registered["jwks_uri"] == host.uri
    assert signed_in(host, key, kid) and host.asked[-1] == "/oauth/jwks.json"
    assert len(host.asked) == 2, "the document and the keys, once each"


def test_keys_of_other_kinds_and_certificates_are_left_out(host: Host) -> None:
    """RFC 7517 5: unknown keys are ignored."""
    good = jwk(FIRST, x5c=["A" * 1_000])
    unknown = {"kty": "AKP", "alg": "ML-DSA-44", "pub": "x", "kid": "new"}
    host.serve_keys(
        unknown,
        jwk(SECOND, "enc", use="enc"),
        jwk(SECOND, "nul\x00"),
        {**jwk(SECOND, "odd"), "crv": ["P-256"]},
        good,
    )
    assert refreshed(host) is None
    client = OAuthClient.objects.get(client_id=host.client_id)
    assert client.client_jwks == {"keys": [jwk(FIRST)]}


HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("huge", {"body": b'{"keys": [' + b" " * 20_000 + b"]}"}),
    ("many", {"body": {"keys": [{"kty": "x"}] * 51}}),
    ("deep", {"body": b"[" * 10_000}),
    ("html", {"body": {"keys": [jwk(FIRST)]}, "kind": "text/html"}),
    ("no json", {"body": b"keys"}),
    ("list", {"body": [jwk(FIRST)]}),
    ("no keys", {"body": {}}),
    ("empty", {"body": {"keys": []}}),
    ("no objects", {"body": {"keys": ["x", None]}}),
    ("symmetric", {"body": {"keys": [jwk(FIRST), {"kty": "oct", "k": "c2VjcmV0"}]}}),
    ("private", {"body": {"keys": [ECAlgorithm.to_jwk(FIRST, as_dict=True)]}}),
    ("encryption", {"body": {"keys": [jwk(FIRST, use="enc")]}}),
    ("missing", {"body": b"", "status": 404}),
    ("failing", {"body": b"", "status": 500}),
]


@pytest.mark.parametrize(
    "answer", [answer for _, answer in HOSTILE], ids=[name for name, _ in HOSTILE]
)
def test_a_bad_key_set_makes_no_client(host: Host, answer: dict[str, Any]) -> None:
    """The audit and the person read what is wrong."""
    host.serve("/oauth/jwks.json", **answer)
    failure = refreshed(host)
    assert failure is not None and "jwks_uri: " in failure.detail and failure.text()
    assert not OAuthClient.objects.filter(client_id=host.client_id).exists()
    event = AuditEvent.objects.get(action=metadata_documents.FAILED)
    assert "jwks_uri" in event.reason


@pytest.mark.parametrize(
    "place", ["https://10.0.0.1/k", "http://169.254.169.254/k", "/oauth/client.json"]
)
def test_redirects_are_not_followed(host: Host, place: str) -> None:
    host.serve("/oauth/jwks.json", b"", 302, headers={"Location": place})
    failure = refreshed(host)
    assert failure is not None and failure.status == 302
    assert host.asked == ["/oauth/client.json", "/oauth/jwks.json"]


@pytest.mark.spec("CIMD 6.5")
@pytest.mark.parametrize(
    "uri",
    [
        "https://10.0.0.1/jwks",
        "https://169.254.169.254/jwks",
        "https://[::ffff:10.0.0.1]/jwks",
        "https://0.0.0.0/jwks",
        "http://localhost/jwks",
        "https://u@localhost/jwks",
        "https://localhost",
        "https://localhost:99999/jwks",
        "https://a..b/jwks",
        "https://[x]/jwks",
        "ftp://localhost/jwks",
        "file:///etc/passwd",
        "",
        "https://localhost/\x00",
        ["https://localhost/jwks"],
        None,
        7,
    ],
    ids=str,
)
def test_private_addresses_and_odd_urls_are_not_asked(host: Host, uri: Any) -> None:
    host.serve_document(jwks_uri=uri)
    failure = refreshed(host)
    assert failure is not None and failure.kind in ("invalid", "private")
    assert "jwks_uri" in failure.detail
    assert host.asked == ["/oauth/client.json"]
    assert not OAuthClient.objects.filter(client_id=host.client_id).exists()


def test_a_slow_key_set_ends_at_the_deadline(host: Host, monkeypatch: Any) -> None:
    monkeypatch.setattr(oauth2_settings, "CIMD_FETCH_TIMEOUT_SECONDS", 0.3)
    host.serve_keys(jwk(FIRST), pause=0.1)
    started = time.monotonic()
    failure = refreshed(host)
    assert failure is not None and failure.unavailable
    assert time.monotonic() - started < 2.0


def test_an_administrator_blocks_the_host_of_the_keys(host: Host) -> None:
    host.serve_document(jwks_uri="https://keys.example/jwks")
    DocumentHost.objects.create(host="keys.example", trusted=False)
    failure = refreshed(host)
    assert failure is not None and failure.kind == "host_blocked"
    assert failure.host == "keys.example"


def test_a_new_key_is_fetched_at_most_once_a_minute(host: Host) -> None:
    """RFC 7517: `kid` tells keys apart when they are rotated."""
    assert refreshed(host) is None and signed_in(host, FIRST)
    host.serve_keys(jwk(SECOND, "two"))
    assert len(host.asked) == 2
    assert signed_in(host, SECOND, "two") and len(host.asked) == 3
    assert not signed_in(host, FIRST), "the old key is gone"
    for number in range(5):
        assert not signed_in(host, FIRST, f"unknown-{number}")
    assert len(host.asked) == 3
    cache.clear()
    assert not signed_in(host, FIRST, "unknown") and len(host.asked) == 4


def test_a_known_key_is_not_fetched_for_a_wrong_signature(host: Host) -> None:
    assert refreshed(host) is None
    assert not signed_in(host, SECOND, "one") and len(host.asked) == 2


def make_old(host: Host) -> None:
    registered = {"jwks_uri": host.uri, "jwks_until": time.time() - 1}
    rows = OAuthClient.objects.filter(client_id=host.client_id)
    rows.update(registered=registered)


def test_old_keys_are_fetched_again(host: Host) -> None:
    """A key that its owner withdrew stops working without a new sign-in."""
    host.serve_keys(jwk(FIRST), headers={"Cache-Control": "max-age=600"})
    assert refreshed(host) is None
    registered = OAuthClient.objects.get(client_id=host.client_id).registered
    assert 590 < registered["jwks_until"] - time.time() <= 600
    host.serve_keys(jwk(SECOND))
    assert signed_in(host, FIRST)
    make_old(host)
    assert not signed_in(host, FIRST) and signed_in(host, SECOND)


def test_keys_stay_while_their_host_serves_nothing(host: Host) -> None:
    assert refreshed(host) is None
    host.serve("/oauth/jwks.json", b"", 503)
    make_old(host)
    assert signed_in(host, FIRST)
    cache.clear()
    host.serve("/oauth/jwks.json", b"", 404)
    assert not signed_in(host, FIRST), "the host's own word"
    cache.clear()
    host.serve_keys(jwk(FIRST))
    assert signed_in(host, FIRST)


def test_keys_are_not_fetched_while_that_is_switched_off(
    host: Host, settings: Any
) -> None:
    assert refreshed(host) is None
    settings.FETCH_CLIENT_DOCUMENTS = False
    make_old(host)
    assert signed_in(host, FIRST) and len(host.asked) == 2


def test_a_key_set_may_be_fetched_again_after_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mark of a fetch lasts that long, and not as the cache's default."""
    kept: list[Any] = []
    monkeypatch.setattr(cache, "add", lambda *args, **more: kept.append((args, more)))
    client = OAuthClient(pk=7, registered={"jwks_uri": "https://keys.example/j"})
    assert not key_sets.renew_keys(client)
    assert kept == [(("client-keys:7", 1, key_sets.FETCH_SECONDS), {})]


@pytest.mark.parametrize(
    ("registered", "outdated"),
    [
        ({"jwks_uri": "https://keys.example/j", "jwks_until": 99.9}, True),
        ({"jwks_uri": "https://keys.example/j", "jwks_until": 100.0}, False),
        ({"jwks_uri": "https://keys.example/j"}, True),
        ({}, False),
    ],
    ids=str,
)
def test_keys_are_fresh_through_their_last_moment(
    monkeypatch: pytest.MonkeyPatch, registered: dict[str, Any], outdated: bool
) -> None:
    """A client without a `jwks_uri` has none to fetch."""
    monkeypatch.setattr(time, "time", lambda: 100.0)
    assert key_sets.are_outdated(OAuthClient(registered=registered)) is outdated


def renewed(
    monkeypatch: pytest.MonkeyPatch, client: OAuthClient
) -> tuple[bool, list[str]]:
    """Whether the client has other keys now, and what was fetched."""
    fetched: list[str] = []

    def fetch(uri: str) -> key_sets.KeySet:
        fetched.append(uri)
        return key_sets.KeySet(uri, {"keys": [jwk(SECOND)]}, 5.0)

    cache.clear()
    monkeypatch.setattr(key_sets, "fetch_keys", fetch)
    return key_sets.renew_keys(client), fetched


def test_renewed_keys_are_those_of_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not if its document has named another set meanwhile."""
    uri = "https://keys.example/j"
    one, other = (oauth_client(n, registered={"jwks_uri": uri}) for n in ("a", "b"))
    assert renewed(monkeypatch, one) == (True, [uri])
    rows = OAuthClient.objects.order_by("client_id")
    stored = {row.client_id: (row.client_jwks, row.registered) for row in rows}
    keys, source = {"keys": [jwk(SECOND)]}, {"jwks_uri": uri, "jwks_until": 5.0}
    assert stored["a"] == (one.client_jwks, one.registered) == (keys, source)
    assert stored["b"] == (other.client_jwks, {"jwks_uri": uri})
    moved = {"jwks_uri": "https://keys.example/other"}
    rows.filter(pk=other.pk).update(registered=moved)
    renewed(monkeypatch, other)
    row = rows.get(pk=other.pk)
    assert (row.client_jwks, row.registered) == (stored["b"][0], moved)
    assert renewed(monkeypatch, one) == (False, [uri])


@pytest.mark.parametrize(
    ("registered", "enabled"),
    [({}, True), ({"jwks_uri": "https://keys.example/j"}, False)],
)
def test_keys_without_a_set_or_with_documents_off_are_not_fetched(
    monkeypatch: pytest.MonkeyPatch, registered: dict[str, Any], enabled: bool
) -> None:
    monkeypatch.setattr(oauth2_settings, "CIMD_ENABLED", enabled)
    client = oauth_client("a", registered=registered)
    assert renewed(monkeypatch, client) == (False, [])


def test_the_failure_of_a_fetch_that_is_switched_off_names_the_host(
    settings: Any,
) -> None:
    settings.FETCH_CLIENT_DOCUMENTS = False
    with pytest.raises(FetchFailed) as caught:
        fetch_keys("https://keys.example/jwks.json")
    assert caught.value.failure == DocumentFailure("off", "keys.example")


def copy_of(host: Host, **members: Any) -> DocumentCopy:
    _status, _headers, body, _pause = host.answers["/oauth/client.json"]
    document = {**json.loads(body), **members}
    document_copies.check_document(document)
    copy: DocumentCopy = DocumentCopy.objects.create(
        client_id=host.client_id, name="ChatGPT", document=document
    )
    return copy


def test_a_copy_fetches_the_keys(host: Host) -> None:
    """The document's host may refuse servers that its key host serves."""
    copy = copy_of(host)
    host.serve("/oauth/client.json", b"", 403)
    assert refreshed(host) is None and signed_in(host, FIRST)
    document_copies.reapply(copy)
    assert signed_in(host, FIRST) and host.asked.count("/oauth/jwks.json") == 1


def test_a_copy_without_reachable_keys_is_no_help(host: Host, caplog: Any) -> None:
    copy_of(host)
    host.serve("/oauth/client.json", b"", 403)
    host.serve("/oauth/jwks.json", b"", 403)
    failure = refreshed(host)
    assert failure is not None and failure.status == 403
    assert not OAuthClient.objects.filter(client_id=host.client_id).exists()
    assert "has no keys: jwks_uri: HTTP status 403\n" in caplog.text


def test_a_document_that_moves_its_keys_forgets_the_old_ones(host: Host) -> None:
    assert refreshed(host) is None
    host.serve_document(jwks_uri=f"{host.url}/other.json")
    host.serve("/other.json", {"keys": [jwk(SECOND)]})
    assert refreshed(host) is None
    assert signed_in(host, SECOND) and not signed_in(host, FIRST)
    host.serve_document(token_endpoint_auth_method="none")
    assert refreshed(host) is None
    client = OAuthClient.objects.get(client_id=host.client_id)
    assert (client.client_jwks, client.registered) == ({}, {})
    assert client.client_type == "public"


def test_the_key_set_has_slots_like_the_documents(host: Host) -> None:
    assert refreshed(host) is None
    with document_fetcher.SLOTS.slot("x:1"), document_fetcher.SLOTS.slot("x:1"):
        assert key_sets.fetch_keys(host.uri).keys == {"keys": [jwk(FIRST)]}
    name = host.url.removeprefix("https://")
    with document_fetcher.SLOTS.slot(name), document_fetcher.SLOTS.slot(name):
        assert not signed_in(host, SECOND, "two")
        with pytest.raises(outbound_calls.TooManyOutboundCalls):
            fetch_keys(host.uri)
    assert document_fetcher.SLOTS.in_use == {}
