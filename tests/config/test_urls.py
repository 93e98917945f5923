"""Every URL of the project: CSRF, caching and sign-in, found by walking the URLconf."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib.auth.hashers import make_password
from django.http import HttpRequest, HttpResponse
from django.test import Client

from accounts.models import User
from tests.support.static_files import UNCOLLECTED
from tests.support.urls import PATHS
from tests.support.users import account, browser_of

WELL_KNOWN = "/.well-known/"
READ_ONLY_WITHOUT_CSRF = {
    f"{WELL_KNOWN}oauth-authorization-server",
    f"{WELL_KNOWN}oauth-authorization-server/mcp",
    f"{WELL_KNOWN}oauth-protected-resource",
    f"{WELL_KNOWN}oauth-protected-resource/mcp",
    f"{WELL_KNOWN}oauth-protected-resource/mcp/",
    "/api/schema/",
    "/oauth/jwks.json",
}
ENDPOINTS_OF_PROGRAMS = {
    "/api/token/",
    "/api/token/blacklist/",
    "/api/token/refresh/",
    "/api/token/verify/",
    "/oauth/device",
    "/oauth/introspect",
    "/oauth/register",
    "/oauth/revoke",
    "/oauth/token",
    *(path for path in PATHS if path.startswith("/api/v1/")),
}
"""These read no cookie: each request contains a secret or a token."""
PUBLIC_PAGES = {
    "/accounts/inactive/",
    "/accounts/login/",
    "/accounts/password/reset/",
    "/accounts/password/reset/done/",
    "/accounts/password/reset/key/1-1/",
    "/accounts/password/reset/key/done/",
    "/accounts/social/login/cancelled/",
    "/accounts/social/login/error/",
    "/admin/jsi18n/",
    "/api/docs/",
    "/healthz",
    "/help/",
    "/readyz",
    *READ_ONLY_WITHOUT_CSRF,
}
SECRET_PAGES = {
    "/accounts/2fa/recovery-codes/",
    "/accounts/2fa/recovery-codes/download/",
    "/accounts/2fa/webauthn/add/",
    "/device",
    "/portal/apps/",
    "/portal/security/",
    "/portal/tokens/",
}
HASHERS = "django.contrib.auth.hashers"
MAY_BE_STORED = {
    "/admin/jsi18n/",
    "/api/docs/",
    "/healthz",
    "/help/",
    *READ_ONLY_WITHOUT_CSRF,
}


def refused_by_csrf(request: HttpRequest, reason: str = "") -> HttpResponse:
    return HttpResponse(status=418)


@pytest.fixture(autouse=True)
def plain(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    settings.CSRF_FAILURE_VIEW = f"{__name__}.refused_by_csrf"
    settings.STAFF_SECOND_FACTOR = False
    settings.PASSWORD_HASHERS = [f"{HASHERS}.MD5PasswordHasher"]
    for name in ("PASSWORD", "AUTHORIZE", "DEVICE", "TOKEN", "MAIL"):
        setattr(settings, f"LIMIT_{name}", "off")


def boss(**options: Any) -> Client:
    """The browser of somebody who may see every page."""
    user = account("boss", "Admin", is_staff=True, is_superuser=True)
    User.objects.filter(pk=user.pk).update(password=make_password("x", hasher="md5"))
    user.refresh_from_db()
    return browser_of(user, **options)


def test_the_walk_finds_pages_of_every_part() -> None:
    """Otherwise the tests below would pass for lack of pages."""
    assert len(PATHS) > 150 and ENDPOINTS_OF_PROGRAMS <= set(PATHS)
    assert PUBLIC_PAGES <= set(PATHS)
    assert {"/portal/tokens/", "/device", "/admin/accounts/user/1/change/"} <= {*PATHS}


def test_every_form_needs_its_csrf_token(db: None) -> None:
    """Another site can post with the user's cookie, but without the token."""
    client = boss(enforce_csrf_checks=True)
    accepted = {path for path in PATHS if client.post(path).status_code != 418}
    assert accepted == ENDPOINTS_OF_PROGRAMS | READ_ONLY_WITHOUT_CSRF


def test_a_cookie_changes_nothing_at_endpoints_of_programs(db: None) -> None:
    """They need no CSRF token, so a session must not count there."""
    client, stranger = boss(enforce_csrf_checks=True), Client()
    for path in sorted(ENDPOINTS_OF_PROGRAMS):
        mine, theirs = client.post(path), stranger.post(path)
        assert mine.status_code == theirs.status_code >= 400, path
        assert mine.content == theirs.content
    for path in READ_ONLY_WITHOUT_CSRF:
        assert client.post(path).status_code == 405, path


def shown_at(client: Client, part: str = "/") -> dict[str, Any]:
    """Path -> the page that a GET shows there, below `part`."""
    client.raise_request_exception = False
    paths = [p for p in PATHS if p.startswith(part) and "logout" not in p]
    answers = {path: client.get(path) for path in paths}
    return {path: page for path, page in answers.items() if page.status_code == 200}


def test_no_page_of_a_signed_in_user_may_be_stored(db: None) -> None:
    """A shared computer's cache shows it to the next user."""
    client = boss()
    user = User.objects.get(username="boss")
    TOTP.activate(user, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
    RecoveryCodes.activate(user)
    pages = shown_at(client)
    assert SECRET_PAGES <= set(pages)
    User.objects.get(username="boss").authenticator_set.all().delete()
    pages |= shown_at(client, "/accounts/")
    assert "/accounts/2fa/totp/activate/" in pages
    stored = {path for path, page in pages.items() if not is_private(page)}
    assert stored <= MAY_BE_STORED, stored - MAY_BE_STORED


def is_private(page: Any) -> bool:
    return "no-store" in page.headers.get("Cache-Control", "")


def test_a_stranger_sees_public_pages_only(db: None) -> None:
    assert set(shown_at(Client())) - {"/admin/login/"} <= PUBLIC_PAGES


def test_a_user_without_staff_rights_sees_no_page_of_the_admin(db: None) -> None:
    user = account("alice", "User")
    pages = shown_at(browser_of(user), "/admin/")
    assert set(pages) <= {"/admin/jsi18n/", "/admin/login/"}
