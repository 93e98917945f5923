"""One pooled HTTP client for each upstream server; requests carry their own headers.

aiohttp instead of the SDK's httpx2: the cost of a call through httpx2 is several times
as high (docs/upstreams.md). It takes 7 MB, so it is imported at the first call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from accounts.http.private_addresses import AddressRefused
from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.upstreams.addresses import check_url, private_address
from mcp_bridge.upstreams.problems import Outcome, UpstreamProblem, after_sending

if TYPE_CHECKING:
    import aiohttp

MAX_BODY = 32 * 1024 * 1024
"""Bytes of one response, or of one event of a stream."""
CONNECT_SECONDS = 5.0
REDIRECTS = (307, 308)
"""The redirects that repeat the method and the body."""
MAX_REDIRECTS = 3
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
"""Kept: json.dumps() with options makes a new one for each call."""

_clients: dict[
    tuple[int | None, str, asyncio.AbstractEventLoop], aiohttp.ClientSession
] = {}
"""By server, URL and event loop: a changed URL never uses an old connection."""
_client_imported = False


async def import_client() -> None:
    """Import aiohttp before the first call: in a thread, because it takes 0.2 s."""
    global _client_imported
    if not _client_imported:
        await asyncio.to_thread(import_module, "mcp_bridge.upstreams.resolver")
        _client_imported = True


def client_for(upstream: Upstream) -> aiohttp.ClientSession:
    """The client of this upstream server, in this event loop."""
    import aiohttp

    from mcp_bridge.upstreams.resolver import GuardedResolver

    key = upstream.pk, upstream.row.url, asyncio.get_running_loop()
    client = _clients.get(key)
    if client is None or client.closed:
        client = _clients[key] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=GuardedResolver(), limit=upstream.row.max_concurrency + 8
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=True,
            read_bufsize=256 * 1024,
        )
    return client


async def close_clients() -> None:
    """Close every connection of this event loop; for the end of the server."""
    loop = asyncio.get_running_loop()
    for key in [key for key in list(_clients) if key[2] is loop]:
        await _clients.pop(key).close()


async def close_client_of(pk: int | None) -> None:
    """Close the connections of one server, for example after a look."""
    loop = asyncio.get_running_loop()
    for key in [key for key in list(_clients) if key[0] == pk and key[2] is loop]:
        await _clients.pop(key).close()


@asynccontextmanager
async def post(
    upstream: Upstream, body: Mapping[str, Any], headers: Mapping[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """POST a JSON-RPC message; leaving the context early closes the connection.

    Raises UpstreamProblem if the server cannot be reached or breaks off.
    """
    name, url = upstream.name, upstream.row.url
    check_url(name, url)
    content = ENCODER.encode(body).encode("utf-8", "surrogatepass")
    await import_client()
    import aiohttp

    client = client_for(upstream)
    try:
        for _ in range(MAX_REDIRECTS):
            async with client.post(
                url, data=content, headers=headers, allow_redirects=False
            ) as response:
                if response.status not in REDIRECTS:
                    yield response
                    return
                target = urljoin(url, response.headers.get("location", ""))
                if urlsplit(target)[:2] != urlsplit(url)[:2]:
                    yield response
                    return
                url = target
        raise UpstreamProblem("redirect", f"{name} redirects in a circle.")
    except aiohttp.ClientConnectorError as error:
        raise no_connection(name, error) from error
    except TimeoutError as error:
        if not isinstance(error, aiohttp.ServerTimeoutError):
            raise
        text = f"The upstream server {name} accepted no connection in time."
        raise UpstreamProblem("unreachable", text, breaks=True) from error
    except (aiohttp.ClientError, OSError) as error:
        text = f"The upstream server {name} closed the connection without an answer."
        raise UpstreamProblem(
            "broken", after_sending(text), Outcome.MAY_HAVE_RUN, breaks=True
        ) from error


@asynccontextmanager
async def get(
    upstream: Upstream, headers: Mapping[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """GET the stream of a session. Raises UpstreamProblem."""
    check_url(upstream.name, upstream.row.url)
    await import_client()
    import aiohttp

    try:
        async with client_for(upstream).get(
            upstream.row.url, headers=headers, allow_redirects=False
        ) as response:
            yield response
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamProblem("broken", f"{upstream.name} is not reachable.") from error


async def delete(upstream: Upstream, headers: Mapping[str, str]) -> None:
    """DELETE the URL, which ends a session. Raises UpstreamProblem."""
    check_url(upstream.name, upstream.row.url)
    await import_client()
    import aiohttp

    try:
        async with client_for(upstream).delete(
            upstream.row.url, headers=headers, allow_redirects=False
        ):
            pass
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamProblem("broken", f"{upstream.name} is not reachable.") from error


def no_connection(name: str, error: aiohttp.ClientConnectorError) -> UpstreamProblem:
    """Why no connection was made: nothing was sent."""
    refused: BaseException | None = error
    while refused is not None and not isinstance(refused, AddressRefused):
        refused = refused.__cause__ or getattr(refused, "os_error", None)
    if refused is not None:
        return private_address(name, str(refused))
    text = f"The upstream server {name} cannot be reached. Try again later."
    return UpstreamProblem("unreachable", text, breaks=True)


async def read_limited(response: aiohttp.ClientResponse, name: str) -> bytes:
    """The whole body. Raises UpstreamProblem if it is larger than MAX_BODY."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MAX_BODY:
            raise answer_too_large(name)
        parts.append(part)
    return b"".join(parts)


def answer_too_large(name: str) -> UpstreamProblem:
    limit = MAX_BODY // (1024 * 1024)
    text = f"The answer of the upstream server {name} is larger than {limit} MiB."
    return UpstreamProblem("too_large", text, Outcome.ERROR)


async def events(response: aiohttp.ClientResponse, name: str) -> AsyncIterator[bytes]:
    """The data of each server-sent event, as it arrives (WHATWG HTML 9.2)."""
    buffer, data, size = b"", [], 0
    async for part in response.content.iter_any():
        buffer += part
        lines = buffer.splitlines(keepends=True)
        # A CR at the end may be the first half of a CRLF.
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        buffer = rest
        for raw in lines:
            line = raw.rstrip(b"\r\n")
            if line.startswith(b"data:"):
                value = line[5:].removeprefix(b" ")
                size += len(value)
                data.append(value)
            elif not line and data:
                yield b"\n".join(data)
                data, size = [], 0
        if size + len(buffer) > MAX_BODY:
            raise answer_too_large(name)
