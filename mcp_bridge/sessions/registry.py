"""The sessions that this worker serves, and what it knows of them.

Nothing here is needed to serve a session: its id carries the facts, and the rows say
whether it is live. A worker reads a row once; the change log tells of sessions that
ended. What a call or a stream waits for may reach another worker: `message_log.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
)
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import cached_property
from typing import Any

import anyio
from django.conf import settings
from django.db import Error as DatabaseError
from mcp.server.connection import Connection
from mcp.server.streamable_http import REQUEST_CANCELLED
from mcp.shared.dispatcher import CallOptions, coerce_request_id
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, ErrorData, JSONRPCError
from pydantic_core import to_json

from accounts.tokens.principal import Principal
from mcp_bridge.cache.decision_cache import session_notices, tracks_changes
from mcp_bridge.db import in_database
from mcp_bridge.http.event_stream import EventStream, sse_event
from mcp_bridge.metrics import prometheus
from mcp_bridge.sessions import rows
from mcp_bridge.sessions.message_log import LogEntry, MessageLog, open_log
from mcp_bridge.sessions.sealed_ids import SessionFacts, open_facts, seal_facts
from mcp_bridge.upstreams.exchange import close_sessions_of_client

logger = logging.getLogger(__name__)

RequestId = str | int
Cancel = Callable[[int, bytes], None]
"""Cancels a request; it is answered with this HTTP status and body."""
Content = Mapping[str, Any]
"""A decoded JSON-RPC message."""

MAX_KNOWN = 20_000
"""Sessions whose facts a worker keeps; others are read again from their ids."""
POLL_EVERY = 0.1
"""Seconds between two looks for messages that other workers got."""
LOOKS_BETWEEN = 5
"""Looks between two for the streams of clients, which can wait longer."""
WAITS_AFTER = 0.4
"""Seconds after which another worker's messages are read for a call."""
DELETE_EVERY = 60.0
"""Seconds between two deletions of expired rows."""
QUESTION_KEPT = 86_400.0
"""Seconds in which a person can answer a question at another worker."""


class SessionConnection(Connection):
    """The SDK's connection of a session; its stack can be made when it is used."""

    @cached_property
    def exit_stack(self) -> AsyncExitStack:  # type: ignore[override]
        return AsyncExitStack()


class OpenSession:
    """One session in this worker; it belongs to the caller who finds it."""

    def __init__(
        self, session_id: str, facts: SessionFacts, registry: SessionRegistry
    ) -> None:
        self.id, self.facts, self.registry = session_id, facts, registry
        self.checked_until = 0.0
        """Until when its row need not be read again; 0: read it at the next message."""
        self.used_at = self.written_at = time.time()
        self.running: dict[RequestId, tuple[float, Cancel]] = {}
        """Requests that are being answered: when they began, and how to cancel them."""
        self.questions: dict[str, asyncio.Future[dict[str, Any]]] = {}
        """Request id -> the client's answer to a request of ours."""
        self.stream: EventStream | None = None
        self.connection = SessionConnection(
            StreamOutbound(self),
            protocol_version=facts.version,
            session_id=session_id,
            client_params=facts.initialized(),
        )
        # Sessions are many. These take 800 bytes each, and few sessions use the stack.
        self.connection.initialized = registry.initialized
        del self.connection.exit_stack

    def channel(self, purpose: str) -> str:
        """The name of a channel of this session in the log."""
        return f"{self.facts.key}/{purpose}"

    def waits(self, now: float) -> bool:
        """Whether a message at another worker may concern what runs here."""
        began = (at for at, _ in self.running.values())
        return bool(self.questions) or any(now - at > WAITS_AFTER for at in began)

    @contextmanager
    def in_use(self, request_id: RequestId, cancel: Cancel) -> Iterator[None]:
        """Keep the session from being idle; its client may cancel the request."""
        key = coerce_request_id(request_id)
        self.running[key] = mine = time.monotonic(), cancel
        self.registry.set_busy(self)
        try:
            yield
        finally:
            if self.running.get(key) is mine:
                del self.running[key]
            self.registry.set_busy(self)

    async def answer_to(self, ask: Callable[[str], Awaitable[None]]) -> dict[str, Any]:
        """The client's answer to a request that `ask` sends under the id it gets.

        Raises MCPError with the client's error, or if the session ends.
        """
        number = self.registry.next_question()
        question: asyncio.Future[dict[str, Any]]
        self.questions[number] = question = asyncio.get_running_loop().create_future()
        self.registry.set_busy(self)
        try:
            await self.registry.announce(self, number)
            await ask(number)
            return await question
        finally:
            del self.questions[number]
            self.registry.set_busy(self)

    def apply(self, content: Content) -> bool:
        """Apply a cancellation or an answer; False if nothing here waits for it."""
        if content.get("method") == "notifications/cancelled":
            return self.cancel(cancelled_request(content))
        question = self.questions.get(str(content.get("id")))
        if question is None or "method" in content:
            return False
        if not question.done():
            settle(question, content)
        return True

    def cancel(self, request_id: RequestId | None) -> bool:
        """Cancel a request; False if it does not run here."""
        found = self.running.get(coerce_request_id(request_id or ""))
        if found is None or request_id is None:
            return False
        found[1](200, failure(request_id, REQUEST_CANCELLED, "Request cancelled"))
        return True

    async def tell(self, message: bytes) -> None:
        """Send a message on the stream that the client opened, at any worker."""
        if self.stream is not None:
            self.stream.push(sse_event(message))
        else:
            await self.registry.append(self.channel("out"), message)

    def close(self) -> None:
        """End its requests, questions and its stream."""
        for request_id, (_, cancel) in list(self.running.items()):
            text = "Session terminated before the request completed"
            cancel(404, failure(request_id, INTERNAL_ERROR, text))
        for question in self.questions.values():
            if not question.done():
                error = MCPError(CONNECTION_CLOSED, "Connection closed")
                question.set_exception(error)
        if self.stream is not None:
            self.stream.close()
        close_sessions_of_client(self.id)


class StreamOutbound:
    """The SDK's connection-wide channel: the client's GET stream, at any worker."""

    def __init__(self, session: OpenSession) -> None:
        self.session = session

    async def send_raw_request(
        self, method: str, params: Content | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Ask the client. Raises MCPError with its error."""

        async def ask(number: str) -> None:
            await self.session.tell(encoded_message(method, params, id=number))

        return await self.session.answer_to(ask)

    async def notify(
        self, method: str, params: Content | None, opts: CallOptions | None = None
    ) -> None:
        """Send the notification."""
        await self.session.tell(encoded_message(method, params))


class SessionRegistry:
    """The sessions of this worker; every other worker can serve them, too."""

    def __init__(self) -> None:
        self.log: MessageLog = open_log()
        self.known: OrderedDict[str, OpenSession] = OrderedDict()
        """Session id -> session, the most recently used last."""
        self.by_key: dict[str, OpenSession] = {}
        self.busy: set[OpenSession] = set()
        self.initialized = anyio.Event()
        """Is set; a session begins with the answer to `initialize`."""
        self.initialized.set()
        self.wanted = asyncio.Event()
        """Set while a call, a question or a stream of a session is open here."""
        self.ends = 0
        """Notices of ended sessions so far."""
        self.worker = secrets.token_hex(8)
        self.numbers = itertools.count(1)
        self.deleted_at = time.monotonic()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Hear of ended sessions and of messages at other workers."""
        session_notices.append(self.heard)
        tasks = [asyncio.create_task(self.poll()), asyncio.create_task(self.upkeep())]
        try:
            yield
        finally:
            session_notices.remove(self.heard)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(DatabaseError):
                await self.write_uses(0.0)

    async def open(self, facts: SessionFacts) -> OpenSession:
        """Add a session; a user over the limit loses the least recently used."""
        used = {session.facts.key: session.used_at for session in self.known.values()}
        ends = self.ends
        ended = await in_database(rows.add_session, facts.key, facts.user_id, used)
        heard_none = ends == self.ends
        for key in ended:
            prometheus.count_limit_exceeded("sessions")
            self.heard(key)
        session = OpenSession(seal_facts(facts), facts, self)
        self.keep(session)
        if heard_none and tracks_changes():
            session.checked_until = time.time() + rows.lifetime().total_seconds()
        return session

    async def find(self, session_id: str, principal: Principal) -> OpenSession | None:
        """The caller's live session with this id; None if there is none."""
        session = self.known.get(session_id) or self.opened(session_id)
        if session is None or not session.facts.belongs_to(principal):
            return None
        if session.checked_until <= time.time() and not await self.is_live(session):
            return None
        # Another request of the session may have added it meanwhile.
        session = self.known.get(session_id, session)
        self.keep(session)
        session.used_at = time.time()
        return session

    def opened(self, session_id: str) -> OpenSession | None:
        """The session as its id describes it; None if the id is not ours."""
        facts = open_facts(session_id)
        return None if facts is None else OpenSession(session_id, facts, self)

    async def is_live(self, session: OpenSession) -> bool:
        """Read the row; after an end meanwhile, the next message reads it again."""
        ends = self.ends
        until = await in_database(rows.expiry, session.facts.key)
        if until <= time.time():
            self.forget(session)
            return False
        if ends == self.ends and tracks_changes():
            session.checked_until = until
        return True

    async def end(self, session: OpenSession) -> None:
        """End the session for every worker."""
        await in_database(rows.end_row, session.facts.key)
        self.forget(session)

    def keep(self, session: OpenSession) -> None:
        """Remember the session as the one used last."""
        if session.id not in self.known:
            self.known[session.id] = self.by_key[session.facts.key] = session
            idle = (each for each in self.known.values() if each not in self.busy)
            if len(self.known) > MAX_KNOWN:
                self.forget(next(idle))
            prometheus.set_open_sessions(len(self.known))
        self.known.move_to_end(session.id)

    def forget(self, session: OpenSession) -> None:
        """Remove the session, and end what runs in it here."""
        known = self.known.pop(session.id, session)
        self.by_key.pop(session.facts.key, None)
        self.busy.discard(known)
        known.close()
        prometheus.set_open_sessions(len(self.known))

    def heard(self, key: str) -> None:
        """A session has ended; an empty key: any of them may have."""
        self.ends += 1
        if key:
            session = self.by_key.get(key)
            if session is not None:
                self.forget(session)
            return
        for session in self.known.values():
            session.checked_until = 0.0

    def set_busy(self, session: OpenSession) -> None:
        """Note whether something of the session is open here."""
        session.used_at = time.time()
        if session.running or session.questions or session.stream is not None:
            self.busy.add(session)
            self.wanted.set()
        else:
            self.busy.discard(session)

    def next_question(self) -> str:
        """An id for a request to a client, different from those of other workers."""
        return f"portico-{self.worker}-{next(self.numbers)}"

    async def announce(self, session: OpenSession, question: str) -> None:
        """Let other workers pass on one answer to this question."""
        if self.log.shared:
            channel = session.channel(question)
            await self.append(channel, b"asked", kept_for=QUESTION_KEPT)

    async def observe(self, session: OpenSession, content: Content) -> None:
        """Apply what the client sent, or pass it to the worker that waits for it."""
        if session.apply(content) or not self.log.shared:
            return
        request_id = cancelled_request(content)
        if request_id is not None and len(str(request_id)) <= 255:
            params = {"requestId": request_id}
            relayed = encoded_message("notifications/cancelled", params)
            await self.append(session.channel("in"), relayed)
        elif "method" not in content and await self.is_asked(session, content):
            await self.append(session.channel("in"), to_json(content))

    async def is_asked(self, session: OpenSession, content: Content) -> bool:
        """Whether it answers a question of another worker, for the first time."""
        question = str(content.get("id"))
        if not question.startswith("portico-") or len(question) > 40:
            return False
        return bool(await self.log.take([session.channel(question)]))

    async def append(self, channel: str, message: bytes, **options: float) -> None:
        """Add a message to the log; a full channel loses it."""
        if not await self.log.append(channel, 1, message, **options):
            logger.warning("A message of a session was lost: too many or too large.")

    async def poll(self) -> None:
        """Read what other workers got while something here waits for it."""
        for look in itertools.count():
            await self.wanted.wait()
            await asyncio.sleep(POLL_EVERY)
            try:
                await self.read_others()
                if look % LOOKS_BETWEEN == 0:
                    await self.serve_streams()
            except DatabaseError as error:
                logger.warning("Messages of sessions were not read: %s", error)
            except Exception:  # A defect of one message must not stop the others.
                logger.exception("Messages of sessions were not read")
            if not self.busy:
                self.wanted.clear()

    async def read_others(self) -> None:
        """Apply the messages of other workers to what waits here."""
        now = time.monotonic()
        waiting = [session for session in self.busy if session.waits(now)]
        if waiting and self.log.shared:
            channels = [session.channel("in") for session in waiting]
            for entry in await self.log.read(channels):
                self.applied(entry)

    async def serve_streams(self) -> None:
        """Send what other workers have for streams; end sessions that have ended."""
        for session in list(self.busy):
            if session.checked_until <= time.time():
                await self.is_live(session)
        streams = [session for session in self.busy if session.stream is not None]
        if streams and self.log.shared:
            await self.deliver(streams)

    def applied(self, entry: LogEntry) -> None:
        """Apply a message of another worker; one that was applied has no effect."""
        session = self.by_key.get(entry.channel.partition("/")[0])
        if session is not None:
            session.apply(json.loads(entry.content))

    async def deliver(self, sessions: Collection[OpenSession]) -> None:
        """Send what other workers, or earlier calls, have for the sessions' streams."""
        by_channel = {session.channel("out"): session for session in sessions}
        for entry in await self.log.take(by_channel.keys()):
            stream = by_channel[entry.channel].stream
            if stream is not None:
                stream.push(sse_event(entry.content))

    async def upkeep(self) -> None:
        """Write uses, forget idle sessions, and delete expired rows now and then."""
        step = min(max(settings.SESSION_IDLE / 16, 0.05), 30.0)
        while True:
            await asyncio.sleep(step)
            try:
                await self.write_uses(settings.SESSION_IDLE / 8)
                if time.monotonic() - self.deleted_at > DELETE_EVERY:
                    self.deleted_at = time.monotonic()
                    await in_database(rows.delete_expired)
            except DatabaseError as error:
                logger.warning("Uses of sessions were not written: %s", error)
            self.forget_idle()

    async def write_uses(self, late: float) -> None:
        """Extend the rows of sessions that were used since they were written."""
        for session in self.busy:
            session.used_at = time.time()
        used = [s for s in self.known.values() if s.used_at - s.written_at > late]
        if not used:
            return
        used_at = min(session.used_at for session in used)
        keys = [session.facts.key for session in used]
        await in_database(rows.extend_sessions, keys, used_at)
        until = used_at + rows.lifetime().total_seconds()
        for session in used:
            session.written_at = used_at
            if session.checked_until:
                session.checked_until = max(session.checked_until, until)

    def forget_idle(self) -> None:
        """Forget the sessions that nobody used here for long."""
        oldest = time.time() - rows.lifetime().total_seconds()
        for session in list(self.known.values()):
            if session.used_at < oldest and session not in self.busy:
                self.forget(session)


def cancelled_request(content: Content) -> RequestId | None:
    """The id of the request that a notification cancels; None if it cancels none."""
    params = content.get("params")
    if content.get("method") != "notifications/cancelled":
        return None
    found = params.get("requestId") if isinstance(params, dict) else None
    known = isinstance(found, str | int) and not isinstance(found, bool)
    return found if known else None


def settle(question: asyncio.Future[dict[str, Any]], content: Content) -> None:
    """Set the result or the error that the client sent."""
    result, error = content.get("result"), content.get("error")
    if isinstance(result, dict):
        question.set_result(result)
        return
    error = error if isinstance(error, dict) else {}
    code, data = error.get("code"), error.get("data")
    code = code if type(code) is int else INTERNAL_ERROR
    question.set_exception(MCPError(code, str(error.get("message", "")), data=data))


def encoded_message(method: str, params: Content | None, **head: str) -> bytes:
    """A request or notification as bytes."""
    message: dict[str, Any] = {"jsonrpc": "2.0", **head, "method": method}
    if params:
        message["params"] = params
    return to_json(message, inf_nan_mode="null")


def failure(request_id: RequestId, code: int, text: str) -> bytes:
    """A JSON-RPC error as bytes."""
    error = ErrorData(code=code, message=text)
    message = JSONRPCError(jsonrpc="2.0", id=request_id, error=error)
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()
