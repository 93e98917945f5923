"""Sign-in at an OpenID provider: roles by claims, sign-up only where enabled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission

from accounts.models import (
    AuditEvent,
    ClaimRule,
    Role,
    RoleAssignment,
    SignInProvider,
    User,
)
from tests.support.html_browser import Browser
from tests.support.oauth_client import authorize_url, register_client
from tests.support.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    OidcProvider,
    oidc_provider,
)
from tests.support.server import Portico
from tests.support.users import PASSWORD

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


@pytest.fixture(scope="module")
def corporate() -> Iterator[OidcProvider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture
def provider(rows: None, corporate: OidcProvider) -> Iterator[SignInProvider]:
    """Its row, open for sign-up, with a rule for each shape of claim."""
    SignInProvider.objects.all().delete()
    User.objects.filter(username__startswith="erin").delete()
    corporate.broken = False
    row = SignInProvider(
        slug="corp",
        name="Corporate",
        issuer=corporate.url,
        client_id=CLIENT_ID,
        sign_up=True,
    )
    row.set_secret(CLIENT_SECRET)
    row.save()
    user, guest = Role.objects.get(name="User"), Role.objects.get(name="Guest")
    ClaimRule.objects.create(provider=row, claim="groups", value="staff", role=user)
    ClaimRule.objects.create(
        provider=row, claim="realm_access.roles", value="visitor", role=guest
    )
    yield row
    row.delete()
    User.objects.filter(username__startswith="erin").delete()


def sign_in_with(server: Portico, corporate: OidcProvider, **claims: Any) -> Browser:
    """Press the button as a user with these claims."""
    corporate.person = {"sub": "e-1", "preferred_username": "erin", **claims}
    browser = Browser(server.url)
    browser.open("/accounts/login/?next=/portal/")
    form = next(f for f in browser.forms if "/oidc/" in f.action)
    return browser.submit(form)


def roles() -> set[str]:
    assignments = RoleAssignment.objects.filter(user__username="erin").unexpired()
    return set(assignments.values_list("role__name", flat=True))


@pytest.mark.spec("OIDC Core 3.1")
def test_claims_grant_and_revoke_roles(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """At each sign-in, audited, with an end; other grants stay."""
    with sign_in_with(server, corporate, groups=["staff", "other"]) as erin:
        assert erin.page.status_code == 200 and "/portal/" in str(erin.page.url)
    assert roles() == {"User"}
    assignment = RoleAssignment.objects.get(user__username="erin")
    assert (
        assignment.reason == "from provider corp" and assignment.expires_at is not None
    )
    with sign_in_with(server, corporate, realm_access={"roles": ["visitor"]}):
        assert roles() == {"Guest"}
    erin_row = User.objects.get(username="erin")
    assert not erin_row.has_usable_password()
    RoleAssignment.objects.grant(erin_row, Role.objects.get(name="User"), reason="hand")
    with sign_in_with(
        server, corporate, groups="nothing", realm_access={"roles": [None]}
    ):
        assert roles() == {"User"}
    events = AuditEvent.objects.filter(
        reason="from provider corp", object__startswith="erin "
    )
    assert {e.action for e in events} == {"role.granted", "role.withdrawn"}


def test_sign_up_needs_to_be_enabled(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """A disabled provider creates no account either."""
    SignInProvider.objects.update(sign_up=False)
    with sign_in_with(server, corporate, groups=["staff"]) as erin:
        assert "do not have an account yet" in erin.page.text
    assert not User.objects.filter(username="erin").exists()
    SignInProvider.objects.update(enabled=False)
    with Browser(server.url) as browser:
        browser.open("/accounts/login/")
        assert "Corporate" not in browser.page.text
        assert browser.open("/accounts/oidc/corp/login/").page.status_code == 404


def test_a_verified_address_links_where_enabled(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """A claimed address gives no access."""
    User.objects.create_user("erin.e", "erin@example.com", PASSWORD)
    about = {"email": "erin@example.com", "groups": ["staff"]}
    SignInProvider.objects.update(sign_up=False, link_by_email=True)
    with sign_in_with(server, corporate, **about, email_verified=False) as erin:
        assert "/portal/" not in str(erin.page.url)
    assert not RoleAssignment.objects.filter(user__username="erin.e").exists()
    with sign_in_with(server, corporate, **about, email_verified=True) as erin:
        assert "/portal/" in str(erin.page.url), erin.page.text
    assert RoleAssignment.objects.filter(user__username="erin.e").count() == 1


def test_a_failing_provider_gets_a_page(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """A wrong secret, a forged response, an outage: an error page without a trace."""
    provider.set_secret("something else")
    provider.save()
    with sign_in_with(server, corporate) as erin:
        assert "did not confirm who you are" in erin.page.text
        erin.open("/accounts/oidc/corp/login/callback/?code=x&state=forged")
        assert "did not confirm who you are" in erin.page.text
    corporate.broken = True
    with sign_in_with(server, corporate) as erin:
        assert erin.page.status_code == 503 and erin.page.headers["retry-after"]
        assert "did not confirm who you are" in erin.page.text
    assert AuditEvent.objects.filter(reason="oidc").exists()


def test_allowing_a_client_works_through_a_provider(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """The authorization request is kept while the user is at the provider."""
    corporate.person = {"sub": "e-1", "preferred_username": "erin", "groups": ["staff"]}
    client_id = register_client(server)["client_id"]
    with Browser(server.url) as browser:
        browser.open(authorize_url(server, client_id)[0].removeprefix(server.url))
        # Chromium would stop at the provider's redirects to hosts that are not listed.
        assert "form-action" not in browser.page.headers["content-security-policy"]
        form = next(f for f in browser.forms if "/oidc/" in f.action)
        browser.submit(form)
        assert "asks for access" in browser.page.text


def test_a_provider_is_set_up_in_the_admin(
    server: Portico, corporate: OidcProvider, provider: SignInProvider
) -> None:
    """Only superusers; the secret is encrypted and never shown."""
    page = f"/admin/accounts/signinprovider/{provider.pk}/change/"
    with Browser(server.url) as carol:
        carol.sign_in("carol")
        carol.save(page, client_secret="brand new secret", name="Company")
        carol.open(page)
        assert (
            "brand new secret" not in carol.page.text and "Company" in carol.page.text
        )
    provider.refresh_from_db()
    assert provider.secret == "brand new secret"
    assert "brand new" not in provider.secret_encrypted
    event = AuditEvent.objects.filter(action="provider.changed").first()
    assert event is not None and "brand new" not in str(event.changes)
    bob = User.objects.get(username="bob")
    bob.is_staff = True
    bob.save()
    bob.user_permissions.set(
        Permission.objects.filter(content_type__app_label="accounts")
    )
    with Browser(server.url) as browser:
        browser.sign_in("bob")
        shown = browser.open(page).page.text
        assert "brand new secret" not in shown
        assert all(b[0] != "_save" for f in browser.forms for b in f.buttons)
    bob.is_staff = False
    bob.save()
    bob.user_permissions.clear()
