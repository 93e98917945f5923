"""Where an audit event comes from: the request that is being served, and its user."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

COMMAND_LINE = "command line"
"""The actor of management commands and of the Django shell."""


def nobody() -> None:
    """The user of an anonymous request."""


def no_token() -> str:
    """The token of a request with a cookie, or with nothing."""
    return ""


class RequestOrigin(NamedTuple):
    """The columns that all events of one request share."""

    address: str = ""
    request_id: str = ""
    user: Callable[[], Any] = nobody
    """Returns the authenticated user, or None."""
    token_id: Callable[[], str] = no_token
    """Returns the jti of the token of the administration API, or nothing."""


origin_var: ContextVar[RequestOrigin | None] = ContextVar(
    "portico_origin", default=None
)
"""None outside a request. Threads that serve the request see it too."""


def current_actor() -> Any:
    """The authenticated user of this request; COMMAND_LINE outside a request.

    None in an anonymous request, such as one with a password-reset link.
    """
    origin = origin_var.get()
    return COMMAND_LINE if origin is None else origin.user()
