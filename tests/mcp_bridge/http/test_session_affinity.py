"""Session ids with the prefix of their process."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_bridge.http.session_affinity import SessionAffinityMiddleware
from tests.support.asgi import ask, chunk, http_scope

pytestmark = pytest.mark.once


def exchanged(asked: str, answered: str) -> tuple[dict[str, str], dict[str, str]]:
    """The headers of the request, as the app sees them, and of the response."""
    seen: dict[str, str] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        seen.update({k.decode(): v.decode() for k, v in scope["headers"]})
        pairs = [(b"Mcp-Session-Id", answered.encode()), (b"other", b"kept")]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})
        await send({"type": "http.response.body", "body": b""})

    scope = http_scope(headers={"mcp-session-id": asked, "other": "one-abc"})
    reply = ask(SessionAffinityMiddleware(app, "one"), scope, [chunk(b"")])
    assert scope["headers"][0][1] == asked.encode(), "the scope is not changed"
    return seen, reply.headers


def test_the_prefix_is_added_to_ids_that_leave() -> None:
    _seen, headers = exchanged("one-abc", "abc")
    assert headers == {"mcp-session-id": "one-abc", "other": "kept"}


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        ("one-abc", "abc"),
        ("two-abc", "two-abc"),
        ("abc", "abc"),
        ("one-one-abc", "one-abc"),
        ("onex-abc", "onex-abc"),
    ],
)
def test_only_the_own_prefix_is_removed(asked: str, seen: str) -> None:
    """The id of another process stays unknown here."""
    assert exchanged(asked, "abc")[0] == {"mcp-session-id": seen, "other": "one-abc"}
