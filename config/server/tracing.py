"""OpenTelemetry: a span per request, parent of the MCP SDK's own; off by default.

On when the OTEL_* variables of OpenTelemetry name an exporter. They are the
library's, so they are read where it reads them.
"""

from __future__ import annotations

import os
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from config.environment import refuse
from config.server.logs import without_keys

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
MEND = (
    "OTEL_*: tracing is asked for and its packages are not installed; run "
    "pip install 'portico[opentelemetry]' (see docs/production.md), or unset them."
)
UNTRACED = "healthz,readyz,metrics"
WHOLE = "portico.scope"


def wanted() -> str:
    """`otlp` or `console` if traces are to be exported, else nothing."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    named = os.environ.get("OTEL_TRACES_EXPORTER", "").lower()
    if named:
        return "" if named == "none" else named
    return "otlp" if any(os.environ.get(name) for name in ENDPOINTS) else ""


def traced(app: ASGIApp) -> ASGIApp:
    """`app`, with a span for each request where tracing is asked for."""
    kind = wanted()
    if not kind:
        return app
    try:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        provider = tracer_provider(kind)
    except ImportError:
        refuse([MEND])
    return without_secrets(
        OpenTelemetryMiddleware(
            with_secrets(app),
            tracer_provider=provider,
            excluded_urls=UNTRACED,
            exclude_spans=["receive", "send"],
        )
    )


def without_secrets(app: ASGIApp) -> ASGIApp:
    """`app` with a scope that says where a request goes, and no more.

    Queries hold codes and tokens, the path of a password reset its key; spans go to
    systems that many people read.
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
    """`app` with the scope as the server made it."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope.get(WHOLE, scope), receive, send)

    return run


def tracer_provider(kind: str) -> Any:
    """The process' provider, which the SDK's spans go through as well."""
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
    """Where spans go. Raises ImportError without the package for it."""
    if kind == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if kind != "otlp":
        refuse([f"OTEL_TRACES_EXPORTER: {kind!r} is not otlp, console or none."])
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
