"""Rotates refresh tokens under a row lock; a replay revokes the family.

OAuth 2.1 4.3; RFC 9700 4.14.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max, OuterRef, Subquery
from django.utils import timezone

from accounts.crypto.encrypted_columns import REFRESH_SUCCESSORS
from accounts.crypto.encryption import KeyUnreadable, seal, unseal
from accounts.crypto.secrets import PERSONAL_PREFIX, secret_hash
from accounts.errors import InvalidGrant, InvalidScope
from accounts.http.client_address import in_networks, split_networks
from accounts.models import (
    AuditEvent,
    IssuedToken,
    OAuthClient,
    TokenKind,
    User,
)
from accounts.models.statements.queries import CompiledQuery, Given
from accounts.models.statements.writes import update_columns
from accounts.parsing.row_ids import row_id
from accounts.parsing.text import counted
from accounts.tokens import jwts
from accounts.tokens.issue import (
    NewRefresh,
    TokenDetails,
    TokenPair,
    issue_pair,
    lock_both,
    new_opaque_token,
    record_token,
    sign_row,
)
from accounts.tokens.lookup import find_token
from accounts.tokens.principal import (
    SUBJECT,
    Unauthenticated,
    idle_lifetime,
    load_principal,
    verify_access,
)

PURPOSE = REFRESH_SUCCESSORS.purpose
REDEEMED = (
    "redeemed_at",
    "last_used_at",
    "last_used_from",
    "successor",
    "successor_sealed",
)
"""Columns that the first use of a refresh token writes."""
CLIENT = OAuthClient.objects.filter(client_id=OuterRef("client_id"))
OWN_TOKEN = CompiledQuery(
    lambda: (
        IssuedToken.objects.select_for_update(of=("self",))
        .filter(jti=Given(IssuedToken, "jti"), user_id=Given(IssuedToken, "user"))
        .with_revoked()
        .annotate(client_max_idle=Subquery(CLIENT.values("max_idle")))
    )
)
"""A token of this account, whether it is revoked, and its client's idle limit."""
NO_LONGER_VALID = "The refresh token is no longer valid; sign in again."


def rotate_refresh_token(
    raw: str, *, address: str = "", client_id: str = "", scope: str = ""
) -> TokenPair:
    """Redeem a refresh token for a new pair. Raises InvalidGrant, InvalidScope.

    An opaque token belongs to the OAuth client `client_id`. `scope` narrows the access
    token, but not the next refresh token (RFC 6749 6).

    A second use within REFRESH_TOKEN_GRACE returns the same successor, for a client
    that lost the response or uses two windows. A later use revokes the family.

    Refusals of known tokens are recorded with their owner.
    """
    try:
        return _rotate(raw, address, client_id, scope)
    except Replayed:
        raise
    except InvalidGrant:
        _record_refused(raw, address)
        raise


class Replayed(InvalidGrant):
    """A refresh token was used twice; `token.replayed` records it."""


def _record_refused(raw: str, address: str) -> None:
    row = find_token(raw)
    if row is not None:
        state = row.state
        reason = "refused" if state == "active" else state
        denied = AuditEvent.Verdict.DENIED
        owner = row.user or row.username
        record_token("token.refused", row, owner, address, reason, decision=denied)


def _rotate(raw: str, address: str, client_id: str, scope: str) -> TokenPair:
    claims = _claims(raw, client_id)
    with transaction.atomic():
        row, user, client = _lock_token(claims)
        _check_network(row, address)
        _check_idle(row, client)
        about = (row.issued_via, _narrow_scope(row, scope), row.client_id, address)
        if row.redeemed_at is None:
            return _first_use(row, user, about)
        if timezone.now() - row.redeemed_at <= settings.REFRESH_TOKEN_GRACE:
            return _repeat_successor(row, user, about)
        _revoke_replayed_family(row, address)
    raise Replayed("The refresh token was used before; sign in again.")


def _claims(raw: str, client_id: str) -> dict[str, Any]:
    """The claims that identify the token's row. Raises InvalidGrant.

    A signed token contains them; an opaque token is found by its hash.
    """
    if not client_id:
        return verify_refresh(raw)
    rows = IssuedToken.objects.filter(secret_hash=secret_hash(raw))
    row = rows.filter(kind=TokenKind.REFRESH, client_id=client_id).first()
    if row is None or row.user_id is None or row.expires_at <= timezone.now():
        raise InvalidGrant("The refresh token is not valid.")
    return {"sub": str(row.user_id), "jti": row.jti, "client_id": client_id}


def verify_refresh(raw: str) -> dict[str, Any]:
    """The claims of a signed refresh token. Raises InvalidGrant."""
    try:
        claims = jwts.verify(raw)
    except jwts.TokenRefused as error:
        raise InvalidGrant("The refresh token is not valid.") from error
    if claims["token_type"] != "refresh" or not SUBJECT.fullmatch(claims["sub"]):  # noqa: S105
        raise InvalidGrant("That is not a refresh token.")
    return claims


def _lock_token(
    claims: dict[str, Any],
) -> tuple[IssuedToken, User, OAuthClient | None]:
    """Lock the client, the account and the token's row. Raises InvalidGrant.

    A revocation locks the account first. So the statement after this lock sees it.
    """
    user, client = lock_both(row_id(claims["sub"]), claims["client_id"])
    row = OWN_TOKEN.first(jti=claims["jti"], user=user.pk)
    if row is None or row.revoked:
        raise InvalidGrant(NO_LONGER_VALID)
    return row, user, client


def verify_token(raw: str, address: str = "") -> None:
    """Raise InvalidGrant unless `raw` is a live token that is valid from `address`."""
    try:
        if (
            raw.startswith(PERSONAL_PREFIX)
            or jwts.verify(raw)["token_type"] == TokenKind.ACCESS
        ):
            load_principal(verify_access(raw)).restricted_to(address)
            return
    except (jwts.TokenRefused, Unauthenticated) as error:
        raise InvalidGrant("The token is invalid, expired or revoked.") from error
    with transaction.atomic():
        row, _user, client = _lock_token(verify_refresh(raw))
        _check_network(row, address)
        _check_idle(row, client)
    if row.redeemed_at is not None:
        raise InvalidGrant("The refresh token was used before.")


def revoke_family(raw: str, *, address: str = "") -> int:
    """Revoke the family of this refresh token; returns how many tokens.

    Raises InvalidGrant.
    """
    with transaction.atomic():
        row, user, _client = _lock_token(verify_refresh(raw))
        family = IssuedToken.objects.filter(family=row.family)
        place = address or "an unknown address"
        return family.revoke(actor=user, reason=f"signed out from {place}")


def _narrow_scope(row: IssuedToken, scope: str) -> str:
    """The requested part of the grant's scope; by default all. Raises InvalidScope."""
    requested = list(dict.fromkeys(scope.split()))
    if not set(requested) <= set(row.scope.split()):
        raise InvalidScope("The grant does not cover that scope.")
    return " ".join(requested) or row.scope


def _check_network(row: IssuedToken, address: str) -> None:
    """Raise InvalidGrant if the token may not be used from `address`."""
    bound = split_networks(row.networks)
    if bound and not in_networks(address, bound):
        raise InvalidGrant("The refresh token may not be used from this address.")


def _check_idle(row: IssuedToken, client: OAuthClient | None) -> None:
    """Raise InvalidGrant if the family was unused for longer than the idle limit."""
    # A row may limit the tokens of /api/token/, too, which no client is locked for.
    stored: int | None = row.client_max_idle  # type: ignore[attr-defined]
    span = idle_lifetime(stored if client is None else client.max_idle)
    if span is None:
        return
    family = IssuedToken.objects.filter(family=row.family)
    used = family.aggregate(last=Max("last_used_at"), issued=Max("issued_at"))
    newest = max(at for at in (used["last"], used["issued"]) if at is not None)
    if newest.timestamp() + span <= time.time():
        raise InvalidGrant("The tokens were unused for too long; sign in again.")


def _first_use(row: IssuedToken, user: User, about: TokenDetails) -> TokenPair:
    raw = new_opaque_token() if row.secret_hash else ""
    new = NewRefresh(row.scope, raw)
    networks = row.networks
    pair = issue_pair(user, row.family, about, refresh=new, networks=networks)
    row.redeemed_at = row.last_used_at = timezone.now()
    row.last_used_from = about[-1]
    row.successor = pair.refresh_row
    row.successor_sealed = _seal_successor(row, pair.refresh)
    update_columns(row, REDEEMED)
    if row.secret_hash:
        _clear_old_successors(row)
    record_token("token.refreshed", pair.row, user, about[-1])
    return pair


def _seal_successor(row: IssuedToken, successor: str) -> bytes | None:
    """The encrypted opaque successor, to repeat it within the grace period.

    None for signed tokens: signing the row again gives the same token.
    """
    if not row.secret_hash or not settings.REFRESH_TOKEN_GRACE:
        return None
    return seal(PURPOSE, successor.encode(), row.jti.encode())


def _clear_old_successors(row: IssuedToken) -> None:
    """Delete the family's encrypted successors whose grace period has passed.

    `purge` deletes those of families that are not used any more.
    """
    over = timezone.now() - settings.REFRESH_TOKEN_GRACE
    IssuedToken.objects.filter(family=row.family).drop_successors(over)


def _repeat_successor(row: IssuedToken, user: User, about: TokenDetails) -> TokenPair:
    successor = row.successor
    if successor is None or successor.state != "active":
        raise InvalidGrant(NO_LONGER_VALID)
    refresh = _unseal_successor(row) if row.secret_hash else sign_row(successor, user)
    pair = issue_pair(user, row.family, about, networks=row.networks)
    reason = "within the grace period"
    record_token("token.refreshed", pair.row, user, about[-1], reason=reason)
    return replace(pair, refresh=refresh, refresh_row=successor)


def _unseal_successor(row: IssuedToken) -> str:
    try:
        sealed = bytes(row.successor_sealed or b"")
        return unseal(PURPOSE, sealed, row.jti.encode()).decode()
    except KeyUnreadable as error:
        raise InvalidGrant(NO_LONGER_VALID) from error


def _revoke_replayed_family(row: IssuedToken, address: str) -> None:
    family = IssuedToken.objects.filter(family=row.family)
    revoked = family.revoke(actor=None, reason="refresh token replayed")
    record_token(
        "token.replayed",
        row,
        row.username,
        address,
        reason=f"family revoked, {counted(revoked, 'live token')}",
    )
