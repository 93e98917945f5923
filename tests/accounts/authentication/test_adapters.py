"""allauth's adapter: restarted sign-ins, reauthentication, addresses, safe URLs."""

from __future__ import annotations

import time
from typing import Any

import pytest
from allauth.account.internal.flows.login import record_authentication
from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib.auth.models import AnonymousUser
from django.contrib.messages.storage.base import BaseStorage
from django.test import RequestFactory

from accounts.authentication import adapters, mail
from accounts.authentication.adapters import (
    DIGEST_SESSION_KEY,
    AccountAdapter,
    access_revoked_since,
    authenticated_recently,
)
from accounts.http.session_store import SessionStore
from accounts.models import AuditEvent, User
from tests.support.users import account


class Messages(BaseStorage):
    """Messages of one request, in memory."""

    def _get(self, *args: Any, **kwargs: Any) -> Any:
        return [], True

    def _store(self, messages: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        return []


def asked(user: Any, method: str = "get", path: str = "/accounts/2fa/") -> Any:
    request: Any = getattr(RequestFactory(), method)(path, REMOTE_ADDR="192.0.2.7")
    request.session, request.user = SessionStore(), user
    request._messages = Messages(request)
    return request


@pytest.fixture
def alice(db: None) -> User:
    """With a password."""
    user = account("alice")
    User.objects.update(password="md5$salt$hash")
    user.refresh_from_db()
    return user


def test_accounts_are_made_by_administrators_only(db: None) -> None:
    assert not AccountAdapter().is_open_for_signup(asked(AnonymousUser()))


@pytest.mark.parametrize("change", ["", "password", "epoch", "deleted"])
def test_a_sign_in_restarts_if_access_was_revoked_meanwhile(
    alice: User, change: str
) -> None:
    """Between the password and the second step."""
    request, adapter = asked(AnonymousUser()), AccountAdapter()
    adapter.pre_login(
        request,
        alice,
        email_verification="none",
        signal_kwargs=None,
        email=None,
        signup=False,
        redirect_url=None,
    )
    assert request.session[DIGEST_SESSION_KEY] == alice.auth_digest
    if change == "password":
        User.objects.update(password="md5$salt$other")
    elif change == "epoch":
        alice.revoke_tokens(actor=None, reason="x")
    found = None if change == "deleted" else User.objects.get()
    assert access_revoked_since(request, found) == bool(change)
    if not change:
        found.backend = "accounts.authentication.lockout.PasswordBackend"  # type: ignore[union-attr]
        adapter.login(request, found)
        assert request.user == alice and DIGEST_SESSION_KEY not in request.session
        return
    with pytest.raises(ImmediateHttpResponse) as refused:
        adapter.login(request, found)
    answer = refused.value.response
    assert (answer.status_code, answer["Location"]) == (302, "/accounts/login/")
    assert request.user.is_anonymous and DIGEST_SESSION_KEY not in request.session
    assert "access was revoked" in str(next(iter(request._messages._queued_messages)))


def test_a_sign_in_without_a_password_step_is_refused(alice: User) -> None:
    assert access_revoked_since(asked(AnonymousUser()), alice)


@pytest.mark.parametrize(
    ("url", "safe"),
    [("/portal/", True), ("https://evil.example/", False), ("http://[", False)],
)
def test_a_redirect_stays_on_this_host(url: str, safe: bool) -> None:
    with context.request_context(RequestFactory().get("/")):
        assert AccountAdapter().is_safe_url(url) == safe


def test_allauth_sees_the_real_address() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7")
    request.META["HTTP_X_FORWARDED_FOR"] = "6.6.6.6"
    assert AccountAdapter().get_client_ip(request) == "192.0.2.7"
    request.META["REMOTE_ADDR"] = ""
    assert AccountAdapter().get_client_ip(request) == adapters.UNKNOWN_ADDRESS


def methods_of(user: User) -> list[str]:
    with context.request_context(asked(user)):
        found = AccountAdapter().get_reauthentication_methods(user)
    return [method["id"] for method in found]


def test_a_password_alone_does_not_remove_a_factor(alice: User) -> None:
    assert methods_of(alice) == ["reauthenticate"]
    TOTP.activate(alice, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
    assert methods_of(alice) == ["mfa_reauthenticate"]
    assert methods_of(account("nobody")) == []


def required(request: Any, app: str = "allauth.mfa") -> Any:
    """True, False, or where the user is sent."""
    with context.request_context(request):
        try:
            return AccountAdapter().is_reauthentication_required(app=app)
        except ImmediateHttpResponse as sent:
            return sent.response["Location"]


@pytest.mark.parametrize(("ago", "recent"), [(299, True), (301, False)])
def test_a_user_without_secrets_signs_in_again(
    db: None, ago: int, recent: bool
) -> None:
    """A stolen session could add a passkey otherwise."""
    user = account("erin")
    request = asked(user)
    assert not authenticated_recently(request)
    record_authentication(request, user, "socialaccount")
    records = request.session["account_authentication_methods"]
    records[0]["at"] = time.time() - ago
    assert authenticated_recently(request) == recent
    if recent:
        assert required(request) is True and request.user == user
        return
    assert required(request) == "/accounts/login/?next=/accounts/2fa/"
    assert request.user.is_anonymous


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("name", ["alice", "erin"])
def test_pages_that_need_no_new_answer_send_nobody_away(
    alice: User, settings: Any, method: str, name: str
) -> None:
    """Neither people with a password nor those without any secret."""
    settings.ACCOUNT_REAUTHENTICATION_REQUIRED = False
    user = alice if name == "alice" else account("erin")
    request = asked(user, method)
    assert required(request, "allauth.account") is False
    assert request.user == user


def test_an_answer_is_recent_for_less_than_the_timeout(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asked(alice)
    record_authentication(request, alice, "password")
    at = request.session["account_authentication_methods"][0]["at"]
    for later, recent in ((299.9, True), (300, False)):
        monkeypatch.setattr(time, "time", lambda now=at + later: now)
        assert authenticated_recently(request) == recent


def test_a_mail_is_rendered_with_what_templates_name(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[Any] = []
    monkeypatch.setattr(
        AccountAdapter, "render_mail", lambda self, *about: rendered.append(about)
    )
    monkeypatch.setattr(mail, "send", lambda *args, **about: None)
    with context.request_context(asked(alice)):
        AccountAdapter().send_mail("account/email/x", "a@b.example", {"user": alice})
    ((prefix, to, variables, headers),) = rendered
    request = variables.pop("request")
    assert (request.user, request.path) == (alice, "/"), "not the page that sends it"
    site = variables.pop("current_site")
    assert site.name == "Portico" and set(headers) == {"Message-ID"}
    assert (prefix, to) == ("account/email/x", "a@b.example")
    assert variables == {"user": alice, "email": "a@b.example"}


def test_a_posted_form_is_not_stored_for_later(alice: User) -> None:
    """It may contain codes; after a recent answer it is accepted."""
    assert required(asked(alice)) is True
    page = "/accounts/reauthenticate/?next=/accounts/2fa/"
    request = asked(alice, "post")
    assert required(request) == page
    assert "account_reauthentication_state" not in request.session
    record_authentication(request, alice, "password", reauthenticated=True)
    assert required(request) is True and request.user == alice


def test_a_failed_sign_in_is_recorded_by_djangos_signal_only(db: None) -> None:
    AccountAdapter().authentication_failed(asked(AnonymousUser()), username="alice")
    assert not AuditEvent.objects.exists()
