"""Administration tools in states that need other settings of a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from accounts.models import User
from accounts.tokens.principal import hypothetical_principal
from mcp_bridge import mcp_tools
from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message


@contextmanager
def called_by(user: User) -> Iterator[None]:
    """Runs the tool as if within a message of this user."""
    verdict = Decision(True, Reason.GRANTED)
    message = Message("tools/call")
    call = Call(hypothetical_principal(user, ["mcp"]), message, Catalogue(), verdict)
    token = call_var.set(call)
    yield
    call_var.reset(token)


CALLS: list[Callable[[], Any]] = [
    lambda: mcp_tools.list_users(),
    lambda: mcp_tools.recent_refusals(),
    lambda: mcp_tools.grant_role("bob", "User"),
    lambda: mcp_tools.revoke_role("bob", "Guest"),
    lambda: mcp_tools.revoke_tokens("bob"),
]


@pytest.mark.parametrize("call", CALLS)
def test_staff_without_a_second_factor_have_to_set_it_up(
    carol: User, bob: User, settings: Any, call: Callable[[], Any]
) -> None:
    """The admin requires it, so the tools do too."""
    with called_by(carol):
        call()
        settings.STAFF_SECOND_FACTOR = True
        with pytest.raises(ToolError, match="/portal/security/"):
            call()
