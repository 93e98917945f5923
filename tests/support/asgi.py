"""ASGI applications called in process: one request, and what was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
Event = dict[str, Any]


def run(work: Coroutine[Any, Any, T], seconds: float = 10) -> T:
    """The result of `work` on a new event loop, with a timeout."""
    return asyncio.run(asyncio.wait_for(work, seconds))


def http_scope(
    method: str = "POST",
    path: str = "/mcp",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """An HTTP scope; header names are lower-case, as servers send them."""
    pairs = [
        (name.encode(), value.encode("latin-1"))
        for name, value in (headers or {}).items()
    ]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "scheme": "http",
        "client": ("192.0.2.1", 50000),
        "headers": pairs,
        **more,
    }


def chunk(body: bytes, more: bool = False) -> Event:
    """A part of a request body."""
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Event = {"type": "http.disconnect"}


@dataclass
class Client:
    """Gives the events of a request, then waits; keeps what is sent to it."""

    events: list[Event] = field(default_factory=list)
    sent: list[Event] = field(default_factory=list)

    async def receive(self) -> Event:
        if self.events:
            return self.events.pop(0)
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(self, event: Any) -> None:
        self.sent.append(event)

    @property
    def status(self) -> int:
        """The status of the only response."""
        (start,) = [e for e in self.sent if e["type"] == "http.response.start"]
        return int(start["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {k.decode(): v.decode("latin-1") for k, v in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.sent[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(app: Any, scope: dict[str, Any], events: Iterable[Event] = ()) -> Client:
    """One request to `app`."""
    client = Client(list(events))
    run(app(scope, client.receive, client.send))
    return client
