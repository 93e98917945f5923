"""AuthorizationMiddleware: Bearer -> Principal -> Decision -> the SDK, or a challenge.

MCP basic/authorization; RFC 6750. The decision rests on the body, because the
Mcp-Method and Mcp-Name headers of older requests may contradict it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import cached_property

from django.conf import settings
from django.db import Error as DatabaseError
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import SimpleUser
from starlette.types import Receive, Scope, Send

from accounts.crypto.encryption import KeyUnreadable
from accounts.models.audit.origins import origin_var
from accounts.rate_limits.errors import RateLimited
from accounts.tokens.principal import Principal, Unauthenticated
from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import decide, scopes_to_ask
from mcp_bridge.access.messages import BadMessage, Message, parse
from mcp_bridge.audit.trail import AuditTrail
from mcp_bridge.cache.decision_cache import resolve_token
from mcp_bridge.cache.recheck import FRESH_FOR, AccessWithdrawn, Recheck, recheck_var
from mcp_bridge.http import responses
from mcp_bridge.http.headers import header
from mcp_bridge.http.request_body import (
    BodyTimeout,
    BodyTooLarge,
    Disconnected,
    IncomingBody,
)
from mcp_bridge.middleware import rate_limits
from mcp_bridge.middleware.recorded_response import (
    RecordedResponse,
    RecordedSend,
    RecordedStream,
)
from mcp_bridge.middleware.revocable_stream import RevocableStream
from mcp_bridge.models import PrimitiveKind
from mcp_bridge.server.concurrency_limits import LARGE_BODY, STREAM_METHODS, Reservation
from mcp_bridge.server.transport import Transport
from mcp_bridge.sessions.registry import OpenSession
from mcp_bridge.sessions.streams import RESUMABLE_SINCE, ResumableEvents
from mcp_bridge.upstreams.relay import relayed_rule

logger = logging.getLogger(__name__)

MESSAGES_WITHOUT_BODY = {
    "GET": Message("stream/open", always_open=True),
    "DELETE": Message("session/end", always_open=True),
}
"""HTTP method -> its meaning at /mcp, for requests without a body (2025-11-25)."""
BODY_GRACE = 0.05
"""Seconds to wait for a body before its token is checked.

Many clients send head and body in separate packets. A body that arrives in this time
needs one check of the token. For a later body the token is checked before the wait, and
again after it.
"""


class AuthorizationMiddleware:
    """Pure ASGI: refuses, challenges, or passes the message to the SDK's app."""

    def __init__(self, transport: Transport) -> None:
        self.transport, self.locate = transport, transport.server.locate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; without a database every request is refused."""
        trail = AuditTrail(scope)
        raw = bearer(header(scope, b"authorization"))
        if raw is None:
            await responses.unauthorized(token_sent=False).send(send)
            return
        try:
            await self.authorize(scope, receive, send, raw, trail)
        except Unauthenticated as refusal:
            await self.challenge(refusal, trail, send, raw)
        except RateLimited as problem:
            await rate_limits.too_many_requests(problem).send(send)
        except (BadMessage, BodyTooLarge, BodyTimeout) as problem:
            await body_refusal(problem).send(send)
        except Disconnected:
            return
        except (DatabaseError, KeyUnreadable):
            logger.exception("The request could not be decided")
            await responses.unavailable().send(send)

    async def authorize(
        self, scope: Scope, receive: Receive, send: Send, raw: str, trail: AuditTrail
    ) -> None:
        """Authenticate, read the body, decide, then serve or challenge."""
        body = IncomingBody(receive)
        arrived, read_at = await self.body_arrived(scope, body), time.perf_counter()
        principal, catalogue = await resolve_caller(raw, trail)
        await rate_limits.admit(principal)
        reservation = Reservation(principal.user_id)
        try:
            if not arrived:
                await self.read_rest(body, reservation)
            elif body.size > LARGE_BODY:
                reservation.add_bytes(body.size)
            if not arrived or time.perf_counter() - read_at > FRESH_FOR:
                # The principal may have changed during the wait.
                read_at = time.perf_counter()
                principal, catalogue = await resolve_caller(raw, trail)
            call = self.decided(scope, body, principal, catalogue)
            if call.message.method in STREAM_METHODS:
                reservation.count_as_stream(principal.jti)
            recheck = Recheck(call, raw, trail.address, read_at)
            await self.serve_decided(scope, body, send, trail, recheck)
        finally:
            reservation.release()

    async def serve_decided(
        self,
        scope: Scope,
        body: IncomingBody,
        send: Send,
        trail: AuditTrail,
        recheck: Recheck,
    ) -> None:
        """Serve the call, or answer 403 if a wider token would be enough."""
        call = recheck.call
        if call.decision.needs_wider_token:
            await trail.record_decision(call)
            await scope_challenge(call).send(send)
            return
        scope["user"] = user = Caller(call.principal)
        call_token, user_token = call_var.set(call), auth_context_var.set(user)
        recheck_token = recheck_var.set(recheck)
        origin_token = origin_var.set(trail.origin(call.principal))
        try:
            await self.serve(scope, body, send, trail, recheck)
        finally:
            origin_var.reset(origin_token)
            recheck_var.reset(recheck_token)
            auth_context_var.reset(user_token)
            call_var.reset(call_token)

    async def read_rest(self, body: IncomingBody, reservation: Reservation) -> None:
        """Read the rest of the body. Raises BodyTimeout, RateLimited."""
        if body.size:
            reservation.add_bytes(body.size)
        body.on_chunk = reservation.add_bytes
        if not await body.arrives(settings.BODY_TIMEOUT):
            raise BodyTimeout

    async def body_arrived(self, scope: Scope, body: IncomingBody) -> bool:
        """Whether the body is complete before the token is checked.

        A client that waits for `100 Continue` gets it only after that check.
        """
        if scope["method"] != "POST":
            return True
        return header(scope, b"expect") is None and await body.arrives(BODY_GRACE)

    def decided(
        self,
        scope: Scope,
        body: IncomingBody,
        principal: Principal,
        catalogue: Catalogue,
    ) -> Call:
        """The message with its decision. Raises BadMessage."""
        message = located(self.message(scope, body), catalogue)
        verdict = decide(principal, message, catalogue)
        return Call(principal, message, catalogue, verdict)

    def message(self, scope: Scope, body: IncomingBody) -> Message:
        """The parsed message. Raises BadMessage."""
        if scope["method"] == "POST":
            return self.locate(parse(body.content()))
        bodiless = MESSAGES_WITHOUT_BODY.get(scope["method"])
        return bodiless or Message(f"http/{scope['method']}")

    async def serve(
        self,
        scope: Scope,
        body: IncomingBody,
        send: Send,
        trail: AuditTrail,
        recheck: Recheck,
    ) -> None:
        """Let the SDK answer; refuse instead if access ended meanwhile."""
        receive = body.replay() if body.complete else body.receive
        reply: RecordedResponse | RecordedStream
        await self.transport.find_session(scope, recheck.call)
        if self.transport.wants_json(scope, recheck.call.message):
            reply = RecordedResponse(send, receive, trail, recheck)
            await self.answer(scope, receive, reply)
            end = reply.end
        else:
            reply = RecordedStream(
                send, trail, recheck.call, hold_head=scope["method"] == "POST"
            )
            told = self.transport.list_changes(recheck, reply)
            guarded = RevocableStream(self.transport.streaming, recheck, told)
            try:
                await guarded(scope, receive, reply)
            finally:
                if recheck.call.stop is not None:
                    recheck.call.stop()
            end = guarded.end
            if end is None and reply.has_result and not reply.recorded:
                recheck.call.outcome = "cancelled"  # its client has gone
                await reply.record()
        if end is not None:
            await self.withhold(scope, body, reply, end)

    async def answer(
        self, scope: Scope, receive: Receive, reply: RecordedResponse
    ) -> None:
        """Serve a single response; a client that disconnects cancels the call.

        Not a tool of the code in a session: there only the client's notification does
        (MCP 2025-11-25 basic/transports).
        """
        content, direct = reply.call.message.content, self.transport.direct
        session: OpenSession | None = reply.call.session
        try:
            if session is None:
                await direct.serve(scope, receive, reply, content)
                return
            reply.outlives_client = relayed_rule(reply.call) is None
            reply.session_id = session.id
            if session.facts.version >= RESUMABLE_SINCE and reply.call.message.target:
                reply.events = ResumableEvents(session, reply.call)
            with session.in_use(content["id"], reply.cancel):
                await direct.serve(scope, receive, reply, content)
        except asyncio.CancelledError:
            if not reply.interrupted:
                raise
            reply.serving.uncancel()
            if reply.end is None:
                reply.call.outcome = "cancelled"
                await reply.settle()
        finally:
            reply.stop()

    async def withhold(
        self, scope: Scope, body: IncomingBody, reply: RecordedSend, end: Exception
    ) -> None:
        """Send a refusal instead of the answer; an open stream only ends.

        The call may have had effects, so the audit keeps it, as `withheld`.
        """
        if not reply.recorded and not isinstance(end, DatabaseError):
            reply.call.outcome = "withheld"
            await reply.record()
        if reply.begun:
            await reply.close()
        elif isinstance(end, Unauthenticated):
            await responses.unauthorized(token_sent=True).send(reply.send)
        elif isinstance(end, AccessWithdrawn):
            await self.refuse(scope, body, reply, end)
        else:
            await responses.unavailable().send(reply.send)

    async def refuse(
        self,
        scope: Scope,
        body: IncomingBody,
        reply: RecordedSend,
        end: AccessWithdrawn,
    ) -> None:
        """Refuse as if the message came now: a hidden primitive is unknown."""
        call, send = reply.call, reply.send
        call.decision = end.decision
        if end.decision.needs_wider_token:
            await scope_challenge(call).send(send)
            return
        content = call.message.content
        await self.transport.direct.serve(scope, body.replay(), send, content)

    async def challenge(
        self, why: Unauthenticated, trail: AuditTrail, send: Send, raw: str
    ) -> None:
        """Record the refusal, then answer 401, or 429 over the limit."""
        answer = responses.unauthorized(token_sent=True)
        try:
            await rate_limits.admit_refusal(raw, trail.address)
            await trail.record_refusal(why)
        except RateLimited as problem:
            answer = rate_limits.too_many_requests(problem)
        except DatabaseError:
            logger.exception("The refusal could not be recorded")
            answer = responses.unavailable()
        await answer.send(send)


def located(message: Message, catalogue: Catalogue) -> Message:
    """Set the target of a resource message to the upstream primitive that serves it."""
    target = message.target
    if target is None or target[0] != PrimitiveKind.RESOURCE or target in catalogue:
        return message
    rule = catalogue.serving(target[1])
    return message if rule is None else message.with_target(*rule.key)


async def resolve_caller(raw: str, trail: AuditTrail) -> tuple[Principal, Catalogue]:
    """The principal, restricted to the client's address, and the rules."""
    principal, catalogue = await resolve_token(raw)
    return principal.restricted_to(trail.address), catalogue


def scope_challenge(call: Call) -> responses.Response:
    """403 with the scopes to ask for."""
    scopes = scopes_to_ask(call.principal, call.decision)
    return responses.insufficient_scope(scopes)


def bearer(value: str | None) -> str | None:
    """The token of an Authorization header; None without a Bearer token."""
    scheme, _, raw = (value or "").partition(" ")
    return raw.strip() if scheme.lower() == "bearer" and raw.strip() else None


class Caller(AuthenticatedUser):
    """The SDK's user of a principal; the access token is built on first use."""

    def __init__(self, principal: Principal) -> None:
        SimpleUser.__init__(self, principal.client_id)
        self.principal = principal

    @cached_property
    def access_token(self) -> AccessToken:  # type: ignore[override]
        """The token that owns sessions and requestState."""
        return sdk_token(self.principal)

    @cached_property
    def scopes(self) -> list[str]:  # type: ignore[override]
        """Scopes that the token names."""
        return self.access_token.scopes


def sdk_token(principal: Principal) -> AccessToken:
    """The SDK's token of the principal; sessions and requestState belong to it.

    It has the token's id instead of the raw token, so no tool can forward that.
    """
    return AccessToken(
        token=principal.jti,
        client_id=principal.client_id,
        scopes=sorted(principal.token_scopes),
        expires_at=principal.expires_at,
        resource=settings.RESOURCE_URL,
        subject=str(principal.user_id),
        claims={"iss": settings.ISSUER_URL},
    )


def body_refusal(
    problem: BadMessage | BodyTooLarge | BodyTimeout,
) -> responses.Response:
    """Map body errors to 413 (too large), 408 (timeout) or 400 (invalid JSON-RPC)."""
    if isinstance(problem, BodyTimeout):
        return responses.body_timeout()
    if isinstance(problem, BadMessage):
        return responses.protocol_error(400, problem.code, str(problem))
    return responses.too_large()
