"""allauth's social adapter: providers from rows, refusals as pages, failures as 503."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from allauth.account.models import EmailAddress
from allauth.account.signals import user_logged_in
from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount import signals
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialLogin
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from django.contrib.auth.models import AnonymousUser
from django.core import mail
from django.http import Http404, HttpResponse
from django.test import Client, RequestFactory

from accounts.authentication.mail import response_sent
from accounts.authentication.oidc import adapter
from accounts.authentication.oidc.account_linking import LinkRefused
from accounts.authentication.oidc.adapter import SocialAccountAdapter
from accounts.crypto.encryption import KeyUnreadable
from accounts.models import (
    AuditEvent,
    ClaimRule,
    Role,
    RoleAssignment,
    SignInProvider,
    User,
)
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account


@pytest.fixture(autouse=True)
def here(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    settings.ISSUER_URL = "https://portico.example"
    settings.ALLOWED_HOSTS = ["*"]


def asked(user: Any = None, method: str = "get", **options: Any) -> Any:
    options = {"REMOTE_ADDR": "192.0.2.7", "HTTP_HOST": "portico.example", **options}
    request = getattr(RequestFactory(), method)("/x", **options)
    request.user = user or AnonymousUser()
    return request


@pytest.fixture
def corp(db: None) -> SignInProvider:
    """Enabled; a second provider is disabled."""
    SignInProvider.objects.create(
        slug="off", name="Off", issuer="https://off.example", enabled=False
    )
    row = SignInProvider(
        slug="corp", name="Corp", issuer="https://corp.example/r/", client_id="c-1"
    )
    row.set_secret("secret")
    row.save()
    return row


def sign_in(slug: str = "corp", process: str = "login", known: bool = False) -> Any:
    claims: dict[str, Any] = {"userinfo": {}, "id_token": {}}
    return SimpleNamespace(
        account=SocialAccount(provider=slug, uid="1", extra_data=claims),
        is_existing=known,
        state={"process": process},
        provider=None,
        user=None,
    )


def test_enabled_rows_are_allauths_apps(corp: SignInProvider) -> None:
    apps = SocialAccountAdapter()
    (app,) = apps.list_apps(asked())
    assert (app.provider, app.provider_id) == ("openid_connect", "corp")
    assert (app.name, app.client_id, app.secret) == ("Corp", "c-1", "secret")
    options = {"server_url": "https://corp.example/r", "oauth_pkce_enabled": True}
    assert app.settings == options and app.pk is None
    for found, about in (
        (1, {"provider": "openid_connect"}),
        (1, {"provider": "corp"}),
        (0, {"provider": "off"}),
        (1, {"client_id": "c-1"}),
        (0, {"client_id": "c-2"}),
    ):
        assert len(apps.list_apps(asked(), **about)) == found
    assert apps.get_provider(asked(), "corp").app.provider_id == "corp"
    SignInProvider.objects.filter(slug="corp").update(secret_encrypted="unreadable")
    assert [app.secret for app in apps.list_apps(asked())] == [""]
    with pytest.raises(KeyUnreadable):
        apps.list_apps(asked(), provider="corp")
    with pytest.raises(SocialApp.DoesNotExist):
        apps.get_provider(asked(), "corp", client_id="c-2")
    for unknown in ("off", "nowhere"):
        with pytest.raises(SocialApp.DoesNotExist):
            apps.get_provider(asked(), unknown)


BROKEN: list[dict[str, str]] = [
    {"issuer": "https://[tenant].example.com"},
    {"issuer": "http://[x"},
    {"issuer": ""},
    {"issuer": "https://x:99999"},
    {"secret_encrypted": "not sealed"},
    {"secret_encrypted": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQQ=="},
    {"client_id": ""},
]


@pytest.mark.parametrize("columns", BROKEN, ids=str)
def test_a_broken_provider_disables_itself_only(
    corp: SignInProvider, columns: dict[str, str]
) -> None:
    """Rows of an older release, of SQL, or of another KEY_ENCRYPTION_KEY."""
    broken = SignInProvider(slug="broken", name="Broken", client_id="b", issuer="x")
    broken.save()
    SignInProvider.objects.filter(pk=broken.pk).update(**columns)
    browser = Client(headers={"host": "portico.example"})
    for path in ("/accounts/login/", "/accounts/login/?next=/portal/"):
        page = browser.get(path, secure=True)
        assert page.status_code == 200 and "Corp" in page.content.decode()
    answer = browser.post("/accounts/oidc/broken/login/", secure=True)
    assert answer.status_code == 503 and answer["Retry-After"] == "30"
    assert adapter.provider_of(sign_in()) == corp


@pytest.mark.parametrize("sign_up", [False, True])
def test_accounts_are_made_where_the_row_says_so(
    corp: SignInProvider, sign_up: bool
) -> None:
    SignInProvider.objects.update(sign_up=sign_up)
    open_ = SocialAccountAdapter().is_open_for_signup
    assert open_(asked(), sign_in()) == sign_up
    assert not open_(asked(), sign_in("off")) and not open_(asked(), sign_in("no"))


def test_the_address_of_a_new_account_is_its_providers() -> None:
    """So that it links no identity of another provider."""
    user = SocialAccountAdapter().new_user(asked(), sign_in())
    assert User().email_set_by_admin and not user.email_set_by_admin


def test_a_new_account_gets_no_address_of_allauths(corp: SignInProvider) -> None:
    """Nothing would change it with the account's, and it could get password links."""
    user = User(username="dana", email="dana@corp.example")
    address = EmailAddress(email=user.email, verified=True, primary=True)
    identity = SocialAccount(provider="corp", uid="1")
    new = SocialLogin(user=user, account=identity, email_addresses=[address])
    request = asked()
    request.session = {}
    made = SocialAccountAdapter().save_user(request, new)
    assert User.objects.get() == made == SocialAccount.objects.get().user
    assert not EmailAddress.objects.exists()


def test_an_address_finds_no_account_by_allauths_rule() -> None:
    assert SocialAccountAdapter().authenticate_by_email(sign_in()) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("found", [True, False])
def test_a_new_identity_is_linked(
    corp: SignInProvider, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user gets a mail; a known identity or a disabled provider does not link."""
    mails: list[str] = []
    user = account("erin")

    def linked(request: Any, row: Any, one: SocialAccount) -> bool:
        one.user = user
        return found

    def mailed(self: Any, prefix: str, to: User, **options: Any) -> None:
        about = options["context"]
        assert (about["account"], about["provider"]) == (new.account, new.provider)
        mails.append(f"{prefix} {to}")

    monkeypatch.setattr(adapter, "link", linked)
    monkeypatch.setattr(SocialAccountAdapter, "send_notification_mail", mailed)
    for other in (sign_in(known=True), sign_in("off"), sign_in("nowhere")):
        SocialAccountAdapter().pre_social_login(asked(), other)
        assert other.user is None and mails == []
    new = sign_in()
    SocialAccountAdapter().pre_social_login(asked(), new)
    assert new.user == (user if found else None)
    mail = "socialaccount/email/account_connected erin"
    assert mails == ([mail] if found else [])


def test_the_mail_about_a_link_names_the_provider(
    corp: SignInProvider, settings: Any
) -> None:
    """Whoever did not link it learns what to ask an administrator about."""
    settings.ACCOUNT_EMAIL_NOTIFICATIONS = True
    request, found = asked(), sign_in()
    found.user = account("erin", email="erin@corp.example")
    found.account.user = found.user
    found.provider = SocialAccountAdapter().get_provider(request, "corp")
    with context.request_context(request):
        SocialAccountAdapter(request).send_link_mail(found)
    response_sent()
    (sent,) = mail.outbox
    assert sent.to == ["erin@corp.example"] and "Corp" in sent.body


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({}, "unknown"),
        ({"error": "denied"}, "denied"),
        ({"exception": KeyError("sub")}, "'sub'"),
        ({"error": "denied", "exception": ValueError("away\nnext line")}, "away"),
    ],
)
def test_the_log_has_the_most_exact_cause(
    corp: SignInProvider, caplog: Any, given: dict[str, Any], cause: str
) -> None:
    with caplog.at_level(logging.WARNING):
        SocialAccountAdapter().on_authentication_error(asked(), "corp", **given)
    (line,) = caplog.messages
    assert line.startswith(f"Sign-in through corp failed: {cause}")
    assert "\n" not in line


def test_a_refused_link_is_a_page_and_an_event(
    corp: SignInProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*about: Any) -> bool:
        raise LinkRefused("staff", "Sign in with <your password>.")

    monkeypatch.setattr(adapter, "link", refused)
    with pytest.raises(ImmediateHttpResponse) as stopped:
        SocialAccountAdapter().pre_social_login(asked(), sign_in())
    answer = stopped.value.response
    assert answer.status_code == 403 and answer["Cache-Control"] == "no-store"
    assert "&lt;your password&gt;" in answer.content.decode()
    event = AuditEvent.objects.get()
    assert (event.action, event.object) == ("user.sign_in_failed", "corp")
    assert (event.decision, event.reason) == ("denied", "staff")
    assert event.address == "192.0.2.7"


def test_connecting_a_second_identity_is_refused(corp: SignInProvider) -> None:
    """A first one is not, and never by address."""
    user = account("erin")
    SocialAccountAdapter().pre_social_login(asked(user), sign_in(process="connect"))
    SocialAccountAdapter().pre_social_login(asked(), sign_in(process="connect"))
    assert not SocialAccount.objects.exists()
    SocialAccount.objects.create(user=user, provider="corp", uid="2")
    with pytest.raises(ImmediateHttpResponse):
        SocialAccountAdapter().pre_social_login(asked(user), sign_in(process="connect"))
    assert AuditEvent.objects.get().reason == "other_identity"


PROVIDER_ERRORS = [
    requests.ConnectionError("away"),
    OAuth2Error("wrong"),
    KeyError("sub"),
    TypeError("x"),
    ValueError("x"),
]


@pytest.mark.parametrize("error", PROVIDER_ERRORS, ids=repr)
def test_a_failing_provider_is_a_page_with_503(
    db: None, error: Exception, caplog: Any
) -> None:
    """The log names the cause, the page does not."""

    def view(request: Any, provider_id: str) -> Any:
        raise error

    with caplog.at_level(logging.WARNING):
        answer = adapter.unavailable_as_503(view)(asked(), "corp")
    assert answer.status_code == 503 and answer["Retry-After"] == "30"
    assert f"Sign-in through corp failed: {error}" in caplog.text
    event = AuditEvent.objects.get()
    assert (event.action, event.object) == ("user.sign_in_failed", "corp")
    assert (event.reason, event.address) == ("oidc", "192.0.2.7")


@pytest.mark.parametrize("error", [Http404("x"), RuntimeError("a fault of ours")])
def test_other_errors_are_not_the_providers(error: Exception) -> None:
    def view(request: Any, provider_id: str) -> Any:
        raise error

    with pytest.raises(type(error)):
        adapter.unavailable_as_503(view)(asked(), "corp")


@pytest.mark.parametrize(
    ("method", "data", "query"),
    [
        ("get", {}, ""),
        ("get", {"next": "/portal/"}, "?next=%2Fportal%2F"),
        ("post", {"next": "/portal/"}, "?next=%2Fportal%2F"),
    ],
)
def test_sign_in_begins_on_the_issuers_host(
    method: str, data: dict[str, str], query: str
) -> None:
    """The session's cookie of another host is missing at the callback."""
    view = adapter.unavailable_as_503(lambda request, slug: HttpResponse(slug))
    assert view(asked(), "corp").content == b"corp"
    answer = view(asked(None, method, data=data, HTTP_HOST="other.example"), "corp")
    sign_in_page = f"https://portico.example/accounts/login/{query}"
    assert (answer.status_code, answer["Location"]) == (302, sign_in_page)


def test_claims_become_roles_at_each_sign_in(corp: SignInProvider) -> None:
    """UserInfo goes before the ID token; a password sign-in changes no role."""
    user, guest = account("erin"), Role.objects.get(name="Guest")
    ClaimRule.objects.create(provider=corp, claim="groups", value="g", role=guest)
    found = sign_in()
    found.account.extra_data = {"id_token": {"groups": ["x"]}, "userinfo": {}}

    def roles_after(documents: Any) -> int:
        found.account.extra_data = documents
        adapter.on_sign_in(user=user, sociallogin=found)
        return RoleAssignment.objects.filter(user=user).unexpired().count()

    assert roles_after({"id_token": {"groups": ["g"]}, "userinfo": {}}) == 1
    adapter.on_sign_in(user=user)
    keys = [receiver[0][0] for receiver in user_logged_in.receivers]
    assert "portico-claims" in keys
    assert RoleAssignment.objects.filter(user=user).unexpired().exists()
    documents = {"id_token": {"groups": ["g"]}, "userinfo": {"groups": ["x"]}}
    assert roles_after(documents) == 0
    assert roles_after({"userinfo": {"groups": ["g"]}}) == 1
    SignInProvider.objects.update(enabled=False)
    assert roles_after({}) == 1


def test_roles_that_end_keep_the_session_that_signs_in(
    corp: SignInProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(
        SignInProvider, "apply", lambda self, user, claims, keep: kept.append(keep)
    )
    user, found = account("erin"), sign_in()
    found.account.user, request = user, asked(user)
    adapter.on_sign_in(user=user, sociallogin=found, request=request)
    adapter.on_removed(request=request, socialaccount=found.account)
    assert kept == [request, request]


def test_connected_identities_are_recorded(corp: SignInProvider) -> None:
    user, found = account("erin"), sign_in()
    found.user = found.account.user = user
    request = asked(user)
    signals.social_account_added.send(User, request=request, sociallogin=found)
    signals.social_account_removed.send(
        User, request=request, socialaccount=found.account
    )
    events = AuditEvent.objects.order_by("pk")
    assert [e.action for e in events] == ["user.linked", "user.unlinked"]
    assert {(e.actor, e.object, e.reason, e.address) for e in events} == {
        ("erin", "erin", "at provider corp", "192.0.2.7")
    }


def test_calls_to_providers_are_limited() -> None:
    session = SocialAccountAdapter().get_requests_session()
    assert (session.slots, session.seconds) == (adapter.SLOTS, 5.0)
    limits = (adapter.SLOTS.together, adapter.SLOTS.per_host, adapter.SLOTS.wait)
    assert limits == (16, 8, 2.0)
