"""Rate limits of Django's endpoints: which requests count, and by which key.

Requests count in sliding windows: in Valkey or Redis (VALKEY_URL) for all workers, or
in this process. The memory storage of `limits` starts a thread every 10 ms and walks
over all keys, so a single process uses `SlidingWindow` instead.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_plus

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from limits.errors import StorageError

from accounts.crypto.secrets import secret_hash
from accounts.http.client_address import client_address, rate_limit_prefix
from accounts.rate_limits.errors import (
    RateLimited,
    RateLimitUnavailable,
    rate_limited_response,
)
from accounts.rate_limits.store import RETRY_SECONDS, shared_store
from accounts.rate_limits.window import PROCESS_WINDOWS, Limit, configured_limit

logger = logging.getLogger(__name__)

FORM = "application/x-www-form-urlencoded"
ADDRESS_FACTOR = 10
"""All clients or users of one address together may use this multiple of a limit."""


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """A limit by its setting; `fail_closed` refuses if the store is away."""

    setting: str
    fail_closed: bool = False


POLICIES = {
    "password": RatePolicy("LIMIT_PASSWORD", fail_closed=True),
    "mail": RatePolicy("LIMIT_MAIL", fail_closed=True),
    "register": RatePolicy("LIMIT_REGISTER", fail_closed=True),
    "token": RatePolicy("LIMIT_TOKEN"),
    "authorize": RatePolicy("LIMIT_AUTHORIZE"),
    "introspect": RatePolicy("LIMIT_INTROSPECT"),
    "device": RatePolicy("LIMIT_DEVICE"),
    "api": RatePolicy("LIMIT_API"),
}


def check_rate(policy: str, address: str, who: str = "") -> None:
    """Count one request. Raises RateLimited or RateLimitUnavailable.

    The client or user (`who`) counts before its address: a client over its limit must
    not use up the limit of its neighbours. An address over its limit is refused before
    both, or each name it invents would add a key to the store.
    """
    setting, closed = POLICIES[policy].setting, POLICIES[policy].fail_closed
    limit = configured_limit(setting)
    if limit is None:
        return
    wide = limit.times(ADDRESS_FACTOR)
    own_key, address_key = f"{policy} {address} {who}", f"{policy} {address}"
    wait = 0.0
    if who:
        wait = seconds_to_wait("wait", address_key, wide, closed)
    wait = wait or seconds_to_wait("hit", own_key, limit, closed)
    if who and not wait:
        wait = seconds_to_wait("hit", address_key, wide, closed)
    if wait:
        raise RateLimited(_("Too many requests. Wait before you try again."), wait)


def seconds_to_wait(
    operation: Literal["hit", "wait"], key: str, limit: Limit, fail_closed: bool
) -> float:
    """Call `operation` of the shared store or of this process; 0 means no wait.

    While the store is away, this process counts unless `fail_closed`.
    """
    if not settings.VALKEY_URL:
        return float(getattr(PROCESS_WINDOWS, operation)(key, limit))
    try:
        return float(getattr(shared_store(settings.VALKEY_URL), operation)(key, limit))
    except StorageError as error:
        if fail_closed:
            text = _("Sign-in is temporarily unavailable. Try again in a minute.")
            raise RateLimitUnavailable(text, RETRY_SECONDS) from error
        return float(getattr(PROCESS_WINDOWS, operation)(key, limit))


RateKey = Callable[[HttpRequest], str]


def by_client(request: HttpRequest) -> str:
    """Return the client_id a request claims; clients may share an address.

    The secret is not part of the key: the store keeps keys, and guesses of secrets
    must count together.
    """
    form = request.POST if request.content_type == FORM else {}
    scheme, _blank, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            credentials = base64.b64decode(value).decode()
        except ValueError:
            return ""
        return unquote_plus(credentials.partition(":")[0])[:255]
    return str(form.get("client_id", ""))[:255]


def by_user(request: HttpRequest) -> str:
    """Return the id of the signed-in user; empty if there is none."""
    return str(request.user.pk or "")


def by_token(request: HttpRequest) -> str:
    """Return a hash of the bearer token: the store keeps keys."""
    return secret_hash(request.headers.get("Authorization", ""))


def by_address(request: HttpRequest) -> str:
    """Return nothing, so only the address counts."""
    return ""


RULES: list[tuple[str, str, str, RateKey]] = [
    ("POST", r"/api/token/", "password", by_address),
    ("POST", r"/api/token/\w+/", "token", by_address),
    ("POST", r"/(?:admin|accounts)/login/", "password", by_address),
    ("POST", r"/admin/password_change/", "password", by_address),
    ("POST", r"/accounts/(?:2fa|reauthenticate)/.*", "password", by_address),
    ("POST", r"/accounts/password/(?:change|set)/", "password", by_address),
    ("GET|POST", r"/accounts/password/reset/key/.*", "password", by_address),
    ("POST", r"/accounts/password/reset/", "mail", by_address),
    ("GET|POST", r"/accounts/invitation/.*", "password", by_address),
    ("GET|POST", r"/accounts/oidc/.*", "authorize", by_address),
    ("POST", r"/oauth/register", "register", by_address),
    ("POST", r"/oauth/(?:token|revoke)", "token", by_client),
    ("POST", r"/oauth/introspect", "introspect", by_client),
    ("POST", r"/oauth/device", "device", by_client),
    ("GET|POST", r"/device", "device", by_user),
    ("GET|POST", r"/oauth/authorize", "authorize", by_user),
    ("GET|POST", r"/api/v1/.*", "api", by_token),
]
"""Method, path, policy, and the key that counts before the address."""

COMPILED_RULES = [
    (re.compile(f"(?:{m}) {p}"), policy, who) for m, p, policy, who in RULES
]

SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
"""These methods count as GET, all others as POST."""


def rule_for(method: str, path: str) -> tuple[str, RateKey] | None:
    """Return the policy and its key function; None for requests that do not count."""
    request_line = f"{'GET' if method in SAFE_METHODS else 'POST'} {path}"
    for pattern, policy, who in COMPILED_RULES:
        if pattern.fullmatch(request_line):
            return policy, who
    return None


class RateLimitMiddleware:
    """Count requests by RULES before their view is called."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponse | None:
        """Return None or a refusal: Django handles no exceptions from this hook."""
        rule = rule_for(str(request.method), request.path)
        return None if rule is None else self.refusal(request, *rule)

    def refusal(
        self, request: HttpRequest, policy: str, who: RateKey
    ) -> HttpResponse | None:
        """Count the request; return the response if it exceeds a limit."""
        address = rate_limit_prefix(client_address(request))
        try:
            check_rate(policy, address, who(request))
        except RateLimited as problem:
            return rate_limited_response(request, problem)
        return None
