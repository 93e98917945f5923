"""Issues every kind of token, and SimpleJWT's token classes (RFC 9068)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from rest_framework_simplejwt import tokens as simplejwt

from accounts.authorization.delegation import may_enter_admin
from accounts.authorization.role_grants import current_grants
from accounts.crypto.secrets import PERSONAL_PREFIX, REFRESH_PREFIX, secret_hash
from accounts.errors import InvalidGrant, InvalidScope
from accounts.models import (
    AuditEvent,
    IssuedToken,
    IssuedVia,
    OAuthClient,
    SigningKey,
    TokenKind,
    User,
)
from accounts.models.issued_tokens import OWN_CLIENT
from accounts.models.roles import ACT_WITHIN_ROLES, ADMIN_API
from accounts.models.statements.queries import CompiledQuery, Given
from accounts.models.statements.writes import insert_rows
from accounts.tokens import jwts

MAX_ROLES_CLAIM = 1_000
"""Bytes of all role names together, as JSON."""
MAX_SCOPE = 8_192
"""Characters; with the other claims a token stays below MAX_TOKEN_LENGTH."""
MAX_TOKEN_LENGTH = 16_384
"""Characters of a token that Portico's API accepts."""
OPEN_ACCOUNT = CompiledQuery(
    lambda: User.objects.select_for_update(no_key=True).filter(
        pk=Given(User, "id"), is_active=True
    )
)
TokenDetails = tuple[str, str, str, str]
"""(issued_via, scope, client_id, address) of a token to issue."""


class AccessToken(simplejwt.AccessToken):
    """SimpleJWT's access token with Portico's claims; `for_user` stores its row."""

    @classmethod
    def for_user(cls, user: Any) -> AccessToken:
        """Issue an access token (SimpleJWT's entry point). Raises InvalidGrant."""
        return cls(issue_tokens(user, issued_via="command", refresh=False).access)


class RefreshToken(simplejwt.RefreshToken):
    """SimpleJWT's refresh token; `for_user` stores the rows of the pair."""

    access_token_class = AccessToken

    @classmethod
    def for_user(cls, user: Any) -> RefreshToken:
        """Issue a pair and return its refresh token. Raises InvalidGrant."""
        return cls(issue_tokens(user, issued_via="command").refresh)


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The raw tokens to return once, with their rows; `refresh` may be empty."""

    access: str
    row: IssuedToken
    refresh: str = ""
    refresh_row: IssuedToken | None = None

    @property
    def expires_in(self) -> int:
        """Lifetime of the access token in seconds (RFC 6749 5.1)."""
        return int((self.row.expires_at - self.row.issued_at).total_seconds())


@dataclass(frozen=True, slots=True)
class NewRefresh:
    """A refresh token to make: its scope, and the opaque token; "" means signed."""

    scope: str
    raw: str = ""


def exceeds_one_token(names: Iterable[str]) -> bool:
    """Whether a token with this scope would be too long for a header."""
    return len(" ".join(dict.fromkeys(names))) > MAX_SCOPE


def refuse_long_scope(names: Iterable[str]) -> None:
    """Raises InvalidScope."""
    if exceeds_one_token(names):
        text = f"The scope is longer than {MAX_SCOPE} characters."
        raise InvalidScope(f"{text} Request fewer names, or only {ACT_WITHIN_ROLES}.")


def allowed_scope(user: User, requested: str) -> str:
    """The scope for a token: the requested one, or `mcp`. Raises InvalidScope."""
    names = requested.split()
    refuse_long_scope(names)
    if not names:
        return ACT_WITHIN_ROLES
    granted = current_grants(user.pk)[1]
    missing = [n for n in names if n not in granted and n != ACT_WITHIN_ROLES]
    if missing:
        raise InvalidScope(f"Your roles do not give: {' '.join(sorted(set(missing)))}.")
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
    also: Callable[[], object] | None = None,
) -> TokenPair:
    """Issue an access token, and a refresh token unless `refresh` is false.

    The caller has checked `scope`. An `opaque` refresh token is a random secret for
    OAuth clients; only its hash is stored. Opens a transaction, which ends with `also`,
    and locks the account.
    Raises InvalidGrant if the account is closed, or its access was revoked after
    `user` was loaded.
    """
    with transaction.atomic():
        lock_unchanged(user, client_id)
        about = (issued_via, scope, client_id, address)
        new = NewRefresh(scope, new_opaque_token() if opaque else "")
        pair = issue_pair(
            user,
            family or uuid4(),
            about,
            refresh=new if refresh else None,
            lifetime=lifetime,
            networks=networks,
        )
        record_token("token.issued", pair.row, actor or user, address)
        if also is not None:
            also()
    return pair


def new_opaque_token() -> str:
    """An opaque refresh token of 256 random bits."""
    return REFRESH_PREFIX + secrets.token_urlsafe(32)


def lock(user_id: int, client_id: str) -> User:
    """Lock the client's row, then the account's row, and return the account.

    As `lock_both`.
    """
    return lock_both(user_id, client_id)[0]


def lock_both(user_id: int, client_id: str) -> tuple[User, OAuthClient | None]:
    """Lock the client's row, then the account's row: (account, client).

    Tokens that no OAuth client asked for have no client. Revocation locks in the same
    order. It therefore either sees a token that is issued at the same time, or this
    function refuses. Raises InvalidGrant if the client or the account may not be used.
    """
    client = None
    if client_id != OWN_CLIENT:
        clients = OAuthClient.objects.select_for_update(no_key=True)
        client = clients.filter(client_id=client_id).first()
        if client is None or not client.is_usable(None):
            raise InvalidGrant("The client was deleted or blocked.")
    user: User | None = OPEN_ACCOUNT.first(id=user_id)
    if user is None:
        raise InvalidGrant("The account was closed.")
    return user, client


def lock_unchanged(user: User, client_id: str = OWN_CLIENT) -> None:
    """Lock; raise InvalidGrant if access was revoked after `user` was loaded."""
    if lock(user.pk, client_id).auth_digest != user.auth_digest:
        raise InvalidGrant("The account's access was revoked or its password changed.")


def issue_pair(
    user: User,
    family: UUID,
    about: TokenDetails,
    *,
    refresh: NewRefresh | None = None,
    lifetime: timedelta | None = None,
    networks: str = "",
) -> TokenPair:
    """Sign an access token and, unless `refresh` is None, make a refresh token.

    Looks the key up once and stores both rows with one statement.
    """
    key = SigningKey.objects.ensure_active()
    span = lifetime or settings.ACCESS_TOKEN_LIFETIME
    row = _new_row(user, TokenKind.ACCESS, family, about, span)
    pair = TokenPair(_sign_new(row, user, key), row)
    rows = [row]
    if refresh is not None:
        pair = _with_refresh(pair, user, refresh, about, key)
        rows += [pair.refresh_row] if pair.refresh_row else []
    for one in rows:
        one.networks = networks
    insert_rows(rows)
    return pair


def _with_refresh(
    pair: TokenPair, user: User, new: NewRefresh, about: TokenDetails, key: SigningKey
) -> TokenPair:
    issued_via, _scope, client_id, address = about
    whole = (issued_via, new.scope, client_id, address)
    span = settings.REFRESH_TOKEN_LIFETIME
    row = _new_row(user, TokenKind.REFRESH, pair.row.family, whole, span)
    if new.raw:
        row.secret_hash = secret_hash(new.raw)
    raw = new.raw or _sign_new(row, user, key)
    return replace(pair, refresh=raw, refresh_row=row)


def _sign_new(row: IssuedToken, user: User, key: SigningKey) -> str:
    row.kid = key.kid
    return jwts.sign_with(key, claims_of(row, user))


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
    """Sign the token of a stored row again.

    Signatures are deterministic, so a row gives the same token each time.
    """
    return jwts.sign(claims_of(row, user), kid=row.kid)[0]


def claims_of(row: IssuedToken, user: User) -> dict[str, Any]:
    """Claims of RFC 9068 2.2, and SimpleJWT's `token_type`."""
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
        claims |= roles_claim(user)
    return claims


def roles_claim(user: User) -> dict[str, list[str]]:
    """`roles` (RFC 9068 2.2.3.1), or nothing if the names are too long for a header.

    For logs and proxies. Portico itself reads the roles from the database.
    """
    roles = sorted(current_grants(user.pk)[0])
    short = len(json.dumps(roles)) <= MAX_ROLES_CLAIM
    return {"roles": roles} if short else {}


def personal_scope(user: User, requested: str) -> str:
    """Like `allowed_scope`; staff may ask for the administration API alone.

    Raises InvalidScope.
    """
    names = requested.split()
    if ADMIN_API not in names:
        return allowed_scope(user, requested)
    if set(names) != {ADMIN_API}:
        raise InvalidScope(f"A token with {ADMIN_API} carries no other scope.")
    if not may_enter_admin(user):
        raise InvalidScope(f"Only staff who may use the admin get {ADMIN_API}.")
    return ADMIN_API


def issue_personal_token(
    user: User,
    *,
    name: str,
    scope: str,
    lifetime: timedelta,
    address: str = "",
    networks: str = "",
) -> tuple[IssuedToken, str]:
    """Issue a personal token: (its row, the raw token, which is shown once).

    Raises InvalidScope, and InvalidGrant as `issue_tokens` does.
    """
    about = (IssuedVia.PERSONAL.value, personal_scope(user, scope), OWN_CLIENT, address)
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
    action: str,
    row: IssuedToken,
    actor: Any,
    address: str,
    reason: str = "",
    decision: str = "",
) -> None:
    """Store an audit event about a token, in the caller's transaction."""
    AuditEvent(
        action=action,
        object=f"{row.kind} token of {row.username}"[:255],
        client_id=row.client_id,
        token_id=row.jti,
        address=address,
        reason=reason,
        decision=decision,
        via=str(row.issued_via),
    ).acted_by(actor).save()
