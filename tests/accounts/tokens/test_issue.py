"""Tokens of every kind: their rows, claims and events, and who gets none."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from accounts.crypto.secrets import secret_hash
from accounts.errors import InvalidGrant, InvalidScope
from accounts.models import (
    AuditEvent,
    DocumentHost,
    IssuedToken,
    OAuthClient,
    Role,
    RoleAssignment,
    Scope,
    SigningKey,
    User,
)
from accounts.models.roles import ADMIN_API
from accounts.tokens import issue, jwts
from accounts.tokens.issue import (
    AccessToken,
    RefreshToken,
    TokenPair,
    allowed_scope,
    claims_of,
    issue_personal_token,
    issue_tokens,
    lock,
    lock_both,
    lock_unchanged,
    new_opaque_token,
    personal_scope,
    record_token,
    sign_row,
)
from tests.support.accounts import HOUR, stop_clock
from tests.support.model_rows import record_locks
from tests.support.users import account, public_client

pytestmark = pytest.mark.django_db


@pytest.fixture
def user(db: None) -> User:
    return account("u", "User")


def events() -> list[dict[str, Any]]:
    """All token events, oldest first."""
    columns = ("action", "actor", "actor_id", "object", "client_id", "token_id")
    rows = AuditEvent.objects.filter(action__startswith="token.").order_by("pk")
    return list(rows.values(*columns, "address", "via", "reason"))


def columns_of(row: IssuedToken | None) -> dict[str, Any]:
    assert row is not None
    names = ("kind", "issued_via", "username", "client_id", "scope", "family", "name")
    more = ("issued_to", "networks", "user_id", "secret_hash", "issued_at")
    return {name: getattr(row, name) for name in (*names, *more)}


def test_a_pair_is_stored_with_its_details(
    monkeypatch: pytest.MonkeyPatch, user: User, settings: Any
) -> None:
    settings.ACCESS_TOKEN_LIFETIME = timedelta(seconds=70)
    settings.REFRESH_TOKEN_LIFETIME = timedelta(seconds=7000)
    now, family = stop_clock(monkeypatch), uuid4()
    pair = issue_tokens(
        user,
        issued_via="device",
        scope="mcp User.Read",
        client_id=public_client("c"),
        address="192.0.2.1",
        family=family,
        networks="10.0.0.0/8",
    )
    second = now.replace(microsecond=0)
    common = {
        **{"issued_via": "device", "username": "u", "user_id": user.pk},
        **{"client_id": "c", "scope": "mcp User.Read", "family": family, "name": ""},
        **{"issued_to": "192.0.2.1", "networks": "10.0.0.0/8", "secret_hash": None},
        "issued_at": second,
    }
    access, refresh = IssuedToken.objects.order_by("pk")
    assert (access, refresh) == (pair.row, pair.refresh_row)
    assert columns_of(access) == {**common, "kind": "access"}
    assert columns_of(refresh) == {**common, "kind": "refresh"}
    assert access.expires_at == second + timedelta(seconds=70)
    assert refresh.expires_at == second + timedelta(seconds=7000)
    assert pair.expires_in == 70
    assert access.jti != refresh.jti and len(access.jti) == 32
    active = SigningKey.objects.ensure_active().kid
    assert access.kid == refresh.kid == active
    assert access.redeemed_at is access.last_used_at is None


@pytest.mark.parametrize("seconds", [1, 1800, 86_399, 86_400, 3 * 86_400 + 1])
def test_a_pair_says_how_many_seconds_it_lasts(user: User, seconds: int) -> None:
    """RFC 6749 5.1; also if that is a day or more."""
    span = timedelta(seconds=seconds)
    pair = issue_tokens(user, issued_via="command", lifetime=span)
    assert pair.expires_in == seconds


def test_one_event_names_the_token_and_its_owner(user: User) -> None:
    pair = issue_tokens(
        user, issued_via="device", client_id=public_client("c"), address="192.0.2.1"
    )
    assert events() == [
        {
            **{"action": "token.issued", "actor": "u", "actor_id": user.pk},
            **{"object": "access token of u", "client_id": "c"},
            **{"token_id": pair.row.jti, "address": "192.0.2.1", "via": "device"},
            "reason": "",
        }
    ]


def test_another_actor_is_named(user: User) -> None:
    issue_tokens(user, issued_via="command", actor="command line")
    assert events()[0]["actor"] == "command line" and events()[0]["actor_id"] is None


def test_the_claims_are_those_of_the_profile(user: User, settings: Any) -> None:
    """RFC 9068 2.2."""
    RoleAssignment.objects.grant(user, Role.objects.get(name="Admin"))
    ended = timezone.now() - HOUR
    guest = Role.objects.get(name="Guest")
    RoleAssignment.objects.grant(user, guest, expires_at=ended)
    pair = issue_tokens(user, issued_via="command", scope="mcp")
    row, other = pair.row, pair.refresh_row
    assert other is not None
    access = {
        **{"token_type": "access", "iss": settings.ISSUER_URL, "sub": str(user.pk)},
        **{"client_id": "portico", "jti": row.jti, "scope": "mcp"},
        "iat": int(row.issued_at.timestamp()),
        "exp": int(row.expires_at.timestamp()),
        "aud": settings.RESOURCE_URL,
        "roles": ["Admin", "User"],
    }
    assert jwts.verify(pair.access) == access
    refresh = {k: v for k, v in access.items() if k not in ("aud", "roles")}
    refresh |= {"token_type": "refresh", "jti": other.jti}
    assert jwts.verify(pair.refresh) == {
        **refresh,
        "exp": int(other.expires_at.timestamp()),
    }


def test_a_lifetime_is_that_of_the_access_token(user: User, settings: Any) -> None:
    pair = issue_tokens(user, issued_via="command", lifetime=timedelta(seconds=5))
    row = pair.refresh_row
    assert pair.expires_in == 5 and row is not None
    assert row.expires_at - row.issued_at == settings.REFRESH_TOKEN_LIFETIME


def test_no_refresh_token_is_issued_on_request(user: User) -> None:
    pair = issue_tokens(user, issued_via="command", refresh=False, networks="10.0.0.1")
    assert pair.refresh == "" and pair.refresh_row is None
    assert IssuedToken.objects.get() == pair.row and pair.row.networks == "10.0.0.1"


def test_an_opaque_refresh_token_is_stored_as_its_hash(user: User) -> None:
    pair = issue_tokens(user, issued_via="device", opaque=True)
    row = pair.refresh_row
    assert row is not None and row.pk is not None
    assert pair.refresh.startswith("portico_rt_") and len(pair.refresh) == 11 + 43
    row.refresh_from_db()
    assert row.secret_hash == secret_hash(pair.refresh) and row.kid == ""
    assert pair.row.secret_hash is None and new_opaque_token() != new_opaque_token()


def test_each_sign_in_has_its_own_family(user: User) -> None:
    families = {issue_tokens(user, issued_via="command").row.family for _ in range(3)}
    assert len(families) == 3


def test_networks_and_address_are_stored_only_if_there_are_any(user: User) -> None:
    pair = issue_tokens(user, issued_via="command")
    assert (pair.row.networks, pair.row.issued_to) == ("", "")
    assert events()[0]["address"] == ""
    about = ("command", "mcp", "portico", "")
    alone = issue.issue_pair(user, pair.row.family, about)
    assert (alone.row.networks, alone.refresh, alone.refresh_row) == ("", "", None)


CHANGES: dict[str, Callable[[User], object]] = {
    "closed": lambda u: User.objects.filter(pk=u.pk).update(is_active=False),
    "deleted": lambda u: User.objects.filter(pk=u.pk).delete(),
    "password": lambda u: User.objects.filter(pk=u.pk).update(password="x"),
    "ended": lambda u: User.objects.filter(pk=u.pk).update(session_epoch=1),
    "client blocked": lambda u: OAuthClient.objects.update(blocked=True),
    "client deleted": lambda u: OAuthClient.objects.all().delete(),
    "host refused": lambda u: DocumentHost.objects.create(
        host="c.example", trusted=False
    ),
}
ACCOUNT = {"closed", "deleted", "password", "ended"}
"""Changes that concern personal tokens, too."""
DOCUMENT = "https://c.example/client.json"


@pytest.mark.parametrize("change", CHANGES)
def test_a_sign_in_in_progress_does_not_outlive_a_change(
    user: User, change: str
) -> None:
    OAuthClient.objects.create(client_id=DOCUMENT, registration_source="cimd")
    issue_tokens(user, issued_via="device", client_id=DOCUMENT)
    CHANGES[change](user)
    before = (IssuedToken.objects.count(), len(events()))
    with pytest.raises(InvalidGrant):
        issue_tokens(user, issued_via="device", client_id=DOCUMENT)
    if change in ACCOUNT:
        with pytest.raises(InvalidGrant):
            issue_personal_token(user, name="n", scope="", lifetime=HOUR)
    assert (IssuedToken.objects.count(), len(events())) == before


def test_another_account_or_client_may_end(user: User) -> None:
    other = account("other")
    public_client("c")
    public_client("d")
    User.objects.filter(pk=other.pk).update(is_active=False, session_epoch=5)
    OAuthClient.objects.filter(client_id="d").update(blocked=True)
    assert lock(user.pk, "c") == user
    lock_unchanged(user, "c")


def test_the_rows_that_are_locked_are_those_of_the_ids(user: User) -> None:
    later = account("later")
    public_client("b")
    client = OAuthClient.objects.get(client_id=public_client("c"))
    for one in (user, later):
        assert lock_both(one.pk, "c") == (one, client)
        assert lock_both(one.pk, "portico") == (one, None)
    with pytest.raises(InvalidGrant):
        lock(later.pk + 1, "c")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("closed", "The account was closed."),
        ("client blocked", "The client was deleted or blocked."),
        ("password", "The account's access was revoked or its password changed."),
    ],
)
def test_the_refusal_says_what_ended(user: User, change: str, text: str) -> None:
    public_client("c")
    CHANGES[change](user)
    with pytest.raises(InvalidGrant) as refused:
        lock_unchanged(user, "c")
    assert str(refused.value) == text


def test_the_client_is_locked_before_the_account(
    monkeypatch: pytest.MonkeyPatch, user: User
) -> None:
    public_client("c")
    locked = record_locks(monkeypatch)
    lock(user.pk, "c")
    lock(user.pk, "portico")
    assert locked == ["OAuthClient", "User", "User"]


def test_without_an_event_there_is_no_token(
    monkeypatch: pytest.MonkeyPatch, user: User
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError

    monkeypatch.setattr(issue, "record_token", fail)
    with pytest.raises(OSError):
        issue_tokens(user, issued_via="command")
    with pytest.raises(OSError):
        issue_personal_token(user, name="n", scope="", lifetime=HOUR)
    assert not IssuedToken.objects.exists()


def test_what_belongs_to_the_tokens_is_stored_with_them(user: User) -> None:
    """The end of a sign-in's attempt, or nothing of both."""
    stored: list[int] = []

    def note() -> None:
        stored.append(IssuedToken.objects.count())
        if len(stored) > 1:
            raise OSError

    issue_tokens(user, issued_via="password", also=note)
    with pytest.raises(OSError):
        issue_tokens(user, issued_via="password", also=note)
    assert stored == [2, 4] and IssuedToken.objects.count() == 2


@pytest.mark.parametrize(
    ("requested", "scope"),
    [
        ("", "mcp"),
        ("  ", "mcp"),
        ("mcp", "mcp"),
        ("User.Read", "User.Read"),
        ("User.Write User.Read", "User.Write User.Read"),
        ("User.Read mcp User.Read", "User.Read mcp"),
    ],
)
def test_a_scope_is_the_requested_one_within_the_roles(
    user: User, requested: str, scope: str
) -> None:
    assert allowed_scope(user, requested) == scope


@pytest.mark.parametrize(
    ("requested", "missing"),
    [
        ("Admin.Write", "Admin.Write"),
        ("User.Read Z A Z", "A Z"),
        ("mcp Admin.Write", "Admin.Write"),
    ],
)
def test_scopes_that_no_role_grants_are_named(
    user: User, requested: str, missing: str
) -> None:
    account("other", "Admin")
    with pytest.raises(InvalidScope) as refused:
        allowed_scope(user, requested)
    assert str(refused.value) == f"Your roles do not give: {missing}."


def test_mcp_is_allowed_without_roles(db: None) -> None:
    user = account("nobody")
    assert allowed_scope(user, "mcp") == "mcp"
    with pytest.raises(InvalidScope):
        allowed_scope(user, "Guest.Read")


def test_a_personal_token_is_stored_as_its_hash(
    monkeypatch: pytest.MonkeyPatch, user: User
) -> None:
    now = stop_clock(monkeypatch)
    row, raw = issue_personal_token(
        user,
        name="laptop",
        scope="User.Read",
        lifetime=HOUR,
        address="192.0.2.1",
        networks="10.0.0.0/8",
    )
    assert raw.startswith("portico_pat_") and len(raw) == 12 + 43
    row.refresh_from_db()
    second = now.replace(microsecond=0)
    assert columns_of(row) == {
        **{"kind": "personal", "issued_via": "personal", "username": "u"},
        **{"client_id": "portico", "scope": "User.Read", "family": row.family},
        **{"name": "laptop", "issued_to": "192.0.2.1", "networks": "10.0.0.0/8"},
        **{"user_id": user.pk, "secret_hash": secret_hash(raw), "issued_at": second},
    }
    assert row.expires_at == second + HOUR and row.kid == ""
    assert events() == [
        {
            **{"action": "token.issued", "actor": "u", "actor_id": user.pk},
            **{"object": "personal token of u", "client_id": "portico"},
            **{"token_id": row.jti, "address": "192.0.2.1", "via": "personal"},
            "reason": "",
        }
    ]


def test_a_personal_token_stays_within_the_roles(user: User) -> None:
    with pytest.raises(InvalidScope):
        issue_personal_token(user, name="n", scope="Admin.Write", lifetime=HOUR)
    assert not IssuedToken.objects.exists()
    row, _raw = issue_personal_token(user, name="n", scope="", lifetime=HOUR)
    assert (row.scope, row.networks, row.issued_to) == ("mcp", "", "")


@pytest.mark.parametrize(
    ("scope", "columns", "given"),
    [
        (ADMIN_API, {"is_staff": True}, ADMIN_API),
        (ADMIN_API, {}, None),
        (ADMIN_API, {"is_superuser": True}, None),
        (f"mcp {ADMIN_API}", {"is_staff": True}, None),
        (f"{ADMIN_API} mcp", {"is_staff": True}, None),
        (f"{ADMIN_API} mcp {ADMIN_API}", {"is_staff": True}, None),
        (f"{ADMIN_API} {ADMIN_API}", {"is_staff": True}, ADMIN_API),
        ("mcp", {"is_staff": True}, "mcp"),
    ],
)
def test_only_staff_get_a_token_for_the_api_and_for_nothing_else(
    db: None, scope: str, columns: dict[str, bool], given: str | None
) -> None:
    user = User.objects.create(username="api", **columns)
    if given is not None:
        assert personal_scope(user, scope) == given
        return
    with pytest.raises(InvalidScope) as refused:
        issue_personal_token(user, name="n", scope=scope, lifetime=HOUR)
    alone = f"A token with {ADMIN_API} carries no other scope."
    staff = f"Only staff who may use the admin get {ADMIN_API}."
    assert str(refused.value) == (staff if scope == ADMIN_API else alone)
    assert not IssuedToken.objects.exists()


def test_a_row_gives_the_same_token_again(user: User) -> None:
    """Also after the key that signed it is retiring."""
    pair = issue_tokens(user, issued_via="command")
    assert pair.refresh_row is not None
    SigningKey.objects.rotate(actor="test")
    row = IssuedToken.objects.get(pk=pair.refresh_row.pk)
    assert sign_row(row, user) == pair.refresh
    assert IssuedToken.objects.count() == 2
    assert claims_of(row, user)["jti"] == row.jti


def test_simplejwt_issues_tokens_that_are_listed(user: User) -> None:
    access = AccessToken.for_user(user)
    row = IssuedToken.objects.get()
    assert (row.jti, row.kind, row.issued_via) == (access["jti"], "access", "command")
    refresh = RefreshToken.for_user(user)
    kinds = set(IssuedToken.objects.exclude(pk=row.pk).values_list("kind", flat=True))
    assert kinds == {"access", "refresh"}
    assert IssuedToken.objects.get(kind="refresh").jti == refresh["jti"]
    assert set(IssuedToken.objects.values_list("issued_via", flat=True)) == {"command"}
    assert isinstance(refresh.access_token, AccessToken)


def test_an_event_is_cut_and_has_its_reason(user: User) -> None:
    row = issue_tokens(user, issued_via="command").row
    row.username = "n" * 300
    record_token("token.tested", row, "somebody", "192.0.2.1", reason="because")
    event = events()[-1]
    assert event["object"] == f"access token of {'n' * 300}"[:255]
    assert (event["reason"], event["actor"]) == ("because", "somebody")
    assert (event["via"], event["address"]) == ("command", "192.0.2.1")
    record_token("token.tested", row, "somebody", "192.0.2.1", decision="denied")
    newest = AuditEvent.objects.order_by("-pk").values_list("decision", flat=True)
    assert list(newest[:2]) == ["denied", ""]


def test_a_pair_tells_its_lifetime_in_whole_seconds() -> None:
    now = timezone.now()
    row = IssuedToken(issued_at=now, expires_at=now + timedelta(seconds=90.9))
    assert TokenPair("raw", row).expires_in == 90


def test_many_roles_do_not_make_the_token_too_long_for_a_header(user: User) -> None:
    """Nothing reads the names; they are left out together, never in part."""
    token = jwts.verify(issue_tokens(user, issued_via="command").access)
    assert token["roles"] == ["User"]
    for number in range(300):
        role = Role.objects.create(name=f"{number:03} {'long name ' * 9}")
        RoleAssignment.objects.grant(user, role)
    raw = issue_tokens(user, issued_via="command").access
    assert "roles" not in jwts.verify(raw) and len(raw) < 2_000


def test_a_thousand_bytes_of_role_names_are_listed(user: User) -> None:
    """As JSON, in which "User" and its quotes take eight with the brackets."""
    for name in [*(f"{number}{'x' * 94}" for number in range(9)), "y" * 97]:
        RoleAssignment.objects.grant(user, Role.objects.create(name=name))
    assert len(json.dumps(issue.roles_claim(user)["roles"])) == 1_000
    RoleAssignment.objects.grant(user, Role.objects.create(name="z"))
    assert issue.roles_claim(user) == {}


def long_scope(user: User, length: int = issue.MAX_SCOPE) -> str:
    """A scope of this many characters that the user's role grants."""
    names = [f"{number:04}.{'x' * 75}" for number in range(length // 81)]
    names.append("y" * (length - 81 * len(names)))
    rows = Scope.objects.bulk_create(Scope(name=name) for name in names)
    Role.objects.get(name="User").scopes.add(*rows)
    return " ".join(names)


def test_the_longest_scope_makes_a_token_that_the_api_accepts(user: User) -> None:
    """With names of roles that JSON writes six times as long."""
    scope = long_scope(user)
    for number in range(3):
        role = Role.objects.create(name=f"{number}{'역' * 50}")
        RoleAssignment.objects.grant(user, role)
    pair = issue_tokens(user, issued_via="password", scope=allowed_scope(user, scope))
    assert pair.row.scope == scope and len(scope) == issue.MAX_SCOPE
    assert "roles" in jwts.verify(pair.access)
    assert max(len(pair.access), len(pair.refresh)) < issue.MAX_TOKEN_LENGTH - 1_000


def test_a_longer_scope_is_refused(user: User) -> None:
    """A repeated name counts once, as in the token."""
    scope = long_scope(user)
    longest = f"{scope} {scope}"
    assert allowed_scope(user, longest) == scope
    with pytest.raises(InvalidScope, match="longer than 8192 characters. Request f"):
        allowed_scope(user, f"{longest} mcp")
    with pytest.raises(InvalidScope):
        issue_personal_token(
            user, name="x", scope=f"{scope} mcp", lifetime=timedelta(days=1)
        )
    assert not IssuedToken.objects.exists()
