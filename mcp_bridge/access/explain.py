"""Who can call a primitive, and why: decide() on a hypothetical message.

This module decides nothing itself; it calls decide() on the current rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext as _

from accounts.authorization.role_grants import current_grants
from accounts.models import IssuedToken, Role, RoleAssignment, User
from accounts.models.roles import ACT_WITHIN_ROLES
from accounts.tokens.principal import (
    Principal,
    Unauthenticated,
    hypothetical_principal,
    is_for_api,
    load_principal,
)
from mcp_bridge.access.argument_rules import conditions_by_role, with_role
from mcp_bridge.access.catalogue import Catalogue, Rule
from mcp_bridge.access.decision import Decision, Reason, decide, granting_roles
from mcp_bridge.access.messages import TARGETS, Message
from mcp_bridge.models import DefinitionState, Primitive, PrimitiveKind
from mcp_bridge.models.argument_rules import WORDS

METHODS = {
    kind: method for method, (kind, _name) in reversed(list(TARGETS.items()))
} | {PrimitiveKind.RESOURCE_TEMPLATE: "resources/read"}
"""Kind -> the method that uses a primitive of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision about one primitive."""

    rule: Rule
    decision: Decision


def usage_message(rule: Rule, arguments: Any = None) -> Message:
    """The message by which a client uses the primitive."""
    content = {"params": {"arguments": arguments}}
    return Message(METHODS[PrimitiveKind(rule.kind)], rule.key, content=content)


def verdict(
    principal: Principal, rule: Rule, catalogue: Catalogue, arguments: Any = None
) -> Verdict:
    """The decision if `principal` sent that message now.

    Without `arguments`, the decision is that about arguments within all rules.
    """
    known = catalogue.get(rule.key)
    if known is not None and known.conditions and arguments is None:
        catalogue = Catalogue([replace(known, conditions=())])
    message = usage_message(rule, arguments)
    return Verdict(rule, decide(principal, message, catalogue))


def limits_of(principal: Principal, rule: Rule) -> list[str]:
    """The argument rules that apply to the principal, in the reader's language.

    A role that grants the primitive and has no rules lifts those of other roles.
    """
    by_role = conditions_by_role(rule.conditions)
    applying = by_role.pop("", [])
    roles = sorted(granting_roles(principal, rule))
    if all(role in by_role for role in roles):
        applying += [one for role in roles for one in by_role[role]]
    return [limits_in_words(with_role(one)) for one in applying]


def user_principal(user: User) -> Principal:
    """The user with an ordinary browser token (scope `mcp`).

    Raises Unauthenticated for an inactive account.
    """
    if not user.is_active:
        raise Unauthenticated("inactive_user")
    return hypothetical_principal(user, {ACT_WITHIN_ROLES})


def with_every_scope(user: User) -> Principal:
    """The user with a token that names every scope of their roles."""
    scopes = {ACT_WITHIN_ROLES, *current_grants(user.pk)[1]}
    return hypothetical_principal(user, scopes)


def token_principal(row: IssuedToken) -> Principal:
    """The principal of this token. Raises Unauthenticated as a request would."""
    if row.kind == "refresh":
        raise Unauthenticated("wrong_token_type")
    if is_for_api(row.scope):
        raise Unauthenticated("wrong_audience")
    if row.expires_at <= timezone.now():
        raise Unauthenticated("expired")
    claims: dict[str, Any] = {"jti": row.jti, "sub": str(row.user_id)}
    ends = int(row.expires_at.timestamp())
    return load_principal({**claims, "scope": row.scope, "exp": ends})


def covering_roles(primitive: Primitive) -> list[Role]:
    """Roles that give one of the primitive's scopes."""
    roles = Role.objects.filter(scopes__primitives=primitive).distinct()
    return list(roles.prefetch_related("scopes"))


def holders(primitive: Primitive) -> Any:
    """Unexpired assignments of those roles to active users, with user and role."""
    assignments = RoleAssignment.objects.unexpired().filter(
        user__is_active=True, role__in=Role.objects.filter(scopes__primitives=primitive)
    )
    ordered = assignments.order_by("user__username", "role__name")
    return ordered.select_related("user", "role")


def remedy(decision: Decision, rule: Rule) -> str:
    """What to change so that the message is allowed; empty if it is."""
    scopes = ", ".join(sorted(rule.required))
    remedies = {
        Reason.DISABLED: _("Enable it. It is disabled for everyone."),
        Reason.NOT_SERVED: not_served_remedy(rule),
        Reason.DEFINITION_CHANGED: _(
            "Review its changed definition, then accept or reject it."
        ),
        Reason.ARGUMENT_REFUSED: _(
            "Send arguments within these limits, or change its argument rules."
        ),
        Reason.ROLE_LACKS_SCOPE: _(
            "Assign a role that has one of its scopes (%s), or add one "
            "of these scopes to a role that the user has."
        )
        % scopes
        if scopes
        else _("It requires no scope, so no one can use it. Add a scope."),
        Reason.TOKEN_LACKS_SCOPE: _(
            "The roles are sufficient, but the token must include one "
            "of: %s. Browser clients request it automatically; a "
            "personal token must be created again."
        )
        % ", ".join(sorted(decision.missing)),
    }
    return remedies.get(decision.reason, "")


def not_served_remedy(rule: Rule) -> str:
    """What to change so that a blocked primitive is served."""
    remedies = {
        "upstream": _("Enable its upstream server."),
        DefinitionState.GONE: _("Its source no longer offers it."),
        DefinitionState.UNUSABLE: _("Correct its definition at its source."),
    }
    text = _("Review its definition and accept it.")
    return remedies.get(rule.blocked, text)


def refusal_text(why: Unauthenticated) -> str:
    """Why every message of this token is refused."""
    reasons = {
        "inactive_user": _("The account is deactivated. All its tokens are rejected."),
        "revoked": _("The token is revoked. All its requests are rejected."),
        "idle": _(
            "The token was not used for too long. All its requests are rejected."
        ),
        "expired": _("The token has expired. All its requests are rejected."),
        "unknown_client": _(
            "The token's client was deleted. All its requests are rejected."
        ),
        "blocked_client": _(
            "The token's client is blocked. All its requests are rejected."
        ),
        "wrong_audience": _(
            "The token is for the administration API. /mcp rejects all its requests."
        ),
        "wrong_token_type": _(
            "This is a refresh token. It can only be exchanged for new tokens."
        ),
    }
    return reasons.get(why.reason, _("The token's account no longer exists."))


def rules(catalogue: Catalogue, key: tuple[str, str] | None) -> Iterator[Rule]:
    """One rule or all; an unknown primitive gets a rule that nobody meets."""
    if key is None:
        yield from catalogue.values()
    else:
        kind, name = key
        nothing = Rule(kind, name, False, False, frozenset())
        yield catalogue.get(key, nothing)


SENTENCES = (
    gettext_noop("arguments refused: {limits}"),
    gettext_noop("{decision}; the argument rules of {role} allow it"),
    gettext_noop("the upstream server {upstream} is disabled"),
    gettext_noop("the definition of {kind} {name} changed and is not accepted"),
    gettext_noop("the definition of {kind} {name} is {state}"),
    gettext_noop("the message has no target"),
    gettext_noop("unknown tool, resource or prompt"),
    gettext_noop("{method} is open to everyone"),
    gettext_noop("no rule for {method}"),
    gettext_noop("{kind} {name} is disabled"),
    gettext_noop("role {role} grants {scope}; the token includes {carried}"),
    gettext_noop("role {role} grants {scope}"),
    gettext_noop("requires one of {scopes}; roles: {roles}"),
    gettext_noop("sensitive; the token includes none of {scopes}"),
    gettext_noop("the token includes none of {scopes} and not {scope}"),
)
"""Every sentence of mcp_bridge/access/decision.py; a test compares the two."""

VALUES = (
    gettext_noop("none"),
    gettext_noop("(no scope)"),
    gettext_noop("every role"),
    gettext_noop("held"),
    gettext_noop("gone"),
    gettext_noop("rejected"),
    gettext_noop("unusable"),
)
"""Values in these sentences that are words, not names."""

LIMITS = (
    gettext_noop("or {limit}"),
    gettext_noop("{limit} (role {role})"),
    *WORDS.values(),
)
"""Every sentence of mcp_bridge/access/argument_rules.py."""


@cache
def pattern(sentence: str) -> re.Pattern[str]:
    """A pattern that finds the values in a sentence."""
    parts = re.split(r"\{(\w+)\}", sentence)
    named = [
        f"(?P<{part}>.+)" if odd else re.escape(part)
        for part, odd in zip(parts, [False, True] * len(parts), strict=False)
    ]
    return re.compile("".join(named), re.DOTALL)


def decision_in_words(via: str) -> str:
    """`via` in the reader's language; unchanged if no sentence matches."""
    via, separator, served = via.partition("; upstream ")
    return translated(via, SENTENCES) + separator + served


def limits_in_words(limits: str) -> str:
    """The limits of arguments in the reader's language."""
    return "; ".join(translated(one, LIMITS) for one in limits.split("; "))


def translated(text: str, sentences: Iterable[str]) -> str:
    """The text in the reader's language; unchanged if no sentence matches."""
    for sentence in sentences:
        match = pattern(sentence).fullmatch(text)
        if match is not None:
            filled = match.groupdict().items()
            words = {name: value_in_words(name, value) for name, value in filled}
            return gettext(sentence).format(**words)
    return text


def value_in_words(name: str, value: str) -> str:
    """A value of a sentence: another sentence, a word, or a name."""
    nested = {
        "decision": decision_in_words,
        "limits": limits_in_words,
        "limit": limits_in_words,
    }
    if name in nested:
        return nested[name](value)
    return gettext(value) if value in VALUES else value
