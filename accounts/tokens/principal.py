"""The Principal that a message acts as; authenticate(raw) creates it from a token.

RFC 6750, 8725, 9068. A refusal has a reason for the audit trail. The client receives
`invalid_token` only, so that it cannot probe for accounts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from sys import intern
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.db.models import OuterRef, Subquery
from django.utils import timezone

from accounts.authorization.role_grants import current_grants, role_networks
from accounts.crypto.secrets import PERSONAL_PREFIX, secret_hash
from accounts.http.client_address import in_networks, split_networks
from accounts.models import (
    IssuedToken,
    IssuedVia,
    OAuthClient,
    TokenKind,
    User,
)
from accounts.models.issued_tokens import OWN_CLIENT
from accounts.models.roles import ACT_WITHIN_ROLES, ADMIN_API
from accounts.tokens.jwts import TokenRefused, verify

SUBJECT = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
"""A user's primary key as text. Other values match no user: `true` is not user 1."""


class Unauthenticated(Exception):
    """The credential is not valid; `reason` is a code for the audit trail."""

    def __init__(self, reason: str, claims: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.claims = claims or {}


@dataclass(frozen=True, slots=True)
class Principal:
    """A user who acts with a token: the roles' grants and the token's scopes."""

    user_id: int
    username: str
    client_id: str
    jti: str
    issued_via: str
    roles: tuple[str, ...]
    grants: Mapping[str, tuple[str, ...]]
    """Role scope -> names of the unexpired roles that grant it."""
    token_scopes: frozenset[str]
    expires_at: int
    """Expiry of the token, epoch seconds."""
    valid_until: float
    """First expiry of token, idle limit or role, epoch seconds; reload after it."""
    networks: tuple[tuple[str, ...], ...] = ()
    """Networks of the token and of the client; the address must be in each of them."""
    role_networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Role -> its networks, for roles that are limited to networks."""

    def restricted_to(self, address: str) -> Principal:
        """The principal for a message from `address`. Raises Unauthenticated."""
        if not self.networks and not self.role_networks:
            return self
        if not all(in_networks(address, allowed) for allowed in self.networks):
            raise Unauthenticated("wrong_network", self.as_claims())
        bound = self.role_networks.items()
        lost = {role for role, networks in bound if not in_networks(address, networks)}
        return self.without_roles(lost) if lost else self

    def as_claims(self) -> dict[str, Any]:
        """The claims that the audit event of a refusal needs."""
        token = {"jti": self.jti, "client_id": self.client_id}
        return {**token, "sub": str(self.user_id)}

    def without_roles(self, lost: set[str]) -> Principal:
        """A copy without these roles and without the scopes that only they grant."""
        remaining = {
            scope: tuple(role for role in roles if role not in lost)
            for scope, roles in self.grants.items()
        }
        grants = MappingProxyType({scope: r for scope, r in remaining.items() if r})
        roles = tuple(role for role in self.roles if role not in lost)
        return replace(self, roles=roles, grants=grants, role_networks={})

    @property
    def acts_within_roles(self) -> bool:
        """Whether the token carries `mcp`."""
        return ACT_WITHIN_ROLES in self.token_scopes

    @property
    def can_step_up(self) -> bool:
        """Whether the client can ask its user for a token with more scopes."""
        return self.issued_via == IssuedVia.AUTHORIZATION_CODE


def authenticate(raw: str) -> Principal:
    """The principal of an access token for this MCP endpoint.

    Raises Unauthenticated. Database errors propagate; the endpoint answers 503.
    """
    return load_principal(verify_access(raw))


def authenticate_for_api(raw: str) -> Principal:
    """The principal of a personal token for /api/v1/. Raises Unauthenticated.

    Only the audience differs from `authenticate`.
    """
    if not raw.startswith(PERSONAL_PREFIX):
        raise Unauthenticated("wrong_audience")
    claims = personal_claims(raw)
    if not is_for_api(claims["scope"]):
        raise Unauthenticated("wrong_audience", claims)
    return load_principal(claims)


def is_for_api(scope: str) -> bool:
    """Whether a personal token of this scope is for /api/v1/ instead of /mcp."""
    return ADMIN_API in scopes_in(scope)


def verify_access(raw: str) -> dict[str, Any]:
    """The claims after the checks that need no account. Raises Unauthenticated.

    Checks signature, expiry, issuer, kind, audience and the form of `sub`.
    """
    if raw.startswith(PERSONAL_PREFIX):
        personal = personal_claims(raw)
        if is_for_api(personal["scope"]):
            raise Unauthenticated("wrong_audience", personal)
        return personal
    try:
        claims = verify(raw)
    except TokenRefused as error:
        raise Unauthenticated(error.reason) from error
    if claims["token_type"] != "access":  # noqa: S105
        raise Unauthenticated("wrong_token_type", claims)
    if not _is_our_audience(claims.get("aud")):
        raise Unauthenticated("wrong_audience", claims)
    if not SUBJECT.fullmatch(claims["sub"]):
        raise Unauthenticated("unknown_subject", claims)
    return claims


def personal_claims(raw: str) -> dict[str, Any]:
    """A personal token's row as claims of a JWT. Raises Unauthenticated."""
    rows = IssuedToken.objects.filter(kind=TokenKind.PERSONAL)
    row = rows.filter(secret_hash=secret_hash(raw)).first()
    if row is None:
        raise Unauthenticated("unknown_token_or_user")
    claims: dict[str, Any] = {"jti": row.jti, "client_id": row.client_id}
    claims["scope"] = row.scope
    claims |= {"sub": str(row.user_id), "exp": int(row.expires_at.timestamp())}
    if row.expires_at <= timezone.now():
        raise Unauthenticated("expired", claims)
    return claims


def _is_our_audience(audience: Any) -> bool:
    audiences = audience if isinstance(audience, list) else [audience]
    ours = settings.RESOURCE_URL.rstrip("/")
    return any(isinstance(aud, str) and aud.rstrip("/") == ours for aud in audiences)


def load_principal(claims: Mapping[str, Any]) -> Principal:
    """Read the current token row, account and roles. Raises Unauthenticated."""
    row = _token_row(claims["jti"])
    if row is None or str(row["user_id"]) != claims["sub"]:
        raise Unauthenticated("unknown_token_or_user", claims)
    refusals = {
        "revoked": row["revoked"],
        "inactive_user": not row["user__is_active"],
        "expired": row["expires_at"] <= timezone.now(),
        "unknown_client": row["blocked"] is None and row["client_id"] != OWN_CLIENT,
        "blocked_client": row["blocked"],
    }
    idle_at = idle_expiry(row)
    refusals["idle"] = idle_at is not None and idle_at <= time.time()
    for reason, applies in refusals.items():
        if applies:
            raise Unauthenticated(reason, claims)
    roles, grants, ends = current_grants(row["user_id"])
    ends += [idle_at] if idle_at is not None else []
    bound = (
        split_networks(row["networks"]),
        split_networks(row["client_networks"] or ""),
    )
    return Principal(
        user_id=row["user_id"],
        username=row["user__username"],
        client_id=intern(row["client_id"]),
        jti=row["jti"],
        issued_via=intern(row["issued_via"]),
        roles=roles,
        grants=grants,
        token_scopes=scopes_in(claims["scope"]),
        expires_at=claims["exp"],
        valid_until=min([claims["exp"], row["expires_at"].timestamp(), *ends]),
        networks=tuple(networks for networks in bound if networks),
        role_networks=role_networks(roles),
    )


def idle_expiry(row: Mapping[str, Any]) -> float | None:
    """When an unused token expires, epoch seconds; None without an idle limit."""
    span = idle_lifetime(row["client_max_idle"])
    if span is None:
        return None
    last: datetime = row["last_used_at"] or row["issued_at"]
    return last.timestamp() + span


def idle_lifetime(of_client: int | None) -> float | None:
    """The shorter of TOKEN_MAX_IDLE and the client's limit; None if both are unset."""
    limits = [limit for limit in (settings.TOKEN_MAX_IDLE, of_client) if limit]
    return float(min(limits)) if limits else None


def _token_row(jti: str) -> dict[str, Any] | None:
    """The columns that a decision needs of a token and its account, in one query.

    `blocked` is None if the client's row is deleted. Its networks and limits are then
    unknown, so the caller refuses the token.
    """
    client = OAuthClient.objects.filter(client_id=OuterRef("client_id"))
    rows = IssuedToken.objects.with_revoked().annotate(
        blocked=Subquery(client.values("blocked")),
        client_networks=Subquery(client.values("networks")),
        client_max_idle=Subquery(client.values("max_idle")),
    )
    of_token = ("user_id", "client_id", "jti", "issued_via", "networks")
    times = ("expires_at", "issued_at", "last_used_at")
    of_user = ("user__username", "user__is_active")
    of_client = ("blocked", "client_networks", "client_max_idle")
    columns = (*of_token, *times, *of_user, *of_client, "revoked")
    matches = rows.filter(jti=jti, user__isnull=False).values(*columns)
    return next(iter(matches), None)


def hypothetical_principal(user: User, token_scopes: Iterable[str]) -> Principal:
    """The principal that `user` would be with a token of these scopes.

    For pages that show what a user could do; no message is served with it.
    """
    roles, grants, _ends = current_grants(user.pk)
    return Principal(
        user_id=user.pk,
        username=user.username,
        client_id="",
        jti="",
        issued_via=IssuedVia.AUTHORIZATION_CODE,
        roles=roles,
        grants=grants,
        token_scopes=frozenset(token_scopes),
        expires_at=0,
        valid_until=0.0,
    )


@lru_cache(maxsize=1024)
def scopes_in(text: str) -> frozenset[str]:
    return frozenset(text.split())
