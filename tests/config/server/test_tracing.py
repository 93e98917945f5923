"""Spans: when they are on, and what they must not contain."""

from __future__ import annotations

import asyncio
import re
import sys
import tomllib
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from config.environment import BASE_DIR
from config.server import tracing

pytestmark = pytest.mark.once
OTLP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
ENDPOINT, TRACES, NAMED = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
)
RESET = "/accounts/password/reset/key/3f-abc/"


@pytest.fixture(autouse=True)
def no_otel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENDPOINT, TRACES, NAMED, "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, ""),
        ({ENDPOINT: "http://h"}, "otlp"),
        ({TRACES: "http://h"}, "otlp"),
        ({ENDPOINT: ""}, ""),
        ({NAMED: "Console"}, "console"),
        ({NAMED: "None", ENDPOINT: "http://h"}, ""),
        ({NAMED: "console", ENDPOINT: "http://h"}, "console"),
        ({"OTEL_SDK_DISABLED": "True", ENDPOINT: "http://h"}, ""),
        ({"OTEL_SDK_DISABLED": "false", ENDPOINT: "http://h"}, "otlp"),
    ],
)
def test_the_variables_name_the_exporter(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert tracing.exporter_name() == name


def scope_of(path: str, kind: str = "http") -> dict[str, Any]:
    return {
        "type": kind,
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"code=secret",
        "headers": [(b"host", b"h.example")],
        "server": ("h.example", 80),
        "scheme": "http",
        "http_version": "1.1",
    }


class App:
    """Remembers the scopes that it gets, and answers."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def receive() -> Any:
    return {"type": "http.request", "body": b""}


async def send(_event: Any) -> None:
    """Discard it."""


def ask(app: Any, scope: Any) -> None:
    asyncio.run(app(scope, receive, send))


def test_without_variables_there_are_no_spans() -> None:
    app = App()
    assert tracing.traced(app) is app


def test_secrets_are_removed_outside_and_restored_inside() -> None:
    app, scope = App(), scope_of(RESET)
    ask(tracing.without_secrets(app), scope)
    (bare,) = app.scopes
    clean = "/accounts/password/reset/key/-/"
    assert (bare["path"], bare["raw_path"]) == (clean, clean.encode())
    assert bare["query_string"] == b"" and bare["method"] == "GET"
    ask(tracing.with_secrets(app), bare)
    assert app.scopes[1] is scope
    ask(tracing.with_secrets(app), scope)
    assert app.scopes[2] is scope


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_other_scopes_pass_unchanged(kind: str) -> None:
    app, scope = App(), {"type": kind}
    ask(tracing.without_secrets(app), scope)
    assert app.scopes == [scope] and app.scopes[0] is scope


def spans_of(monkeypatch: pytest.MonkeyPatch, path: str) -> tuple[App, list[Any]]:
    """The application, and the spans of one request to it."""
    memory, provider, app = InMemorySpanExporter(), TracerProvider(), App()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setenv(NAMED, "console")
    monkeypatch.setattr(tracing, "tracer_provider", lambda kind: provider)
    ask(tracing.traced(app), scope_of(path))
    return app, list(memory.get_finished_spans())


def test_a_request_is_one_span_without_secrets(monkeypatch: Any) -> None:
    app, spans = spans_of(monkeypatch, RESET)
    assert len(spans) == 1
    text = spans[0].to_json()
    assert "3f-abc" not in text and "secret" not in text and "key/-/" in text
    assert app.scopes[0]["path"] == RESET
    assert app.scopes[0]["query_string"] == b"code=secret"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_probes_make_no_spans(monkeypatch: Any, path: str) -> None:
    app, spans = spans_of(monkeypatch, path)
    assert spans == [] and len(app.scopes) == 1


@pytest.mark.parametrize(("given", "name"), [("", "portico"), ("mine", "mine")])
def test_the_provider_names_the_service(
    monkeypatch: pytest.MonkeyPatch, given: str, name: str
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(trace, "set_tracer_provider", kept.append)
    monkeypatch.setenv("OTEL_SERVICE_NAME", given)
    provider = tracing.tracer_provider("console")
    assert kept == [provider]
    assert provider.resource.attributes["service.name"] == name
    (processor,) = provider._active_span_processor._span_processors
    assert isinstance(processor.span_exporter, ConsoleSpanExporter)
    provider.shutdown()


def test_an_unknown_exporter_stops_the_start() -> None:
    text = f"{NAMED}: 'zipkin' is not otlp, console or none"
    with pytest.raises(SystemExit, match=text):
        tracing.exporter("zipkin")


def test_the_otlp_exporter_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType(OTLP)
    module.OTLPSpanExporter = lambda: "otlp exporter"
    monkeypatch.setitem(sys.modules, OTLP, module)
    assert tracing.exporter("otlp") == "otlp exporter"


def test_missing_packages_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better than a server that silently sends no spans."""
    monkeypatch.setitem(sys.modules, OTLP, None)
    monkeypatch.setenv(ENDPOINT, "http://h")
    with pytest.raises(SystemExit, match="opentelemetry-sdk"):
        tracing.traced(App())


def test_no_text_installs_a_package_of_our_name() -> None:
    """`portico` on PyPI is somebody else's; the commands name our dependencies."""
    extra = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]
    names = [
        re.split(r"[>=<]", one)[0]
        for one in extra["optional-dependencies"]["opentelemetry"]
    ]
    command = f"pip install {' '.join(names)}"
    page = (BASE_DIR / "docs" / "production.md").read_text(encoding="utf-8")
    assert command in tracing.MISSING_PACKAGES and command in page
    installs = re.compile(r"\b(?:pipx?|uvx?|conda)\s[^\n`]*[\s'\"]portico\b(?![/_-])")
    found = [
        f"{path.relative_to(BASE_DIR)}: {match[0]}"
        for folder in ("accounts", "mcp_bridge", "config", "deploy", "docs", "examples")
        for path in (BASE_DIR / folder).rglob("*")
        if path.suffix in (".py", ".md", ".html", ".sh", ".yaml", ".txt")
        for match in installs.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
