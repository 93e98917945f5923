"""Second factors in a real Chromium: an app, a passkey, strict CSP, accessible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from axes.models import AccessAttempt

from accounts.models import Consent
from tests.flows.browser.test_chromium_sign_in import callback_server  # noqa: F401
from tests.flows.tokens.test_second_factor import code
from tests.support.chromium import LOOKS, BrowserUser
from tests.support.oauth_client import approve_client, authorize_url, register_client
from tests.support.server import Portico
from tests.support.users import PASSWORD

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]


@pytest.fixture
def alice(server: Portico, chromium: Any) -> Iterator[BrowserUser]:
    """alice in a window, without a second factor; fails on browser errors."""
    Authenticator.objects.all().delete()
    AccessAttempt.objects.all().delete()
    person = BrowserUser(chromium, "light", 1366)
    yield person
    person.window.close()
    Authenticator.objects.all().delete()
    assert person.errors == []


def localhost_url(server: Portico) -> str:
    """WebAuthn accepts names only, no addresses."""
    return server.url.replace("127.0.0.1", "localhost")


def confirm(alice: BrowserUser) -> None:
    """Enter the password again before a sensitive page."""
    if "Confirm your identity" in alice.page.inner_text("main"):
        alice.page.fill("input[type=password]", PASSWORD)
        with alice.page.expect_navigation():
            alice.page.click("main button[type=submit]")


def follow_link(alice: BrowserUser, text: str) -> None:
    """Follow a link; returns the new page."""
    with alice.page.expect_navigation():
        alice.page.click(f"text={text}")


def check_layouts(alice: BrowserUser) -> None:
    """Check the page in light and dark, wide and narrow, and by axe."""
    for scheme, width in LOOKS:
        alice.look(scheme, width)
        assert alice.fits() and alice.unfit() == []


def test_an_app_is_set_up_and_used_for_a_client(
    server: Portico,
    alice: BrowserUser,
    callback_server: Any,  # noqa: F811
) -> None:
    """The QR code loads under the strict CSP; consent is not asked again."""
    port, requests = callback_server
    client_id = approve_client(register_client(server)["client_id"])
    url = authorize_url(
        server, client_id, redirect_uri=f"http://127.0.0.1:{port}/callback"
    )[0]
    page = alice.page
    page.goto(url)
    check_layouts(alice)
    alice.sign_in()
    page.click("button[value=allow]")
    page.wait_for_url("**/callback?code=**")
    page.goto(f"{server.url}/portal/security/")
    check_layouts(alice)
    follow_link(alice, "Set up an app")
    confirm(alice)
    check_layouts(alice)
    secret = page.input_value("#authenticator_secret")
    page.fill("input[name=code]", code(secret))
    page.click("main button[type=submit]")
    page.wait_for_selector("text=Recovery codes")
    check_layouts(alice)
    recovery = page.input_value("#recovery_codes").split()[0]
    page.goto(f"{server.url}/portal/security/")
    page.click("header button:has-text('Sign out')")
    page.goto(url)
    alice.sign_in()
    page.wait_for_url("**/2fa/authenticate/")
    check_layouts(alice)
    page.fill("input[name=code]", recovery)
    page.click("main button[type=submit]")
    page.wait_for_url("**/callback?code=**")
    assert (
        len(requests) == 2 and Consent.objects.filter(user__username="alice").exists()
    )


def test_a_passkey_signs_in_without_a_password(
    server: Portico, alice: BrowserUser
) -> None:
    """WebAuthn 3, with Chromium's virtual authenticator."""
    tools = alice.window.new_cdp_session(alice.page)
    tools.send("WebAuthn.enable")
    kind = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True}
    able = {"hasUserVerification": True, "isUserVerified": True}
    tools.send("WebAuthn.addVirtualAuthenticator", {"options": {**kind, **able}})
    page = alice.page
    page.goto(f"{localhost_url(server)}/accounts/login/?next=/portal/security/")
    alice.sign_in()
    follow_link(alice, "Add a passkey")
    confirm(alice)
    check_layouts(alice)
    page.fill("input[name=name]", "My laptop")
    page.check("input[name=passwordless]")
    page.click("#mfa_webauthn_add")
    page.wait_for_selector("text=Recovery codes")
    page.goto(f"{localhost_url(server)}/portal/security/")
    assert "My laptop" in page.inner_text("main")
    page.click("header button:has-text('Sign out')")
    page.goto(f"{localhost_url(server)}/accounts/login/?next=/portal/security/")
    page.click("#passkey_login")
    page.wait_for_selector("text=Where you are signed in")
    page.click("header button:has-text('Sign out')")
    page.goto(f"{localhost_url(server)}/accounts/login/?next=/portal/security/")
    alice.sign_in()
    page.click("#mfa_webauthn_authenticate")
    page.wait_for_selector("text=Where you are signed in")
