"""Who calls: the message being served, for tools, lists and the audit."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.decision import Decision
from mcp_bridge.access.messages import Message


@dataclass(slots=True)
class Call:
    """One message on its way: who, against which rules, decided how, ended how."""

    principal: Principal
    message: Message
    catalogue: Catalogue
    decision: Decision
    outcome: str = ""


call_var: ContextVar[Call | None] = ContextVar("portico_call", default=None)


def current_call() -> Call | None:
    """The message being served, None outside one."""
    return call_var.get()


def current_principal() -> Principal:
    """Who calls the tool, resource or prompt that runs now.

    Raises LookupError outside a message, for example in a management command.
    """
    call = call_var.get()
    if call is None:
        raise LookupError("Nobody is calling: this runs outside an MCP message.")
    return call.principal
