"""decide(): may this principal send this message? Pure: no I/O, no clock.

The roles are checked first: if they do not allow it, the primitive does not exist for
the caller. The token can only narrow them (MCP 2026-07-28, basic/authorization).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from accounts.models.roles import ACT_WITHIN_ROLES
from accounts.tokens.principal import Principal
from mcp_bridge.access.argument_rules import judge_arguments
from mcp_bridge.access.catalogue import Catalogue, Rule
from mcp_bridge.access.messages import ARGUMENT_METHODS, OPEN_METHODS, Message

USUAL_TOKEN = re.compile(
    rf"\A(role .+ grants (\S+)); the token includes (?:{ACT_WITHIN_ROLES}|\2)(?=;|\Z)"
)
"""The token acts within the roles, or includes just the scope that they grant."""


class Reason(StrEnum):
    """Why a message was allowed or denied, as the audit records it."""

    GRANTED = "granted"
    OPEN_METHOD = "open_method"
    UNKNOWN_METHOD = "unknown_method"
    MALFORMED = "malformed"
    UNKNOWN_PRIMITIVE = "unknown_primitive"
    DISABLED = "disabled"
    NOT_SERVED = "not_served"
    DEFINITION_CHANGED = "definition_changed"
    ARGUMENT_REFUSED = "argument_refused"
    ROLE_LACKS_SCOPE = "role_lacks_scope"
    TOKEN_LACKS_SCOPE = "token_lacks_scope"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, its reason, and the rule or row that decided (`via`)."""

    allowed: bool
    reason: Reason
    via: str = ""
    missing: frozenset[str] = frozenset()
    """Scopes, any one of which would make the token wide enough."""

    @property
    def needs_wider_token(self) -> bool:
        """Whether the roles allow it and the token does not."""
        return self.reason is Reason.TOKEN_LACKS_SCOPE


def decide(principal: Principal, message: Message, catalogue: Catalogue) -> Decision:
    """Decide one message: by its primitive, or by the open methods."""
    if message.malformed:
        return Decision(False, Reason.MALFORMED, "the message has no target")
    if message.target is not None:
        rule = catalogue.get(message.target)
        decision = judge(principal, rule)
        if rule is None or not decision.allowed:
            return decision
        return judge_content(principal, message, rule, decision)
    if message.always_open or message.method in OPEN_METHODS:
        return Decision(
            True, Reason.OPEN_METHOD, f"{message.method} is open to everyone"
        )
    return Decision(False, Reason.UNKNOWN_METHOD, f"no rule for {message.method}")


def judge(principal: Principal, rule: Rule | None) -> Decision:
    """Decide the use of one primitive: enabled, then the roles, then the token."""
    if rule is None:
        return Decision(
            False, Reason.UNKNOWN_PRIMITIVE, "unknown tool, resource or prompt"
        )
    if not rule.enabled:
        return Decision(False, Reason.DISABLED, f"{rule.kind} {rule.name} is disabled")
    if rule.blocked:
        return Decision(False, Reason.NOT_SERVED, _why_blocked(rule))
    granted = rule.required & principal.grants.keys()
    if not granted:
        return Decision(False, Reason.ROLE_LACKS_SCOPE, _no_role(principal, rule))
    if principal.acts_within_roles and not rule.sensitive:
        return Decision(True, Reason.GRANTED, _granting(principal, granted, "mcp"))
    carried = rule.required & principal.token_scopes
    if carried:
        via = _granting(principal, granted, min(carried))
        return Decision(True, Reason.GRANTED, via)
    return Decision(
        False, Reason.TOKEN_LACKS_SCOPE, _too_narrow(rule, granted), granted
    )


def judge_content(
    principal: Principal, message: Message, rule: Rule, granted: Decision
) -> Decision:
    """Decide what the roles grant by its changed definition and its arguments."""
    if rule.calls_refused:
        text = f"the definition of {rule.kind} {rule.name} changed and is not accepted"
        return Decision(False, Reason.DEFINITION_CHANGED, text)
    if not rule.conditions or message.method not in ARGUMENT_METHODS:
        return granted
    roles = granting_roles(principal, rule)
    verdict = judge_arguments(rule.conditions, roles, message.arguments)
    if verdict.allowed:
        via = f"{granted.via}; the argument rules of {verdict.by} allow it"
        return replace(granted, via=via)
    text = f"arguments refused: {verdict.limits}"
    return Decision(False, Reason.ARGUMENT_REFUSED, text)


def granting_roles(principal: Principal, rule: Rule) -> frozenset[str]:
    """The caller's roles that grant the primitive."""
    granted = rule.required & principal.grants.keys()
    return frozenset(role for scope in granted for role in principal.grants[scope])


def visible(principal: Principal, rule: Rule | None) -> bool:
    """Whether a list shows it: usable now, or with a wider token."""
    decision = judge(principal, rule)
    return decision.allowed or (decision.needs_wider_token and principal.can_step_up)


def visible_names(
    principal: Principal, catalogue: Catalogue, kind: str
) -> Iterator[str]:
    """Names that a list of this kind shows, found by the roles' scopes."""
    for rule in catalogue.requiring(kind, principal.grants):
        if visible(principal, rule):
            yield rule.name


def scopes_to_ask(principal: Principal, decision: Decision) -> frozenset[str]:
    """Scopes for a challenge: the token's own and the narrowest that suffices."""
    own = [scope for scope in decision.missing if ":" in scope]
    return principal.token_scopes | {min(own or decision.missing)}


def _why_blocked(rule: Rule) -> str:
    if rule.blocked == "upstream" and rule.upstream is not None:
        return f"the upstream server {rule.upstream.name} is disabled"
    return f"the definition of {rule.kind} {rule.name} is {rule.blocked}"


@lru_cache(maxsize=4096)
def brief(via: str) -> str:
    """`via` of an audit event: without the token's scope if it is the usual one.

    Most events are allowed calls, and this would be half of their largest column.
    """
    return USUAL_TOKEN.sub(r"\1", via)


def _granting(principal: Principal, granted: frozenset[str], carried: str) -> str:
    scope = min(granted)
    role = principal.grants[scope][0]
    return f"role {role} grants {scope}; the token includes {carried}"


def _no_role(principal: Principal, rule: Rule) -> str:
    roles = ", ".join(principal.roles) or "none"
    scopes = ", ".join(sorted(rule.required)) or "(no scope)"
    return f"requires one of {scopes}; roles: {roles}"


def _too_narrow(rule: Rule, granted: frozenset[str]) -> str:
    scopes = ", ".join(sorted(granted))
    if rule.sensitive:
        return f"sensitive; the token includes none of {scopes}"
    return f"the token includes none of {scopes} and not {ACT_WITHIN_ROLES}"
