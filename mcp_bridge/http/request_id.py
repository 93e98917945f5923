"""The request id, in the response, the audit event and every log line."""

from __future__ import annotations

import re
from contextvars import ContextVar
from random import getrandbits
from time import time_ns

from starlette.types import Message as Event
from starlette.types import Scope, Send

from mcp_bridge.http.headers import HeaderPairs, header, header_pairs

NAME = b"x-request-id"
VALID_ID = re.compile(r"[A-Za-z0-9_.-]{8,64}", re.ASCII)

request_id: ContextVar[str] = ContextVar("portico_request_id", default="")
"""Views, tools and libraries see it too, because asgiref copies the context."""


def new_id() -> str:
    """32 hex digits: milliseconds, then randomness (as in a UUID version 7).

    Ids sort by time, so the index over a million of them grows at its end. An id is no
    secret, so the fast generator is enough.
    """
    return f"{time_ns() // 1_000_000 << 80 | getrandbits(80):032x}"


def with_request_id(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """Keep a proxy's valid id or create one, and add it to the response.

    This changes the scope in place.
    """
    headers, current_id = header_pairs(scope), header(scope, NAME)
    if current_id is not None:
        headers = HeaderPairs(pair for pair in headers if pair[0] != NAME)
    if current_id is None or not VALID_ID.fullmatch(current_id):
        current_id = new_id()
    pair = (NAME, current_id.encode())
    headers.add(*pair)
    scope["headers"] = headers
    request_id.set(current_id)

    async def send_with_id(event: Event) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event["headers"], pair]}
        await send(event)

    return scope, send_with_id
