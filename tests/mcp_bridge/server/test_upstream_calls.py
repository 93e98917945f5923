"""Results of upstream servers in the form of the client's protocol."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from mcp.shared.exceptions import MCPError

from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.server.upstream_calls import shaped
from tests.support.mcp_in_process import caller

pytestmark = pytest.mark.once
TEXT = {"type": "text", "text": "fine"}


def result_of(method: str, version: str, result: dict[str, Any]) -> Any:
    """What a client gets, and the outcome for the audit."""
    allowed = Decision(True, Reason.GRANTED)
    call = Call(caller(), Message(method), Catalogue(), allowed, outcome="ok")
    ctx = SimpleNamespace(method=method, protocol_version=version)
    try:
        return shaped(cast(Any, ctx), result, call), call.outcome
    except MCPError as error:
        return error.error.message, call.outcome


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("tools/call", {"content": "odd"}),
        ("tools/call", {"content": [{"type": "text"}]}),
        ("tools/call", {}),
        ("prompts/get", {"messages": "odd"}),
        ("resources/read", {"contents": 3}),
        ("completion/complete", {"completion": 3}),
    ],
)
def test_an_invalid_result_is_an_error_for_every_client(
    version: str, method: str, result: dict[str, Any]
) -> None:
    found, outcome = result_of(method, version, result)
    text = found if isinstance(found, str) else found["content"][0]["text"]
    assert "invalid result" in text and outcome == "error"
    assert isinstance(found, str) or found["isError"] is True


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
def test_a_valid_result_keeps_its_content(version: str) -> None:
    found, outcome = result_of("tools/call", version, {"content": [TEXT]})
    assert (found["content"], outcome) == ([TEXT], "ok")


def test_a_question_needs_no_content() -> None:
    asks = {"resultType": "input_required", "requestState": "s"}
    found, outcome = result_of("tools/call", "2026-07-28", asks)
    assert (found["requestState"], outcome) == ("s", "ok")
