"""Limits of one worker for each upstream server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.upstreams.problems import UpstreamProblem

_in_use: dict[int, int] = {}


@asynccontextmanager
async def admitted(upstream: Upstream) -> AsyncIterator[None]:
    """Hold one of the server's places. Raises UpstreamProblem if none is free."""
    used = _in_use.get(upstream.pk, 0)
    if used >= upstream.row.max_concurrency:
        text = f"The upstream server {upstream.name} has too many calls. Try again."
        raise UpstreamProblem("busy", text)
    _in_use[upstream.pk] = used + 1
    try:
        yield
    finally:
        _in_use[upstream.pk] -= 1
