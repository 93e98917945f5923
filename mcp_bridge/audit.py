"""Call events: every message decided, written before its answer leaves."""

from __future__ import annotations

from datetime import timedelta
from time import perf_counter
from typing import Any

from django.db.models import Q
from django.utils import timezone
from starlette.types import Scope

from accounts.audit import one_line
from accounts.models import AuditEvent, IssuedToken
from accounts.principal import Principal, Unauthenticated
from mcp_bridge import metrics
from mcp_bridge.current import Call
from mcp_bridge.db import in_database
from mcp_bridge.edge import header
from mcp_bridge.messages import Message

NAMES = {
    "tools/call": "tool.called",
    "prompts/get": "prompt.fetched",
    "resources/read": "resource.read",
    "resources/subscribe": "resource.subscribed",
    "resources/unsubscribe": "resource.unsubscribed",
    "completion/complete": "completion.asked",
}
"""Method -> event when allowed; other methods are `message.allowed`."""

USE_NOTED_EVERY = timedelta(seconds=60)
"""How exact a token's "last used" is: a row is not rewritten for every message."""


def event_name(message: Message, allowed: bool) -> str:
    """`tool.called`, `tool.denied`, `message.allowed` and the like."""
    allowed_name = NAMES.get(message.method, "message.allowed")
    return allowed_name if allowed else f"{allowed_name.split('.')[0]}.denied"


class Trail:
    """The audit of one HTTP request at the door."""

    def __init__(self, scope: Scope) -> None:
        client = scope.get("client") or ("", 0)
        self.address = client[0][:45]
        self.request_id = header(scope, b"x-request-id") or ""
        self.started = perf_counter()

    def _event(self, action: str, allowed: bool, **fields: Any) -> AuditEvent:
        verdict = AuditEvent.Verdict.ALLOWED if allowed else AuditEvent.Verdict.DENIED
        return AuditEvent(
            action=action,
            decision=verdict,
            address=self.address,
            request_id=self.request_id,
            duration_ms=round((perf_counter() - self.started) * 1000, 3),
            **fields,
        )

    async def refused(self, refusal: Unauthenticated) -> None:
        """A credential that does not count."""
        jti = refusal.claims.get("jti", "")
        client = refusal.claims.get("client_id", "")
        event = self._event(
            "request.refused",
            False,
            reason=refusal.reason,
            token_id=jti,
            client_id=one_line(client),
            object=f"subject {refusal.claims['sub']}"[:255] if refusal.claims else "",
        )
        await in_database(event.save)
        metrics.decided(False, refusal.reason)

    async def decided(self, call: Call) -> None:
        """A message that was decided, whichever way."""
        await in_database(_write, self.message_event(call), call.principal)
        metrics.decided(call.decision.allowed, call.decision.reason)

    def message_event(self, call: Call) -> AuditEvent:
        """The unsaved event of one message."""
        principal, message, decision = call.principal, call.message, call.decision
        name = " ".join(message.target) if message.target else message.method
        return self._event(
            event_name(message, decision.allowed),
            decision.allowed,
            actor=principal.username,
            actor_id=principal.user_id,
            client_id=principal.client_id,
            token_id=principal.jti,
            object=one_line(name),
            reason=decision.reason,
            via=one_line(decision.via),
            outcome=call.outcome,
        )


def _write(event: AuditEvent, principal: Principal) -> None:
    event.save()
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - USE_NOTED_EVERY)
    token = IssuedToken.objects.filter(stale, jti=principal.jti)
    token.update(last_used_at=now, last_used_from=event.address)
