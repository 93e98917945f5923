"""SimpleJWT's token classes and the verb issue: every door ends here (RFC 9068)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from rest_framework_simplejwt import tokens as simplejwt

from accounts.authorization.role_grants import current_grants
from accounts.crypto.secrets import PERSONAL_PREFIX, REFRESH_PREFIX, secret_hash
from accounts.errors import InvalidGrant, InvalidScope
from accounts.models import (
    AuditEvent,
    IssuedToken,
    IssuedVia,
    OAuthClient,
    TokenKind,
    User,
)
from accounts.models.issued_tokens import OWN_CLIENT
from accounts.models.roles import ACT_WITHIN_ROLES
from accounts.tokens import jwts

TokenDetails = tuple[str, str, str, str]
"""(door, scope, client_id, address) of a token to issue."""


class AccessToken(simplejwt.AccessToken):
    """SimpleJWT's access token, with our claims; `for_user` puts it on the list."""

    @classmethod
    def for_user(cls, user: Any) -> AccessToken:
        """Issue an access token to `user` (SimpleJWT's own entry point)."""
        return cls(issue_tokens(user, issued_via="command", refresh=False).access)


class RefreshToken(simplejwt.RefreshToken):
    """SimpleJWT's refresh token; `for_user` puts it on the list."""

    access_token_class = AccessToken

    @classmethod
    def for_user(cls, user: Any) -> RefreshToken:
        """Issue a pair to `user` and return its refresh token."""
        return cls(issue_tokens(user, issued_via="command").refresh)


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a door hands out, once; `refresh` is empty where there is none."""

    access: str
    row: IssuedToken
    refresh: str = ""
    refresh_row: IssuedToken | None = None

    @property
    def expires_in(self) -> int:
        """Lifetime of the access token in seconds, as RFC 6749 5.1 wants it."""
        return int((self.row.expires_at - self.row.issued_at).total_seconds())


def allowed_scope(user: User, asked: str) -> str:
    """The scope to put in a token: what was asked, or `mcp`. Raises InvalidScope."""
    names = asked.split()
    if not names:
        return ACT_WITHIN_ROLES
    held = current_grants(user.pk)[1]
    lacking = [n for n in names if n not in held and n != ACT_WITHIN_ROLES]
    if lacking:
        raise InvalidScope(f"Your roles do not give: {' '.join(sorted(set(lacking)))}.")
    return " ".join(dict.fromkeys(names))


def issue_tokens(
    user: User,
    *,
    issued_via: str,
    scope: str = ACT_WITHIN_ROLES,
    client_id: str = OWN_CLIENT,
    address: str = "",
    refresh: bool = True,
    opaque: bool = False,
    family: UUID | None = None,
    lifetime: timedelta | None = None,
    networks: str = "",
    actor: Any = None,
) -> TokenPair:
    """Issue an access token, with a refresh token beside it unless told otherwise.

    `scope` is taken as checked; an `opaque` refresh token is a random secret of which
    only the hash is kept, as OAuth clients get it. Raises InvalidGrant when the
    account was closed or its access ended since `user` was loaded.
    """
    with transaction.atomic():
        lock_unchanged(user, client_id)
        about = (issued_via, scope, client_id, address)
        pair = issue_pair(
            user, family or uuid4(), about, refresh=False, lifetime=lifetime
        )
        if refresh:
            raw = new_opaque_token() if opaque else ""
            pair = add_refresh_token(pair, user, about, raw)
        bind_networks(pair, networks)
        record_token("token.issued", pair.row, actor or user, address)
    return pair


def new_opaque_token() -> str:
    """A refresh token of 256 random bits."""
    return REFRESH_PREFIX + secrets.token_urlsafe(32)


def bind_networks(pair: TokenPair, networks: str) -> None:
    """Let both tokens of a pair count from these networks only."""
    for row in (pair.row, pair.refresh_row):
        if row is not None and networks:
            row.networks = networks
            row.save(update_fields=["networks"])


def lock(user_id: int, client_id: str) -> User:
    """The account as it is now, its row locked after the client's.

    Every end of access locks in this order too, so what is issued meanwhile is either
    seen by it or refused here. Raises InvalidGrant where one of them does not count.
    """
    if client_id != OWN_CLIENT:
        clients = OAuthClient.objects.select_for_update(no_key=True)
        client = clients.filter(client_id=client_id).first()
        if client is None or not client.is_usable(None):
            raise InvalidGrant("The client was deleted or blocked.")
    users = User.objects.select_for_update(no_key=True)
    user: User | None = users.filter(pk=user_id, is_active=True).first()
    if user is None:
        raise InvalidGrant("The account was closed.")
    return user


def lock_unchanged(user: User, client_id: str = OWN_CLIENT) -> None:
    """Lock; raise InvalidGrant where access has ended since `user` was loaded."""
    if lock(user.pk, client_id).auth_digest != user.auth_digest:
        raise InvalidGrant("The account's access was ended or its password changed.")


def issue_pair(
    user: User,
    family: UUID,
    about: TokenDetails,
    *,
    refresh: bool = True,
    lifetime: timedelta | None = None,
) -> TokenPair:
    """An access token of a family, with a refresh token unless told otherwise."""
    span = lifetime or settings.ACCESS_TOKEN_LIFETIME
    row = _new_row(user, TokenKind.ACCESS, family, about, span)
    pair = TokenPair(sign_row(row, user), row)
    return add_refresh_token(pair, user, about, "") if refresh else pair


def add_refresh_token(
    pair: TokenPair, user: User, about: TokenDetails, raw: str
) -> TokenPair:
    """The pair completed: with the opaque token `raw`, or a signed one without."""
    span = settings.REFRESH_TOKEN_LIFETIME
    row = _new_row(user, TokenKind.REFRESH, pair.row.family, about, span)
    if raw:
        row.secret_hash = secret_hash(raw)
        row.save()
    return replace(pair, refresh=raw or sign_row(row, user), refresh_row=row)


def _new_row(
    user: User,
    kind: TokenKind,
    family: UUID,
    about: TokenDetails,
    lifetime: timedelta,
) -> IssuedToken:
    issued_via, scope, client_id, address = about
    now = timezone.now().replace(microsecond=0)
    return IssuedToken(
        jti=uuid4().hex,
        kind=kind,
        issued_via=issued_via,
        user=user,
        username=user.username,
        client_id=client_id,
        scope=scope,
        family=family,
        issued_at=now,
        issued_to=address,
        expires_at=now + lifetime,
    )


def sign_row(row: IssuedToken, user: User) -> str:
    """Sign the token of a row; a row signed before gives the same token again."""
    raw, row.kid = jwts.sign(claims_of(row, user), kid=row.kid)
    if row.pk is None:
        row.save()
    return raw


def claims_of(row: IssuedToken, user: User) -> dict[str, Any]:
    """The claims of a row's token (RFC 9068 2.2, and SimpleJWT's `token_type`)."""
    claims: dict[str, Any] = {
        "token_type": row.kind,
        "iss": settings.ISSUER_URL,
        "sub": str(user.pk),
        "client_id": row.client_id,
        "jti": row.jti,
        "iat": int(row.issued_at.timestamp()),
        "exp": int(row.expires_at.timestamp()),
        "scope": row.scope,
    }
    if row.kind == TokenKind.ACCESS:
        claims["aud"] = settings.RESOURCE_URL
        claims["roles"] = sorted(current_grants(user.pk)[0])
    return claims


def issue_personal_token(
    user: User,
    *,
    name: str,
    scope: str,
    lifetime: timedelta,
    address: str = "",
    networks: str = "",
) -> tuple[IssuedToken, str]:
    """A personal token: (its row, the token, shown once).

    Raises InvalidScope, and InvalidGrant as `issue` does.
    """
    about = (IssuedVia.PERSONAL.value, allowed_scope(user, scope), OWN_CLIENT, address)
    raw = PERSONAL_PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        lock_unchanged(user)
        row = _new_row(user, TokenKind.PERSONAL, uuid4(), about, lifetime)
        row.name, row.secret_hash = name, secret_hash(raw)
        row.networks = networks
        row.save()
        record_token("token.issued", row, user, address)
    return row, raw


def record_token(
    action: str, row: IssuedToken, actor: Any, address: str, reason: str = ""
) -> None:
    """One event about a token."""
    AuditEvent(
        action=action,
        object=f"{row.kind} token of {row.username}"[:255],
        client_id=row.client_id,
        token_id=row.jti,
        address=address,
        reason=reason,
        via=str(row.issued_via),
    ).acted_by(actor).save()
