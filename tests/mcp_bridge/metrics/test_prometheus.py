"""What is counted, and who may read it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from mcp_bridge.metrics import prometheus
from mcp_bridge.metrics.prometheus import (
    GROUPS,
    MetricsMiddleware,
    is_stream,
    route_of,
)

pytestmark = pytest.mark.once
TOKEN = "a-metrics-token-of-the-test"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"portico_{name}", labels) or 0.0


def scope(path: str = "/mcp", method: str = "GET", token: str = "") -> dict[str, Any]:
    headers = [(b"authorization", token.encode())] if token else []
    return {"type": "http", "path": path, "method": method, "headers": headers}


async def receive() -> Any:
    raise AssertionError("a metric reads no body")


def serve(
    request: dict[str, Any],
    status: int = 200,
    content_type: bytes = b"text/plain",
    during: Callable[[], None] = lambda: None,
    error: Exception | None = None,
) -> list[Any]:
    """The events that a client gets, from an app that answers so."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if error is not None:
            raise error
        head = {"type": "http.response.start", "status": status}
        await send({**head, "headers": [(b"Content-Type", content_type)]})
        during()
        await send({"type": "http.response.body", "body": b"x"})

    async def send(event: Any) -> None:
        sent.append(event)

    asyncio.run(MetricsMiddleware(app, TOKEN)(request, receive, send))
    return sent


def count(route: str, method: str, status: int) -> float:
    labels = {"route": route, "method": method, "status": str(status)}
    return value("http_requests_total", **labels)


ROUTES = [(f"/{group}/", group) for group in sorted(GROUPS)] + [
    ("/mcp", "mcp"),
    ("/mcp/x/y", "mcp"),
    ("/oauth/token", "oauth/token"),
    ("/oauth/token/x", "oauth/token"),
    ("/oauth/unknown", "oauth"),
    ("/api/token/refresh", "api/token"),
    ("/", "other"),
    ("", "other"),
    ("/mcpx", "other"),
    ("/wp-admin/setup.php", "other"),
    ("/other", "other"),
]


@pytest.mark.parametrize(("path", "route"), ROUTES)
def test_a_path_has_one_of_a_few_routes(path: str, route: str) -> None:
    """A path of an attacker makes no new series."""
    assert route_of(path) == route


def test_the_groups_are_paths_of_the_server() -> None:
    assert sorted(GROUPS) == sorted(
        [".well-known", "accounts", "admin", "api", "api/token", "device", "healthz"]
        + ["mcp", "oauth", "oauth/authorize", "oauth/device", "oauth/introspect"]
        + ["oauth/jwks.json", "oauth/register", "oauth/revoke", "oauth/token"]
        + ["portal", "readyz", "static"]
    )


@pytest.mark.parametrize(
    ("method", "label"),
    [(m, m) for m in sorted(prometheus.METHODS)] + [("PROPFIND", "other")],
)
def test_a_response_is_counted_once_by_its_status(method: str, label: str) -> None:
    before = count("admin", label, 403)
    timed = value("http_request_duration_seconds_count", route="admin")
    head, body = serve(scope("/admin/x", method), status=403)
    assert (head["status"], body["body"]) == (403, b"x")
    assert count("admin", label, 403) == before + 1
    assert value("http_request_duration_seconds_count", route="admin") == timed + 1
    assert len(prometheus.METHODS) == 7


def test_a_request_in_flight_is_counted_while_it_lasts() -> None:
    seen: list[float] = []
    before = value("http_requests_in_flight")
    serve(scope(), during=lambda: seen.append(value("http_requests_in_flight")))
    assert seen == [before + 1] and value("http_requests_in_flight") == before


def test_a_request_without_a_response_counts_as_499() -> None:
    before, flying = count("mcp", "GET", 499), value("http_requests_in_flight")
    with pytest.raises(KeyError):
        serve(scope(), error=KeyError("bug"))
    assert count("mcp", "GET", 499) == before + 1
    assert value("http_requests_in_flight") == flying


@pytest.mark.parametrize(
    ("content_type", "stream"),
    [
        (b"text/event-stream", True),
        (b"text/event-stream; charset=utf-8", True),
        (b"text/plain; text/event-stream", False),
        (b"application/json", False),
    ],
)
def test_an_open_stream_is_counted_and_not_timed(
    content_type: bytes, stream: bool
) -> None:
    seen: list[float] = []
    before = value("streams_open")
    timed = value("http_request_duration_seconds_count", route="mcp")
    serve(
        scope(),
        content_type=content_type,
        during=lambda: seen.append(value("streams_open")),
    )
    assert seen == [before + stream] and value("streams_open") == before
    after = value("http_request_duration_seconds_count", route="mcp")
    assert after == timed + (not stream)


def test_only_the_type_of_the_content_makes_a_stream() -> None:
    value = b"text/event-stream; charset=utf-8"
    for name in (b"content-type", b"Content-Type"):
        assert is_stream({"headers": [(b"a", b"b"), (name, value)]})
    assert not is_stream({"headers": [(b"x-content-type", value)]})


def test_other_connections_pass_unmeasured() -> None:
    """Lifespan and websocket scopes have no path that could be counted."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async def send(event: Any) -> None:
        raise AssertionError

    lifespan = {"type": "lifespan", "path": "/metrics"}
    asyncio.run(MetricsMiddleware(app, TOKEN)(lifespan, receive, send))
    assert seen == [(lifespan, receive, send)]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_metrics_are_shown_for_their_token(scheme: str) -> None:
    head, body = serve(scope("/metrics", token=f"{scheme} {TOKEN}"))
    headers = dict(head["headers"])
    assert head["status"] == 200 and b"portico_http_requests_total" in body["body"]
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-type"].startswith(b"text/plain; version=")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "Bearer",
        "Bearer x",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer x {TOKEN}",
        "Bearer é",
    ],
)
def test_the_metrics_are_refused_without_their_token(token: str) -> None:
    head, body = serve(scope("/metrics", token=token))
    assert head["status"] == 401 and body["body"] == b"Send METRICS_TOKEN.\n"
    headers = dict(head["headers"])
    assert headers[b"www-authenticate"] == b'Bearer realm="metrics"'
    assert b"portico" not in body["body"]


def test_only_the_exact_path_shows_metrics() -> None:
    for path in ("/metrics/", "/metricsx", "/x/metrics"):
        head, body = serve(scope(path, token=f"Bearer {TOKEN}"))
        assert (head["status"], body["body"]) == (200, b"x")


def decisions(verdict: str, reason: str) -> float:
    return value("decisions_total", verdict=verdict, reason=reason)


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_counted_without_a_token(
    monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    monkeypatch.setattr(prometheus, "ENABLED", enabled)
    prometheus.sessions.set(1)
    prometheus.audit_queue.set(2)
    allowed, denied = decisions("allowed", "granted"), decisions("denied", "granted")
    refused = value("over_bound_total", what="streams")
    prometheus.count_decision(True, "granted")
    prometheus.count_decision(False, "granted")
    prometheus.count_decision(False, "granted")
    prometheus.count_limit_exceeded("streams")
    prometheus.set_open_sessions(7)
    prometheus.set_audit_queue(8)
    assert decisions("allowed", "granted") == allowed + enabled
    assert decisions("denied", "granted") == denied + 2 * enabled
    assert value("over_bound_total", what="streams") == refused + enabled
    assert value("sessions_open") == (7 if enabled else 1)
    assert value("audit_queue") == (8 if enabled else 2)


def test_the_gauges_of_workers_are_added() -> None:
    """An ended worker's share disappears with it."""
    names = ("in_flight", "streams", "audit_queue", "sessions")
    modes = {getattr(prometheus, name)._multiprocess_mode for name in names}
    assert modes == {"livesum"}
