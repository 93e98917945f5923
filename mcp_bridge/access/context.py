"""The current call and principal, for tools, lists and the audit."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.decision import Decision
from mcp_bridge.access.messages import Message


@dataclass(slots=True)
class Call:
    """A message with its principal, rules, decision and outcome."""

    principal: Principal
    message: Message
    catalogue: Catalogue
    decision: Decision
    outcome: str = ""
    upstream: str = ""
    """The upstream server that served it; empty for code."""
    upstream_ms: float = 0.0
    session: Any = None
    """The caller's session (mcp_bridge/sessions/registry.py), if there is one."""
    stop: Callable[[], None] | None = None
    """Stops work that the end of the HTTP request would not stop."""


call_var: ContextVar[Call | None] = ContextVar("portico_call", default=None)


def current_call() -> Call | None:
    """The call that is being served; None outside a message."""
    return call_var.get()


def current_principal() -> Principal:
    """The principal that calls the running tool, resource or prompt.

    Raises LookupError outside a message, for example in a management command.
    """
    call = call_var.get()
    if call is None:
        raise LookupError("There is no principal outside an MCP message.")
    return call.principal
