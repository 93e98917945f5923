"""SimpleJWT's token classes and the verbs issue, rotate: every door ends here.

RFC 9068 (access tokens as JWT), OAuth 2.1 4.3 (refresh rotation and replay).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from rest_framework_simplejwt import tokens as simplejwt

from accounts import keyring
from accounts.models import AuditEvent, Door, IssuedToken, RevokedToken, TokenKind, User
from accounts.models.roles import ACT_WITHIN_ROLES
from accounts.principal import (
    PERSONAL,
    SUBJECT,
    Unauthenticated,
    load,
    roles_of,
    verify_access,
)

OPAQUE = "portico_rt_"
"""How a refresh token of an OAuth client begins, so that scanners find leaked ones."""

OWN_CLIENT = "portico"
"""`client_id` of tokens that no OAuth client asked for (RFC 9068 2.2 requires one)."""


class TokenProblem(Exception):
    """Family of the refusals below. `error` is the RFC 6749 5.2 code."""

    error = "invalid_request"


class InvalidGrant(TokenProblem):
    """The refresh token, or the account behind it, does not count."""

    error = "invalid_grant"


class InvalidScope(TokenProblem):
    """A scope was asked for that the account's roles do not give."""

    error = "invalid_scope"


class AccessToken(simplejwt.AccessToken):
    """SimpleJWT's access token, with our claims; `for_user` puts it on the list."""

    @classmethod
    def for_user(cls, user: Any) -> AccessToken:
        """Issue an access token to `user` (SimpleJWT's own entry point)."""
        return cls(issue(user, door="command", refresh=False).access)


class RefreshToken(simplejwt.RefreshToken):
    """SimpleJWT's refresh token; `for_user` puts it on the list."""

    access_token_class = AccessToken

    @classmethod
    def for_user(cls, user: Any) -> RefreshToken:
        """Issue a pair to `user` and return its refresh token."""
        return cls(issue(user, door="command").refresh)


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
    held = roles_of(user.pk)[1]
    lacking = [n for n in names if n not in held and n != ACT_WITHIN_ROLES]
    if lacking:
        raise InvalidScope(f"Your roles do not give: {' '.join(sorted(set(lacking)))}.")
    return " ".join(dict.fromkeys(names))


def issue(
    user: User,
    *,
    door: str,
    scope: str = ACT_WITHIN_ROLES,
    client_id: str = OWN_CLIENT,
    address: str = "",
    refresh: bool = True,
    opaque: bool = False,
    family: UUID | None = None,
    lifetime: timedelta | None = None,
    actor: Any = None,
) -> TokenPair:
    """Issue an access token, with a refresh token beside it unless told otherwise.

    `scope` is taken as checked; an `opaque` refresh token is a random secret of which
    only the hash is kept, as OAuth clients get it. Raises InvalidGrant when the
    account was closed or its password changed since `user` was loaded.
    """
    with transaction.atomic():
        _still_the_same(user)
        about = (door, scope, client_id, address)
        pair = _pair(user, family or uuid4(), about, refresh=False, lifetime=lifetime)
        if refresh:
            raw = OPAQUE + secrets.token_urlsafe(32) if opaque else ""
            pair = _with_refresh(pair, user, about, raw)
        _record("token.issued", pair.row, actor or user, address)
    return pair


def _still_the_same(user: User) -> None:
    """Lock the account: a password change either sees this token or refuses it."""
    now = User.objects.select_for_update().filter(pk=user.pk, is_active=True).first()
    if now is None or now.password != user.password:
        raise InvalidGrant("The account was closed or its password changed.")


def _pair(
    user: User,
    family: UUID,
    about: tuple[str, str, str, str],
    *,
    refresh: bool = True,
    lifetime: timedelta | None = None,
) -> TokenPair:
    span = lifetime or settings.ACCESS_TOKEN_LIFETIME
    row = _row(user, TokenKind.ACCESS, family, about, span)
    pair = TokenPair(_mint(row, user), row)
    return _with_refresh(pair, user, about, "") if refresh else pair


def _with_refresh(
    pair: TokenPair, user: User, about: tuple[str, str, str, str], raw: str
) -> TokenPair:
    """The pair completed: with the opaque token `raw`, or a signed one without."""
    span = settings.REFRESH_TOKEN_LIFETIME
    row = _row(user, TokenKind.REFRESH, pair.row.family, about, span)
    if raw:
        row.secret_hash = secret_hash(raw)
        row.save()
    return replace(pair, refresh=raw or _mint(row, user), refresh_row=row)


def secret_hash(raw: str) -> str:
    """What is kept of an opaque token: 256 random bits need no slow hash."""
    return hashlib.sha256(raw.encode()).hexdigest()


def _following(raw: str) -> str:
    """The opaque token after `raw`: always the same one, and only we can tell it."""
    key = settings.SECRET_KEY.encode()
    digest = hmac.digest(key, b"portico refresh successor " + raw.encode(), "sha256")
    return OPAQUE + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _row(
    user: User,
    kind: TokenKind,
    family: UUID,
    about: tuple[str, str, str, str],
    lifetime: timedelta,
) -> IssuedToken:
    door, scope, client_id, address = about
    now = timezone.now().replace(microsecond=0)
    return IssuedToken(
        jti=uuid4().hex,
        kind=kind,
        door=door,
        user=user,
        username=user.username,
        client_id=client_id,
        scope=scope,
        family=family,
        issued_at=now,
        issued_to=address,
        expires_at=now + lifetime,
    )


def _mint(row: IssuedToken, user: User) -> str:
    """Sign the token of a row; a row signed before gives the same token again."""
    raw, row.kid = keyring.sign(claims_of(row, user), kid=row.kid)
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
        claims["roles"] = sorted(roles_of(user.pk)[0])
    return claims


def issue_personal(
    user: User, *, name: str, scope: str, lifetime: timedelta, address: str = ""
) -> tuple[IssuedToken, str]:
    """A personal token: (its row, the token, shown once). Raises InvalidScope."""
    about = (Door.PERSONAL.value, allowed_scope(user, scope), OWN_CLIENT, address)
    raw = PERSONAL + secrets.token_urlsafe(32)
    with transaction.atomic():
        row = _row(user, TokenKind.PERSONAL, uuid4(), about, lifetime)
        row.name, row.secret_hash = name, secret_hash(raw)
        row.save()
        _record("token.issued", row, user, address)
    return row, raw


def rotate(raw: str, *, address: str = "", client_id: str = "") -> TokenPair:
    """Redeem a refresh token for a new pair. Raises InvalidGrant.

    An opaque one was issued to an OAuth client, which has to be `client_id`.

    Used again within REFRESH_TOKEN_GRACE it gives the same successor (a client
    that lost the answer, or two windows at once); later, its whole family ends.
    """
    claims = _claims(raw, client_id)
    with transaction.atomic():
        row, user = _locked(claims)
        following = _following(raw) if row.secret_hash else ""
        if row.redeemed_at is None:
            return _first_use(row, user, address, following)
        if timezone.now() - row.redeemed_at <= settings.REFRESH_TOKEN_GRACE:
            return _same_successor(row, user, address, following)
        _end_replayed_family(row, address)
    raise InvalidGrant("The refresh token was used before; sign in again.")


def _claims(raw: str, client_id: str) -> dict[str, Any]:
    """What identifies the row of a refresh token: signed claims, or its hash."""
    if not client_id:
        return verify_refresh(raw)
    rows = IssuedToken.objects.filter(secret_hash=secret_hash(raw))
    row = rows.filter(kind=TokenKind.REFRESH, client_id=client_id).first()
    if row is None or row.user_id is None or row.expires_at <= timezone.now():
        raise InvalidGrant("The refresh token is not valid.")
    return {"sub": str(row.user_id), "jti": row.jti}


def verify_refresh(raw: str) -> dict[str, Any]:
    """The claims of a refresh token of ours. Raises InvalidGrant."""
    try:
        claims = keyring.verify(raw)
    except keyring.TokenRefused as error:
        raise InvalidGrant("The refresh token is not valid.") from error
    if claims["token_type"] != "refresh" or not SUBJECT.fullmatch(claims["sub"]):  # noqa: S105
        raise InvalidGrant("That is not a refresh token.")
    return claims


def _locked(claims: dict[str, Any]) -> tuple[IssuedToken, User]:
    """The row and its account, locked in the order `issue` locks them."""
    users = User.objects.select_for_update().filter(is_active=True)
    user = users.filter(pk=int(claims["sub"])).first()
    rows = IssuedToken.objects.select_for_update(of=("self",))
    row = rows.filter(jti=claims["jti"], user=user).first() if user else None
    revoked = RevokedToken.objects.filter(jti=claims["jti"]).exists()
    if user is None or row is None or revoked:
        raise InvalidGrant("The refresh token is no longer valid; sign in again.")
    return row, user


def check(raw: str) -> None:
    """Raise InvalidGrant unless `raw` is a live access or refresh token of ours."""
    try:
        claims = keyring.verify(raw)
        if claims["token_type"] == TokenKind.ACCESS:
            load(verify_access(raw))
            return
    except (keyring.TokenRefused, Unauthenticated) as error:
        raise InvalidGrant("The token is invalid, expired or revoked.") from error
    with transaction.atomic():
        row, _ = _locked(verify_refresh(raw))
    if row.redeemed_at is not None:
        raise InvalidGrant("The refresh token was used before.")


def end_family(raw: str, *, address: str = "") -> int:
    """Sign out: revoke all that grew from this refresh token's sign-in."""
    with transaction.atomic():
        row, user = _locked(verify_refresh(raw))
        family = IssuedToken.objects.filter(family=row.family)
        return family.revoke(actor=user, reason=f"signed out from {address or 'afar'}")


def _first_use(row: IssuedToken, user: User, address: str, following: str) -> TokenPair:
    about = (row.door, row.scope, row.client_id, address)
    access = _pair(user, row.family, about, refresh=False)
    pair = _with_refresh(access, user, about, following)
    row.redeemed_at = row.last_used_at = timezone.now()
    row.last_used_from = address
    row.successor = pair.refresh_row
    row.save()
    _record("token.refreshed", pair.row, user, address)
    return pair


def _same_successor(
    row: IssuedToken, user: User, address: str, following: str
) -> TokenPair:
    successor = row.successor
    if successor is None or successor.state != "active":
        raise InvalidGrant("The refresh token is no longer valid; sign in again.")
    about = (row.door, row.scope, row.client_id, address)
    pair = _pair(user, row.family, about, refresh=False)
    _record("token.refreshed", pair.row, user, address, reason="within the grace")
    again = following or _mint(successor, user)
    return replace(pair, refresh=again, refresh_row=successor)


def _end_replayed_family(row: IssuedToken, address: str) -> None:
    family = IssuedToken.objects.filter(family=row.family)
    ended = family.revoke(actor=None, reason="refresh token replayed")
    _record(
        "token.replayed",
        row,
        row.username,
        address,
        reason=f"family ended, {ended} live tokens revoked",
    )


def _record(
    action: str, row: IssuedToken, actor: Any, address: str, reason: str = ""
) -> None:
    AuditEvent(
        action=action,
        object=f"{row.kind} token of {row.username}"[:255],
        client_id=row.client_id,
        token_id=row.jti,
        address=address,
        reason=reason,
        via=str(row.door),
    ).acted_by(actor).save()
