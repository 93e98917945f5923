"""Wrong and hostile input at every endpoint, by table and by generation.

The right status, never a 5xx, never a stack trace, nothing stored.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from accounts.models import IssuedToken, OAuthClient, User
from tests.support.mcp_client import ERAS, HTTP, McpClient, mcp_client
from tests.support.server import Portico

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("default_users")]
FORM = "application/x-www-form-urlencoded"
DEEP = '{"a":' * 20_000 + "1" + "}" * 20_000
GENERATED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
POSTED = [
    "/api/token/",
    "/api/token/refresh/",
    "/api/token/verify/",
    "/api/token/blacklist/",
    "/oauth/token",
    "/oauth/revoke",
    "/oauth/introspect",
    "/oauth/device",
    "/oauth/register",
]
READ = [
    "/",
    "/healthz",
    "/readyz",
    "/api/schema/",
    "/oauth/jwks.json",
    "/oauth/authorize",
    "/device",
    "/portal/",
    "/portal/connect/",
    "/portal/connect/status",
    "/portal/apps/",
    "/portal/tokens/",
    "/accounts/login/",
    "/admin/",
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-protected-resource/mcp",
]
BODIES: dict[str, tuple[str, bytes]] = {
    "nothing": ("application/json", b""),
    "no JSON": ("application/json", b"{'a': 1"),
    "a list": ("application/json", b"[1, 2]"),
    "a number": ("application/json", b"1" * 5_000),
    "null": ("application/json", b"null"),
    "not a number": ("application/json", b'{"username": NaN, "password": Infinity}'),
    "deep": ("application/json", DEEP.encode()),
    "not UTF-8": ("application/json", b'{"username": "\xff\xfe"}'),
    "UTF-16": ("application/json; charset=utf-16", '{"a": 1}'.encode("utf-16")),
    "unknown charset": ("application/json; charset=klingon", b'{"a": 1}'),
    "unknown form charset": (f"{FORM}; charset=klingon", b"grant_type=x"),
    "NUL": (
        "application/json",
        b'{"username": "a\\u0000", "password": "b", "token": "\\u0000", '
        b'"refresh": "\\u0000", "redirect_uris": ["https://a\\u0000"]}',
    ),
    "a lone surrogate": (
        "application/json",
        b'{"username": "\\ud800", "password": "\\udfff", "token": "\\ud800", '
        b'"refresh": "\\ud800", "client_name": "\\ud800", '
        b'"redirect_uris": ["https://a.example/\\ud800"]}',
    ),
    "wrong types": (
        "application/json",
        b'{"username": {"a": 1}, "password": [1], "token": 1e999, "refresh": true, '
        b'"redirect_uris": {"a": 1}, "client_name": 7, "grant_types": [{}]}',
    ),
    "huge": ("application/json", b'{"username": "' + b"a" * 3_000_000 + b'"}'),
    "form NUL": (
        FORM,
        b"grant_type=refresh_token&refresh_token=%00&client_id=%00&token=%00"
        b"&username=%00&password=%00&refresh=%00",
    ),
    "form surrogate": (
        FORM,
        b"grant_type=authorization_code&code=%ED%A0%80&client_id=%ED%A0%80&token=%FF"
        b"&username=%ED%A0%80&password=x&refresh=%FF",
    ),
    "form twice": (
        FORM,
        b"grant_type=a&grant_type=b&token=a&token=b&client_id=a&client_id=b",
    ),
    "form of many": (FORM, b"&".join(b"f%d=1" % n for n in range(5_000))),
    "multipart": ("multipart/form-data; boundary=x", b"--x\r\nbroken"),
    "multipart without boundary": ("multipart/form-data", b"--x"),
    "XML": ("application/xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'),
    "no type": ("", b"grant_type=x"),
}


def assert_harmless(answer: httpx2.Response | requests.Response, what: str) -> None:
    """Fails on a 5xx and on internal text."""
    assert answer.status_code < 500, f"{what}: {answer.status_code} {answer.text[:300]}"
    for word in ("Traceback", "site-packages", "DJANGO_SETTINGS", 'File "/'):
        assert word not in answer.text, what


def row_counts() -> tuple[int, int, int]:
    """Counts of the rows that refused requests must not add."""
    kinds: list[Any] = [User, OAuthClient, IssuedToken]
    counts = [kind.objects.count() for kind in kinds]
    return counts[0], counts[1], counts[2]


@contextmanager
def nothing_stored() -> Iterator[None]:
    """Checks that the block stores no row."""
    before = row_counts()
    yield
    assert row_counts() == before


@pytest.mark.parametrize("path", POSTED)
def test_wrong_bodies_are_refused(server: Portico, path: str) -> None:
    """4xx with the RFC's JSON, nothing stored."""
    with nothing_stored():
        for name, (kind, body) in BODIES.items():
            headers = {"content-type": kind} if kind else {}
            answer = HTTP.post(f"{server.url}{path}", content=body, headers=headers)
            assert_harmless(answer, f"{path} {name}")
            assert 400 <= answer.status_code, f"{path} {name}: {answer.text[:200]}"
            assert answer.json()["error"], f"{path} {name}"


@pytest.mark.parametrize("era", ERAS)
def test_wrong_bodies_at_mcp_are_refused(server: Portico, era: str) -> None:
    """JSON-RPC 2.0 5.1: 400 (or 413, 415), nothing run."""
    client = mcp_client(server, "alice", era)
    for name, (kind, body) in BODIES.items():
        headers = {**client.headers("tools/call", {}), "content-type": kind or "a/b"}
        answer = HTTP.post(server.mcp_url, content=body, headers=headers)
        assert_harmless(answer, name)
        assert answer.status_code in (400, 413, 415), f"{name}: {answer.text[:200]}"


@pytest.mark.once
@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "TRACE", "OPTIONS"])
def test_other_methods_change_nothing(server: Portico, method: str) -> None:
    """RFC 9110 15.5.6."""
    for path in (*POSTED, *READ):
        answer = HTTP.request(method, f"{server.url}{path}")
        assert_harmless(answer, f"{method} {path}")


QUERIES = [
    "a=%00",
    "client_id=%00&redirect_uri=%00&scope=%00&state=%00&user_code=%00&next=%00",
    "client_id=%ED%A0%80&state=%FF&response_type=%ff",
    "client_id=a&client_id=b&response_type=code&response_type=token",
    "client_id=https://[::1&redirect_uri=http://[&response_type=code",
    "client_id=https://127.0.0.1/x&redirect_uri=http://127.0.0.1/&response_type=code",
    "next=http://[&code=http://[&state=[",
    "next=//[&redirect_uri=//[&client_id=//[",
    "next=/oauth/authorize%3Fredirect_uri%3Dhttp://[&resource=http://[",
    "p=-1&o=999999999999999999999&all=x&q=%27%22%00",
    "next=//evil.example&page=1e999",
    "a=" + "b" * 20_000,
    "&".join(f"f{n}=1" for n in range(2_000)),
]


@pytest.mark.parametrize("path", READ)
def test_wrong_queries_are_answered(server: Portico, path: str) -> None:
    with nothing_stored():
        for query in QUERIES:
            answer = HTTP.get(f"{server.url}{path}?{query}")
            assert_harmless(answer, f"{path} {query[:60]}")
            assert "evil.example" not in answer.headers.get("location", "")[:24]


def status_line(server: Portico, request: bytes) -> bytes:
    """The status line of a raw request; empty if it was cut off."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as peer:
        try:
            peer.sendall(request)
            return peer.recv(4096).partition(b"\r\n")[0]
        except (ConnectionResetError, BrokenPipeError):
            return b""


HOST = b"Host: 127.0.0.1\r\n"
RAW = {
    "a path with NUL": b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an encoded NUL": b"GET /admin/%00/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "dots": b"GET /static/../../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",
    "encoded dots": b"GET /static/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n"
    + HOST
    + b"\r\n",
    "not UTF-8": b"GET /%ff%fe HTTP/1.1\r\n" + HOST + b"\r\n",
    "a long path": b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a long header": b"GET / HTTP/1.1\r\n"
    + HOST
    + b"X-A: "
    + b"a" * 10**6
    + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\r\n" * 20_000 + b"\r\n",
    "two hosts": b"GET /mcp HTTP/1.1\r\n" + HOST + b"Host: evil.example\r\n\r\n",
    "no host": b"GET /admin/ HTTP/1.1\r\n\r\n",
    "two lengths": b"POST /mcp HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "length and chunks": b"POST /oauth/token HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a broken chunk": b"POST /oauth/token HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an odd length": b"POST /oauth/register HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 9999999999999999999999\r\n\r\n{}",
    "an odd bearer": b"POST /mcp HTTP/1.1\r\n"
    + HOST
    + b"Authorization: Bearer \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
    "odd cookies": b"GET /portal/ HTTP/1.1\r\n"
    + HOST
    + b"Cookie: sessionid=\xff; ;;=; csrftoken=%00\r\n\r\n",
    "an odd range": b"GET /healthz HTTP/1.1\r\n" + HOST + b"Range: bytes=9-1\r\n\r\n",
}


@pytest.mark.once
@pytest.mark.parametrize("name", RAW)
def test_raw_requests_do_no_harm(server: Portico, name: str) -> None:
    """RFC 9112: requests that no client library sends; the server keeps running."""
    status = status_line(server, RAW[name]).partition(b" ")[2][:3]
    assert not status.startswith(b"5") and b"root:" not in status, status
    assert HTTP.get(f"{server.url}/healthz").status_code == 200


@pytest.mark.once
def test_chunked_bodies_have_the_same_limit(server: Portico) -> None:
    """RFC 9112 7.1: the size limit holds without a Content-Length."""
    client = mcp_client(server, "alice")
    small = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}})
    for many, expected in ((1, (200, 400, 404)), (5_000, (413,))):
        chunks = iter([small.encode(), *[b" " * 1024] * many])
        headers = {**client.headers("ping", {}), "content-type": "application/json"}
        answer = HTTP.post(server.mcp_url, content=chunks, headers=headers)
        assert answer.status_code in expected, answer.text


TEXT = st.text(st.characters(codec=None, min_codepoint=0), max_size=30)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**30, max_value=10**40)
    | st.floats()
    | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)
METHODS = st.sampled_from(
    "initialize ping server/discover tools/list tools/call resources/read prompts/get "
    "completion/complete logging/setLevel resources/subscribe nonsense".split()
)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["look", "whoami", "nothing"]) | JSON,
        "uri": st.sampled_from(["shop://open", "shop://vault"]) | JSON,
        "arguments": JSON,
        "cursor": JSON,
        "ref": JSON,
        "protocolVersion": JSON,
        "capabilities": JSON,
        "clientInfo": JSON,
        "_meta": JSON,
    },
)
MESSAGES = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": METHODS | TEXT},
    optional={"id": JSON, "params": PARAMS | JSON},
)


@pytest.mark.parametrize("era", ERAS)
def test_generated_messages_never_break_mcp(server: Portico, era: str) -> None:
    """JSON-RPC 2.0; MCP: any message, any parameters, any headers."""
    client = mcp_client(server, "alice", era)

    @GENERATED
    @given(message=MESSAGES, name=TEXT)
    def attempt(message: dict[str, Any], name: str) -> None:
        headers = client.headers(str(message["method"]), {})
        headers |= {"content-type": "application/json", "mcp-name": name}
        raw = [(key.encode(), header_text(value)) for key, value in headers.items()]
        body = json.dumps(message).encode()
        answer = HTTP.post(server.mcp_url, content=body, headers=raw)
        assert_harmless(answer, repr(message))

    attempt()


def header_text(value: str) -> bytes:
    """Text that a header can carry: no line breaks, no NUL."""
    text = "".join(c for c in value if c not in "\r\n\x00")
    return text.encode("utf-8", "replace").strip()


@pytest.mark.parametrize("path", [p for p in POSTED if p.startswith("/oauth/")])
def test_generated_forms_are_answered(server: Portico, path: str) -> None:
    """RFC 6749 5.2: any form gets an error of the RFC."""
    names = st.sampled_from(
        "grant_type code redirect_uri client_id client_secret token refresh_token "
        "scope resource code_verifier device_code client_assertion "
        "client_assertion_type".split()
    )
    values = TEXT | st.sampled_from(
        [
            "authorization_code",
            "refresh_token",
            "client_credentials",
            "a.b.c",
            "https://",
        ]
    )

    @GENERATED
    @given(form=st.dictionaries(names | TEXT, values, max_size=6))
    def attempt(form: dict[str, str]) -> None:
        body = "&".join(f"{quoted(k)}={quoted(v)}" for k, v in form.items())
        headers = {"content-type": FORM}
        answer = HTTP.post(f"{server.url}{path}", content=body, headers=headers)
        assert_harmless(answer, body)
        assert answer.status_code >= 400 and answer.json()["error"], body

    with nothing_stored():
        attempt()


def quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


@pytest.mark.once
def test_the_openapi_document_is_true(server: Portico) -> None:
    """OpenAPI 3.1: all generated requests get documented answers."""
    document = HTTP.get(f"{server.url}/api/schema/").json()
    assert set(POSTED) | {"/mcp", "/readyz", "/oauth/authorize"} <= set(
        document["paths"]
    )
    schema = schemathesis.openapi.from_dict(document)
    token = server.token("alice")
    with requests.Session() as session:
        session.trust_env = False
        operations: list[Any] = list(schema.get_all_operations())
        for found in operations:
            operation = found.ok()
            # In process, tests/accounts/admin_api/test_document.py gets past a 401.
            if not operation.path.startswith("/api/v1/"):
                probe(operation, server, session, token)


def probe(operation: Any, server: Portico, session: requests.Session, raw: str) -> None:
    headers = {}
    if operation.path == "/mcp":
        headers = McpClient(server, raw).headers("ping", {})
    documented = {*operation.definition.raw["responses"], "405"}

    @settings(GENERATED, max_examples=12)
    @given(case=operation.as_strategy())
    def attempt(case: Any) -> None:
        answer = case.call(
            base_url=server.url,
            session=session,
            headers=headers,
            allow_redirects=False,
        )
        what = f"{case.method} {case.path} {case.body!r} {case.query!r}"
        assert answer.status_code < 500, what
        assert "Traceback" not in answer.text, what
        assert str(answer.status_code) in documented, f"{answer.status_code} {what}"

    run: Callable[[], None] = attempt
    run()
