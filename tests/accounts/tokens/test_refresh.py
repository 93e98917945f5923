"""Rotation of refresh tokens: first use, repeated use, replay, and every refusal."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.crypto.encryption import unseal
from accounts.crypto.secrets import secret_hash
from accounts.errors import InvalidGrant, InvalidScope
from accounts.models import (
    AuditEvent,
    IssuedToken,
    OAuthClient,
    RevokedToken,
    SigningKey,
    User,
)
from accounts.tokens import jwts, refresh
from accounts.tokens.issue import (
    TokenPair,
    claims_of,
    issue_personal_token,
    issue_tokens,
)
from accounts.tokens.refresh import (
    NO_LONGER_VALID,
    PURPOSE,
    revoke_family,
    rotate_refresh_token,
    verify_token,
)
from tests.support.accounts import HOUR, stop_clock
from tests.support.model_rows import record_locks
from tests.support.users import account, public_client

pytestmark = pytest.mark.django_db
GRACE = timedelta(seconds=30)
MOMENT, SECOND = timedelta(microseconds=1), timedelta(seconds=1)
HERE = "192.0.2.1"
KINDS = pytest.mark.parametrize("client_id", ["", "c"], ids=["signed", "opaque"])


@pytest.fixture(autouse=True)
def grace(settings: Any) -> None:
    settings.REFRESH_TOKEN_GRACE = GRACE


@pytest.fixture
def user(db: None) -> User:
    return account("u", "User")


def pair_for(user: User, client_id: str, **options: Any) -> TokenPair:
    """A signed pair, or an opaque one for the client."""
    options = {"scope": "mcp User.Read", **options}
    if client_id:
        options |= {"client_id": public_client(client_id), "opaque": True}
    return issue_tokens(user, issued_via="device", **options)


def rotate(pair: TokenPair, client_id: str, **options: Any) -> TokenPair:
    options = {"address": HERE, **options}
    return rotate_refresh_token(pair.refresh, client_id=client_id, **options)


def row_of(pair: TokenPair) -> IssuedToken:
    """The refresh token's row, as it is now."""
    assert pair.refresh_row is not None
    return IssuedToken.objects.get(pk=pair.refresh_row.pk)


def set_refresh(pair: TokenPair, **columns: Any) -> None:
    IssuedToken.objects.filter(pk=row_of(pair).pk).update(**columns)


def last_event(action: str) -> AuditEvent:
    return AuditEvent.objects.filter(action=action).latest("pk")


def states(pair: TokenPair) -> set[str]:
    family = IssuedToken.objects.filter(family=pair.row.family)
    return {row.state for row in family}


def refused(
    pair: TokenPair, client_id: str, text: str = NO_LONGER_VALID, **options: Any
) -> None:
    """It is refused for this reason, and nothing is issued or redeemed."""
    before = list(IssuedToken.objects.order_by("pk").values())
    with pytest.raises(InvalidGrant) as error:
        rotate(pair, client_id, **options)
    assert str(error.value) == text
    assert list(IssuedToken.objects.order_by("pk").values()) == before


@KINDS
def test_the_first_use_gives_a_new_pair_of_the_family(
    monkeypatch: pytest.MonkeyPatch, user: User, client_id: str
) -> None:
    old = pair_for(user, client_id, networks="192.0.2.0/24", address="192.0.2.9")
    now = stop_clock(monkeypatch)
    new = rotate(old, client_id)
    used, successor = row_of(old), row_of(new)
    assert used.redeemed_at == used.last_used_at == now
    assert used.last_used_from == HERE and used.successor == successor
    assert new.refresh != old.refresh and new.access != old.access
    second = now.replace(microsecond=0)
    for row in (IssuedToken.objects.get(pk=new.row.pk), successor):
        assert row.family == old.row.family and row.user == user
        assert (row.issued_via, row.client_id) == ("device", client_id or "portico")
        assert (row.scope, row.issued_to) == ("mcp User.Read", HERE)
        assert row.networks == "192.0.2.0/24" and row.issued_at == second
        assert row.redeemed_at is None
    expected = secret_hash(new.refresh) if client_id else None
    assert successor.secret_hash == expected
    assert new.refresh.startswith("portico_rt_") is bool(client_id)
    event = last_event("token.refreshed")
    assert (event.actor, event.actor_id, event.reason) == ("u", user.pk, "")
    assert (event.token_id, event.address) == (new.row.jti, HERE)


def test_an_opaque_successor_is_kept_encrypted(user: User) -> None:
    signed, opaque = pair_for(user, ""), pair_for(user, "c")
    rotate(signed, "")
    new = rotate(opaque, "c")
    assert row_of(signed).successor_sealed is None
    row = row_of(opaque)
    sealed = bytes(row.successor_sealed or b"")
    assert new.refresh.encode() not in sealed
    assert unseal(PURPOSE, sealed, row.jti.encode()).decode() == new.refresh
    assert PURPOSE == b"portico refresh successors v1"


def test_without_a_grace_no_successor_is_kept(user: User, settings: Any) -> None:
    settings.REFRESH_TOKEN_GRACE = timedelta(0)
    opaque = pair_for(user, "c")
    rotate(opaque, "c")
    assert row_of(opaque).successor_sealed is None


@pytest.mark.parametrize(
    ("scope", "narrowed"),
    [
        ("", "mcp User.Read"),
        ("User.Read", "User.Read"),
        ("User.Read mcp User.Read", "User.Read mcp"),
    ],
)
@KINDS
def test_a_narrower_scope_narrows_the_access_token_only(
    user: User, client_id: str, scope: str, narrowed: str
) -> None:
    """RFC 6749 6."""
    new = rotate(pair_for(user, client_id), client_id, scope=scope)
    assert new.row.scope == narrowed and row_of(new).scope == "mcp User.Read"


@KINDS
def test_a_wider_scope_is_refused_and_redeems_nothing(
    user: User, client_id: str
) -> None:
    old = pair_for(user, client_id)
    for scope in ("User.Write", "mcp User.Write"):
        with pytest.raises(InvalidScope) as wide:
            rotate(old, client_id, scope=scope)
        assert str(wide.value) == "The grant does not cover that scope."
    assert row_of(old).redeemed_at is None and IssuedToken.objects.count() == 2


@KINDS
def test_a_repeated_use_returns_the_same_successor(
    monkeypatch: pytest.MonkeyPatch, user: User, client_id: str
) -> None:
    old = pair_for(user, client_id, networks="192.0.2.0/24")
    now = stop_clock(monkeypatch)
    new = rotate(old, client_id)
    stop_clock(monkeypatch, now + GRACE)
    again = rotate(old, client_id, scope="User.Read")
    assert again.refresh == new.refresh and again.refresh_row == row_of(new)
    assert again.access != new.access and again.row.scope == "User.Read"
    row = IssuedToken.objects.get(pk=again.row.pk)
    assert row.networks == "192.0.2.0/24" and row.issued_to == HERE
    assert row.family == old.row.family and IssuedToken.objects.count() == 5
    event = last_event("token.refreshed")
    assert (event.reason, event.token_id) == ("within the grace period", row.jti)
    assert (event.actor, event.address) == ("u", HERE)
    assert row_of(old).redeemed_at == now
    assert rotate(new, client_id).refresh != new.refresh


@KINDS
def test_a_use_after_the_grace_revokes_the_family(
    monkeypatch: pytest.MonkeyPatch, user: User, client_id: str
) -> None:
    """RFC 9700 4.14.2."""
    old, other = pair_for(user, client_id), pair_for(user, client_id)
    now = stop_clock(monkeypatch)
    rotate(old, client_id)
    stop_clock(monkeypatch, now + GRACE + MOMENT)
    with pytest.raises(InvalidGrant) as replayed:
        rotate(old, client_id)
    text = "The refresh token was used before; sign in again."
    assert str(replayed.value) == text
    assert states(old) == {"revoked"} and states(other) == {"active"}
    row = row_of(old)
    assert RevokedToken.objects.get(jti=row.jti).reason == "refresh token replayed"
    event = last_event("token.replayed")
    assert event.reason == "family revoked, 4 live tokens"
    assert (event.actor, event.token_id, event.address) == ("u", row.jti, HERE)
    assert last_event("token.revoked").actor == ""
    assert not AuditEvent.objects.filter(action="token.refused").exists()
    assert IssuedToken.objects.count() == 6
    refused(old, client_id)


@KINDS
@pytest.mark.parametrize("state", ["revoked", "expired"])
def test_what_a_token_tries_after_its_end_is_recorded_with_its_owner(
    user: User, client_id: str, state: str
) -> None:
    old = pair_for(user, client_id)
    row = row_of(old)
    rows = IssuedToken.objects.filter(pk=row.pk)
    if state == "revoked":
        rows.revoke(actor=None, reason="test")
    else:
        rows.update(expires_at=timezone.now())
    if state == "expired" and not client_id:
        return  # The row decides for opaque tokens only.
    with pytest.raises(InvalidGrant):
        rotate(old, client_id)
    event = last_event("token.refused")
    assert (event.actor, event.actor_id) == ("u", user.pk)
    assert (event.decision, event.reason) == ("denied", state)
    assert (event.token_id, event.address) == (row.jti, HERE)


@KINDS
def test_what_a_token_of_a_deleted_account_tries_is_recorded(
    user: User, client_id: str
) -> None:
    """With the name that the row has kept."""
    old = pair_for(user, client_id)
    user.delete()
    with pytest.raises(InvalidGrant):
        rotate(old, client_id)
    event = last_event("token.refused")
    assert (event.actor, event.actor_id) == ("u", None)


def test_an_unknown_refresh_token_is_not_recorded(user: User) -> None:
    with pytest.raises(InvalidGrant):
        rotate_refresh_token("made up", client_id="c")
    assert not AuditEvent.objects.filter(action="token.refused").exists()


@KINDS
@pytest.mark.parametrize("change", ["revoked", "expired", "deleted"])
def test_a_successor_that_ended_is_not_repeated(
    user: User, client_id: str, change: str
) -> None:
    old = pair_for(user, client_id)
    successor = row_of(rotate(old, client_id))
    rows = IssuedToken.objects.filter(pk=successor.pk)
    if change == "revoked":
        rows.revoke(actor=None, reason="test")
    elif change == "expired":
        rows.update(expires_at=timezone.now())
    else:
        rows.delete()
    refused(old, client_id)


@pytest.mark.parametrize("sealed", [None, b"", b"x" * 60])
def test_a_successor_that_cannot_be_decrypted_is_not_repeated(
    user: User, sealed: bytes | None
) -> None:
    old = pair_for(user, "c")
    rotate(old, "c")
    set_refresh(old, successor_sealed=sealed)
    refused(old, "c")


def test_a_successor_sealed_for_another_token_is_not_repeated(user: User) -> None:
    one, two = pair_for(user, "c"), pair_for(user, "c")
    rotate(one, "c")
    rotate(two, "c")
    set_refresh(one, successor_sealed=row_of(two).successor_sealed)
    refused(one, "c")


def test_old_successors_of_the_family_are_deleted(
    monkeypatch: pytest.MonkeyPatch, user: User
) -> None:
    first, other = pair_for(user, "c"), pair_for(user, "c")
    now = stop_clock(monkeypatch)
    second = rotate(first, "c")
    rotate(other, "c")
    stop_clock(monkeypatch, now + GRACE)
    third = rotate(second, "c")
    assert row_of(first).successor_sealed is not None, "it may be repeated still"
    stop_clock(monkeypatch, now + GRACE + MOMENT)
    rotate(third, "c")
    kept = [row_of(p).successor_sealed for p in (first, second, third, other)]
    assert [sealed is not None for sealed in kept] == [False, True, True, True]


def test_a_signed_successor_is_repeated_after_a_key_rotation(user: User) -> None:
    old = pair_for(user, "")
    new = rotate(old, "")
    SigningKey.objects.rotate(actor="test")
    assert rotate(old, "").refresh == new.refresh


@pytest.mark.parametrize("raw", ["", "text", "portico_rt_x", "portico_pat_x", "a.b.c"])
@KINDS
def test_text_that_is_no_refresh_token_is_refused(
    db: None, client_id: str, raw: str
) -> None:
    with pytest.raises(InvalidGrant, match="The refresh token is not valid"):
        rotate_refresh_token(raw, client_id=client_id)


def test_an_opaque_token_belongs_to_its_client(user: User) -> None:
    pair = pair_for(user, "c")
    refused(pair, public_client("d"), "The refresh token is not valid.")
    refused(pair, "portico", "The refresh token is not valid.")
    refused(pair, "", "The refresh token is not valid.")
    assert rotate(pair, "c")


def test_a_signed_token_is_no_opaque_one(user: User) -> None:
    refused(pair_for(user, ""), "portico", "The refresh token is not valid.")


def test_a_token_of_another_kind_is_no_refresh_token(user: User) -> None:
    pair = pair_for(user, "")
    with pytest.raises(InvalidGrant) as wrong:
        rotate_refresh_token(pair.access)
    assert str(wrong.value) == "That is not a refresh token."
    _row, raw = issue_personal_token(user, name="n", scope="", lifetime=HOUR)
    for client_id in ("", "portico"):
        with pytest.raises(InvalidGrant, match="The refresh token is not valid"):
            rotate_refresh_token(raw, client_id=client_id)


@pytest.mark.parametrize("subject", ["0", "true", "", "1 ", "-1"])
def test_an_odd_subject_is_no_refresh_token(user: User, subject: str) -> None:
    claims = {**claims_of(row_of(pair_for(user, "")), user), "sub": subject}
    with pytest.raises(InvalidGrant, match="That is not a refresh token"):
        rotate_refresh_token(jwts.sign(claims)[0])


def test_a_token_is_listed_under_its_own_account(user: User) -> None:
    other, pair = account("other"), pair_for(user, "")
    claims = {**claims_of(row_of(pair), user), "sub": str(other.pk)}
    with pytest.raises(InvalidGrant, match="no longer valid"):
        rotate_refresh_token(jwts.sign(claims)[0])
    assert rotate(pair, "")


def test_an_opaque_token_without_an_account_is_refused(user: User) -> None:
    pair = pair_for(user, "c")
    set_refresh(pair, user=None)
    refused(pair, "c", "The refresh token is not valid.")


def test_an_opaque_token_ends_at_its_second(
    monkeypatch: pytest.MonkeyPatch, user: User
) -> None:
    pair = pair_for(user, "c")
    end = row_of(pair).expires_at
    stop_clock(monkeypatch, end)
    refused(pair, "c", "The refresh token is not valid.")
    stop_clock(monkeypatch, end - MOMENT)
    assert rotate(pair, "c")


@pytest.mark.spec("OAuth 2.1 4.3: refresh tokens expire when idle")
def test_an_expired_signed_token_is_refused(user: User, settings: Any) -> None:
    settings.REFRESH_TOKEN_LIFETIME = timedelta(0)
    refused(pair_for(user, ""), "", "The refresh token is not valid.")


@KINDS
def test_a_revoked_token_is_refused(user: User, client_id: str) -> None:
    pair = pair_for(user, client_id)
    rows = IssuedToken.objects.filter(pk=row_of(pair).pk)
    rows.revoke(actor=None, reason="test")
    refused(pair, client_id)


@KINDS
def test_a_token_of_a_closed_account_is_refused(user: User, client_id: str) -> None:
    pair = pair_for(user, client_id)
    User.objects.filter(pk=user.pk).update(is_active=False)
    refused(pair, client_id, "The account was closed.")


def test_a_token_of_a_blocked_client_is_refused(user: User) -> None:
    own, pair = pair_for(user, ""), pair_for(user, "c")
    OAuthClient.objects.update(blocked=True)
    refused(pair, "c", "The client was deleted or blocked.")
    assert rotate(own, "")


def test_a_signed_token_without_its_row_is_refused(user: User) -> None:
    pair = pair_for(user, "")
    row_of(pair).delete()
    with pytest.raises(InvalidGrant, match=NO_LONGER_VALID):
        rotate(pair, "")


def test_a_use_from_an_unknown_address_has_none(user: User) -> None:
    """No network may contain it."""
    new = rotate_refresh_token(pair_for(user, "").refresh)
    assert new.row.issued_to == "" and last_event("token.refreshed").address == ""


def test_revoking_the_access_token_keeps_the_refresh_token(user: User) -> None:
    pair = pair_for(user, "")
    IssuedToken.objects.filter(pk=pair.row.pk).revoke(actor=None, reason="test")
    assert rotate(pair, "")


@KINDS
def test_a_token_is_used_from_its_networks_only(user: User, client_id: str) -> None:
    pair = pair_for(user, client_id, networks="10.0.0.0/8 192.0.2.0/24")
    text = "The refresh token may not be used from this address."
    for address in ("203.0.113.1", ""):
        refused(pair, client_id, text, address=address)
        event = last_event("token.refused")
        assert (event.reason, event.decision) == ("refused", "denied")
        assert (event.token_id, event.address) == (row_of(pair).jti, address)
    assert rotate(pair, client_id)


def idle(pair: TokenPair, seconds: int, now: datetime) -> None:
    """The whole family was issued this long ago, and not used since."""
    family = IssuedToken.objects.filter(family=pair.row.family)
    family.update(issued_at=now - timedelta(seconds=seconds), last_used_at=None)


@KINDS
@pytest.mark.parametrize("limit", ["server", "client"])
def test_a_family_that_was_not_used_is_idle(
    monkeypatch: pytest.MonkeyPatch,
    user: User,
    settings: Any,
    client_id: str,
    limit: str,
) -> None:
    pair, now = pair_for(user, client_id), stop_clock(monkeypatch)
    pair_for(user, client_id)
    if limit == "server":
        settings.TOKEN_MAX_IDLE = 300
    else:
        own = public_client(client_id or "portico")
        OAuthClient.objects.filter(client_id=own).update(max_idle=300)
        OAuthClient.objects.filter(client_id=public_client("d")).update(max_idle=10)
    idle(pair, 300, now)
    refused(pair, client_id, "The tokens were unused for too long; sign in again.")
    idle(pair, 299, now)
    assert rotate(pair, client_id)


@KINDS
def test_the_last_use_of_any_token_of_the_family_counts(
    monkeypatch: pytest.MonkeyPatch, user: User, settings: Any, client_id: str
) -> None:
    settings.TOKEN_MAX_IDLE = 300
    pair, now = pair_for(user, client_id), stop_clock(monkeypatch)
    idle(pair, 900, now)
    rows = IssuedToken.objects.filter(pk=pair.row.pk)
    rows.update(last_used_at=now - 300 * SECOND)
    refused(pair, client_id, "The tokens were unused for too long; sign in again.")
    rows.update(last_used_at=now - 299 * SECOND)
    assert rotate(pair, client_id)


def test_an_old_use_does_not_shorten_a_new_issue(
    monkeypatch: pytest.MonkeyPatch, user: User, settings: Any
) -> None:
    settings.TOKEN_MAX_IDLE = 300
    pair, now = pair_for(user, ""), stop_clock(monkeypatch)
    idle(pair, 10, now)
    set_refresh(pair, last_used_at=now - 900 * SECOND)
    assert rotate(pair, "")


@KINDS
def test_client_account_and_token_are_locked_in_this_order(
    monkeypatch: pytest.MonkeyPatch, user: User, client_id: str
) -> None:
    pair = pair_for(user, client_id)
    locked = record_locks(monkeypatch)
    rotate(pair, client_id)
    expected = ["User", "IssuedToken"]
    assert locked[:3] == (["OAuthClient", *expected] if client_id else expected)


def fail(*args: Any, **options: Any) -> None:
    raise OSError


@KINDS
def test_without_an_event_nothing_is_redeemed(
    monkeypatch: pytest.MonkeyPatch, user: User, client_id: str
) -> None:
    pair = pair_for(user, client_id)
    monkeypatch.setattr(refresh, "record_token", fail)
    with pytest.raises(OSError):
        rotate(pair, client_id)
    assert row_of(pair).redeemed_at is None and IssuedToken.objects.count() == 2


def valid(raw: str, address: str = HERE) -> bool:
    try:
        verify_token(raw, address)
    except InvalidGrant:
        return False
    return True


def live_tokens(user: User) -> dict[str, tuple[str, IssuedToken]]:
    """Kind -> (raw, row), each limited to the network of HERE."""
    near = "192.0.2.0/24"
    pair = pair_for(user, "", networks=near)
    row, raw = issue_personal_token(
        user, name="n", scope="", lifetime=HOUR, networks=near
    )
    return {
        "access": (pair.access, pair.row),
        "refresh": (pair.refresh, row_of(pair)),
        "personal": (raw, row),
    }


@pytest.mark.parametrize("kind", ["access", "refresh", "personal"])
def test_a_live_token_is_valid_until_it_ends(
    user: User, settings: Any, kind: str
) -> None:
    raw, row = live_tokens(user)[kind]
    rows = IssuedToken.objects.filter(pk=row.pk)
    assert valid(raw) and not valid(raw, "10.0.0.1") and not valid(raw, "")
    with pytest.raises(InvalidGrant):
        verify_token(raw)
    settings.TOKEN_MAX_IDLE = 300
    family = IssuedToken.objects.filter(family=row.family)
    family.update(issued_at=timezone.now() - HOUR)
    assert not valid(raw)
    settings.TOKEN_MAX_IDLE = 0
    assert valid(raw)
    User.objects.update(is_active=False)
    assert not valid(raw)
    User.objects.update(is_active=True)
    rows.revoke(actor=None, reason="test")
    assert not valid(raw)


def test_a_token_that_is_invalid_gets_one_text(user: User) -> None:
    pair = pair_for(user, "")
    IssuedToken.objects.filter(pk=pair.row.pk).revoke(actor=None, reason="test")
    for raw in ("", "text", "portico_pat_x", pair.access):
        with pytest.raises(InvalidGrant) as refused:
            verify_token(raw)
        assert str(refused.value) == "The token is invalid, expired or revoked."


def test_a_redeemed_refresh_token_is_not_valid(user: User) -> None:
    pair = pair_for(user, "")
    new = rotate(pair, "")
    with pytest.raises(InvalidGrant) as refused:
        verify_token(pair.refresh)
    assert str(refused.value) == "The refresh token was used before."
    verify_token(new.access)
    assert valid(new.refresh) and row_of(new).redeemed_at is None


@pytest.mark.parametrize("address", [HERE, ""])
def test_signing_out_revokes_the_family(user: User, address: str) -> None:
    pair, other = pair_for(user, ""), pair_for(user, "")
    new = rotate(pair, "")
    assert revoke_family(new.refresh, address=address) == 4
    assert states(pair) == {"revoked"} and states(other) == {"active"}
    event = last_event("token.revoked")
    assert (event.actor, event.actor_id) == ("u", user.pk)
    assert event.reason == f"signed out from {address or 'an unknown address'}"
    for raw in (new.refresh, pair.refresh, other.access, "text"):
        with pytest.raises(InvalidGrant):
            revoke_family(raw)
    assert states(other) == {"active"}
    assert revoke_family(other.refresh) == 2
    assert last_event("token.revoked").reason == "signed out from an unknown address"
