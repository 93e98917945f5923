"""The request id: which are kept, and where they appear."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from mcp_bridge.http.request_id import new_id, request_id, with_request_id
from tests.support.asgi import ask, http_scope

pytestmark = pytest.mark.once


def passed_on(*ids: str) -> tuple[list[str], str]:
    """The ids that the application sees, and that of its response."""
    scope = http_scope(headers={"accept": "a"})
    scope["headers"] += [(b"x-request-id", value.encode("latin-1")) for value in ids]
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope, send = with_request_id(scope, send)
        names = [name for name, _value in scope["headers"]]
        assert names[0] == b"accept"
        values = [v.decode() for n, v in scope["headers"] if n == b"x-request-id"]
        seen.extend(values)
        assert request_id.get() == values[0]
        head = {"status": 200, "headers": [(b"a", b"b")]}
        await send({"type": "http.response.start", **head})
        await send({"type": "http.response.body", "body": b"x"})

    reply = ask(app, scope)
    assert reply.headers["a"] == "b" and reply.body == b"x"
    return seen, reply.headers["x-request-id"]


@pytest.mark.parametrize("given", ["a" * 8, "A-z_0.9-x", "b" * 64])
def test_a_valid_id_of_a_proxy_is_kept(given: str) -> None:
    assert passed_on(given) == ([given], given)


@pytest.mark.parametrize(
    "given",
    ["a" * 7, "b" * 65, "with blank", "newline\nhere", "ümlaute-x", "a" * 8 + "\n"],
)
def test_an_invalid_id_is_replaced(given: str) -> None:
    seen, answered = passed_on(given)
    assert seen == [answered] and re.fullmatch("[0-9a-f]{32}", answered)


def test_a_request_without_an_id_gets_one() -> None:
    seen, answered = passed_on()
    assert seen == [answered] and re.fullmatch("[0-9a-f]{32}", answered)


def test_only_the_first_of_several_ids_counts() -> None:
    assert passed_on("first-id", "second-id") == (["first-id"], "first-id")
    seen, answered = passed_on("short", "second-id")
    assert seen == [answered] and answered not in ("short", "second-id")


def test_new_ids_sort_by_time_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds first: the index grows at its end."""
    before = time.time_ns() // 1_000_000
    first, second = new_id(), new_id()
    assert first != second and len(first) == 32
    assert before <= int(first[:12], 16) <= time.time_ns() // 1_000_000


def test_ids_of_one_millisecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 random bits; a proxy's busy second has thousands of requests."""
    monkeypatch.setattr("mcp_bridge.http.request_id.time_ns", lambda: 5_000_000)
    made = {new_id() for _ in range(500)}
    assert len(made) == 500 and {one[:12] for one in made} == {f"{5:012x}"}
