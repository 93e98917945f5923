"""Log lines as text and as JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from config.server import logs
from mcp_bridge.http.request_id import request_id

pytestmark = pytest.mark.once
RESET = "/accounts/password/reset/key/3f-abc/"


@pytest.fixture
def in_request() -> Iterator[None]:
    token = request_id.set("id-1")
    yield
    request_id.reset(token)


def record(text: str = "hello %s", *args: Any, error: bool = False) -> Any:
    info = sys.exc_info() if error else None
    return logging.LogRecord("portico.x", 30, __file__, 1, text, args, info)


def written(layout: str, text: str, *args: Any, error: bool = False) -> str:
    return logs.formatter(layout).format(record(text, *args, error=error))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"Not Found: {RESET}", "Not Found: /accounts/password/reset/key/-/"),
        (
            f"{RESET}x {RESET}",
            "/accounts/password/reset/key/-/x /accounts/password/reset/key/-/",
        ),
        (
            "/accounts/password/reset/key/3f and on",
            "/accounts/password/reset/key/- and on",
        ),
        ("/accounts/password/reset/", "/accounts/password/reset/"),
    ],
)
def test_keys_of_password_resets_are_replaced(text: str, clean: str) -> None:
    assert logs.without_keys(text) == clean


def test_the_message_and_the_traceback_are_cleaned() -> None:
    event = {"event": RESET, "exception": f"E\n{RESET}", "level": "error"}
    clean = "/accounts/password/reset/key/-/"
    assert logs.without_secrets(None, "", event) == {
        "event": clean,
        "exception": f"E\n{clean}",
        "level": "error",
    }
    assert logs.without_secrets(None, "", {"event": ""}) == {"event": ""}


def test_a_line_names_its_request(in_request: None) -> None:
    assert logs.with_request(None, "", {"event": "x"}) == {
        "event": "x",
        "request_id": "id-1",
    }
    assert written("line", "hello %s", "you").endswith(
        " WARNING portico.x: hello you [id-1]"
    )


def test_outside_a_request_there_is_no_id() -> None:
    assert logs.with_request(None, "", {"event": "x"}) == {"event": "x"}
    time, _blank, rest = written("line", "hello %s", "you").partition(" ")
    assert rest == "WARNING portico.x: hello you" and time.endswith("Z")


def test_control_characters_are_escaped() -> None:
    assert logs.escaped("a\r\n\x1b[31m\u2028é한") == "a\\r\\n\\x1b[31m\\u2028é한"
    line = written("line", "x\nERROR forged")
    assert "\n" not in line and line.endswith("x\\nERROR forged")


def test_every_line_of_a_traceback_is_marked() -> None:
    """Text from outside cannot look like a record."""
    try:
        raise ValueError(f"one\n2026-01-01 ERROR forged\x1b {RESET}")
    except ValueError:
        first, *others = written("line", "broken", error=True).split("\n")
    assert first.endswith("broken")
    assert others and all(line.startswith("  | ") for line in others)
    assert "  | 2026-01-01 ERROR forged\\x1b /accounts/password/reset/key/-/" in others


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("django.security.DisallowedHost", 1),
        ("django.security.SuspiciousSession", 1),
        ("django.request", 5),
    ],
)
def test_a_refused_request_has_no_traceback(name: str, lines: int) -> None:
    try:
        raise ValueError("x")
    except ValueError:
        failed = record("Invalid host", error=True)
    failed.name = name
    assert len(logs.formatter("line").format(failed).splitlines()) == lines


def test_json_has_the_same_parts(in_request: None) -> None:
    try:
        raise ValueError(RESET)
    except ValueError:
        found = json.loads(written("json", f"at {RESET}", error=True))
    assert found.pop("timestamp").endswith("Z")
    assert "key/-/" in found["exception"] and "abc" not in found.pop("exception")
    assert found == {
        "event": "at /accounts/password/reset/key/-/",
        "level": "warning",
        "logger": "portico.x",
        "request_id": "id-1",
    }


@pytest.mark.parametrize("fields", [{"at": "now", "action": "a\nforged"}, None])
def test_an_audit_event_is_one_object_of_its_own_fields(fields: Any) -> None:
    """Its level is written as in the other lines of JSON."""
    made = record("hello %s", "you")
    if fields is not None:
        made.audit = {**fields, "changes": ValueError("odd")}
        fields = {**fields, "changes": "odd"}
    line = logs.AuditFormatter().format(made)
    named = {"logger": "portico.x", "level": "warning"}
    assert "\n" not in line
    assert json.loads(line) == {**named, **(fields or {"text": "hello you"})}
