"""Portico's own responses at /mcp: status, headers and body of each."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from mcp_bridge.http import responses
from mcp_bridge.http.responses import Response
from tests.support.asgi import Client, run

pytestmark = pytest.mark.once
METADATA = "https://portico.example/.well-known/oauth-protected-resource/mcp"
HELP = "https://portico.example/help/"
SETTINGS = {
    "ISSUER_URL": "https://portico.example",
    "MAX_BODY_SIZE": 100,
    "BODY_TIMEOUT": 2.5,
}


def sent(make: Any, *arguments: Any) -> Client:
    """What a client receives of a response."""
    client = Client()
    with override_settings(**SETTINGS):
        run(make(*arguments).send(client.send))
    return client


def test_an_empty_response_has_no_type() -> None:
    reply = sent(Response, 202)
    assert (reply.status, reply.body) == (202, b"")
    assert reply.headers == {"content-length": "0", "cache-control": "no-store"}


def test_a_response_says_its_length_and_may_not_be_stored() -> None:
    reply = sent(Response, 418, {"a": "é"}, {"x-extra": "1"})
    assert (reply.status, reply.json) == (418, {"a": "é"})
    assert reply.headers == {
        "content-length": str(len(reply.body)),
        "cache-control": "no-store",
        "content-type": "application/json",
        "x-extra": "1",
    }
    assert [event["type"] for event in reply.sent] == [
        "http.response.start",
        "http.response.body",
    ]


def test_without_a_token_the_challenge_names_no_error() -> None:
    reply = sent(responses.unauthorized, False)
    assert reply.status == 401
    assert reply.json == {
        "error": "unauthorized",
        "error_description": "Send an access token in the Authorization header.",
    }
    assert reply.headers["www-authenticate"] == (
        f'Bearer resource_metadata="{METADATA}", scope="mcp"'
    )


def test_with_a_token_the_challenge_says_invalid_token() -> None:
    reply = sent(responses.unauthorized, True)
    text = "The access token is invalid, expired or revoked."
    assert reply.status == 401
    assert reply.json == {
        "error": "invalid_token",
        "error_description": text,
        "error_uri": f"{HELP}#a-token-is-refused",
    }
    assert reply.headers["www-authenticate"] == (
        f'Bearer error="invalid_token", error_description="{text}", '
        f'resource_metadata="{METADATA}", scope="mcp"'
    )


def test_a_narrow_token_is_told_every_scope_to_ask_for() -> None:
    reply = sent(responses.insufficient_scope, {"tool:b", "mcp", "tool:a"})
    text = "The access token lacks a scope that this message needs."
    assert reply.status == 403
    assert reply.json == {
        "error": "insufficient_scope",
        "error_description": text,
        "error_uri": f"{HELP}#a-token-lacks-a-scope",
        "scope": "mcp tool:a tool:b",
    }
    assert reply.headers["www-authenticate"] == (
        'Bearer error="insufficient_scope", scope="mcp tool:a tool:b", '
        f'resource_metadata="{METADATA}", error_description="{text}"'
    )


def test_an_error_of_the_protocol_has_no_id() -> None:
    reply = sent(responses.protocol_error, 400, -32700, "no JSON")
    error = {"code": -32700, "message": "no JSON"}
    assert reply.status == 400
    assert reply.json == {"jsonrpc": "2.0", "id": None, "error": error}


def test_without_a_database_the_client_may_retry_in_five_seconds() -> None:
    reply = sent(responses.unavailable)
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert reply.json == {
        "error": "temporarily_unavailable",
        "error_description": "The database cannot be reached; nothing was decided.",
        "error_uri": f"{HELP}#the-database-does-not-answer",
    }


def test_a_large_body_is_413() -> None:
    reply = sent(responses.too_large)
    assert reply.status == 413
    assert reply.json == {
        "error": "invalid_request",
        "error_description": "The body is larger than 100 bytes.",
        "error_uri": f"{HELP}#a-body-is-too-large",
    }


def test_a_late_body_is_408_and_closes_the_connection() -> None:
    reply = sent(responses.body_timeout)
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert reply.json == {
        "error": "request_timeout",
        "error_description": "The body did not arrive within 2.5 s.",
    }
