"""The id of the request being served: in its answer, its audit, every log line."""

from __future__ import annotations

import re
from contextvars import ContextVar
from uuid import uuid4

from starlette.types import Message as Event
from starlette.types import Scope, Send

NAME = b"x-request-id"
SANE = re.compile(r"[A-Za-z0-9_.-]{8,64}", re.ASCII)

request_id: ContextVar[str] = ContextVar("portico_request_id", default="")
"""Seen by synchronous views, tools and libraries too: asgiref copies the context."""


def with_request_id(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """Give the request an id of its own (or a proxy's sane one) and answer with it."""
    given = next((v.decode("latin-1") for k, v in scope["headers"] if k == NAME), "")
    name = given if SANE.fullmatch(given) else uuid4().hex
    pair = (NAME, name.encode())
    others = [h for h in scope["headers"] if h[0] != NAME]
    request_id.set(name)

    async def stamped(event: Event) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event["headers"], pair]}
        await send(event)

    return {**scope, "headers": [*others, pair]}, stamped
