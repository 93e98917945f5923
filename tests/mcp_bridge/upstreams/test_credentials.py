"""Tokens by client credentials (RFC 6749 4.4), from an endpoint over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import aiohttp
import pytest

from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.models import CredentialMode, UpstreamCredential, UpstreamServer
from mcp_bridge.upstreams import credentials
from mcp_bridge.upstreams.credentials import credential_headers, forget_token
from mcp_bridge.upstreams.http_client import close_clients
from mcp_bridge.upstreams.problems import UpstreamProblem
from tests.support.mcp_in_process import caller

Answer = tuple[int, bytes]
GOOD = b'{"access_token":"first","token_type":"bearer","expires_in":300}'


@pytest.fixture(autouse=True)
def none_held() -> Iterator[None]:
    credentials._tokens.clear()
    yield
    credentials._tokens.clear()


class Endpoint:
    """A token endpoint; it gives these answers in turn, the last one again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[dict[str, str], dict[str, list[str]]]] = []

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((headers, parse_qs(body.decode())))
        status, content = self.answers.pop(0) if self.answers[1:] else self.answers[0]
        try:
            await asyncio.sleep(0.02 if status else 30)
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n"
            head += "Location: /elsewhere\r\n" if 300 <= status < 400 else ""
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + content)
        finally:
            writer.close()

    def tell(self, story: Callable[[Upstream], Awaitable[Any]], **fields: Any) -> Any:
        """Run `story` with an upstream server whose tokens come from here."""

        async def told() -> Any:
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            try:
                return await story(upstream(port, **fields))
            finally:
                await close_clients()
                server.close()

        return asyncio.run(told())


def upstream(port: int, **fields: Any) -> Upstream:
    row = UpstreamServer(
        name="acme",
        url=f"http://127.0.0.1:{port}/{uuid4().hex}",
        credential_mode=CredentialMode.CLIENT_CREDENTIALS,
    )
    credential = UpstreamCredential(
        token_url=f"http://127.0.0.1:{port}/token",
        client_id="the client",
        **{"scope": "read", "audience": "https://acme.example/mcp", **fields},
    )
    credential.secret = "s:cret"  # type: ignore[attr-defined]
    return Upstream(3, "acme", True, row, credential)


async def header(server: Upstream) -> str:
    return (await credential_headers(server, None))["Authorization"]


def test_one_request_for_all_who_wait_and_none_while_it_is_valid() -> None:
    endpoint = Endpoint((200, GOOD))

    async def story(server: Upstream) -> None:
        found = await asyncio.gather(*(header(server) for _ in range(20)))
        assert {*found, await header(server)} == {"Bearer first"}

    endpoint.tell(story)
    ((headers, form),) = endpoint.requests
    pair = base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode()
    assert pair == "the+client:s%3Acret"
    assert form == {
        "grant_type": ["client_credentials"],
        "resource": ["https://acme.example/mcp"],
        "scope": ["read"],
    }


def test_the_secret_can_be_in_the_body() -> None:
    endpoint = Endpoint((200, GOOD))
    endpoint.tell(header, client_authentication="client_secret_post", scope="")
    ((headers, form),) = endpoint.requests
    assert "authorization" not in headers and "scope" not in form
    assert (form["client_id"], form["client_secret"]) == (["the client"], ["s:cret"])


def test_portico_signs_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7523 2.2: `aud` is the token endpoint."""
    seen: list[dict[str, Any]] = []

    async def in_database(work: Any, claims: dict[str, Any]) -> tuple[str, str]:
        seen.append(claims)
        return "signed", "kid"

    monkeypatch.setattr(credentials, "in_database", in_database)
    endpoint = Endpoint((200, GOOD))
    endpoint.tell(header, client_authentication="private_key_jwt")
    ((headers, form),) = endpoint.requests
    assert "authorization" not in headers and "client_secret" not in form
    assert form["client_assertion"] == ["signed"]
    assert seen[0]["iss"] == seen[0]["sub"] == "the client"
    assert seen[0]["aud"].endswith("/token") and seen[0]["exp"] - seen[0]["iat"] == 120


@pytest.mark.parametrize("ends", ["expired", "refused", "secret", "version"])
def test_another_token_is_fetched_when_the_first_one_ended(ends: str) -> None:
    endpoint = Endpoint((200, GOOD), (200, GOOD.replace(b"first", b"second")))

    async def story(server: Upstream) -> None:
        assert await header(server) == "Bearer first"
        credential: Any = server.credential
        if ends == "expired":
            next(iter(credentials._tokens.values())).until = 0.0
        elif ends == "refused":
            forget_token(server)
        elif ends == "secret":
            credential.secret = "other"
        else:
            credential.version += 1
        assert await header(server) == "Bearer second"

    endpoint.tell(story)
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ((401, b'{"error":"invalid_client"}'), "credential", "401 invalid_client"),
        ((400, b'{"error":"invalid_scope"}'), "credential", "400 invalid_scope"),
        ((403, b"<html>"), "credential", "403"),
        ((500, b'{"access_token":"x"}'), "token_endpoint", "HTTP 500"),
        ((429, b""), "token_endpoint", "HTTP 429"),
        ((302, b""), "token_endpoint", "HTTP 302"),
        ((200, b"garbage"), "token_endpoint", "no bearer token"),
        ((200, b"[" * 100_000), "token_endpoint", "no bearer token"),
        ((200, b'["access_token"]'), "token_endpoint", "no bearer token"),
        ((200, b'{"access_token":7}'), "token_endpoint", "no bearer token"),
        ((200, b'{"access_token":""}'), "token_endpoint", "no bearer token"),
        ((200, b'{"access_token":"a\\r\\nb"}'), "token_endpoint", "no bearer token"),
        (
            (200, b'{"access_token":"x","token_type":"DPoP"}'),
            "token_endpoint",
            "no bearer token",
        ),
        ((0, b""), "token_endpoint", "does not answer"),
    ],
)
def test_an_endpoint_that_gives_no_token_is_a_clear_problem(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, code: str, says: str
) -> None:
    """Only a refused client marks the credential as rejected."""
    monkeypatch.setattr(credentials, "TOKEN_SECONDS", 0.3)

    async def story(server: Upstream) -> UpstreamProblem:
        with pytest.raises(UpstreamProblem) as refused:
            await header(server)
        return refused.value

    problem = Endpoint(answer).tell(story)
    assert problem.code == code and says in problem.text and "acme" in problem.text
    assert problem.breaks is (code == "token_endpoint")
    assert "s:cret" not in problem.text and not credentials._tokens


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (300, 270.0),
        ("300", 270.0),
        (5, 1.0),
        (-1, 1.0),
        (1e30, 86_370.0),
        (float("nan"), 1.0),
        (None, 270.0),
        ("soon", 270.0),
        ([], 270.0),
    ],
)
def test_a_token_is_renewed_in_time(expires_in: Any, seconds: float) -> None:
    assert credentials.seconds_of(expires_in) == seconds
    assert json.dumps(expires_in)


def of_mode(mode: str, credential: UpstreamCredential | None = None) -> Upstream:
    row = UpstreamServer(name="acme", url="https://a.example/mcp", credential_mode=mode)
    return Upstream(3, "acme", True, row, credential)


def with_secret(secret: str, **columns: Any) -> UpstreamCredential:
    found = UpstreamCredential(upstream_id=3, **columns)
    found.secret = secret  # type: ignore[attr-defined]
    return found


def headers_of(server: Upstream, principal: Principal | None = None) -> Any:
    return asyncio.run(credential_headers(server, principal))


def test_a_static_header_is_sent_as_it_is() -> None:
    assert headers_of(of_mode("none", with_secret("s"))) == {}
    named = with_secret("key 1", header="X-API-Key")
    assert headers_of(of_mode("static_header", named)) == {"X-API-Key": "key 1"}
    plain = with_secret("Token t")
    assert headers_of(of_mode("static_header", plain)) == {"Authorization": "Token t"}


@pytest.mark.parametrize(
    ("mode", "credential"),
    [
        ("static_header", None),
        ("client_credentials", None),
        ("static_header", with_secret("")),
        ("static_header", UpstreamCredential(upstream_id=3)),
        ("static_header", UpstreamCredential(upstream_id=3, secret_encrypted="AAAA")),
        ("a later mode", with_secret("s")),
    ],
)
def test_without_a_usable_credential_nothing_is_sent(
    mode: str, credential: UpstreamCredential | None
) -> None:
    with pytest.raises(UpstreamProblem, match="enter it again") as refused:
        headers_of(of_mode(mode, credential))
    assert refused.value.code == "credential"


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The claims that were signed."""
    found: list[dict[str, Any]] = []

    async def sign(_work: Any, claims: dict[str, Any]) -> tuple[str, str]:
        found.append(claims)
        return f"jwt-{len(found)}", "kid"

    monkeypatch.setattr(credentials, "in_database", sign)
    return found


def test_an_assertion_is_about_its_user_and_for_its_server(
    signed: list[dict[str, Any]], settings: Any
) -> None:
    server = of_mode("signed_assertion")
    assert headers_of(server, caller("alice", user_id=7)) == {
        "Authorization": "Bearer jwt-1"
    }
    (claims,) = signed
    assert claims["exp"] - claims["iat"] == 120 and claims.pop("jti")
    assert {name: claims[name] for name in claims if name not in ("iat", "exp")} == {
        "iss": settings.ISSUER_URL,
        "aud": "https://a.example/mcp",
        "sub": "7",
        "preferred_username": "alice",
        "client_id": "the-client",
        "token_type": "upstream",
    }


def test_an_assertion_is_used_again_by_the_same_user_only(
    signed: list[dict[str, Any]],
) -> None:
    server = of_mode("signed_assertion")
    alice, bob = caller("alice", user_id=7), caller("bob", user_id=8)
    found = [
        headers_of(server, who)["Authorization"] for who in (alice, alice, bob, None)
    ]
    assert found == ["Bearer jwt-1", "Bearer jwt-1", "Bearer jwt-2", "Bearer jwt-3"]
    assert [claims["sub"] for claims in signed] == ["7", "8", "portico"]
    for held in credentials._tokens.values():
        assert held.until - time.monotonic() <= 60, "renewed before it ends"
        held.until = 0.0
    assert headers_of(server, alice) == {"Authorization": "Bearer jwt-4"}
    other = of_mode("signed_assertion", UpstreamCredential(audience="urn:other"))
    headers_of(other, alice)
    assert signed[-1]["aud"] == "urn:other"


def test_assertions_take_a_bounded_memory(signed: list[dict[str, Any]]) -> None:
    held = credentials.Held("x", time.monotonic() + 60)
    credentials._tokens.update({("assertion", n): held for n in range(10_001)})
    headers_of(of_mode("signed_assertion"), caller())
    assert len(credentials._tokens) == 1


def test_a_forgotten_token_is_that_of_its_server() -> None:
    held = credentials.Held("x", time.monotonic() + 60)
    credentials._tokens.update({("client", 3, "a"): held, ("client", 4, "a"): held})
    forget_token(of_mode("client_credentials"))
    assert list(credentials._tokens) == [("client", 4, "a")]


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_secret_follows_no_redirect(status: int) -> None:
    endpoint = Endpoint((status, b""), (200, GOOD))
    with pytest.raises(UpstreamProblem, match=f"HTTP {status}") as refused:
        endpoint.tell(header)
    assert refused.value.code == "token_endpoint" and len(endpoint.requests) == 1


def test_a_token_endpoint_at_a_private_address_gets_no_secret(settings: Any) -> None:
    settings.ISSUER_URL = "https://portico.example.com"
    settings.UPSTREAM_PRIVATE_NETWORKS = []
    endpoint = Endpoint((200, GOOD))
    with pytest.raises(UpstreamProblem) as refused:
        endpoint.tell(header)
    assert refused.value.code == "private_address" and endpoint.requests == []


@pytest.mark.django_db
def test_a_new_secret_ends_the_use_of_the_old_one() -> None:
    """Tokens and sessions are kept by the version."""
    server = UpstreamServer.objects.create(name="acme", url="https://a.example/mcp")
    row = UpstreamCredential(upstream=server, state="rejected")
    versions = []
    for secret in ("first", "second"):
        credentials.set_secret(row, secret)
        kept = UpstreamCredential.objects.get()
        assert credentials.secret_of(kept) == secret and kept.state == "valid"
        versions.append(kept.version)
    assert versions[1] == versions[0] + 1


def test_loops_of_two_threads_do_not_wait_for_each_other() -> None:
    """A page looks at a server in its own loop while the worker's loop calls it."""
    endpoint = Endpoint((200, GOOD))

    async def story(server: Upstream) -> list[str]:
        def of_a_page() -> str:
            async def looked() -> str:
                try:
                    asked = asyncio.gather(header(server), header(server))
                    both = await asyncio.wait_for(asked, 5)
                    return both[0]
                finally:
                    await close_clients()

            return asyncio.run(looked())

        here = [header(server), header(server)]
        found = await asyncio.gather(*here, asyncio.to_thread(of_a_page))
        return list(found)

    assert set(endpoint.tell(story)) == {"Bearer first"}


def test_each_assertion_of_portico_has_its_own_id(
    signed: list[dict[str, Any]],
) -> None:
    """RFC 7523 3: a token endpoint may accept each once."""
    credential = UpstreamCredential(client_id="c", token_url="https://a.example/token")
    for _ in range(2):
        asyncio.run(credentials.client_assertion(credential))
    assert len({claims["jti"] for claims in signed}) == 2
    assert {claims["token_type"] for claims in signed} == {"client_assertion"}


@pytest.mark.parametrize("more", [b"", b',"token_type":"BEARER"'])
def test_a_token_without_an_end_is_used_for_some_minutes(more: bytes) -> None:
    held = credentials.held_token("acme", 200, b'{"access_token":"x"' + more + b"}")
    assert held.value == "x"
    assert held.until - time.monotonic() == pytest.approx(270, abs=5)


class Meanwhile:
    """A part of a key; comparing it lets another thread get a token."""

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        held = credentials.Held("x", time.monotonic() + 60)
        credentials._tokens["client", 3, str(len(credentials._tokens))] = held
        return False


def test_a_token_is_forgotten_while_another_thread_gets_one() -> None:
    held = credentials.Held("x", time.monotonic() + 60)
    credentials._tokens["client", Meanwhile(), "a"] = held
    credentials._tokens["client", 3, "a"] = held
    forget_token(of_mode("client_credentials"))
    assert ("client", 3, "a") not in credentials._tokens


def test_the_reason_of_a_refusal_is_a_few_words() -> None:
    """It is stored and shown; an endpoint may send anything."""
    body = json.dumps({"error": "a\nb" + "c" * 500}).encode()
    with pytest.raises(UpstreamProblem) as refused:
        credentials.held_token("acme", 400, body)
    assert "(HTTP 400 a b" in refused.value.text
    assert len(refused.value.text) < 220


@pytest.mark.parametrize("error", [TimeoutError, OSError, aiohttp.ClientPayloadError])
def test_a_token_endpoint_that_breaks_off_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*about: Any, **options: Any) -> Any:
        raise error("gone")

    client = SimpleNamespace(post=fail)
    monkeypatch.setattr(credentials, "client_for", lambda server: client)
    with pytest.raises(UpstreamProblem) as refused:
        asyncio.run(header(upstream(1)))
    assert (refused.value.code, refused.value.breaks) == ("token_endpoint", True)
