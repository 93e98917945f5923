"""What a token is checked for, and the principal that it gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.crypto.secrets import secret_hash
from accounts.models import (
    IssuedToken,
    IssuedVia,
    OAuthClient,
    Role,
    RoleAssignment,
    User,
)
from accounts.models.roles import ADMIN_API
from accounts.tokens import jwts
from accounts.tokens.issue import (
    TokenPair,
    claims_of,
    issue_personal_token,
    issue_tokens,
)
from accounts.tokens.principal import (
    Principal,
    Unauthenticated,
    authenticate,
    authenticate_for_api,
    hypothetical_principal,
    idle_lifetime,
    load_principal,
    verify_access,
)
from tests.support.accounts import HOUR, role_of, stop_clock
from tests.support.users import account, public_client

pytestmark = pytest.mark.django_db
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


@pytest.fixture
def user(db: None) -> User:
    return account("u", "User")


def whole_second() -> datetime:
    return timezone.now().replace(microsecond=0)


def token(user: User, client_id: str = "", **options: Any) -> TokenPair:
    """An access token, for a client if one is named."""
    if client_id:
        options["client_id"] = public_client(client_id)
    return issue_tokens(user, issued_via="device", refresh=False, **options)


def refusal(raw: str) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as refused:
        authenticate(raw)
    assert str(refused.value) == refused.value.reason
    return refused.value


def set_token(pair: TokenPair, **columns: Any) -> None:
    IssuedToken.objects.filter(pk=pair.row.pk).update(**columns)


def set_client(client_id: str, **columns: Any) -> None:
    OAuthClient.objects.filter(client_id=client_id).update(**columns)


def test_the_principal_of_a_token(user: User) -> None:
    pair = token(user, "c", scope="mcp User.Read")
    who = authenticate(pair.access)
    assert who == Principal(
        user_id=user.pk,
        username="u",
        client_id="c",
        jti=pair.row.jti,
        issued_via="device",
        roles=("User",),
        grants={
            "User.Write": ("User",),
            "User.Read": ("User",),
            "Guest.Read": ("User",),
        },
        token_scopes=frozenset({"mcp", "User.Read"}),
        expires_at=int(pair.row.expires_at.timestamp()),
        valid_until=pair.row.expires_at.timestamp(),
        networks=(),
        role_networks={},
    )
    assert who.acts_within_roles


def test_a_token_of_our_own_needs_no_client(user: User) -> None:
    assert authenticate(token(user).access).client_id == "portico"


@pytest.mark.parametrize(
    ("scope", "within"), [("mcp", True), ("User.Read", False), ("mcpx", False)]
)
def test_a_token_with_mcp_acts_within_the_roles(
    user: User, scope: str, within: bool
) -> None:
    assert authenticate(token(user, scope=scope).access).acts_within_roles is within


@pytest.mark.parametrize("issued_via", IssuedVia.values)
def test_only_a_browser_sign_in_can_ask_for_more(user: User, issued_via: str) -> None:
    pair = issue_tokens(user, issued_via=issued_via, refresh=False)
    expected = issued_via == "authorization_code"
    assert authenticate(pair.access).can_step_up is expected


def test_a_refresh_token_is_no_access_token(user: User) -> None:
    pair = issue_tokens(user, issued_via="command")
    error = refusal(pair.refresh)
    assert error.reason == "wrong_token_type"
    assert pair.refresh_row is not None
    assert error.claims["jti"] == pair.refresh_row.jti


@pytest.mark.parametrize("raw", ["", "a.b.c", "text"])
def test_other_text_is_refused(db: None, raw: str) -> None:
    error = refusal(raw)
    assert error.reason == "malformed" and error.claims == {}


def resigned(user: User, pair: TokenPair, **changed: Any) -> str:
    """The token's claims, changed and signed again."""
    return jwts.sign({**claims_of(pair.row, user), **changed})[0]


OURS = "https://h.example/mcp"


@pytest.mark.parametrize(
    ("audience", "ours"),
    [
        (OURS, True),
        (f"{OURS}/", True),
        ([OURS], True),
        (["x", f"{OURS}/"], True),
        ("https://h.example", False),
        (f"{OURS}x", False),
        (f"{OURS}X", False),
        (f"{OURS}/X/", False),
        (["x"], False),
        ([], False),
        ([1], False),
        (None, False),
        ({"aud": OURS}, False),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_audience_is_this_endpoint(
    settings: Any, user: User, audience: Any, ours: bool, slash: str
) -> None:
    settings.RESOURCE_URL = OURS + slash
    pair = token(user)
    raw = resigned(user, pair, aud=audience)
    if ours:
        assert authenticate(raw).username == "u"
    else:
        error = refusal(raw)
        assert error.reason == "wrong_audience"
        assert error.claims["jti"] == pair.row.jti


def test_only_slashes_at_the_end_of_an_audience_do_not_count(
    settings: Any, user: User
) -> None:
    settings.RESOURCE_URL = "https://h.example/X/"
    pair = token(user)
    assert authenticate(pair.access).username == "u"
    assert refusal(resigned(user, pair, aud="https://h.example")).reason == (
        "wrong_audience"
    )


@pytest.mark.parametrize(
    "subject", ["0", "01", "+1", "-1", "true", "1.0", "", " 1", "1\n", "²", "1" * 20]
)
def test_a_subject_is_a_primary_key(user: User, subject: str) -> None:
    error = refusal(resigned(user, token(user), sub=subject))
    assert error.reason == "unknown_subject" and error.claims["sub"] == subject


def test_a_subject_has_up_to_nineteen_digits(user: User) -> None:
    raw = resigned(user, token(user), sub="9" * 19)
    assert verify_access(raw)["sub"] == "9" * 19
    assert refusal(raw).reason == "unknown_token_or_user"


def test_a_token_is_listed_under_its_own_account(user: User) -> None:
    other, pair = account("other", "Admin"), token(user)
    error = refusal(resigned(user, pair, sub=str(other.pk)))
    assert error.reason == "unknown_token_or_user"
    assert error.claims["jti"] == pair.row.jti
    assert refusal(resigned(user, pair, jti="x")).reason == "unknown_token_or_user"
    set_token(pair, user=None)
    assert refusal(pair.access).reason == "unknown_token_or_user"


def revoke(pair: TokenPair) -> None:
    IssuedToken.objects.filter(pk=pair.row.pk).revoke(actor=None, reason="test")


def close(pair: TokenPair) -> None:
    User.objects.filter(pk=pair.row.user_id).update(is_active=False)


def expire(pair: TokenPair) -> None:
    set_token(pair, expires_at=timezone.now())


def delete_client(pair: TokenPair) -> None:
    """Without the revocation of a deletion."""
    clients = OAuthClient.objects.filter(client_id="c")
    clients._raw_delete(clients.db)


def block(pair: TokenPair) -> None:
    """Without the revocation of the admin's action."""
    set_client("c", blocked=True)


def rest(pair: TokenPair) -> None:
    set_client("c", max_idle=60)
    set_token(pair, issued_at=timezone.now() - 2 * MINUTE)


REFUSALS = {
    "revoked": revoke,
    "inactive_user": close,
    "expired": expire,
    "unknown_client": delete_client,
    "blocked_client": block,
    "idle": rest,
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_each_end_of_access_refuses_the_next_message(user: User, reason: str) -> None:
    pair, other = token(user, "c"), token(account("other"), "d")
    assert authenticate(pair.access)
    REFUSALS[reason](pair)
    error = refusal(pair.access)
    assert error.reason == reason
    assert error.claims["sub"] == str(user.pk)
    assert authenticate(other.access).username == "other"


def test_a_blocked_client_called_like_ours_is_not_needed(user: User) -> None:
    """A client that is not blocked has a row; ours has none."""
    pair = token(user)
    public_client("portico")
    set_client("portico", blocked=True)
    assert refusal(pair.access).reason == "blocked_client"


def test_the_end_of_the_row_counts_at_its_second(
    monkeypatch: pytest.MonkeyPatch, user: User
) -> None:
    pair, now = token(user), whole_second()
    set_token(pair, expires_at=now + SECOND)
    stop_clock(monkeypatch, now)
    assert authenticate(pair.access).valid_until == (now + SECOND).timestamp()
    stop_clock(monkeypatch, now + SECOND)
    assert refusal(pair.access).reason == "expired"


def end_role(pair: TokenPair, at: datetime) -> None:
    user, guest = User.objects.get(username="u"), Role.objects.get(name="Guest")
    RoleAssignment.objects.grant(user, guest, expires_at=at)


def end_row(pair: TokenPair, at: datetime) -> None:
    set_token(pair, expires_at=at)


def end_idle(pair: TokenPair, at: datetime) -> None:
    set_client("c", max_idle=300)
    set_token(pair, last_used_at=at - 300 * SECOND)


def end_unused(pair: TokenPair, at: datetime) -> None:
    set_client("c", max_idle=300)
    set_token(pair, issued_at=at - 300 * SECOND)


ENDS: dict[Callable[[TokenPair, datetime], None], str | None] = {
    end_role: None,
    end_row: "expired",
    end_idle: "idle",
    end_unused: "idle",
}
"""What may end at a moment -> why the token is refused then."""


@pytest.mark.parametrize("end", ENDS)
def test_a_principal_is_read_again_after_the_first_end(
    monkeypatch: pytest.MonkeyPatch,
    user: User,
    end: Callable[[TokenPair, datetime], None],
) -> None:
    pair, now = token(user, "c"), whole_second()
    stop_clock(monkeypatch, now)
    end(pair, now + SECOND)
    assert authenticate(pair.access).valid_until == (now + SECOND).timestamp()
    stop_clock(monkeypatch, now + SECOND)
    if ENDS[end] is None:
        assert authenticate(pair.access).roles == ("User",)
    else:
        assert refusal(pair.access).reason == ENDS[end]


def test_the_claims_may_end_before_the_row(user: User) -> None:
    pair, soon = token(user), int(time.time()) + 5
    who = authenticate(resigned(user, pair, exp=soon))
    assert who.expires_at == soon and who.valid_until == soon


def test_use_postpones_the_idle_end(user: User, settings: Any) -> None:
    settings.TOKEN_MAX_IDLE = 300
    pair, now = token(user), whole_second()
    set_token(pair, issued_at=now - HOUR, last_used_at=now - MINUTE)
    assert authenticate(pair.access).valid_until == (now + 4 * MINUTE).timestamp()
    set_token(pair, issued_at=now, last_used_at=now - HOUR)
    assert refusal(pair.access).reason == "idle"


@pytest.mark.parametrize(
    ("server", "client", "expected"),
    [
        (0, None, None),
        (0, 0, None),
        (600, None, 600.0),
        (600, 0, 600.0),
        (0, 400, 400.0),
        (600, 400, 400.0),
        (400, 600, 400.0),
    ],
)
def test_the_shorter_idle_limit_counts(
    settings: Any, server: int, client: int | None, expected: float | None
) -> None:
    settings.TOKEN_MAX_IDLE = server
    assert idle_lifetime(client) == expected


def personal(user: User, **options: Any) -> tuple[IssuedToken, str]:
    return issue_personal_token(user, name="n", scope="", lifetime=HOUR, **options)


def test_a_personal_token_gives_its_row(user: User) -> None:
    personal(account("other"))
    row, raw = personal(user)
    claims = verify_access(raw)
    end = int(row.expires_at.timestamp())
    assert claims == {
        **{"jti": row.jti, "client_id": "portico", "scope": "mcp"},
        **{"sub": str(user.pk), "exp": end},
    }
    who = authenticate(raw)
    assert (who.username, who.issued_via, who.expires_at) == ("u", "personal", end)


def test_a_personal_token_ends_at_its_second(
    monkeypatch: pytest.MonkeyPatch, user: User
) -> None:
    row, raw = personal(user)
    stop_clock(monkeypatch, row.expires_at - SECOND)
    assert authenticate(raw)
    stop_clock(monkeypatch, row.expires_at)
    with pytest.raises(Unauthenticated) as refused:
        verify_access(raw)
    assert refused.value.reason == "expired"
    assert refused.value.claims["jti"] == row.jti


def test_a_personal_token_is_found_by_kind_and_hash(user: User) -> None:
    row, raw = personal(user)
    assert refusal(f"{raw}x").reason == "unknown_token_or_user"
    IssuedToken.objects.filter(pk=row.pk).update(kind="refresh")
    assert refusal(raw).reason == "unknown_token_or_user"
    IssuedToken.objects.filter(pk=row.pk).update(
        kind="personal", secret_hash=secret_hash("portico_pat_other")
    )
    assert refusal(raw).reason == "unknown_token_or_user"
    assert authenticate("portico_pat_other").username == "u"


def refused_by_api(raw: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        authenticate_for_api(raw)
    return refused.value.reason


def test_a_token_is_for_mcp_or_for_the_api(user: User) -> None:
    """RFC 8725 3.9: each refuses what was issued for the other."""
    row, raw = personal(user)
    assert authenticate(raw) and refused_by_api(raw) == "wrong_audience"
    with pytest.raises(Unauthenticated) as refused:
        authenticate_for_api(raw)
    assert refused.value.claims["jti"] == row.jti, "the audit names the token"
    IssuedToken.objects.filter(pk=row.pk).update(scope=ADMIN_API)
    assert authenticate_for_api(raw).jti == row.jti
    error = refusal(raw)
    assert (error.reason, error.claims["jti"]) == ("wrong_audience", row.jti)
    assert refused_by_api(token(user).access) == "wrong_audience"
    assert refused_by_api("portico_pat_x") == "unknown_token_or_user"


def test_a_personal_token_of_a_deleted_account_is_unknown(user: User) -> None:
    row, raw = personal(user)
    IssuedToken.objects.filter(pk=row.pk).update(user=None)
    assert refusal(raw).reason == "unknown_token_or_user"


HOME, OFFICE = "192.0.2.0/24", "10.0.0.0/8"


def wrong_network(who: Principal, address: str) -> bool:
    try:
        who.restricted_to(address)
    except Unauthenticated as error:
        assert error.reason == "wrong_network"
        assert error.claims == {
            **{"jti": who.jti, "client_id": who.client_id, "sub": str(who.user_id)}
        }
        return True
    return False


@pytest.mark.parametrize(
    ("of_token", "of_client", "expected"),
    [
        ("", "", ()),
        (HOME, "", ((HOME,),)),
        ("", HOME, ((HOME,),)),
        (f"{HOME} {OFFICE}", OFFICE, ((HOME, OFFICE), (OFFICE,))),
    ],
)
def test_networks_of_token_and_client_both_count(
    user: User, of_token: str, of_client: str, expected: Any
) -> None:
    pair = token(user, "c", networks=of_token)
    set_client("c", networks=of_client)
    who = authenticate(pair.access)
    assert who.networks == expected
    for address in ("192.0.2.7", "10.1.1.1", "203.0.113.1", ""):
        bound = [n for n in (of_token, of_client) if n]
        inside = {"192.0.2.7": HOME, "10.1.1.1": OFFICE}.get(address, "none")
        allowed = all(inside in networks for networks in bound)
        assert wrong_network(who, address) is not allowed


def test_a_role_counts_in_its_networks_only(user: User) -> None:
    office = role_of("Office", "User.Read", "Office.Read", networks=OFFICE)
    RoleAssignment.objects.grant(user, office)
    who = authenticate(token(user).access)
    assert who.role_networks == {"Office": (OFFICE,)}
    assert who.restricted_to("10.1.1.1") is who
    outside = who.restricted_to("192.0.2.7")
    assert outside.roles == ("User",)
    assert outside.grants["User.Read"] == ("User",)
    assert outside.grants.keys() == who.grants.keys() - {"Office.Read"}
    assert outside.role_networks == {}
    assert outside.jti == who.jti and outside.valid_until == who.valid_until
    assert who.grants["Office.Read"] == ("Office",)


def test_one_of_two_limited_roles_remains(user: User) -> None:
    for name, networks in {"Office": OFFICE, "Home": HOME}.items():
        role = role_of(name, f"{name}.Read", networks=networks)
        RoleAssignment.objects.grant(user, role)
    who = authenticate(token(user).access)
    assert set(who.restricted_to("10.1.1.1").roles) == {"User", "Office"}
    assert set(who.restricted_to("192.0.2.7").roles) == {"User", "Home"}
    assert set(who.restricted_to("").roles) == {"User"}


def test_without_limits_every_address_may_come(user: User) -> None:
    who = authenticate(token(user).access)
    assert who.restricted_to("") is who and who.restricted_to("x") is who


def test_a_hypothetical_principal_has_the_roles_of_now(user: User) -> None:
    guest = Role.objects.get(name="Guest")
    RoleAssignment.objects.grant(user, guest, expires_at=timezone.now() + HOUR)
    account("other", "Admin")
    who = hypothetical_principal(user, ["mcp", "User.Read"])
    assert who.user_id == user.pk and who.username == "u"
    assert set(who.roles) == {"User", "Guest"} and "User.Write" in who.grants
    assert who.token_scopes == {"mcp", "User.Read"}
    assert (who.jti, who.client_id, who.expires_at, who.valid_until) == ("", "", 0, 0.0)
    assert who.can_step_up and not who.networks


def test_claims_without_a_row_give_no_principal(user: User) -> None:
    with pytest.raises(Unauthenticated):
        load_principal({"jti": "x", "sub": str(user.pk), "scope": "", "exp": 1})
