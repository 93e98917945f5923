"""One request to an upstream server and its answer, in either protocol era.

2026-07-28: one POST, no session. Older protocols: `initialize` once per session, then
one POST for each request. Both answer with JSON or with a stream of events; what
arrives on the stream of a POST belongs to that request, so requests of the server to
the client need no correlation. The SDK's client needs a task and two memory streams for
each session and does not show which call a request of the server belongs to.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from django.conf import settings
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    encode_header_value,
    mcp_param_headers,
)
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    METHOD_NOT_FOUND,
    PROTOCOL_VERSION_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
)
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)

from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.models import CredentialMode
from mcp_bridge.models import Protocol as ProtocolChoice
from mcp_bridge.upstreams.credentials import credential_headers, forget_token
from mcp_bridge.upstreams.definitions import Mirrored
from mcp_bridge.upstreams.http_client import delete, events, get, post, read_limited
from mcp_bridge.upstreams.problems import (
    Outcome,
    UpstreamProblem,
    after_sending,
    status_problem,
)

if TYPE_CHECKING:
    import aiohttp

MODERN, LEGACY = ProtocolChoice.MODERN.value, ProtocolChoice.LEGACY.value
CLIENT_INFO = {"name": "portico", "version": settings.VERSION}
NAMES = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Method -> the parameter with the name, which the Mcp-Name header repeats."""
SESSION_HEADER = "mcp-session-id"
IDLE_SECONDS = 600.0
"""Seconds after which an unused session is closed."""
MAX_SESSIONS = 1_000
"""Sessions that one worker has open; above it, the least recently used are closed."""
CLOSING_SECONDS = 1.0
"""Seconds that a server has to confirm the end of a session."""
DETECT_SECONDS = 15.0
LONGEST = 3600.0
"""Seconds after which a call ends, however often it reports progress."""

_ids = itertools.count(1)

Json = Mapping[str, Any]


class Downstream(Protocol):
    """What a request may send to the client while it runs."""

    capabilities: Json
    """The client's capabilities that can be used during this request."""
    session: str
    """The client's session (older protocols); empty without one."""

    async def notify(self, method: str, params: Json) -> None:
        """Forward progress or a log message."""

    async def ask(self, method: str, params: Json) -> Json:
        """Forward a request of the server. Raises MCPError."""


class Nobody:
    """The downstream of Portico's own requests: nothing is forwarded."""

    capabilities: Json = {}
    session = ""

    async def notify(self, method: str, params: Json) -> None:
        """Drop it."""

    async def ask(self, method: str, params: Json) -> Json:
        """Refuse it."""
        raise MCPError(METHOD_NOT_FOUND, f"{method} is not supported here.")


@dataclass(slots=True)
class Session:
    """A session of an older protocol at an upstream server; its id may be empty."""

    id: str = ""
    version: str = ""
    info: Json = field(default_factory=dict)
    used_at: float = 0.0
    running: int = 0
    """Requests that wait for their answer."""
    upstream: Upstream | None = None
    principal: Principal | None = None
    """The last caller, whose credential ends it."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


_protocols: dict[tuple[int | None, str], str] = {}
"""(server, URL) -> the protocol that this worker found."""
_detecting: WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[int | None, str], asyncio.Lock]
] = WeakKeyDictionary()
"""By event loop: a page looks at a server in another one."""
_sessions: OrderedDict[tuple[Any, ...], Session] = OrderedDict()
"""The least recently used first."""


async def request(
    upstream: Upstream,
    method: str,
    params: Json,
    *,
    principal: Principal | None = None,
    downstream: Downstream | None = None,
    mirrored: Mirrored | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Send one request and return its result.

    `mirrored` names the arguments that headers repeat. Raises UpstreamProblem, or
    MCPError with the error of the server.
    """
    to = downstream or Nobody()
    limit = seconds or float(upstream.row.call_timeout)
    sent = Sent()
    try:
        async with asyncio.timeout(limit) as deadline:
            sent.deadline, sent.limit = deadline, limit
            protocol = await protocol_of(upstream, principal)
            try:
                return await _send(
                    protocol, upstream, method, params, principal, to, mirrored, sent
                )
            except MCPError as error:
                if error.error.code != UNSUPPORTED_PROTOCOL_VERSION:
                    raise
                # The server was replaced; it has not processed the request.
                _protocols.pop((upstream.pk, upstream.row.url), None)
                other = await protocol_of(upstream, principal)
                if other == protocol:
                    raise
                return await _send(
                    other, upstream, method, params, principal, to, mirrored, sent
                )
    except TimeoutError as error:
        text = f"The upstream server {upstream.name} did not answer in {limit:g} s."
        outcome = Outcome.MAY_HAVE_RUN if sent.begun else Outcome.TIMED_OUT
        text = after_sending(text) if sent.begun else text
        raise UpstreamProblem("timeout", text, outcome, breaks=True) from error


@dataclass(slots=True)
class Sent:
    """Whether the bytes of a request have left, and its deadline."""

    begun: bool = False
    deadline: asyncio.Timeout | None = None
    limit: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def extend(self) -> None:
        """Progress was reported: wait as long again, at most LONGEST in total."""
        if self.deadline is not None and not self.deadline.expired():
            now = asyncio.get_running_loop().time()
            left = max(0.0, LONGEST - (time.monotonic() - self.started))
            self.deadline.reschedule(now + min(self.limit, left))


async def _send(
    protocol: str,
    upstream: Upstream,
    method: str,
    params: Json,
    principal: Principal | None,
    to: Downstream,
    mirrored: Mirrored | None,
    sent: Sent,
) -> dict[str, Any]:
    headers = await credential_headers(upstream, principal)
    if protocol == MODERN:
        return await _send_modern(upstream, method, params, headers, to, mirrored, sent)
    session = await open_session(upstream, principal, headers, to)
    try:
        return await _send_legacy(upstream, session, method, params, headers, to, sent)
    except SessionLost:
        # The server did not process it, so it may be sent again.
        async with session.lock:
            session.version = ""
        session = await open_session(upstream, principal, headers, to)
        try:
            return await _send_legacy(
                upstream, session, method, params, headers, to, sent
            )
        except SessionLost as error:
            raise status_problem(upstream.name, 404) from error


class SessionLost(Exception):
    """The server answered 404 to a session that it knew."""


async def _send_modern(
    upstream: Upstream,
    method: str,
    params: Json,
    credential: Json,
    to: Downstream,
    mirrored: Mirrored | None,
    sent: Sent,
) -> dict[str, Any]:
    version = MODERN_PROTOCOL_VERSIONS[-1]
    meta = {
        **(params.get("_meta") or {}),
        PROTOCOL_VERSION_META_KEY: version,
        CLIENT_INFO_META_KEY: CLIENT_INFO,
        CLIENT_CAPABILITIES_META_KEY: to.capabilities,
    }
    headers = {
        **BASE_HEADERS,
        **credential,
        MCP_PROTOCOL_VERSION_HEADER: version,
        MCP_METHOD_HEADER: method,
    }
    name = params.get(NAMES.get(method, ""))
    if isinstance(name, str):
        headers[MCP_NAME_HEADER] = encode_header_value(name)
    if mirrored:
        headers |= mcp_param_headers(mirrored, params.get("arguments") or {})
    body = _body(method, {**params, "_meta": meta})
    return await _exchange(upstream, body, headers, to, sent, None)


async def _send_legacy(
    upstream: Upstream,
    session: Session,
    method: str,
    params: Json,
    credential: Json,
    to: Downstream,
    sent: Sent,
) -> dict[str, Any]:
    headers = {
        **BASE_HEADERS,
        **credential,
        MCP_PROTOCOL_VERSION_HEADER: session.version,
    }
    if session.id:
        headers[SESSION_HEADER] = session.id
    body = _body(method, params)
    session.running += 1
    try:
        return await _exchange(upstream, body, headers, to, sent, session)
    except asyncio.CancelledError:
        _in_background(_cancel(upstream, headers, body["id"]))
        raise
    finally:
        session.running -= 1
        session.used_at = time.monotonic()


BASE_HEADERS = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "user-agent": f"portico/{settings.VERSION}",
}


def _body(method: str, params: Json | None) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": next(_ids), "method": method}
    return body if params is None else {**body, "params": params}


async def _exchange(
    upstream: Upstream,
    body: Json,
    headers: Mapping[str, str],
    to: Downstream,
    sent: Sent,
    session: Session | None,
) -> dict[str, Any]:
    """POST a request and return its result. Raises MCPError, UpstreamProblem."""
    sent.begun = True
    async with post(upstream, body, headers) as response:
        if session is not None and response.status == 404 and session.id:
            raise SessionLost
        if response.status == 401:
            forget_token(upstream)
        kind = response.content_type
        if kind == "text/event-stream" and response.status == 200:
            return await _from_stream(upstream, response, body, headers, to, sent)
        content = await read_limited(response, upstream.name)
    return _result(upstream, response, content, body["id"])


def _result(
    upstream: Upstream, response: aiohttp.ClientResponse, content: bytes, number: int
) -> dict[str, Any]:
    """The result of a JSON answer; an HTTP status explains what is no JSON-RPC."""
    message = _parsed(content)
    if message is not None and ("result" in message or "error" in message):
        if response.status < 500 and response.status not in (401, 403, 429):
            return _outcome_of(upstream, message)
    if response.status != 200:
        wait = response.headers.get("retry-after", "")
        raise status_problem(upstream.name, response.status, wait)
    raise no_answer(upstream)


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def no_answer(upstream: Upstream) -> UpstreamProblem:
    """The server's answer is no JSON-RPC response."""
    text = f"The answer of the upstream server {upstream.name} is not valid MCP."
    return UpstreamProblem("invalid", after_sending(text), Outcome.MAY_HAVE_RUN)


def _outcome_of(upstream: Upstream, message: Json) -> dict[str, Any]:
    """The result. Raises MCPError with the server's error."""
    error = message.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        text = str(error.get("message", ""))[:2000]
        data = error.get("data")
        raise MCPError(code if type(code) is int else -32603, text, data=data)
    result = message.get("result")
    if not isinstance(result, dict):
        raise no_answer(upstream)
    return result


async def _from_stream(
    upstream: Upstream,
    response: aiohttp.ClientResponse,
    body: Json,
    headers: Mapping[str, str],
    to: Downstream,
    sent: Sent,
) -> dict[str, Any]:
    """The result at the end of a stream; what comes before it is forwarded."""
    async for message in _messages(response, upstream.name):
        if "method" not in message:
            if message.get("id") == body["id"]:
                return _outcome_of(upstream, message)
            continue
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        if "id" in message:
            answer = await _answer(message, params, to)
            await _notify(upstream, headers, answer)
            sent.extend()
        else:
            if message["method"] == "notifications/progress":
                sent.extend()
            await to.notify(message["method"], params)
    text = f"The upstream server {upstream.name} ended its answer early."
    raise UpstreamProblem(
        "broken", after_sending(text), Outcome.MAY_HAVE_RUN, breaks=True
    )


async def _messages(
    response: aiohttp.ClientResponse, name: str
) -> AsyncIterator[dict[str, Any]]:
    async for data in events(response, name):
        message = _parsed(data)
        if message is not None:
            yield message


async def _answer(message: Json, params: Json, to: Downstream) -> dict[str, Any]:
    """The client's response to a request of the server, or the error."""
    head = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "ping":
        return {**head, "result": {}}
    try:
        return {**head, "result": await to.ask(str(message["method"]), params)}
    except MCPError as error:
        shown = {"code": error.error.code, "message": error.error.message}
        return {**head, "error": shown}


async def _notify(
    upstream: Upstream, headers: Mapping[str, str], message: Json
) -> None:
    """POST a response or a notification; the server answers 202."""
    async with post(upstream, message, headers) as response:
        response.release()


async def _cancel(upstream: Upstream, headers: Mapping[str, str], number: int) -> None:
    """Tell a server of an older protocol that nobody waits for a request."""
    params = {"requestId": number, "reason": "The caller has gone."}
    message = {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": params,
    }
    with suppress(UpstreamProblem, TimeoutError):
        async with asyncio.timeout(5):
            await _notify(upstream, headers, message)


_background: set[asyncio.Task[None]] = set()


def _in_background(work: Any) -> None:
    task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)


async def open_session(
    upstream: Upstream, principal: Principal | None, credential: Json, to: Downstream
) -> Session:
    """The session for this caller; `initialize` runs once for all who wait.

    Calls of clients without a session share one: their capabilities are empty, so
    the server can ask nobody. A client's session gets its own.
    """
    user = "" if principal is None else str(principal.user_id)
    by_user = (
        upstream.row.credential_mode == CredentialMode.SIGNED_ASSERTION or to.session
    )
    version = upstream.credential.version if upstream.credential else 0
    url = upstream.row.url
    key = (upstream.pk, url, version, user if by_user else "", to.session)
    session = _sessions.setdefault(key, Session())
    _sessions.move_to_end(key)
    session.upstream, session.principal = upstream, principal
    if session.version:
        return session
    close_surplus_sessions()
    async with session.lock:
        if not session.version:
            await _initialize(upstream, session, credential, to)
    return session


async def _initialize(
    upstream: Upstream, session: Session, credential: Json, to: Downstream
) -> None:
    params = {
        "protocolVersion": LATEST_HANDSHAKE_VERSION,
        "capabilities": to.capabilities if to.session else {},
        "clientInfo": CLIENT_INFO,
    }
    body, sent = _body("initialize", params), Sent()
    headers: dict[str, str] = {**BASE_HEADERS, **credential}
    async with post(upstream, body, headers) as response:
        if response.content_type == "text/event-stream" and response.status == 200:
            result = await _from_stream(
                upstream, response, body, headers, Nobody(), sent
            )
        else:
            content = await read_limited(response, upstream.name)
            result = _result(upstream, response, content, body["id"])
        session_id = response.headers.get(SESSION_HEADER, "")
    version = result.get("protocolVersion")
    if version not in HANDSHAKE_PROTOCOL_VERSIONS:
        raise no_answer(upstream)
    headers[MCP_PROTOCOL_VERSION_HEADER] = version
    if session_id:
        headers[SESSION_HEADER] = session_id
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await _notify(upstream, headers, ready)
    session.id, session.info = session_id, result
    session.used_at, session.version = time.monotonic(), version


async def close_idle_sessions() -> None:
    """End sessions that were not used for IDLE_SECONDS, and tell their servers."""
    oldest = time.monotonic() - IDLE_SECONDS
    for key, session in list(_sessions.items()):
        if session.version and not session.running and session.used_at < oldest:
            _close(key)


def close_surplus_sessions() -> None:
    """End the least recently used sessions above MAX_SESSIONS that are not in use."""
    surplus = len(_sessions) - MAX_SESSIONS
    for key, session in list(_sessions.items())[:-1] if surplus > 0 else ():
        if surplus > 0 and session.version and not session.running:
            _close(key)
            surplus -= 1


async def close_sessions() -> None:
    """End every session and wait for the servers; for the end of the worker."""
    for key in list(_sessions):
        _close(key)
    await background_done()


def close_sessions_of_client(session_id: str) -> None:
    """End what was opened for a client's session; does nothing without its id."""
    # A copy: a page looks at servers in another thread.
    for key in list(_sessions):
        if session_id and key[-1] == session_id:
            _close(key)


def _close(key: tuple[Any, ...]) -> None:
    """Forget a session; a DELETE to its server follows in the background."""
    session = _sessions.pop(key)
    if session.id and session.version:
        _in_background(_delete(session))


async def listen(upstream: Upstream, wanted: Json, to: Downstream) -> None:
    """Forward what the server says of its lists and resources until its stream ends.

    `wanted` is the filter of subscriptions/listen (2026-07-28).
    Raises UpstreamProblem; MCPError, or the code `status`, if it offers no such stream.
    """
    if await protocol_of(upstream, None) == MODERN:
        params = {"notifications": wanted}
        await request(
            upstream, "subscriptions/listen", params, downstream=to, seconds=LONGEST
        )
        return
    headers = await credential_headers(upstream, None)
    session = await open_session(upstream, None, headers, to)
    headers |= {
        "accept": "text/event-stream",
        MCP_PROTOCOL_VERSION_HEADER: session.version,
    }
    if session.id:
        headers[SESSION_HEADER] = session.id
    await _subscribe(upstream, session, wanted.get("resourceSubscriptions", ()), to)
    session.running += 1
    try:
        async with get(upstream, headers) as response:
            if response.status == 404:
                session.version = ""
            kind = response.content_type
            if response.status != 200 or kind != "text/event-stream":
                raise status_problem(upstream.name, response.status)
            async for message in _messages(response, upstream.name):
                if "id" not in message and isinstance(message.get("method"), str):
                    await to.notify(message["method"], message.get("params") or {})
    finally:
        session.running -= 1
        session.used_at = time.monotonic()


async def _subscribe(
    upstream: Upstream, session: Session, uris: Iterable[str], to: Downstream
) -> None:
    """Subscribe to resources in a session, if its server offers that."""
    capabilities = session.info.get("capabilities")
    resources = capabilities.get("resources") if isinstance(capabilities, dict) else {}
    if not isinstance(resources, dict) or resources.get("subscribe") is not True:
        return
    headers = await credential_headers(upstream, None)
    for uri in uris:
        with suppress(MCPError, UpstreamProblem, SessionLost):
            await _send_legacy(
                *(upstream, session, "resources/subscribe", {"uri": uri}),
                *(headers, to, Sent()),
            )


async def protocol_of(upstream: Upstream, principal: Principal | None) -> str:
    """The protocol to speak: as set in the row, or as found by this worker."""
    if upstream.row.protocol != ProtocolChoice.AUTO:
        return str(upstream.row.protocol)
    key = upstream.pk, upstream.row.url
    if key in _protocols:
        return _protocols[key]
    locks = _detecting.setdefault(asyncio.get_running_loop(), {})
    async with locks.setdefault(key, asyncio.Lock()):
        if key not in _protocols:
            _protocols[key] = await detect(upstream, principal)
    return _protocols[key]


def known_protocol(upstream: Upstream) -> str:
    """The protocol as set in the row or found by this worker; empty if neither."""
    if upstream.row.protocol != ProtocolChoice.AUTO:
        return str(upstream.row.protocol)
    return _protocols.get((upstream.pk, upstream.row.url), "")


async def detect(upstream: Upstream, principal: Principal | None) -> str:
    """Ask `server/discover`. Only a clear answer decides; raises UpstreamProblem.

    401, 403, 429, 5xx and silence say nothing about the protocol.
    """
    headers = await credential_headers(upstream, principal)
    try:
        found = await _send_modern(
            upstream, "server/discover", {}, headers, Nobody(), None, Sent()
        )
    except MCPError as error:
        data = error.error.data
        named = data.get("supported", ()) if isinstance(data, dict) else ()
        modern = any(version in named for version in MODERN_PROTOCOL_VERSIONS)
        return MODERN if modern else LEGACY
    except UpstreamProblem as problem:
        if problem.code in ("status", "invalid"):
            return LEGACY
        raise
    named = found.get("supportedVersions")
    known = isinstance(named, list) and set(named) & set(MODERN_PROTOCOL_VERSIONS)
    return MODERN if known else LEGACY


async def detect_again(upstream: Upstream) -> str:
    """Detect the protocol without the cached result, and cache the new one."""
    if upstream.row.protocol != ProtocolChoice.AUTO:
        return str(upstream.row.protocol)
    async with asyncio.timeout(DETECT_SECONDS):
        found = await detect(upstream, None)
    _protocols[upstream.pk, upstream.row.url] = found
    return found


def _sessions_of(upstream: Upstream, to: Downstream) -> list[tuple[Any, ...]]:
    mine = upstream.pk, upstream.row.url
    return [k for k in list(_sessions) if k[:2] == mine and k[-1] == to.session]


def session_info(upstream: Upstream, to: Downstream) -> Json:
    """The result of `initialize` in this client's session; empty without one."""
    found = [_sessions[key].info for key in _sessions_of(upstream, to)]
    return found[-1] if found else {}


def end_session(upstream: Upstream, to: Downstream) -> None:
    """Forget this client's sessions and tell the server."""
    for key in _sessions_of(upstream, to):
        _close(key)


async def _delete(session: Session) -> None:
    upstream = session.upstream
    if upstream is None:
        return
    with suppress(UpstreamProblem, TimeoutError):
        async with asyncio.timeout(CLOSING_SECONDS):
            headers = await credential_headers(upstream, session.principal)
            headers |= {
                SESSION_HEADER: session.id,
                MCP_PROTOCOL_VERSION_HEADER: session.version,
            }
            await delete(upstream, headers)


async def background_done() -> None:
    """Wait for the notices that this event loop still sends."""
    loop = asyncio.get_running_loop()
    mine = [task for task in list(_background) if task.get_loop() is loop]
    await asyncio.gather(*mine)
