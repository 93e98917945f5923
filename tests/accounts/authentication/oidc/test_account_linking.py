"""Linking by address: only a verified address, to one account, where switched on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.test import RequestFactory

from accounts.authentication.oidc import account_linking
from accounts.authentication.oidc.account_linking import (
    LinkRefused,
    account_for,
    has_same_verified_address,
    link,
    refuse_second_identity,
    unlink,
    verified_address,
)
from accounts.models import (
    AuditEvent,
    ClaimRule,
    Consent,
    IssuedToken,
    OAuthClient,
    Role,
    RoleAssignment,
    SignInProvider,
    User,
)
from accounts.tokens.issue import issue_personal_token
from tests.support.model_rows import record_locks
from tests.support.users import account, browser_of

BOSS = "boss@corp.example"
CLAIMS = {"email": BOSS, "email_verified": True}
VERIFIED = {"userinfo": CLAIMS, "id_token": {}}


@pytest.fixture
def corp(db: None) -> SignInProvider:
    """A provider that links by address."""
    return provider("corp")


def provider(slug: str, **columns: Any) -> SignInProvider:
    given = {"link_by_email": True, **columns}
    return SignInProvider.objects.create(slug=slug, name=slug.title(), **given)


def identity(slug: str = "corp", uid: str = "b-1", **claims: Any) -> SocialAccount:
    documents = {"userinfo": {**CLAIMS, **claims}, "id_token": {}}
    return SocialAccount(provider=slug, uid=uid, extra_data=documents)


@pytest.mark.parametrize(
    ("documents", "address"),
    [
        (VERIFIED, BOSS),
        ({"id_token": CLAIMS}, BOSS),
        ({"userinfo": None, "id_token": CLAIMS}, BOSS),
        ({"userinfo": {"sub": "1"}, "id_token": CLAIMS}, BOSS),
        ({"userinfo": {"email": "Boss@Corp.Example", "email_verified": True}}, BOSS),
        ({"userinfo": {"email": "x@evil.example"}, "id_token": CLAIMS}, ""),
        ({"userinfo": {"email": None}, "id_token": CLAIMS}, ""),
        ({"userinfo": {"email_verified": True}, "id_token": {"email": BOSS}}, ""),
        ({"userinfo": {**CLAIMS, "email_verified": "true"}}, ""),
        ({"userinfo": {**CLAIMS, "email_verified": 1}}, ""),
        ({"userinfo": {**CLAIMS, "email_verified": False}}, ""),
        ({"userinfo": {"email": BOSS}}, ""),
        ({"userinfo": {**CLAIMS, "email": [BOSS]}}, ""),
        ({"userinfo": {**CLAIMS, "email": ["@"]}}, ""),
        ({"userinfo": {**CLAIMS, "email": "no address"}}, ""),
        ({"userinfo": {**CLAIMS, "email": f"{BOSS}\n"}}, ""),
        ({}, ""),
    ],
)
def test_an_address_counts_if_its_own_document_verifies_it(
    documents: dict[str, Any], address: str
) -> None:
    """OIDC Core 5.1: email and email_verified of one document."""
    assert verified_address(documents) == address


@pytest.mark.parametrize(
    ("linking", "verified", "linked"),
    [(True, True, True), (False, True, False), (True, False, False)],
)
def test_an_address_links_where_switched_on_and_verified(
    db: None, linking: bool, verified: bool, linked: bool
) -> None:
    user = account("erin", email=BOSS)
    row = provider("corp", link_by_email=linking)
    found = identity(email_verified=verified)
    assert account_for(row, found.extra_data) == (user if linked else None)
    request = RequestFactory().get("/")
    assert link(request, row, found) == linked
    assert SocialAccount.objects.filter(user=user).exists() == linked
    assert AuditEvent.objects.filter(action="user.linked").exists() == linked


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ([], None),
        ([{"email_set_by_admin": False}], None),
        ([{"email": "other@corp.example"}], None),
        ([{}, {}], "several_accounts"),
        ([{"is_active": False}], "account_closed"),
        ([{"is_active": False}, {"is_active": False}], "account_closed"),
        ([{"is_staff": True}], "staff"),
        ([{"is_superuser": True}], "staff"),
        ([{"is_service_account": True}], "service_account"),
    ],
)
def test_accounts_that_an_address_does_not_link(
    corp: SignInProvider, columns: list[dict[str, Any]], reason: str | None
) -> None:
    for number, values in enumerate(columns):
        account(f"local{number}", **{"email": BOSS, **values})
    if reason is None:
        assert account_for(corp, VERIFIED) is None
    else:
        with pytest.raises(LinkRefused) as refused:
            account_for(corp, VERIFIED)
        assert refused.value.reason == reason and str(refused.value)
    before = list(User.objects.values())
    try:
        assert not link(RequestFactory().get("/"), corp, identity())
    except LinkRefused as refused_link:
        assert refused_link.reason == reason
    assert list(User.objects.values()) == before
    assert not SocialAccount.objects.exists()


def test_an_account_without_an_address_is_not_linked(corp: SignInProvider) -> None:
    """By an identity without a verified one."""
    account("erin", email="")
    assert account_for(corp, {"userinfo": {}, "id_token": {}}) is None


def test_the_text_of_a_refusal_is_for_the_user() -> None:
    refused = LinkRefused("staff", "Sign in with your password.")
    assert str(refused) == "Sign in with your password."


def test_an_active_account_is_found_beside_a_closed_one(corp: SignInProvider) -> None:
    account("before", email=BOSS, is_active=False)
    now = account("now", email=BOSS)
    assert account_for(corp, VERIFIED) == now


def test_a_second_identity_of_the_provider_is_refused(corp: SignInProvider) -> None:
    """An identity elsewhere, or of another account, does not matter."""
    user, other = account("erin", email=BOSS), account("other")
    SocialAccount.objects.create(user=user, provider="guests", uid="1")
    SocialAccount.objects.create(user=other, provider="corp", uid="2")
    refuse_second_identity(corp, user)
    SocialAccount.objects.create(user=user, provider="corp", uid="3")
    refusals: list[Callable[[], Any]] = [
        lambda: refuse_second_identity(corp, user),
        lambda: account_for(corp, VERIFIED),
    ]
    for refuse in refusals:
        with pytest.raises(LinkRefused, match="identity at Corp") as refused:
            refuse()
        assert refused.value.reason == "other_identity"


def test_an_account_that_became_staff_meanwhile_is_refused(
    corp: SignInProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The locked row is compared again."""
    user = account("erin", email=BOSS)
    stale = User.objects.get(pk=user.pk)
    User.objects.filter(pk=user.pk).update(is_staff=True)
    monkeypatch.setattr(account_linking, "account_for", lambda *about: stale)
    with pytest.raises(LinkRefused):
        link(RequestFactory().get("/"), corp, identity())
    assert not SocialAccount.objects.exists()


def test_the_account_is_locked_while_it_is_linked(
    corp: SignInProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite ignores row locks, so no other test notices one that is missing."""
    account("erin", email=BOSS)
    locked, compared = record_locks(monkeypatch), list[list[str]]()
    monkeypatch.setattr(
        account_linking,
        "refuse_unlinkable",
        lambda row, user: compared.append(list(locked)),
    )
    assert link(RequestFactory().get("/"), corp, identity())
    assert compared == [[], ["User"]], "compared again while it is locked"


def test_a_link_that_is_not_recorded_changes_nothing(
    corp: SignInProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account keeps its password, and the identity gets no account."""
    erin = account("erin", email=BOSS)
    User.objects.update(password="md5$salt$hash")

    def fails(*args: Any, **about: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(account_linking, "record", fails)
    with pytest.raises(OSError):
        link(RequestFactory().get("/"), corp, identity())
    assert User.objects.get(pk=erin.pk).has_usable_password()
    assert not SocialAccount.objects.exists()


def with_access(user: User) -> Any:
    """A token, a consent, a session, factors and an identity elsewhere."""
    day = timedelta(days=1)
    issue_personal_token(user, name="x", scope="mcp", lifetime=day)
    client = OAuthClient.objects.create(client_id=f"of-{user}", client_type="public")
    Consent.objects.create(user=user, client=client, scope="mcp")
    for kind in ("totp", "recovery_codes"):
        Authenticator.objects.create(user=user, type=kind, data={})
    SocialAccount.objects.create(user=user, provider="guests", uid=f"of-{user}")
    return browser_of(user)


def access_of(user: User, browser: Any) -> dict[str, bool]:
    user.refresh_from_db()
    return {
        "token": IssuedToken.objects.filter(user=user).live().exists(),
        "consent": Consent.objects.filter(user=user).exists(),
        "session": browser.get("/portal/connect/status").status_code == 200,
        "factor": Authenticator.objects.filter(user=user).exists(),
        "elsewhere": SocialAccount.objects.filter(
            provider="guests", user=user
        ).exists(),
        "password": user.has_usable_password(),
    }


def test_the_first_link_ends_what_the_account_had(corp: SignInProvider) -> None:
    """An attacker may have prepared it; other accounts keep everything."""
    erin, other = account("erin", email=BOSS), account("other")
    User.objects.update(password="md5$salt$hash")
    for user in (erin, other):
        user.refresh_from_db()
    browsers = {user: with_access(user) for user in (erin, other)}
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7")
    assert set(access_of(erin, browsers[erin]).values()) == {True}
    found = identity()
    assert link(request, corp, found)
    assert set(access_of(erin, browsers[erin]).values()) == {False}
    erin.refresh_from_db()
    assert found.user.session_epoch == erin.session_epoch, "or the sign-in would end"
    assert set(access_of(other, browsers[other]).values()) == {True}
    assert SocialAccount.objects.get(provider="corp").user == erin
    event = AuditEvent.objects.get(action="user.linked")
    assert (event.actor, event.object, event.address) == ("erin", "erin", "192.0.2.7")
    assert event.reason == "at provider corp"
    revoked = AuditEvent.objects.filter(action="token.revoked")
    assert {e.reason for e in revoked} == {"password changed"}


@pytest.mark.parametrize(
    ("columns", "address", "same"),
    [
        ({}, BOSS, True),
        ({}, "other@corp.example", False),
        ({"enabled": False}, BOSS, False),
        ({"link_by_email": False}, BOSS, False),
    ],
)
def test_an_identity_of_a_linking_provider_stays(
    corp: SignInProvider, columns: dict[str, Any], address: str, same: bool
) -> None:
    """If it verified the same address."""
    provider("second", **columns)
    user = account("erin", email=address)
    other = identity("second", "s-1")
    other.user = user
    other.save()
    assert has_same_verified_address(other, user.email) == same
    account_linking.revoke_previous_access(user, corp)
    assert SocialAccount.objects.filter(pk=other.pk).exists() == same


def test_an_unlinked_identity_takes_its_roles_along(corp: SignInProvider) -> None:
    """Roles of other origins and of other users stay."""
    user, other = account("erin", "User"), account("other")
    guest = Role.objects.get(name="Guest")
    ClaimRule.objects.create(provider=corp, claim="groups", value="g", role=guest)
    for one in (user, other):
        RoleAssignment.objects.grant(one, guest, reason=corp.reason)
    found = identity()
    found.user = user
    unlink(RequestFactory().get("/", REMOTE_ADDR="192.0.2.7"), found, "carol")
    held = RoleAssignment.objects.unexpired().values_list(
        "user__username", "role__name"
    )
    assert set(held) == {("erin", "User"), ("other", "Guest")}
    event = AuditEvent.objects.get(action="user.unlinked")
    assert (event.actor, event.object, event.reason) == (
        "carol",
        "erin",
        "at provider corp",
    )
    assert event.address == "192.0.2.7"
