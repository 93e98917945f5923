"""Which URIs may receive codes, and the redirect with `iss`."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from django.test import override_settings
from oauth2_provider.oauth2_backends import _add_iss_to_redirect
from oauthlib.common import add_params_to_uri

from accounts.errors import InvalidRedirectURI
from accounts.oauth.redirect_uris import (
    added_parameters,
    host_of,
    is_interceptable,
    is_loopback,
    response_uri,
    validate_redirect_uri,
)

SCHEMES = "cursor kiro vscode vscode-insiders vscodium warp windsurf zed".split()


def of_length(length: int) -> str:
    start = "https://app.example/"
    return start + "a" * (length - len(start))


GOOD = [
    "https://app.example/cb",
    "https://app.example",
    "https://app.example:8443/cb?keep=1&b=2",
    "https://app_1.example/cb",
    "https://app.example/@user:1/cb",
    "https://app.example?to=a:b@c",
    "https://[2001:db8::1]/cb",
    "https://127.1/cb",
    "http://localhost/cb",
    "http://localhost:1234/cb",
    "http://LOCALHOST/cb",
    "http://127.0.0.1/cb",
    "http://127.0.0.2:65535/cb",
    "http://[::1]:8080/cb",
    "com.example.app:/cb",
    "com.example.app://anything/cb",
    f"{'a' * 98}.b:/cb",
    of_length(2_000),
    *(f"{scheme}://any/cb" for scheme in SCHEMES),
]


@pytest.mark.spec("OAuth 2.1 2.3.1")
@pytest.mark.parametrize("uri", GOOD, ids=lambda uri: uri[:40])
def test_a_uri_that_may_receive_codes_is_returned(uri: str) -> None:
    assert validate_redirect_uri(uri) == uri


BAD: list[tuple[Any, str]] = [
    (None, "must be a string"),
    (7, "must be a string"),
    (["https://app.example"], "must be a string"),
    ("", "must be a string"),
    (of_length(2_001), "must be a string"),
    ("https://app.example/c b", "space or a fragment"),
    ("https://app.example/cb\n", "space or a fragment"),
    ("https://app.example/\u00a0", "space or a fragment"),
    ("https://app.example/\x7f", "space or a fragment"),
    ("https://app.example/\u200b", "space or a fragment"),
    ("https://app.example/cb#f", "space or a fragment"),
    ("https://app.example/cb#", "space or a fragment"),
    ("https://evil.example\\.app.example/cb", "is not a URI"),
    ("https://cl\u0430ude.ai/cb", "is not a URI"),
    ("https://app.example/\u00e9", "is not a URI"),
    ("https://[", "is not a URI"),
    ("https://app.example:99999/cb", "is not a URI"),
    ("http://127.0.0.1:x/cb", "is not a URI"),
    ("https://user@app.example/cb", "usernames or wildcards"),
    ("https://@app.example/cb", "usernames or wildcards"),
    ("com.example.app://u@x/cb", "usernames or wildcards"),
    ("https://user:secret@app.example/cb", "usernames or wildcards"),
    ("https://app.example:443@evil.example/cb", "usernames or wildcards"),
    ("https://:@app.example/cb", "usernames or wildcards"),
    ("http://u:p@localhost/cb", "usernames or wildcards"),
    ("com.example.app://u:p@x/cb", "usernames or wildcards"),
    ("https://*.app.example/cb", "usernames or wildcards"),
    ("https://app.example/*", "usernames or wildcards"),
    ("https:///cb", "use https"),
    ("https://%65vil.example/cb", "use https"),
    ("https://app.example%2eevil.example/cb", "use https"),
    ("https://app+evil.example/cb", "use https"),
    ("http://app.example/cb", "use https"),
    ("http:///cb", "use https"),
    ("http://127.1/cb", "use https"),
    ("http://localhost.evil.example/cb", "use https"),
    ("http://localhost./cb", "use https"),
    ("http://128.0.0.1/cb", "use https"),
    ("http://[::2]/cb", "use https"),
    ("http://0.0.0.0/cb", "use https"),
    ("https://app.example/%zz", "is not a URI"),
    ("https://app.example/<x>", "is not a URI"),
    ("https://app.example/[", "is not a URI"),
    ("https://app.example/{tenant}", "is not a URI"),
    ("https://[v1.x]/cb", "is not a URI"),
    ("http://[::1%25lo]/cb", "is not a URI"),
    ("http://[127.0.0.1]/cb", "is not a URI"),
    ("javascript:alert(1)", "use https"),
    ("data:text/html,x", "use https"),
    ("custom:/cb", "use https"),
    ("cursors://any/cb", "use https"),
    ("vscode-/cb", "is not a URI"),
    ("/cb", "is not a URI"),
    (f"{'a' * 99}.b:/cb", "use https"),
]


@pytest.mark.spec("OAuth 2.1 2.3.1")
@pytest.mark.parametrize(("uri", "reason"), BAD, ids=lambda value: str(value)[:40])
def test_other_uris_are_refused_with_the_reason(uri: Any, reason: str) -> None:
    with pytest.raises(InvalidRedirectURI, match=reason):
        validate_redirect_uri(uri)


def test_the_reason_shows_80_characters_of_the_uri() -> None:
    uri = "http://evil.example/" + "a" * 100
    with pytest.raises(InvalidRedirectURI) as refused:
        validate_redirect_uri(uri)
    assert str(refused.value).startswith(f"{uri[:80]}: use https")


def test_a_setting_lists_the_schemes_without_a_dot() -> None:
    """RFC 8252 7.1"""
    assert settings.REDIRECT_SCHEMES == SCHEMES
    with override_settings(REDIRECT_SCHEMES=["mine"]):
        assert validate_redirect_uri("mine://cb") and validate_redirect_uri("MINE:/cb")
        for scheme in (*SCHEMES, "mines", "min"):
            with pytest.raises(InvalidRedirectURI, match="use https"):
                validate_redirect_uri(f"{scheme}://cb")
        assert validate_redirect_uri("com.example.app:/cb")


@pytest.mark.spec("RFC 8252 7.3")
@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("localhost.", False),
        ("localhost.example", False),
        ("128.0.0.1", False),
        ("126.255.255.255", False),
        ("::2", False),
        ("10.0.0.1", False),
        ("127.1", False),
        ("", False),
        (None, False),
    ],
)
def test_loopback_hosts(host: str | None, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.spec("RFC 8252 8.6")
@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://App.example:8443/cb", "app.example"),
        ("http://127.0.0.1:43117/cb", "127.0.0.1"),
        ("http://[::1]/cb", "::1"),
        ("cursor://claude.ai/cb", "cursor:"),
        ("com.example.app:/cb", "com.example.app:"),
        ("https:///cb", "https:"),
        (f"https://{'a' * 300}.example/cb", "a" * 255),
    ],
    ids=lambda value: value[:40],
)
def test_a_page_shows_the_host_or_the_scheme(uri: str, shown: str) -> None:
    assert host_of(uri) == shown


@pytest.mark.spec("RFC 8252 8.6: always ask for a shared redirect")
@pytest.mark.parametrize(
    ("uri", "shared"),
    [
        ("https://app.example/cb", False),
        ("https://localhost.example/cb", False),
        ("https://notlocalhost/cb", False),
        ("https://8.8.8.8/cb", False),
        ("http://app.example/cb", True),
        ("http://127.0.0.1/cb", True),
        ("https://127.0.0.1/cb", True),
        ("https://127.1/cb", True),
        ("https://[::1]/cb", True),
        ("https://localhost/cb", True),
        ("https://localhost./cb", True),
        ("https://app.localhost/cb", True),
        ("https://a..b/cb", True),
        ("https:///cb", True),
        ("cursor://claude.ai/cb", True),
        ("com.example.app:/cb", True),
    ],
)
def test_redirects_that_any_local_program_may_receive(uri: str, shared: bool) -> None:
    assert is_interceptable(uri) is shared


@pytest.mark.spec("RFC 9207 2")
@pytest.mark.parametrize(
    ("uri", "query"),
    [
        ("https://app.example/cb", ""),
        ("https://app.example/cb?code=c&state=s", "code=c&state=s&"),
        ("https://app.example/cb?iss=https://evil.example&a=1", "a=1&"),
        ("https://app.example/cb?iss=&iss=x&empty=", "empty=&"),
        ("https://app.example/cb?isss=1", "isss=1&"),
        ("cursor://any/cb?a=1", "a=1&"),
    ],
)
def test_a_redirect_carries_one_issuer(uri: str, query: str) -> None:
    base = uri.partition("?")[0]
    issuer = quote(settings.ISSUER_URL, safe="")
    assert response_uri(uri, []) == f"{base}?{query}iss={issuer}"


@pytest.mark.spec("RFC 6749 3.1.2: the client's own query is kept")
@pytest.mark.parametrize(
    "own",
    ["a=%20b", "a=+b", "a=%2B&b", "a&&b=", "a=1&", "a=%c3%A9", "a=/?:@", "x=1;y=2"],
)
def test_the_clients_own_query_is_not_encoded_again(own: str) -> None:
    uri = f"https://app.example/cb?{own}"
    found = response_uri(uri, [("code", "a b"), ("state", "&="), ("iss", "other")])
    issuer = quote(settings.ISSUER_URL, safe="")
    assert found == f"{uri}&code=a+b&state=%26%3D&iss={issuer}"


@pytest.mark.parametrize("own", ["", "?", "?a=%20b&c", "?iss=x&a", "?code=own&&"])
def test_the_parameters_of_the_libraries_are_told_from_the_clients(own: str) -> None:
    uri = f"https://app.example/cb{own}"
    params = [("code", "c"), ("state", "s=&"), ("empty", "")]
    made = _add_iss_to_redirect(add_params_to_uri(uri, params), "https://issuer")
    assert added_parameters(uri, made) == params
