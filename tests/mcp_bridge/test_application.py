"""The ASGI application: which part serves a path, and what runs at start and stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.db import OperationalError

from accounts.authentication.mail import MAILER
from accounts.models import SigningKey
from accounts.notifications.worker import WORKER
from mcp_bridge import application
from mcp_bridge.application import (
    CORS_PATHS,
    MCP_PATHS,
    Application,
    startup_remedy,
    strip_header_values,
)
from mcp_bridge.audit.trail import last_used
from mcp_bridge.middleware import database_timeout
from tests.support.asgi import Client, ask, chunk, http_scope, run

pytestmark = pytest.mark.once
ORIGIN = "https://web.example"


async def django(scope: Any, receive: Any, send: Any) -> None:
    """Repeats what it sees."""
    await receive()
    pairs = [(b"x-host", dict(scope["headers"]).get(b"host", b""))]
    await send({"type": "http.response.start", "status": 218, "headers": pairs})
    await send({"type": "http.response.body", "body": scope["client"][0].encode()})


@pytest.fixture
def app(settings: Any) -> Application:
    settings.ALLOWED_HOSTS = ["portico.example"]
    settings.ALLOWED_ORIGINS, settings.ISSUER_URL = [ORIGIN], "https://portico.example"
    settings.MAX_FORM_SIZE, settings.TRUSTED_PROXIES = 10, ["192.0.2.1"]
    return Application(django)


def asked(app: Application, path: str, method: str = "POST", **headers: str) -> Client:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    scope = http_scope(method, path, {"host": "portico.example"} | named)
    return ask(app, scope, [chunk(b"")])


@pytest.mark.parametrize("path", sorted(MCP_PATHS))
def test_the_endpoint_answers_with_and_without_slash(
    app: Application, path: str
) -> None:
    reply = asked(app, path)
    assert reply.status == 401 and "www-authenticate" in reply.headers


@pytest.mark.parametrize("path", ["/", "/mcp/x", "/mcpx", "/MCP", "/mcp//", "/x/mcp"])
def test_any_other_path_is_djangos(app: Application, path: str) -> None:
    assert asked(app, path).status == 218


def test_the_endpoint_checks_host_and_origin_first(app: Application) -> None:
    assert asked(app, "/mcp", host="evil.example").status == 421
    assert asked(app, "/mcp", origin="https://evil.example").status == 403


PREFLIGHT = {
    "access_control_request_method": "POST",
    "access_control_request_headers": "authorization",
}


@pytest.mark.parametrize("origin", [ORIGIN, "https://portico.example"])
def test_allowed_pages_may_call_the_endpoint(app: Application, origin: str) -> None:
    reply = asked(app, "/mcp", "OPTIONS", origin=origin, **PREFLIGHT)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == origin
    assert reply.headers["access-control-allow-methods"] == "GET, POST, DELETE"
    assert reply.headers["access-control-allow-headers"] == "authorization"
    reply = asked(app, "/mcp", origin=origin)
    assert reply.status == 401
    assert reply.headers["access-control-expose-headers"] == (
        "WWW-Authenticate, Mcp-Session-Id"
    )
    assert "access-control-allow-credentials" not in reply.headers


def test_a_request_without_origin_gets_no_cors_headers(app: Application) -> None:
    assert "access-control-allow-origin" not in asked(app, "/mcp").headers


PUBLIC = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/x",
    "/oauth/jwks.json",
    "/oauth/token",
    "/oauth/register",
    "/oauth/revoke",
]
PRIVATE = [
    "/oauth/authorize",
    "/oauth/introspect",
    "/oauth/device",
    "/oauth/token/",
    "/oauth/tokenx",
    "/oauth/jwksxjson",
    "/x/oauth/token",
    "/api/token/",
    "/.well-knownx/",
    "/admin/",
]


@pytest.mark.parametrize("path", PUBLIC)
def test_any_page_may_use_public_paths_without_cookies(
    app: Application, path: str
) -> None:
    assert CORS_PATHS.match(path)
    reply = asked(app, path, origin="https://any.example")
    assert reply.status == 218
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in reply.headers
    reply = asked(app, path, "OPTIONS", origin="https://any.example", **PREFLIGHT)
    assert reply.status == 200
    assert reply.headers["access-control-allow-methods"] == "GET, POST"


@pytest.mark.parametrize("path", PRIVATE)
def test_no_page_of_another_origin_reads_other_paths(
    app: Application, path: str
) -> None:
    reply = asked(app, path, origin=ORIGIN)
    assert reply.status == 218
    assert "access-control-allow-origin" not in reply.headers


def test_django_has_limits_of_its_own(app: Application) -> None:
    assert asked(app, "/", content_length="10").status == 218
    assert asked(app, "/", content_length="11").status == 413
    assert asked(app, "/oauth/token", content_length="11").status == 413


@pytest.mark.parametrize("path", ["/", "/oauth/token", "/admin/"])
def test_no_part_of_django_uses_a_replaced_file(
    app: Application, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(database_timeout, "known_replaced", lambda: True)
    assert asked(app, path).status == 503
    assert asked(app, "/healthz").status == 218


def test_a_file_may_be_larger_than_other_bodies(
    app: Application, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the pages that take files, for a session that may send one."""
    sessions = {"s=root": 50, "": 0}
    monkeypatch.setattr(application, "largest_upload", sessions.__getitem__)

    def status(path: str, size: int, cookie: str) -> int:
        return asked(app, path, content_length=str(size), cookie=cookie).status

    for path in ("/admin/users/import/", "/admin/policy/"):
        assert status(path, 50, "s=root") == 218
        assert status(path, 51, "s=root") == status(path, 11, "") == 413
        assert status(path, 10, "") == 218
    assert status("/admin/users/", 11, "s=root") == 413


def test_every_response_has_a_request_id(app: Application) -> None:
    for path in ("/", "/mcp", "/oauth/token"):
        assert asked(app, path, x_request_id="abcd-1234").headers["x-request-id"] == (
            "abcd-1234"
        )


def test_only_trusted_proxies_name_the_client(app: Application, settings: Any) -> None:
    assert asked(app, "/", x_forwarded_for="198.51.100.7").body == b"198.51.100.7"
    settings.TRUSTED_PROXIES = []
    assert asked(app, "/", x_forwarded_for="198.51.100.7").body == b"192.0.2.1"


def test_blanks_around_header_values_are_removed(app: Application) -> None:
    """RFC 9110 5.5."""
    scope = {"headers": [(b"a", b" \tx y\t "), (b"b", b"\x0bz")]}
    assert strip_header_values(scope)["headers"] == [(b"a", b"x y"), (b"b", b"\x0bz")]
    assert asked(app, "/", host=" h \t").headers["x-host"] == "h"


def test_websockets_are_closed_and_other_scopes_ignored(app: Application) -> None:
    assert ask(app, {"type": "websocket"}).sent == [
        {"type": "websocket.close", "code": 1000}
    ]
    assert ask(app, {"type": "unknown"}).sent == []


# --------------------------------------------------------------------- lifespan


@pytest.fixture
def steps(app: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The order of what runs at start and stop."""
    done: list[str] = []

    def context(name: str) -> Any:
        @asynccontextmanager
        async def running() -> Any:
            done.append(f"{name} starts")
            yield
            done.append(f"{name} ends")

        return running

    async def in_database(work: Any, *given: Any) -> None:
        done.append(work.__name__)
        work(*given)

    async def close() -> None:
        done.append("last uses stored")

    def key() -> None:
        """Replaces making a signing key."""

    def sync() -> None:
        """Replaces the sync of the catalogue."""

    def mails_sent() -> None:
        """Replaces the end of the mail threads."""

    def notifications_end() -> None:
        """Replaces the end of the threads that send notifications."""

    key.__name__ = "key"
    monkeypatch.setattr(application, "in_database", in_database)
    monkeypatch.setattr(application, "sync", sync)
    monkeypatch.setattr(SigningKey.objects, "ensure_active", key)
    monkeypatch.setattr(MAILER, "start", lambda: done.append("mail starts"))
    monkeypatch.setattr(MAILER, "close", mails_sent)
    monkeypatch.setattr(WORKER, "start", lambda: done.append("notifications start"))
    monkeypatch.setattr(WORKER, "close", notifications_end)
    monkeypatch.setattr(last_used, "close", close)
    monkeypatch.setattr(
        application, "install_signal_handlers", lambda: done.append("signals")
    )
    monkeypatch.setattr(application, "writing_audit", context("audit"))
    monkeypatch.setattr(application, "caching_decisions", context("cache"))
    monkeypatch.setattr(app.transport, "running", context("transport"))
    yield done
    app.server.running = False


def test_a_server_starts_and_stops_in_order(app: Application, steps: list[str]) -> None:
    """At stop the audit is written after the last call, and mails are sent last."""
    client = Client()

    async def receive() -> Any:
        steps.append(f"received, running={app.server.running}")
        return {}

    client.receive = receive  # type: ignore[method-assign]
    run(app({"type": "lifespan"}, client.receive, client.send))
    assert steps == [
        "received, running=False",
        "sync",
        "key",
        "signals",
        "mail starts",
        "notifications start",
        "audit starts",
        "cache starts",
        "transport starts",
        "received, running=True",
        "transport ends",
        "cache ends",
        "audit ends",
        "last uses stored",
        "notifications_end",
        "mails_sent",
    ]
    assert client.sent == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]
    assert app.server.running is False


def test_without_a_database_the_server_does_not_start(
    app: Application, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(work: Any) -> None:
        raise OperationalError("no such table: x\nmore")

    monkeypatch.setattr(application, "in_database", away)
    reply = ask(app, {"type": "lifespan"}, [{"type": "lifespan.startup"}])
    assert reply.sent == [
        {
            "type": "lifespan.startup.failed",
            "message": "The database is not ready (no such table: x): start it, check "
            "DATABASE_URL, or run manage.py migrate.",
        }
    ]
    assert steps == []


@pytest.mark.parametrize("text", ["", " \n "])
def test_an_error_without_a_text_has_a_remedy(text: str) -> None:
    assert "(no detail)" in startup_remedy(OperationalError(text))
