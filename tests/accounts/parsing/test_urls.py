"""URLs from outside: split, or nothing, and never an exception."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts.models import User
from accounts.parsing.urls import split_url
from tests.support.static_files import UNCOLLECTED
from tests.support.users import browser_of

ODD = [
    "https://[x]/m",
    "http://[x",
    "//[",
    "https://[::1%25lo]/",
    "https://[v1.x]/",
    "https://[127.0.0.1]/",
    "https://a.example:99999/m",
    "https://a.example:x/",
    "https://\u2100.example/",
    "https://ex\u00e4mple.com/cb",
    "http://a\\b",
    "https://a\x7f/",
    "https://a.example/\n",
    "\thttps://a.example/",
    "https://a.example/%zz",
    "https://a.example/<x>",
    "https://a.example/{tenant}/",
    "https://a.example/a b",
    "https://a.example/#",
    "a.example",
    "/path",
    "",
]


@pytest.mark.parametrize("text", ODD)
def test_other_text_is_no_url(text: str) -> None:
    assert split_url(text) is None


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port"),
    [
        ("https://A.example:8443/x?y=%20z", "https", "a.example", 8443),
        ("http://[::1]:5/cb", "http", "::1", 5),
        ("https://[2001:db8::1]/", "https", "2001:db8::1", None),
        ("com.example.app:/cb", "com.example.app", None, None),
        ("zed://settings", "zed", "settings", None),
        ("https:///cb", "https", None, None),
    ],
)
def test_an_absolute_url_is_split(
    text: str, scheme: str, host: str | None, port: int | None
) -> None:
    """RFC 3986 4.3"""
    parts = split_url(text)
    assert parts is not None
    assert (parts.scheme, parts.hostname, parts.port) == (scheme, host, port)


PAGES = [
    ("/accounts/login/", "next"),
    ("/accounts/logout/", "next"),
    ("/accounts/reauthenticate/", "next"),
    ("/accounts/2fa/authenticate/", "next"),
    ("/accounts/oidc/none/login/", "next"),
    ("/admin/login/", "next"),
    ("/oauth/authorize", "client_id"),
    ("/oauth/authorize", "redirect_uri"),
    ("/oauth/authorize", "resource"),
]
FORMS = [
    (f"/oauth/{name}", parameter)
    for name in ("token", "device", "revoke", "introspect")
    for parameter in ("client_id", "redirect_uri", "resource", "client_assertion")
]


@pytest.mark.parametrize(("path", "parameter"), [*PAGES, *FORMS])
def test_no_endpoint_breaks_on_text_that_is_no_url(
    alice: User, path: str, parameter: str, settings: object
) -> None:
    settings.STORAGES = UNCOLLECTED  # type: ignore[attr-defined]
    for limit in ("PASSWORD", "AUTHORIZE", "DEVICE", "TOKEN", "INTROSPECT"):
        setattr(settings, f"LIMIT_{limit}", "off")
    browsers = [Client()] if "/oauth/" in path else [Client(), browser_of(alice)]
    if path == "/oauth/authorize":
        browsers.append(browser_of(alice))
    for browser in browsers:
        for text in ODD[:10]:
            sent = {parameter: text, "response_type": "code", "grant_type": "x"}
            for answer in (browser.get(path, sent), browser.post(path, sent)):
                assert answer.status_code < 500, (text, answer.status_code)
