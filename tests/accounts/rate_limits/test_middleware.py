"""Which requests count, by which key, and what happens without the store."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from limits.errors import StorageError

from accounts.crypto.secrets import secret_hash
from accounts.rate_limits import middleware
from accounts.rate_limits.errors import RateLimited, RateLimitUnavailable
from accounts.rate_limits.middleware import (
    ADDRESS_FACTOR,
    COMPILED_RULES,
    POLICIES,
    RateLimitMiddleware,
    by_address,
    by_client,
    by_token,
    by_user,
    check_rate,
    rule_for,
)
from accounts.rate_limits.window import PROCESS_WINDOWS
from tests.support.static_files import UNCOLLECTED
from tests.support.urls import PATHS
from tests.support.users import account, browser_of

COUNTED: list[tuple[str, str, str, Any]] = [
    ("POST", "/api/token/", "password", by_address),
    ("POST", "/api/token/refresh/", "token", by_address),
    ("POST", "/api/token/verify/", "token", by_address),
    ("POST", "/api/token/blacklist/", "token", by_address),
    ("POST", "/accounts/login/", "password", by_address),
    ("POST", "/admin/login/", "password", by_address),
    ("POST", "/admin/password_change/", "password", by_address),
    ("POST", "/accounts/2fa/authenticate/", "password", by_address),
    ("POST", "/accounts/2fa/reauthenticate/", "password", by_address),
    ("POST", "/accounts/2fa/webauthn/login/", "password", by_address),
    ("POST", "/accounts/reauthenticate/", "password", by_address),
    ("POST", "/accounts/password/change/", "password", by_address),
    ("POST", "/accounts/password/set/", "password", by_address),
    ("GET", "/accounts/password/reset/key/1-1/", "password", by_address),
    ("POST", "/accounts/password/reset/key/1-1/", "password", by_address),
    ("POST", "/accounts/password/reset/", "mail", by_address),
    ("GET", "/accounts/invitation/1/", "password", by_address),
    ("POST", "/accounts/invitation/", "password", by_address),
    ("GET", "/accounts/oidc/1/login/", "authorize", by_address),
    ("POST", "/accounts/oidc/1/login/", "authorize", by_address),
    ("GET", "/accounts/oidc/1/login/callback/", "authorize", by_address),
    ("POST", "/oauth/register", "register", by_address),
    ("POST", "/oauth/token", "token", by_client),
    ("POST", "/oauth/revoke", "token", by_client),
    ("POST", "/oauth/introspect", "introspect", by_client),
    ("POST", "/oauth/device", "device", by_client),
    ("GET", "/device", "device", by_user),
    ("POST", "/device", "device", by_user),
    ("GET", "/oauth/authorize", "authorize", by_user),
    ("POST", "/oauth/authorize", "authorize", by_user),
    ("GET", "/api/v1/people/", "api", by_token),
    ("POST", "/api/v1/people/", "api", by_token),
]
"""A request for every rule; a rule that is removed is missed here."""
FAIL_CLOSED = {"password", "mail", "register"}
UNCOUNTED = {
    "/",
    "/accounts/",
    "/accounts/confirm-email/",
    "/accounts/confirm-email/1/",
    "/accounts/email/",
    "/accounts/inactive/",
    "/accounts/language/",
    "/help/",
    "/help/1/",
    "/accounts/login/code/confirm/",
    "/accounts/logout/",
    "/accounts/password/reset/done/",
    "/accounts/signup/",
    "/accounts/social/",
    "/accounts/social/login/cancelled/",
    "/accounts/social/login/error/",
    "/accounts/social/signup/",
    "/api/docs/",
    "/api/schema/",
    "/healthz",
    "/oauth/jwks.json",
    "/readyz",
}
"""Paths outside the admin and the portal that ask for no secret."""


@pytest.fixture(autouse=True)
def one_each(settings: Any) -> None:
    """One request an hour for every policy."""
    settings.STORAGES = UNCOLLECTED
    settings.VALKEY_URL = ""
    for policy in POLICIES.values():
        setattr(settings, policy.setting, "1/hour")


class AwayStore:
    """A shared store that does not answer."""

    def hit(self, key: str, limit: Any) -> float:
        raise StorageError(ConnectionError("away"))

    wait = hit


@pytest.fixture
def away(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.VALKEY_URL = "valkey://away"
    monkeypatch.setattr(middleware, "shared_store", lambda url: AwayStore())


@pytest.mark.parametrize(("method", "path", "policy", "who"), COUNTED)
def test_a_request_counts_by_its_rule(
    method: str, path: str, policy: str, who: Any
) -> None:
    assert rule_for(method, path) == (policy, who)


def test_every_rule_has_a_request() -> None:
    """In the table above."""
    for pattern, policy, who in COMPILED_RULES:
        assert [
            1
            for method, path, *rule in COUNTED
            if pattern.fullmatch(f"{method} {path}") and rule == [policy, who]
        ], pattern


def test_pages_without_a_rule_are_known() -> None:
    """A new page that asks for a secret needs a rule."""
    free = {
        path
        for path in PATHS
        if rule_for("POST", path) is None
        and not path.startswith(("/admin/", "/portal/", "/.well-known/"))
    }
    assert free == UNCOUNTED


@pytest.mark.parametrize(("method", "path", "policy", "who"), COUNTED)
def test_the_second_request_is_refused(
    db: None, method: str, path: str, policy: str, who: Any, settings: Any
) -> None:
    """By this policy: all others are off. RFC 6585 4."""
    for name, other in POLICIES.items():
        if name != policy:
            setattr(settings, other.setting, "off")
    client = Client(headers={"accept": "application/json"})
    assert client.generic(method, path).status_code != 429
    most = 0 if who is by_address else 1
    refused = client.generic(method, path)
    assert refused.status_code == 429 and 1 <= int(refused["Retry-After"]) <= 7200
    assert refused.json()["error"] == "too_many_requests"
    assert refused["Cache-Control"] == "no-store"
    elsewhere = client.generic(method, path, REMOTE_ADDR=f"192.0.2.{most}")
    assert elsewhere.status_code != 429


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_safe_methods_count_as_get(method: str) -> None:
    assert rule_for(method, "/device") == ("device", by_user)
    assert rule_for(method, "/api/token/") is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "ANY"])
def test_other_methods_count_as_post(method: str) -> None:
    assert rule_for(method, "/api/token/") == ("password", by_address)


@pytest.mark.parametrize("path", ["/api/token/x/y/", "/x/device", "/device/x", "/mcp"])
def test_a_rule_matches_whole_paths(path: str) -> None:
    assert rule_for("POST", path) is None


def basic(user: str) -> str:
    return "Basic " + b64encode(f"{user}:secret".encode()).decode()


@pytest.mark.parametrize(
    ("header", "form", "key"),
    [
        (basic("one"), {}, "one"),
        (basic("a%3Ab+c"), {}, "a:b c"),
        (basic("one").replace("Basic", "bASIC"), {"client_id": "two"}, "one"),
        (basic("x" * 300), {}, "x" * 255),
        ("Basic %%%", {"client_id": "two"}, ""),
        ("Basic " + b64encode(b"\xff\xff").decode(), {}, ""),
        ("Basic " + b64encode(b"one:x").decode() + " ", {"client_id": "two"}, "one"),
        ("Bearer abc", {"client_id": "two"}, "two"),
        ("", {"client_id": "two"}, "two"),
        ("", {"client_id": "y" * 300}, "y" * 255),
        ("", {}, ""),
    ],
)
def test_a_client_counts_by_the_id_it_claims(
    header: str, form: dict[str, str], key: str
) -> None:
    """RFC 6749 2.3.1; never by its secret."""
    body = "&".join(f"{name}={value}" for name, value in form.items())
    headers = {"authorization": header} if header else {}
    request = RequestFactory().post(
        "/oauth/token", body, content_type=middleware.FORM, headers=headers
    )
    assert by_client(request) == key


def test_other_bodies_name_no_client() -> None:
    """A multipart body is not parsed for the count."""
    request = RequestFactory().post("/oauth/token", {"client_id": "two"})
    assert by_client(request) == ""


def test_a_signed_in_user_counts_by_id(alice: Any) -> None:
    request = RequestFactory().get("/device")
    request.user = AnonymousUser()
    assert by_user(request) == "" == by_address(request)
    request.user = alice
    assert by_user(request) == str(alice.pk) and by_address(request) == ""


def test_a_token_counts_by_its_hash() -> None:
    """The store keeps the keys."""
    bearer = {"authorization": "Bearer portico_pat_x"}
    request = RequestFactory().get("/api/v1/users/", headers=bearer)
    assert by_token(request) == secret_hash("Bearer portico_pat_x")
    assert by_token(RequestFactory().get("/api/v1/users/")) == secret_hash("")


def is_refused(policy: str, address: str, who: str = "") -> bool:
    try:
        check_rate(policy, address, who)
    except RateLimited:
        return True
    return False


def test_each_user_of_an_address_has_a_limit_and_all_share_a_wider_one() -> None:
    """Ten times as wide."""
    for number in range(ADDRESS_FACTOR):
        assert not is_refused("device", "192.0.2.1", str(number))
        assert is_refused("device", "192.0.2.1", str(number))
    assert ADDRESS_FACTOR == 10 and is_refused("device", "192.0.2.1", "another")
    assert not is_refused("device", "192.0.2.2", "another")
    assert not is_refused("token", "192.0.2.1", "another")


def test_a_limit_that_is_off_counts_nothing(settings: Any) -> None:
    settings.LIMIT_DEVICE = "off"
    assert not any(is_refused("device", "192.0.2.1", "a") for _ in range(20))
    assert not PROCESS_WINDOWS.counts


def test_a_household_of_ipv6_counts_together(db: None) -> None:
    """The /64 is one client; the next /64 is another."""
    client = Client()
    statuses = [
        client.post("/api/token/", REMOTE_ADDR=address).status_code
        for address in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1")
    ]
    assert statuses == [415, 429, 415]


def test_a_page_of_one_user_counts_apart_from_others(db: None) -> None:
    one, two = browser_of(account("one")), browser_of(account("two"))
    assert one.get("/device").status_code == 200
    assert one.get("/device").status_code == 429
    assert two.get("/device").status_code == 200


@pytest.mark.parametrize("policy", POLICIES)
def test_without_the_store_only_secrets_are_refused(away: None, policy: str) -> None:
    """Passwords, mails and registrations stop; other requests count in the process."""
    assert POLICIES[policy].fail_closed == (policy in FAIL_CLOSED)
    if policy in FAIL_CLOSED:
        with pytest.raises(RateLimitUnavailable) as refused:
            check_rate(policy, "192.0.2.1")
        assert refused.value.wait == 2
        return
    assert not is_refused(policy, "192.0.2.1")
    assert is_refused(policy, "192.0.2.1")


@pytest.mark.parametrize(
    "path", ["/accounts/password/reset/", "/api/token/", "/oauth/register"]
)
def test_an_unavailable_store_answers_503(away: None, db: None, path: str) -> None:
    answer = Client().post(path, {"email": "dora@example.com"})
    assert answer.status_code == 503 and answer["Retry-After"] == "2"
    assert answer.json()["error"] == "temporarily_unavailable"
    assert Client().post("/oauth/token").status_code != 503


def test_the_shared_store_is_asked_first(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses for the seconds that it says; the process counts nothing."""
    asked: list[tuple[str, int]] = []

    class Store:
        def hit(self, key: str, limit: Any) -> float:
            asked.append((key, limit.most))
            return 7.2

        def wait(self, key: str, limit: Any) -> float:
            asked.append((f"wait {key}", limit.most))
            return 0.0

    settings.VALKEY_URL = "valkey://near"
    monkeypatch.setattr(middleware, "shared_store", lambda url: Store())
    with pytest.raises(RateLimited) as refused:
        check_rate("device", "192.0.2.1", "a")
    assert refused.value.wait == 8 and not PROCESS_WINDOWS.counts
    assert asked == [("wait device 192.0.2.1", 10), ("device 192.0.2.1 a", 1)]


def test_the_middleware_passes_requests_on() -> None:
    answer = HttpResponse("served")
    counted = RateLimitMiddleware(lambda request: answer)
    request = HttpRequest()
    request.method, request.path = "GET", "/healthz"
    assert counted(request) is answer and counted.process_view(request) is None
