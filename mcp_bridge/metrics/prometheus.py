"""Prometheus metrics for every request, to Django and to /mcp; off by default.

Several workers write to files in one folder, and any of them serves all metrics. Only
this module imports prometheus_client.
"""

from __future__ import annotations

import hmac
import os
from functools import cache, lru_cache
from pathlib import Path
from time import perf_counter

from django.conf import settings
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from mcp_bridge.http.headers import header
from mcp_bridge.metrics.multiprocess import FOLDER, forget_dead

ENABLED = bool(settings.METRICS_TOKEN)
GROUPS = frozenset(
    "mcp oauth oauth/token oauth/authorize oauth/register oauth/introspect "
    "oauth/revoke oauth/device oauth/jwks.json api api/token admin portal accounts "
    "device .well-known static healthz readyz".split()
)
"""Leading path segments, the values of `route`; every other path is `other`."""
METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS".split())
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


LABELS = ("route", "method", "status")
requests = Counter("portico_http_requests", "Requests answered.", LABELS)
durations = Histogram(
    "portico_http_request_duration_seconds",
    "Time from the request to the end of its answer; streams are left out.",
    ("route",),
    buckets=BUCKETS,
)
in_flight = Gauge(
    "portico_http_requests_in_flight",
    "Requests being served.",
    multiprocess_mode="livesum",
)
streams = Gauge(
    "portico_streams_open", "Event streams open.", multiprocess_mode="livesum"
)
decisions = Counter(
    "portico_decisions", "Messages decided at /mcp.", ("verdict", "reason")
)

audit_queue = Gauge(
    "portico_audit_queue",
    "Call events waiting for their commit.",
    multiprocess_mode="livesum",
)

sessions = Gauge(
    "portico_sessions_open",
    "Sessions of the 2025 protocols.",
    multiprocess_mode="livesum",
)
limit_exceeded = Counter(
    "portico_over_bound",
    "Calls and streams refused, and sessions ended, because there were too many.",
    ("what",),
)

store_unavailable = Gauge(
    "portico_shared_store_unavailable",
    "Workers that the store of the rate limits does not answer.",
    multiprocess_mode="livesum",
)


def set_store_available(available: bool) -> None:
    """Set whether the store of the rate limits answers this process."""
    if ENABLED:
        store_unavailable.set(int(not available))


def count_limit_exceeded(what: str) -> None:
    """Count a refused call or stream, or an ended session."""
    if ENABLED:
        limit_exceeded.labels(what).inc()


def set_open_sessions(count: int) -> None:
    """Set the number of sessions in this process."""
    if ENABLED:
        sessions.set(count)


def set_audit_queue(events: int) -> None:
    """Set the number of call events that wait for a commit."""
    if ENABLED:
        audit_queue.set(events)


def count_decision(allowed: bool, reason: str) -> None:
    """Count one decision at /mcp."""
    if ENABLED:
        decision_series(allowed, reason).inc()


# Looking up a series costs more than counting in it, and the labels are few.
@cache
def decision_series(allowed: bool, reason: str) -> Counter:
    return decisions.labels("allowed" if allowed else "denied", reason)


@cache
def request_series(route: str, method: str, status: int) -> Counter:
    return requests.labels(route, method, status)


@cache
def duration_series(route: str) -> Histogram:
    return durations.labels(route)


@lru_cache(maxsize=1024)
def route_of(path: str) -> str:
    """The group of a path; a fixed set of values for any path."""
    first, _, rest = path.strip("/").partition("/")
    pair = f"{first}/{rest.partition('/')[0]}"
    return pair if pair in GROUPS else first if first in GROUPS else "other"


def is_stream(event: Event) -> bool:
    """Whether this response head opens an event stream."""
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in event["headers"]
    )


class MetricsMiddleware:
    """Pure ASGI, outermost: measures every request and serves /metrics."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/metrics":
            await self.page(scope)(scope, receive, send)
        else:
            await self.measure(scope, receive, send)

    async def measure(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, then count by status; 499 if no response was sent."""
        began, status, streaming = perf_counter(), 499, False

        async def counting_send(event: Event) -> None:
            nonlocal status, streaming
            if event["type"] == "http.response.start":
                status = event["status"]
                if is_stream(event):
                    streaming = True
                    streams.inc()
            await send(event)

        in_flight.inc()
        try:
            await self.app(scope, receive, counting_send)
        finally:
            in_flight.dec()
            route = route_of(scope["path"])
            method = scope["method"] if scope["method"] in METHODS else "other"
            request_series(route, method, status).inc()
            if streaming:
                streams.dec()
            else:
                duration_series(route).observe(perf_counter() - began)

    def page(self, scope: Scope) -> Response:
        """The metrics of all workers; 401 without METRICS_TOKEN."""
        scheme, _, raw = (header(scope, b"authorization") or "").partition(" ")
        valid = hmac.compare_digest(raw.strip().encode(), self.token.encode())
        if scheme.lower() != "bearer" or not valid:
            challenge = {"www-authenticate": 'Bearer realm="metrics"'}
            return Response("Send METRICS_TOKEN.\n", 401, challenge, "text/plain")
        headers = {"cache-control": "no-store"}
        return Response(exposition(), headers=headers, media_type=CONTENT_TYPE_LATEST)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    shared = os.environ.get(FOLDER)
    if not shared:
        return generate_latest(REGISTRY)
    forget_dead(Path(shared))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, shared)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
