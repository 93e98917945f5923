"""Sign-in pages: the old password, and an unfinished sign-in."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from allauth.core import context
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from allauth.mfa.webauthn.internal import auth as webauthn
from axes.models import AccessAttempt
from django.test import Client, RequestFactory

from accounts.authentication.views import OldPasswordForm
from accounts.models import User
from tests.support.static_files import UNCOLLECTED
from tests.support.users import browser_of

SIGN_IN = "/accounts/login/"
SECOND = "/accounts/2fa/authenticate/"


@pytest.fixture(autouse=True)
def cheap(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.ISSUER_URL = "https://portico.example"
    settings.ALLOWED_HOSTS = ["portico.example", "other.example"]
    settings.SECURE_SSL_REDIRECT = False


@pytest.fixture
def alice(db: None) -> User:
    user: User = User.objects.create_user("alice", password="right")
    return user


def target(uri: str) -> str:
    return f"/oauth/authorize?{urlencode({'redirect_uri': uri})}"


def test_the_old_password_is_checked_under_the_lock_out(
    alice: User, settings: Any
) -> None:
    settings.LOCKOUT_AFTER = settings.AXES_FAILURE_LIMIT = 2
    new = "a longer new password 7"

    def answered(old: str) -> Any:
        request = RequestFactory().post("/x", headers={"host": "portico.example"})
        request.user = alice
        form = OldPasswordForm(
            user=alice, data={"oldpassword": old, "password1": new, "password2": new}
        )
        with context.request_context(request):
            return form.is_valid()

    assert answered("right") and not answered("wrong")
    assert AccessAttempt.objects.get().failures_since_start == 1
    assert not answered("wrong")
    assert not answered("right")


def half_signed_in(user: User) -> Client:
    """A browser that has given the password; the second step is pending."""
    TOTP.activate(user, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
    client = Client(headers={"host": "portico.example"})
    form = {"login": "alice", "password": "right"}
    form["next"] = target("https://client.example/back")
    answer = client.post(f"{SIGN_IN}?{urlencode({'next': form['next']})}", form)
    assert answer.status_code == 302 and SECOND in answer["Location"]
    return client


def test_the_page_to_sign_out_is_for_those_who_are_signed_in(alice: User) -> None:
    """Opening it signs nobody out."""
    page, host = "/accounts/logout/", {"host": "portico.example"}
    answer = Client().get(page, headers=host)
    assert (answer.status_code, answer["Location"]) == (302, SIGN_IN)
    browser = browser_of(alice)
    for _visit in range(2):
        answer = browser.get(page, headers=host)
        assert "You are signed in as alice." in answer.content.decode()
    assert browser.head(page, headers=host).status_code == 405


def test_a_password_alone_opens_the_second_step_only(alice: User) -> None:
    client = half_signed_in(alice)
    assert client.get(SECOND).status_code == 200
    assert client.get("/portal/security/").status_code == 302


@pytest.mark.parametrize("change", ["password", "epoch", "deleted"])
def test_the_second_step_restarts_after_a_revocation(alice: User, change: str) -> None:
    client = half_signed_in(alice)
    if change == "password":
        User.objects.update(password="md5$salt$other")
    elif change == "epoch":
        alice.revoke_tokens(actor=None, reason="x")
    else:
        alice.delete()
    for answer in (client.get(SECOND), client.get(SECOND)):
        assert (answer.status_code, answer["Location"].partition("?")[0]) == (
            302,
            SIGN_IN,
        )


def test_a_revocation_is_explained_at_the_sign_in(alice: User) -> None:
    client = half_signed_in(alice)
    alice.revoke_tokens(actor=None, reason="x")
    page = client.get(SECOND, follow=True)
    assert "Your access was revoked. Sign in again." in page.content.decode()


def test_only_people_with_a_passkey_are_offered_one(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webauthn, "begin_authentication", lambda _user: {})
    client = half_signed_in(alice)
    other = User.objects.create(username="bob")
    Authenticator.objects.create(user=other, type="webauthn", data={})
    assert "Use a passkey" not in client.get(SECOND).content.decode()
    Authenticator.objects.create(user=alice, type="webauthn", data={})
    assert "Use a passkey" in client.get(SECOND).content.decode()


def test_a_second_step_without_a_first_starts_over(db: None) -> None:
    answer = Client(headers={"host": "portico.example"}).get(SECOND)
    assert answer.status_code == 302 and SIGN_IN in answer["Location"]
