"""The paths outside /mcp: which view serves them, and which are not served."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.account import views as account
from allauth.socialaccount import views as social
from django.http import Http404
from django.test import Client, RequestFactory
from django.urls import resolve, reverse
from django.views.i18n import set_language

from accounts.authentication.oidc import adapter, provider
from accounts.authentication.views import SecondStepView
from accounts.models import User
from config import urls
from config.views.api_docs import api_docs
from config.views.health import healthz
from config.views.help import help_page
from config.views.openapi import schema_view
from config.views.readiness import readyz
from tests.support.model_rows import person
from tests.support.static_files import UNCOLLECTED
from tests.support.users import browser_of

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def without_collected_files(settings: Any) -> None:
    """Pages name static files, which unit tests do not collect."""
    settings.STORAGES = UNCOLLECTED


PLAIN: dict[str, Any] = {
    "/healthz": healthz,
    "/readyz": readyz,
    "/api/schema/": schema_view,
    "/api/docs/": api_docs,
    "/help/": help_page,
    "/accounts/social/": social.connections,
    "/accounts/social/login/cancelled/": social.login_cancelled,
    "/accounts/social/login/error/": social.login_error,
    "/accounts/inactive/": account.account_inactive,
    "/accounts/reauthenticate/": account.reauthenticate,
    "/accounts/password/change/": account.password_change,
    "/accounts/password/reset/": account.password_reset,
    "/accounts/password/reset/done/": account.password_reset_done,
    "/accounts/password/reset/key/done/": account.password_reset_from_key_done,
    "/accounts/password/reset/key/3f-abc-def/": account.password_reset_from_key,
    "/accounts/language/": set_language,
}
CLASSES = {
    "/accounts/login/": account.LoginView,
    "/accounts/2fa/authenticate/": SecondStepView,
}


@pytest.mark.parametrize("path", PLAIN)
def test_a_path_has_its_view(path: str) -> None:
    assert resolve(path).func is PLAIN[path]


@pytest.mark.parametrize("path", CLASSES)
def test_our_views_stand_before_those_of_allauth(path: str) -> None:
    """They apply the lock-out and the second factor."""
    view: Any = resolve(path).func
    assert view.view_class is CLASSES[path]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/", "/portal/connect/"),
        ("/accounts/", "/portal/security/"),
        ("/accounts/2fa/", "/portal/security/"),
    ],
)
def test_overviews_are_pages_of_the_portal(path: str, target: str) -> None:
    view: Any = resolve(path).func
    response = view(RequestFactory().get(path))
    assert (response.status_code, response.url) == (302, target)


@pytest.mark.parametrize("name", urls.NOT_SERVED)
def test_people_choose_neither_address_nor_name(name: str) -> None:
    where = "/" + urls.NOT_SERVED[name].replace("<str:key>", "abc")
    assert resolve(where).url_name == name and resolve(where).func is urls.not_served
    with pytest.raises(Http404):
        urls.not_served(RequestFactory().get(where), key="abc")


@pytest.mark.django_db
def test_only_the_form_signs_out() -> None:
    """A link on another site must not sign people out; it shows the button."""
    browser = browser_of(person("alice"))
    for path in (reverse("sign-out"), reverse("account_logout")):
        page = browser.get(path)
        assert page.status_code == 200 and "You are signed in as alice." in page.text
        assert browser.get("/portal/").status_code == 200
        assert Client().get(path)["Location"] == "/accounts/login/"
    assert browser.post(path).status_code == 302
    assert browser.get("/portal/").status_code == 302


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path",
    [
        "/admin/logout/",
        "/admin/accounts/signingkey/rotate/",
        "/admin/accounts/auditevent/verify/",
    ],
)
def test_the_address_of_a_form_is_explained(path: str) -> None:
    browser = browser_of(person("root", is_superuser=True, is_staff=True))
    page = browser.get(path, headers={"accept": "text/html"})
    assert page.status_code == 405 and "is not a page" in page.text
    assert "POST" in page["Allow"]
    assert browser.get(path, headers={"accept": "application/json"}).content == b""


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("openid_connect_login", provider.login),
        ("openid_connect_callback", provider.callback),
    ],
)
def test_an_unavailable_provider_is_503(name: str, view: Any) -> None:
    found: Any = resolve(reverse(name, args=["x"])).func
    assert found.__qualname__.startswith(adapter.unavailable_as_503.__name__)
    assert view in [cell.cell_contents for cell in found.__closure__]


def test_a_first_password_needs_a_recent_sign_in(alice: User) -> None:
    """A stolen session must not become a password."""
    alice.set_unusable_password()
    alice.save()
    alice.refresh_from_db()
    client = Client()
    client.force_login(alice)
    response: Any = client.get("/accounts/password/set/")
    assert response.status_code == 302
    assert response.url.endswith("/?next=/accounts/password/set/")


def test_errors_have_our_views() -> None:
    assert urls.handler400 == "config.views.errors.bad_request"
    assert urls.handler500 == "config.views.errors.server_error"
