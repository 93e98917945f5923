"""decide(): may this principal send this message? Pure: no I/O, no clock.

The role side comes first: where it fails the primitive does not exist for the
caller. The token side can only narrow (MCP 2026-07-28, basic/authorization).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from accounts.models.roles import ACT_WITHIN_ROLES
from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Catalogue, Rule
from mcp_bridge.access.messages import OPEN_METHODS, Message


class Reason(StrEnum):
    """Why a message was allowed or not; the words of the audit trail."""

    GRANTED = "granted"
    OPEN_METHOD = "open_method"
    UNKNOWN_METHOD = "unknown_method"
    MALFORMED = "malformed"
    UNKNOWN_PRIMITIVE = "unknown_primitive"
    DISABLED = "disabled"
    ROLE_LACKS_SCOPE = "role_lacks_scope"
    TOKEN_LACKS_SCOPE = "token_lacks_scope"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, its reason, and the rule or row that decided (`via`)."""

    allowed: bool
    reason: Reason
    via: str = ""
    missing: frozenset[str] = frozenset()
    """Scopes of which one would make the token wide enough."""

    @property
    def needs_wider_token(self) -> bool:
        """Whether the roles would allow it and only the token does not."""
        return self.reason is Reason.TOKEN_LACKS_SCOPE


def decide(principal: Principal, message: Message, catalogue: Catalogue) -> Decision:
    """Judge one message: open to everybody known, or about one primitive."""
    if message.malformed:
        return Decision(False, Reason.MALFORMED, "the message names no target")
    if message.target is not None:
        return judge(principal, catalogue.get(message.target))
    if message.always_open or message.method in OPEN_METHODS:
        return Decision(True, Reason.OPEN_METHOD, f"{message.method} is open to all")
    return Decision(False, Reason.UNKNOWN_METHOD, f"no rule for {message.method}")


def judge(principal: Principal, rule: Rule | None) -> Decision:
    """Judge the use of one primitive: enabled, then role side, then token side."""
    if rule is None:
        return Decision(False, Reason.UNKNOWN_PRIMITIVE, "no such primitive")
    if not rule.enabled:
        return Decision(False, Reason.DISABLED, f"{rule.kind} {rule.name} is disabled")
    held = rule.required & principal.grants.keys()
    if not held:
        return Decision(False, Reason.ROLE_LACKS_SCOPE, _no_role(principal, rule))
    if principal.acts_within_roles and not rule.sensitive:
        return Decision(True, Reason.GRANTED, _granting(principal, held, "mcp"))
    carried = rule.required & principal.token_scopes
    if carried:
        via = _granting(principal, held, min(carried))
        return Decision(True, Reason.GRANTED, via)
    return Decision(False, Reason.TOKEN_LACKS_SCOPE, _too_narrow(rule, held), held)


def visible(principal: Principal, rule: Rule | None) -> bool:
    """Whether a list shows it: usable now, or after asking for a wider token."""
    decision = judge(principal, rule)
    return decision.allowed or (decision.needs_wider_token and principal.can_step_up)


def visible_names(
    principal: Principal, catalogue: Catalogue, kind: str
) -> Iterator[str]:
    """Names a list of this kind shows, found by the scopes the roles give."""
    for rule in catalogue.opened_by(kind, principal.grants):
        if visible(principal, rule):
            yield rule.name


def scopes_to_ask(principal: Principal, decision: Decision) -> frozenset[str]:
    """What a challenge names: what the token has and the narrowest that suffices."""
    own = [scope for scope in decision.missing if ":" in scope]
    return principal.token_scopes | {min(own or decision.missing)}


def _granting(principal: Principal, held: frozenset[str], carried: str) -> str:
    scope = min(held)
    role = principal.grants[scope][0]
    return f"role {role} gives {scope}; the token carries {carried}"


def _no_role(principal: Principal, rule: Rule) -> str:
    roles = ", ".join(principal.roles) or "none"
    wanted = ", ".join(sorted(rule.required)) or "nothing anybody can hold"
    return f"needs one of {wanted}; roles held: {roles}"


def _too_narrow(rule: Rule, held: frozenset[str]) -> str:
    why = "it is sensitive" if rule.sensitive else f"it lacks {ACT_WITHIN_ROLES}"
    return f"the token names none of {', '.join(sorted(held))} and {why}"
