"""Linking by mail address: only accounts whose address an administrator set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from allauth.socialaccount.models import SocialAccount

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
from tests.support.html_browser import Browser
from tests.support.mcp_client import HTTP
from tests.support.oauth_client import register_client
from tests.support.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    OidcProvider,
    oidc_provider,
)
from tests.support.server import Portico
from tests.support.users import PASSWORD

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
BOSS = "boss@corp.example"


@pytest.fixture(scope="module")
def corporate() -> Iterator[OidcProvider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture
def provider(rows: None, corporate: OidcProvider) -> Iterator[SignInProvider]:
    """Links by address, makes accounts, and gives Admin to the group admins."""
    before = set(User.objects.values_list("pk", flat=True))
    corporate.honest()
    SignInProvider.objects.all().delete()
    row = provider_row(corporate, "corp", link_by_email=True)
    admin = Role.objects.get(name="Admin")
    ClaimRule.objects.create(provider=row, claim="groups", value="admins", role=admin)
    yield row
    SignInProvider.objects.all().delete()
    SocialAccount.objects.all().delete()
    User.objects.exclude(pk__in=before).delete()


def provider_row(corporate: OidcProvider, slug: str, **options: Any) -> SignInProvider:
    """A row for the provider, open for sign-up."""
    row = SignInProvider(
        slug=slug,
        name=slug,
        issuer=corporate.url,
        client_id=CLIENT_ID,
        **{"sign_up": True, **options},
    )
    row.set_secret(CLIENT_SECRET)
    row.save()
    return row


def sign_in_with(
    server: Portico, corporate: OidcProvider, slug: str = "corp", **claims: Any
) -> Browser:
    """Press a provider's button as the boss, or with other claims."""
    corporate.person = {
        "sub": "b-1",
        "preferred_username": "boss",
        "email": BOSS,
        "email_verified": True,
        "groups": ["admins"],
        **claims,
    }
    browser = Browser(server.url)
    browser.open("/accounts/login/?next=/portal/security/")
    form = next(f for f in browser.forms if f"/oidc/{slug}/" in f.action)
    return browser.submit(form)


def is_signed_in(browser: Browser) -> bool:
    """Whether the user is signed in."""
    return str(browser.page.url).endswith("/portal/security/")


def local_account(name: str, address: str = BOSS, **columns: Any) -> User:
    """A new account made by an administrator."""
    User.objects.filter(username=name).delete()
    user: User = User.objects.create_user(name, address, PASSWORD, **columns)
    return user


def provider_admins() -> set[str]:
    """Users with Admin from the provider."""
    assignments = RoleAssignment.objects.filter(reason="from provider corp").unexpired()
    return set(assignments.values_list("user__username", flat=True))


def test_an_address_added_by_another_user_links_nothing(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """The victim gets a new account; the attacker's rights and tokens are unchanged."""
    mallory = local_account("mallory", "mallory@corp.example")
    token = server.token("mallory")
    EmailAddress.objects.create(user=mallory, email=BOSS, verified=True, primary=True)
    with sign_in_with(server, corporate) as boss:
        assert is_signed_in(boss), boss.page.text
    assert provider_admins() == {"boss"}
    assert not SocialAccount.objects.filter(user=mallory).exists()
    assert IssuedToken.objects.filter(user=mallory).live().exists() and token
    chief = local_account("chief", "Chief@Corp.example")
    EmailAddress.objects.create(user=mallory, email="chief@corp.example")
    SignInProvider.objects.update(sign_up=False)
    with sign_in_with(
        server, corporate, sub="c-1", email="chief@corp.example"
    ) as browser:
        assert is_signed_in(browser), browser.page.text
    assert provider_admins() == {"boss", "chief"}
    chief.refresh_from_db()
    assert chief.email == "chief@corp.example"


def test_an_address_verified_by_another_provider_links_nothing(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """An attacker has the victim's address at another provider; accounts stay apart."""
    provider_row(corporate, "guests")
    with sign_in_with(
        server, corporate, "guests", sub="e-1", preferred_username="eve"
    ) as eve:
        assert is_signed_in(eve)
        with sign_in_with(server, corporate) as boss:
            assert is_signed_in(boss)
        assert provider_admins() == {"boss"}
        assert not User.objects.get(username="eve").email_set_by_admin
        carol = Browser(server.url).sign_in("carol")
        page = f"/admin/accounts/user/{User.objects.get(username='eve').pk}/change/"
        carol.save(page, email="Eve@Corp.Example")
        saved = User.objects.get(username="eve")
        assert saved.email == "eve@corp.example" and saved.email_set_by_admin
        carol.http.close()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([{}, {"email": "BOSS@corp.example"}], "Several accounts"),
        ([{"is_active": False}], "is deactivated"),
        ([{"is_staff": True}], "administers Portico"),
        ([{"is_superuser": True}], "administers Portico"),
        ([{"is_service_account": True}], "is a service account"),
    ],
)
def test_a_refused_link_gets_a_page_and_no_account(
    server: Portico,
    corporate: OidcProvider,
    provider: SignInProvider,
    columns: list[dict[str, Any]],
    words: str,
) -> None:
    """403, audited; every account is unchanged."""
    for n, values in enumerate(columns):
        about = dict(values)
        local_account(f"local{n}", about.pop("email", BOSS), **about)
    people = User.objects.count()
    with sign_in_with(server, corporate) as boss:
        assert boss.page.status_code == 403 and words in boss.page.text
        assert "Sign in" in boss.open("/portal/security/").page.text
    assert not provider_admins() and User.objects.count() == people
    assert not SocialAccount.objects.exists()
    denied = AuditEvent.objects.filter(action="user.sign_in_failed", object="corp")
    assert denied.exists()


def test_a_deactivated_account_does_not_prevent_linking(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """Only one active account can be linked."""
    local_account("before", is_active=False)
    local_account("now")
    with sign_in_with(server, corporate) as boss:
        assert is_signed_in(boss)
    assert provider_admins() == {"now"}


def test_the_first_link_ends_earlier_access(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """Tokens, sessions, password, factors, consents, identities; audited."""
    user = local_account("erin")
    token = server.token("erin")
    client = OAuthClient.objects.get(client_id=register_client(server)["client_id"])
    with Browser(server.url) as before:
        before.open("/accounts/login/?next=/portal/security/")
        before.submit(before.form("password"), login="erin", password=PASSWORD)
        assert is_signed_in(before)
        Consent.objects.create(user=user, client=client, scope="mcp")
        TOTP.activate(user, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
        RecoveryCodes.activate(user)
        Authenticator.objects.create(user=user, type="webauthn", data={})
        SocialAccount.objects.create(user=user, provider="guests", uid="attacker")
        with sign_in_with(server, corporate) as boss:
            assert is_signed_in(boss), boss.page.text
        assert "Sign in" in before.open("/portal/security/").page.text
    user.refresh_from_db()
    assert not user.has_usable_password()
    assert not IssuedToken.objects.filter(user=user).live().exists()
    assert HTTP.post(
        server.mcp_url, headers={"authorization": f"Bearer {token}"}, json={}
    ).status_code in (400, 401)
    assert not Authenticator.objects.filter(user=user).exists()
    assert not Consent.objects.filter(user=user).exists()
    linked = SocialAccount.objects.filter(user=user).values_list("provider", "uid")
    assert list(linked) == [("corp", "b-1")] and provider_admins() == {"erin"}
    event = AuditEvent.objects.get(action="user.linked", object="erin")
    assert event.reason == "at provider corp"
    server.token("erin")
    with sign_in_with(server, corporate) as again:
        assert is_signed_in(again)
    assert IssuedToken.objects.filter(user=user).live().exists()


def test_another_identity_with_the_same_address_does_not_get_the_account(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """OIDC Core 5.7: addresses are reassigned; an administrator unlinks."""
    user = local_account("erin")
    with sign_in_with(server, corporate) as boss:
        assert is_signed_in(boss)
    with sign_in_with(server, corporate, sub="b-2") as successor:
        assert "linked to another identity" in successor.page.text
    with Browser(server.url) as carol:
        carol.sign_in("carol")
        row = SocialAccount.objects.get(user=user)
        carol.act("/admin/socialaccount/socialaccount/", "unlink", row.pk)
        assert "1 identity unlinked" in carol.page.text
    assert not provider_admins()
    with sign_in_with(server, corporate, sub="b-2") as successor:
        assert is_signed_in(successor)
    assert provider_admins() == {"erin"}


@pytest.mark.spec("OIDC Core 5.7")
def test_a_recreated_provider_has_other_users(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """The same short name and `sub` at another issuer give no access."""
    with sign_in_with(server, corporate) as boss:
        assert is_signed_in(boss)
    with oidc_provider() as other:
        SignInProvider.objects.all().delete()
        provider_row(other, "corp", link_by_email=True)
        for verified in (True, False):
            with sign_in_with(server, other, email_verified=verified) as stranger:
                assert "did not confirm who you are" in stranger.page.text


@pytest.mark.spec("OIDC Core 5.3.2")
def test_contradicting_documents_sign_no_user_in(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """Another `sub` in UserInfo or none, no signature, another issuer's discovery."""
    for userinfo in ({"sub": "somebody-else"}, {"sub": None}):
        corporate.userinfo = userinfo
        with sign_in_with(server, corporate) as boss:
            assert "did not confirm who you are" in boss.page.text
    corporate.honest()
    corporate.unsigned = True
    with sign_in_with(server, corporate) as boss:
        assert "did not confirm who you are" in boss.page.text
    corporate.honest()
    corporate.calls_itself = "https://elsewhere.example"
    with sign_in_with(server, corporate) as boss:
        assert "did not confirm who you are" in boss.page.text
    assert not User.objects.filter(username="boss").exists()


@pytest.mark.parametrize(
    "claims",
    [
        {"email_verified": False},
        {"email_verified": "false"},
        {"email_verified": "true"},
        {"email_verified": 1},
        {"email_verified": None},
        {"email": [BOSS]},
        {"email": {"address": BOSS}},
        {"email": f"{BOSS}, other@corp.example"},
        {"email": "bo\u017f\u017f@corp.example"},
        {"email": "boss@corp.example\n"},
    ],
    ids=str,
)
def test_only_a_verified_address_links_or_is_stored(
    server: Portico,
    corporate: OidcProvider,
    provider: SignInProvider,
    claims: dict[str, Any],
) -> None:
    """JSON true and exactly one address; otherwise a new account without one."""
    user = local_account("erin")
    with sign_in_with(server, corporate, **claims) as boss:
        assert is_signed_in(boss), boss.page.text
    assert provider_admins() == {"boss"}
    assert User.objects.get(username="boss").email != BOSS
    assert not SocialAccount.objects.filter(user=user).exists()


@pytest.mark.parametrize(
    "wanted", ["carol", "CAROL", "c\u0430rol", "\uff43arol", "ca\u200brol", ["carol"]]
)
def test_signing_up_with_a_taken_name_makes_another(
    server: Portico, corporate: OidcProvider, provider: SignInProvider, wanted: Any
) -> None:
    """Includes look-alikes: full width, another alphabet, invisible letters."""
    before = set(User.objects.values_list("username", flat=True))
    with sign_in_with(
        server, corporate, preferred_username=wanted, email=None
    ) as browser:
        assert is_signed_in(browser), browser.page.text
    (username,) = set(User.objects.values_list("username", flat=True)) - before
    assert username.isascii() and username.casefold() != "carol"


def test_no_page_lets_users_choose_an_address(server: Portico) -> None:
    paths = [
        "/accounts/email/",
        "/accounts/signup/",
        "/accounts/confirm-email/",
        "/accounts/confirm-email/key/",
        "/accounts/login/code/confirm/",
        "/accounts/social/signup/",
        "/accounts/3rdparty/",
    ]
    with Browser(server.url) as alice:
        assert {alice.http.get(path).status_code for path in paths} == {404}
        alice.open("/accounts/login/?next=/portal/security/")
        alice.submit(alice.form("password"), login="alice", password=PASSWORD)
        assert {alice.http.get(path).status_code for path in paths} == {404}
        assert "/portal/security/" in str(alice.open("/accounts/").page.url)


def test_a_signed_in_user_connects_one_identity(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """The password is asked again; a second identity is refused; audited."""
    user = local_account("erin", "")
    with Browser(server.url) as erin:
        erin.open("/accounts/login/?next=/portal/security/")
        erin.submit(erin.form("password"), login="erin", password=PASSWORD)
        assert "/accounts/social/" in erin.page.text
        connect_identity(erin, corporate, "b-1")
        assert "reauthenticate" in str(erin.page.url)
        assert not SocialAccount.objects.exists()
        erin.submit(erin.form("password"), password=PASSWORD)
        assert SocialAccount.objects.get().user == user
        connect_identity(erin, corporate, "b-2")
        assert "linked to another identity" in erin.page.text
        assert AuditEvent.objects.filter(action="user.linked", object="erin").exists()
        with sign_in_with(server, corporate, email="other@corp.example") as again:
            assert is_signed_in(again) and provider_admins() == {"erin"}
        erin.open("/accounts/social/")
        form = next(f for f in erin.forms if f.action == "/accounts/social/")
        erin.submit(form, account=str(SocialAccount.objects.get().pk))
        assert not SocialAccount.objects.exists() and not provider_admins()
    assert AuditEvent.objects.filter(action="user.unlinked", object="erin").exists()


def connect_identity(browser: Browser, corporate: OidcProvider, sub: str) -> None:
    """Press a provider's button on the page of linked identities."""
    corporate.person = {"sub": sub, "groups": ["admins"]}
    browser.open("/accounts/oidc/corp/login/?process=connect")
    form = next(f for f in browser.forms if f.method == "post" and not f.action)
    browser.submit(form)
