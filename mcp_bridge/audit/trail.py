"""AuditTrail: one event for every decided message, written as AUDIT_DURABILITY says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.types import Scope

from accounts.models import IssuedToken, User
from accounts.models.audit.origins import RequestOrigin
from accounts.parsing.row_ids import row_id
from accounts.parsing.text import one_line
from accounts.tokens.principal import Principal, Unauthenticated
from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import brief
from mcp_bridge.access.messages import Message
from mcp_bridge.audit.bulk_insert import CallEvent
from mcp_bridge.audit.last_used import LastUsedTracker
from mcp_bridge.audit.recorded_arguments import arguments_of
from mcp_bridge.audit.writer import records_messages, write_event
from mcp_bridge.db import in_database
from mcp_bridge.http.headers import header
from mcp_bridge.metrics import prometheus, service

NAMES = {
    "tools/call": "tool.called",
    "prompts/get": "prompt.fetched",
    "resources/read": "resource.read",
    "resources/subscribe": "resource.subscribed",
    "resources/unsubscribe": "resource.unsubscribed",
    "completion/complete": "completion.asked",
}
"""Method -> action of an allowed message; every other is `message.allowed`."""

ALLOWED, DENIED = "allowed", "denied"
last_used = LastUsedTracker()


def event_name(message: Message, allowed: bool) -> str:
    """The action, such as `tool.called`, `tool.denied` or `message.allowed`."""
    allowed_name = NAMES.get(message.method, "message.allowed")
    return allowed_name if allowed else f"{allowed_name.split('.')[0]}.denied"


class TokenOwner(NamedTuple):
    """Whose token was refused, and the token in words."""

    username: str = ""
    user_id: int | None = None
    token: str = ""


def token_owner(claims: Mapping[str, Any]) -> TokenOwner:
    """The owner of a token, from its row or else from its subject.

    Only tokens that Portico signed or stored have claims, so nobody can blame another.
    """
    row = IssuedToken.objects.filter(jti=claims.get("jti", "")).first()
    if row is not None:
        owner = row.user.username if row.user is not None else row.username
        return TokenOwner(owner, row.user_id, f"{row.kind} token of {owner}")
    key = row_id(str(claims.get("sub", "")))
    user = User.objects.filter(pk=key).first()
    if user is None:
        return TokenOwner(token=f"token of the unknown subject {claims.get('sub')}")
    return TokenOwner(user.username, user.pk, f"token of {user.username}")


class AuditTrail:
    """The audit of one HTTP request at /mcp."""

    __slots__ = ("address", "request_id", "started")

    def __init__(self, scope: Scope) -> None:
        client = scope.get("client") or ("", 0)
        self.address = client[0][:45]
        self.request_id = header(scope, b"x-request-id") or ""
        self.started = time.perf_counter()

    async def record_refusal(self, refusal: Unauthenticated) -> None:
        """Record a refused credential."""
        claims = refusal.claims
        owner = await in_database(token_owner, claims) if claims else TokenOwner()
        await write_event(
            CallEvent(
                at=time.time(),
                action="request.refused",
                decision=DENIED,
                reason=refusal.reason,
                actor=owner.username,
                actor_id=owner.user_id,
                client_id=one_line(claims.get("client_id", "")),
                token_id=claims.get("jti", "")[:64],
                address=self.address,
                object=owner.token[:255],
                duration_ms=self.duration_ms(),
                request_id=self.request_id,
            )
        )
        prometheus.count_decision(False, refusal.reason)

    async def record_decision(self, call: Call) -> None:
        """Record a decided message, allowed or denied."""
        last_used.track(call.principal.jti, self.address)
        if records_messages():
            await write_event(self.message_event(call))
        prometheus.count_decision(call.decision.allowed, call.decision.reason)
        if call.upstream:
            seconds = call.upstream_ms / 1000
            service.count_upstream_call(call.upstream, call.outcome, seconds)

    def origin(self, principal: Principal) -> RequestOrigin:
        """The origin of events about changes that a tool makes."""

        def user() -> User | None:
            found: User | None = User.objects.filter(pk=principal.user_id).first()
            return found

        return RequestOrigin(self.address, self.request_id, user)

    def duration_ms(self) -> float:
        """Milliseconds since the request arrived."""
        return round((time.perf_counter() - self.started) * 1000, 3)

    def message_event(self, call: Call) -> CallEvent:
        principal, message, decision = call.principal, call.message, call.decision
        name = " ".join(message.target) if message.target else message.method
        via = brief(decision.via)
        if call.upstream:
            # The duration of the event is the whole: this is the server's share.
            via = f"{via[:160]}; upstream {call.upstream}: {call.upstream_ms:.1f} ms"
        return CallEvent(
            at=time.time(),
            action=event_name(message, decision.allowed),
            decision=ALLOWED if decision.allowed else DENIED,
            reason=str(decision.reason),
            actor=principal.username,
            actor_id=principal.user_id,
            client_id=principal.client_id,
            token_id=principal.jti,
            address=self.address,
            object=one_line(name),
            via=one_line(via),
            outcome=call.outcome,
            duration_ms=self.duration_ms(),
            request_id=self.request_id,
            arguments=arguments_of(call),
        )
