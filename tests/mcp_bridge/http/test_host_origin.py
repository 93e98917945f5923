"""Requests of foreign hosts, of foreign web pages and with large bodies."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from mcp_bridge.http.host_origin import HostOriginMiddleware, origin_pattern
from tests.support.asgi import Client, ask, http_scope

pytestmark = pytest.mark.once
SETTINGS = {
    "ISSUER_URL": "https://portico.example",
    "ALLOWED_HOSTS": ["portico.example", ".wide.example", "[2001:db8::1]"],
    "ALLOWED_ORIGINS": ["https://web.example", "http://localhost:*"],
    "MAX_BODY_SIZE": 100,
}


def app_that_sends(status: int) -> Any:
    """An application by whose status a test knows it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


PLAIN, CORS = 200, 204


def served(**headers: str) -> Client:
    """The response to a request with these headers."""
    sent = {"host": "portico.example"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    with override_settings(**SETTINGS):
        app = HostOriginMiddleware(app_that_sends(PLAIN), app_that_sends(CORS))
        return ask(app, http_scope(headers=sent))


ALLOWED_ORIGINS = (
    "https://portico.example",
    "https://PORTICO.example",
    "https://web.example",
    "http://localhost",
    "http://localhost:1",
    "http://localhost:65535",
)
NEAR_ORIGINS = (
    "https://portico.example.evil.example",
    "https://portico.example:8443",
    "https://portico.example/",
    "https://portico.example evil",
    "http://portico.example",
    "https://portico-example",
    "https://porticoxexample",
    "xhttps://portico.example",
    "https://evil.example/https://portico.example",
    "https://user@portico.example",
    "https://web.example.evil.example",
    "https://web.example:443",
    "https://webxexample",
    "https://my.web.example",
    "https://web.exampl",
    "http://localhost:",
    "http://localhost:x",
    "http://localhost:80.evil.example",
    "http://localhost.evil.example",
    "http://localhost:80/",
    "http://localhost:80\n",
    "https://localhost:80",
    "http://localhostt",
    "null",
    "*",
)
ALLOWED_HOSTS = (
    "portico.example",
    "PORTICO.example",
    "portico.example:8000",
    "portico.example.",
    "wide.example",
    "my.wide.example",
    "[2001:db8::1]:8000",
)
NEAR_HOSTS = (
    "",
    "portico.example.evil.example",
    "evil.example",
    "my.portico.example",
    "xportico.example",
    "porticoxexample",
    "portico.example:port",
    "portico.example:80:80",
    "portico.example/",
    "portico.example@evil.example",
    "evil.example#portico.example",
    "mywide.example",
    "wide.example.evil.example",
    "[2001:db8::2]",
    "2001:db8::1",
    "*",
)


@pytest.mark.parametrize("origin", ALLOWED_ORIGINS)
def test_pages_of_allowed_origins_pass_through_cors(origin: str) -> None:
    assert served(origin=origin).status == CORS


@pytest.mark.parametrize("origin", NEAR_ORIGINS)
def test_an_origin_that_only_resembles_an_allowed_one_is_403(origin: str) -> None:
    """The whole origin must match, with scheme and port."""
    reply = served(origin=origin)
    assert reply.status == 403
    assert reply.json == {
        "error": "invalid_origin",
        "error_description": "This origin is not in ALLOWED_ORIGINS.",
        "error_uri": "https://portico.example/help/#an-origin-is-not-allowed",
    }
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ALLOWED_HOSTS)
def test_requests_to_allowed_hosts_pass(host: str) -> None:
    assert served(host=host).status == PLAIN


@pytest.mark.parametrize("host", NEAR_HOSTS)
def test_a_host_that_only_resembles_an_allowed_one_is_421(host: str) -> None:
    reply = served(host=host)
    assert reply.status == 421
    assert reply.json == {
        "error": "invalid_host",
        "error_description": "This host is not in ALLOWED_HOSTS.",
        "error_uri": "https://portico.example/help/#a-host-is-not-allowed",
    }


def test_a_request_without_a_host_is_421() -> None:
    with override_settings(**SETTINGS):
        app = HostOriginMiddleware(app_that_sends(PLAIN), app_that_sends(CORS))
        assert ask(app, http_scope()).status == 421


def test_the_host_is_checked_before_the_origin() -> None:
    assert served(host="evil.example", origin="https://evil.example").status == 421


def test_the_origin_is_checked_before_the_size() -> None:
    reply = served(origin="https://evil.example", content_length="101")
    assert reply.status == 403


@pytest.mark.parametrize(
    ("declared", "status"),
    [("0", PLAIN), ("100", PLAIN), ("101", 413), ("x", PLAIN), ("-1", PLAIN)],
)
def test_a_body_is_refused_by_its_declared_size(declared: str, status: int) -> None:
    """What is no number is counted while it is read."""
    reply = served(content_length=declared)
    assert reply.status == status
    if status == 413:
        assert reply.json == {
            "error": "invalid_request",
            "error_description": "The body is larger than 100 bytes.",
            "error_uri": "https://portico.example/help/#a-body-is-too-large",
        }


def test_an_empty_origin_is_no_web_page_of_ours() -> None:
    """It passes the check, and CORS allows it nothing."""
    assert served(origin="").status == CORS


def test_entries_of_the_pattern_are_no_patterns_themselves() -> None:
    with override_settings(**SETTINGS):
        pattern = origin_pattern(["https://a.b", "https://c|https://d"])
    assert pattern.fullmatch("https://a.b")
    assert not pattern.fullmatch("https://axb")
    assert not pattern.fullmatch("https://d")
