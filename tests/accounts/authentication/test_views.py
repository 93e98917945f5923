"""Sign-in pages: where their forms may lead, and an unfinished sign-in."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from allauth.core import context
from allauth.mfa.totp.internal.auth import TOTP
from axes.models import AccessAttempt
from django.http import HttpResponse
from django.test import Client, RequestFactory

from accounts.authentication import views
from accounts.authentication.views import (
    OldPasswordForm,
    allow_redirect_in_csp,
    redirect_origin,
)
from accounts.models import SignInProvider, User
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account

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


def target(uri: str, path: str = "/oauth/authorize") -> str:
    return f"{path}?{urlencode({'redirect_uri': uri})}"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        (target("https://client.example/back"), "https://client.example"),
        (target("http://127.0.0.1:5/back"), "http://127.0.0.1:5"),
        (target("com.example.app:/back"), "com.example.app:"),
        (target("https://client.example/", "/oauth/authorize/"), ""),
        (target("https://client.example/", "/portal/"), ""),
        ("/oauth/authorize", ":"),
        ("", ""),
        ("http://[", ""),
        (target("http://["), ""),
    ],
)
def test_only_the_authorization_endpoint_leads_to_a_client(
    url: str, origin: str
) -> None:
    assert redirect_origin(url) == origin


@pytest.mark.parametrize(
    ("uri", "added"),
    [
        ("https://client.example/back", " https://client.example"),
        ("com.example.app:/back", " com.example.app:"),
        ("javascript:alert(1)", ""),
        ("data:text/html,x", ""),
        ("blob:x", ""),
        ("", ""),
        ("https://a.example; script-src */", ""),
    ],
)
def test_the_client_is_added_to_form_action(uri: str, added: str) -> None:
    """CSP Level 3, form-action; schemes that run code are not."""
    answer: Any = allow_redirect_in_csp(HttpResponse(), target(uri), "https://idp")
    assert " ".join(answer._csp_config["form-action"]) == f"'self' https://idp{added}"


def form_action(answer: Any) -> str:
    policy = answer["Content-Security-Policy"]
    found = [part for part in policy.split("; ") if part.startswith("form-action")]
    return str(found[0])


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_sign_in_page_allows_client_and_providers(db: None, method: str) -> None:
    """A disabled provider is no target; on another host the issuer is."""
    for slug, enabled in (("one", True), ("off", False)):
        issuer = f"https://{slug}.example/realm"
        SignInProvider.objects.create(slug=slug, issuer=issuer, enabled=enabled)
    data = {"next": target("https://client.example/back")}
    send = getattr(Client(), method)
    for host, issuer in (("portico", ""), ("other", "https://portico.example ")):
        answer = send(SIGN_IN, data, headers={"host": f"{host}.example"})
        assert form_action(answer) == (
            f"form-action 'self' {issuer}https://one.example https://client.example"
        )


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


def test_the_second_step_allows_the_client(alice: User) -> None:
    client = half_signed_in(alice)
    answer = client.get(SECOND)
    assert answer.status_code == 200
    assert form_action(answer) == "form-action 'self' https://client.example"
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


def test_a_second_step_without_a_first_starts_over(db: None) -> None:
    answer = Client(headers={"host": "portico.example"}).get(SECOND)
    assert answer.status_code == 302 and SIGN_IN in answer["Location"]
    assert account("x") and views.CSP_SOURCE.fullmatch("https://a.example:1")
