"""OpenTelemetry: one span per request, the parent of the MCP SDK's spans.

Tracing is off unless the OTEL_* variables name an exporter. They belong to
OpenTelemetry, so they are read from the process environment, as it reads them.
"""

from __future__ import annotations

import os
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from config.environment import refuse
from config.server.logs import without_keys

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
MISSING_PACKAGES = (
    "OTEL_*: tracing is enabled, but its packages are not installed; run pip install "
    "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http "
    "opentelemetry-instrumentation-asgi (see docs/production.md), or unset them."
)
UNTRACED = "healthz,readyz,metrics"
WHOLE = "portico.scope"


def exporter_name() -> str:
    """The exporter that the OTEL_* variables name; empty if tracing is off."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    named = os.environ.get("OTEL_TRACES_EXPORTER", "").lower()
    if named:
        return "" if named == "none" else named
    return "otlp" if any(os.environ.get(name) for name in ENDPOINTS) else ""


def traced(app: ASGIApp) -> ASGIApp:
    """`app` with a span for each request, if tracing is enabled."""
    kind = exporter_name()
    if not kind:
        return app
    try:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        provider = tracer_provider(kind)
    except ImportError:
        refuse([MISSING_PACKAGES])
    return without_secrets(
        OpenTelemetryMiddleware(
            with_secrets(app),
            tracer_provider=provider,
            excluded_urls=UNTRACED,
            exclude_spans=["receive", "send"],
        )
    )


def without_secrets(app: ASGIApp) -> ASGIApp:
    """`app` with a scope without query string and without keys of password resets.

    Query strings contain codes and tokens, and many people can read spans.
    """

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        path = without_keys(scope["path"])
        bare = {"path": path, "raw_path": path.encode(), "query_string": b""}
        await app({**scope, **bare, WHOLE: scope}, receive, send)

    return run


def with_secrets(app: ASGIApp) -> ASGIApp:
    """`app` with the original scope of the server."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope.get(WHOLE, scope), receive, send)

    return run


def tracer_provider(kind: str) -> Any:
    """The process-wide provider; the MCP SDK's spans use it, too."""
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    service = os.environ.get("OTEL_SERVICE_NAME") or "portico"
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter(kind)))
    trace.set_tracer_provider(provider)
    return provider


def exporter(kind: str) -> Any:
    """The span exporter. Raises ImportError if its package is not installed."""
    if kind == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if kind != "otlp":
        refuse([f"OTEL_TRACES_EXPORTER: {kind!r} is not otlp, console or none."])
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
