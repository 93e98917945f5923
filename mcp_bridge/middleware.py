"""The door at /mcp: Bearer -> Principal -> Decision -> the SDK, or a challenge.

MCP basic/authorization; RFC 6750. Decides on the body: older requests may lie in
their Mcp-Method and Mcp-Name headers.
"""

from __future__ import annotations

import asyncio
import logging
from functools import cached_property

from django.conf import settings
from django.db import Error as DatabaseError
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import SimpleUser
from starlette.types import Receive, Scope, Send

from accounts.encryption import KeyUnreadable
from accounts.principal import Principal, Unauthenticated
from accounts.toomany import TooMany
from mcp_bridge import answers, limits
from mcp_bridge.audit import Trail
from mcp_bridge.current import Call, call_var
from mcp_bridge.decision import decide, scopes_to_ask
from mcp_bridge.edge import Disconnected, TooLarge, TooSlow, header, read_body, replay
from mcp_bridge.freshness import facts
from mcp_bridge.messages import BadMessage, Message, parse
from mcp_bridge.replies import OnePiece, OnRecord
from mcp_bridge.streams import Guarded
from mcp_bridge.transport import Transport

logger = logging.getLogger(__name__)

BODILESS = {
    "GET": Message("stream/open", always_open=True),
    "DELETE": Message("session/end", always_open=True),
}
"""HTTP method -> what it means at /mcp where there is no body (2025-11-25)."""


class Door:
    """Pure ASGI: refuses, challenges, or hands the message to the SDK's app."""

    def __init__(self, transport: Transport) -> None:
        self.transport, self.locate = transport, transport.server.locate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; without a database nothing is let through."""
        trail = Trail(scope)
        raw = bearer(header(scope, b"authorization"))
        if raw is None:
            await answers.unauthorized(token_sent=False).send(send)
            return
        try:
            await self.admit(scope, receive, send, raw, trail)
        except Unauthenticated as refusal:
            await self.challenge(refusal, trail, send, raw)
        except TooMany as problem:
            await limits.answer(problem).send(send)
        except (BadMessage, TooLarge, TooSlow) as problem:
            await body_refusal(problem).send(send)
        except Disconnected:
            return
        except (DatabaseError, KeyUnreadable):
            logger.exception("Nothing could be decided")
            await answers.unavailable().send(send)

    async def admit(
        self, scope: Scope, receive: Receive, send: Send, raw: str, trail: Trail
    ) -> None:
        """Authenticate, read, decide; then serve, or ask for a wider token."""
        principal, catalogue = await facts(raw)
        principal = principal.seen_from(trail.address)
        await limits.admit(principal)
        message, receive = await self.read(scope, receive)
        decision = decide(principal, message, catalogue)
        call = Call(principal, message, catalogue, decision)
        if decision.needs_wider_token:
            await trail.decided(call)
            wanted = scopes_to_ask(principal, decision)
            await answers.insufficient_scope(wanted).send(send)
            return
        scope["user"] = user = Caller(principal)
        call_token, user_token = call_var.set(call), auth_context_var.set(user)
        try:
            if self.transport.one_piece(scope, message):
                await self.answer(scope, receive, OnePiece(send, receive, trail, call))
            else:
                held = scope["method"] == "POST"
                stream = OnRecord(send, trail, call, held=held)
                guarded = Guarded(self.transport.streaming, call, raw)
                await guarded(scope, receive, stream)
        finally:
            auth_context_var.reset(user_token)
            call_var.reset(call_token)

    async def answer(self, scope: Scope, receive: Receive, reply: OnePiece) -> None:
        """Serve in one piece; if the client leaves, the call ends and that is told."""
        try:
            content = reply.call.message.content
            await self.transport.exchange.serve(scope, receive, reply, content)
        except asyncio.CancelledError:
            if not reply.left:
                raise
            reply.call.outcome = "cancelled"
            await reply.leave()
        finally:
            reply.stop()

    async def challenge(
        self, why: Unauthenticated, trail: Trail, send: Send, raw: str
    ) -> None:
        """401 for a token that does not count, once on record; 429 in a flood."""
        answer = answers.unauthorized(token_sent=True)
        try:
            await limits.admit_refusal(raw, trail.address)
            await trail.refused(why)
        except TooMany as problem:
            answer = limits.answer(problem)
        except DatabaseError:
            logger.exception("A refusal could not be recorded")
            answer = answers.unavailable()
        await answer.send(send)

    async def read(self, scope: Scope, receive: Receive) -> tuple[Message, Receive]:
        """The message and a `receive` that gives it again. Raises as its parts do."""
        if scope["method"] != "POST":
            known = BODILESS.get(scope["method"])
            return known or Message(f"http/{scope['method']}"), receive
        body = await read_body(receive)
        return self.locate(parse(body)), replay(body, receive)


def bearer(value: str | None) -> str | None:
    """The token of an Authorization header; None if it carries no Bearer token."""
    scheme, _, raw = (value or "").partition(" ")
    return raw.strip() if scheme.lower() == "bearer" and raw.strip() else None


class Caller(AuthenticatedUser):
    """The SDK's user of a principal; few ask for its token, so it is made for them."""

    def __init__(self, principal: Principal) -> None:
        SimpleUser.__init__(self, principal.client_id)
        self.principal = principal

    @cached_property
    def access_token(self) -> AccessToken:  # type: ignore[override]
        """What sessions and requestState belong to."""
        return sdk_token(self.principal)

    @cached_property
    def scopes(self) -> list[str]:  # type: ignore[override]
        """Those the token names."""
        return self.access_token.scopes


def sdk_token(principal: Principal) -> AccessToken:
    """The SDK's view of the principal: sessions and requestState belong to it.

    It carries the token's id in place of the token, so no tool can pass it on.
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


def body_refusal(problem: BadMessage | TooLarge | TooSlow) -> answers.Answer:
    """413 for a giant, 408 for a dawdler, 400 for what is not one message."""
    if isinstance(problem, TooSlow):
        return answers.too_slow()
    if isinstance(problem, BadMessage):
        return answers.protocol_error(400, problem.code, str(problem))
    return answers.too_large()
