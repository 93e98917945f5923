"""Odd values in every field of every form that a signed-in user can reach.

A wrong value is answered with 4xx or the page again, never with a 5xx.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import pytest
from allauth.mfa.models import Authenticator
from django.urls import get_resolver

from accounts.models import Role
from tests.support.html_browser import Browser, Form
from tests.support.server import Portico
from tests.support.users import PASSWORD, make_user

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("default_users")]

ODD = ["²", "9" * 20, "9" * 5_000, "\x00", "9999-12-31", "http://["]
"""`str.isdigit` is true for the first; `int` refuses the first and the third.
`urlsplit` refuses the last."""
NO_FIELD = {"csrfmiddlewaretoken"}
ELSEWHERE = ("logout", "language")
"""Forms on every page that end the session or change its language."""


def portal_paths() -> list[str]:
    """Every portal page of the URL conf: a new one is tried without being listed."""
    found = [str(pattern.pattern) for pattern in get_resolver().url_patterns]
    for included in get_resolver().url_patterns:
        found += [str(p.pattern) for p in getattr(included, "url_patterns", [])]
    return sorted({f"/{path}" for path in found if path.startswith("portal/")})


@pytest.fixture(scope="module")
def somebody(server: Portico, rows: None) -> Iterator[Browser]:
    make_user("bob", "Guest")
    with server.in_process() as browser:
        browser.open("/portal/")
        browser.submit(browser.form("password"), login="bob", password=PASSWORD)
        yield browser


def fields_of(form: Form) -> set[str]:
    """Names of its fields and buttons."""
    buttons = {name for name, _value, _words in form.buttons if name}
    return {*form.fields, *buttons} - NO_FIELD


def answers(browser: Browser, form: Form, page: str) -> Iterator[tuple[str, int]]:
    """Each field with each odd value: the sent value, and the status."""
    headers = {"referer": page}
    for name in sorted(fields_of(form)):
        for value in ODD:
            sent = {**form.fields, name: value}
            answer = browser.http.post(
                urljoin(page, form.action),
                data=sent,
                headers=headers,
                follow_redirects=False,
            )
            yield f"{page} {name}={value[:12]!r}", answer.status_code


@pytest.mark.parametrize("path", portal_paths())
def test_no_form_of_the_portal_breaks(somebody: Browser, path: str) -> None:
    """Includes the buttons that appear only with a row."""
    somebody.open(path)
    page = str(somebody.page.url)
    assert somebody.page.status_code == 200, path
    forms = [form for form in somebody.forms if form.method == "post"]
    forms = [f for f in forms if not any(word in f.action for word in ELSEWHERE)]
    token = somebody.http.cookies.get("csrftoken") or ""
    for name in ("revoke", "end", "withdraw"):
        sent = {"csrfmiddlewaretoken": token, name: ""}
        forms.append(Form(path, "post", sent))
    for form in forms:
        broken = [sent for sent in answers(somebody, form, page) if sent[1] >= 500]
        assert not broken


@pytest.mark.parametrize("value", ODD)
def test_no_query_of_the_portal_breaks(somebody: Browser, value: str) -> None:
    """`since` is a number; other parameters are ignored."""
    for path in portal_paths():
        params = dict.fromkeys(("since", "p", "page", "next", "user_code"), value)
        if len(value) < 1_000:
            assert somebody.http.get(path, params=params).status_code < 500, path


HUGE = "9" * 30
"""Larger than any id that a database can store."""
FORMS: dict[str, dict[str, Any]] = {
    "/admin/accounts/role/add/": {"name": "odd", "scopes": [HUGE]},
    "/admin/accounts/oauthclient/add/": {"client_jwks": "9" * 5_000},
    "/admin/accounts/user/add/": {"role_assignments-TOTAL_FORMS": HUGE},
    "/admin/accounts/signinprovider/add/": {"rules-TOTAL_FORMS": HUGE},
}
"""One form for each way in which an odd value caused a 5xx in the admin."""


@pytest.mark.parametrize("path", FORMS)
def test_no_form_of_the_admin_breaks(server: Portico, path: str) -> None:
    """A browser cannot make the server load many rows."""
    with server.in_process() as browser:
        browser.sign_in("carol")
        browser.open(path)
        start = time.monotonic()
        browser.submit(browser.form("_save"), "_save", **FORMS[path])
        assert browser.page.status_code in (200, 400), browser.page.status_code
        assert time.monotonic() - start < 10
        assert "odd" not in Role.objects.values_list("name", flat=True)


def test_a_value_that_no_column_stores_is_a_400(server: Portico) -> None:
    """Users get a page and programs JSON."""
    with server.in_process() as browser:
        browser.sign_in("carol")
        for kind in ("text/html", "application/json"):
            path = f"/admin/access/matrix/?role={HUGE}"
            answer = browser.http.get(path, headers={"accept": kind})
            assert answer.status_code in (200, 400), answer.text[:200]


def encoded(text: str) -> str:
    """base64url without padding, as WebAuthn writes bytes."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


RESPONSE = {
    "clientDataJSON": encoded('{"type": "webauthn.get", "challenge": "eA"}'),
    "authenticatorData": encoded("\0" * 37),
    "attestationObject": encoded("\xa3"),
    "signature": encoded("x"),
    "userHandle": encoded("1"),
}
PASSKEYS = [
    "[1]",
    '{"id": "\\ud800"}',
    "[" * 5_000,
    "9" * 5_000,
    '{"response": 1}',
    *(
        json.dumps(
            {
                "id": encoded("x"),
                "rawId": encoded("x"),
                "type": "public-key",
                "response": {**RESPONSE, name: value},
            }
        )
        for name in RESPONSE
        for value in ("", 1, None, encoded("[1]"), encoded("9" * 40), "!")
    ),
]
"""Malformed WebAuthn responses."""


def post_passkeys(browser: Browser, path: str) -> Iterator[tuple[str, int]]:
    """Each odd response at one page: the sent value, and the status."""
    for text in PASSKEYS:
        browser.http.get(path)
        form = {"credential": text, "name": "key"}
        form["csrfmiddlewaretoken"] = browser.http.cookies.get("csrftoken") or ""
        headers = {"referer": str(browser.http.base_url)}
        answer = browser.http.post(
            path, data=form, headers=headers, follow_redirects=False
        )
        yield text[:200], answer.status_code


@pytest.mark.once
def test_an_odd_passkey_is_refused_at_the_sign_in_page(server: Portico) -> None:
    with server.in_process() as browser:
        browser.open("/accounts/login/")
        sent = list(post_passkeys(browser, "/accounts/2fa/webauthn/login/"))
        assert [one for one in sent if one[1] >= 500] == []


@pytest.mark.once
def test_an_odd_passkey_is_not_registered(server: Portico) -> None:
    """The server does not ask again."""
    make_user("bob", "Guest")
    with server.in_process() as browser:
        browser.open("/portal/")
        browser.submit(browser.form("password"), login="bob", password=PASSWORD)
        browser.open("/accounts/2fa/webauthn/add/")
        if "reauthenticate" in str(browser.page.url):
            browser.submit(browser.form("password"), password=PASSWORD)
        sent = list(post_passkeys(browser, "/accounts/2fa/webauthn/add/"))
        assert [one for one in sent if one[1] >= 400] == []
        sent = list(post_passkeys(browser, "/accounts/2fa/webauthn/reauthenticate/"))
        assert [one for one in sent if one[1] >= 500] == []
    assert not Authenticator.objects.filter(user__username="bob").exists()
