"""The id of the request being served: in its answer, its audit, every log line."""

from __future__ import annotations

import re
from contextvars import ContextVar
from random import getrandbits
from time import time_ns

from starlette.types import Message as Event
from starlette.types import Scope, Send

NAME = b"x-request-id"
SANE = re.compile(r"[A-Za-z0-9_.-]{8,64}", re.ASCII)

request_id: ContextVar[str] = ContextVar("portico_request_id", default="")
"""Seen by synchronous views, tools and libraries too: asgiref copies the context."""


def new_id() -> str:
    """32 hex digits: milliseconds, then randomness (as in a UUID version 7).

    In order of time, so that the index over a million of them is written at its end.
    It is no secret, so the system is not asked for the randomness.
    """
    return f"{time_ns() // 1_000_000:012x}{getrandbits(80):020x}"


def with_request_id(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """Give the request an id of its own (or a proxy's sane one) and answer with it.

    The scope is changed, not copied.
    """
    headers = scope["headers"]
    given = [value.decode("latin-1") for known, value in headers if known == NAME]
    sane = given and SANE.fullmatch(given[0])
    name = given[0] if sane else new_id()
    pair = (NAME, name.encode())
    kept = [known for known in headers if known[0] != NAME] if given else headers
    scope["headers"] = [*kept, pair]
    request_id.set(name)

    async def stamped(event: Event) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event["headers"], pair]}
        await send(event)

    return scope, stamped
