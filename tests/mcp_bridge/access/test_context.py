"""The principal that a tool sees."""

from __future__ import annotations

import pytest

from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import (
    Call,
    call_var,
    current_call,
    current_principal,
)
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from tests.mcp_bridge.access.test_decision import principal

pytestmark = pytest.mark.once


def test_there_is_no_principal_outside_a_message() -> None:
    assert current_call() is None
    with pytest.raises(
        LookupError, match=r"^There is no principal outside an MCP message\.$"
    ):
        current_principal()


def test_a_tool_sees_the_principal_of_its_call() -> None:
    who = principal(frozenset({"A.Read"}), frozenset({"mcp"}))
    verdict = Decision(True, Reason.GRANTED)
    call = Call(who, Message("tools/call"), Catalogue(), verdict)
    token = call_var.set(call)
    try:
        assert current_call() is call and current_principal() is who
    finally:
        call_var.reset(token)
    assert current_call() is None
