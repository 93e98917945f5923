"""Rate limits: how often a door may be used, by whom, and who is told to wait.

Sliding windows: in this process, or (VALKEY_URL) in Valkey or Redis for every worker
through the `limits` library. Its own memory storage starts a thread every 10 ms and
walks over all keys, so one process counts by `SlidingWindow` below.
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
from django.utils.translation import gettext as _
from limits.errors import StorageError

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
"""How many times a limit all clients (or people) of one address have together."""


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """A limit by its setting, and whether the door shuts when nobody can count."""

    setting: str
    closed: bool = False


POLICIES = {
    "password": RatePolicy("LIMIT_PASSWORD", closed=True),
    "mail": RatePolicy("LIMIT_MAIL", closed=True),
    "register": RatePolicy("LIMIT_REGISTER", closed=True),
    "token": RatePolicy("LIMIT_TOKEN"),
    "authorize": RatePolicy("LIMIT_AUTHORIZE"),
    "introspect": RatePolicy("LIMIT_INTROSPECT"),
    "device": RatePolicy("LIMIT_DEVICE"),
}


def check_rate(policy: str, address: str, who: str = "") -> None:
    """Count one use of a door. Raises TooMany, or CannotCount where it shuts.

    Client or person first, then everybody of the address: a client over its limit
    does not use up what its neighbours have. But an address over its limit is
    refused before that, or each name it invents would add a key to the store.
    """
    about = POLICIES[policy]
    limit = configured_limit(about.setting)
    if limit is None:
        return
    own, shared_by_all = f"{policy} {address} {who}", f"{policy} {address}"
    wait = 0.0
    if who:
        wait = asked("wait", shared_by_all, limit.times(ADDRESS_FACTOR), about.closed)
    wait = wait or asked("hit", own, limit, about.closed)
    if who and not wait:
        wait = asked("hit", shared_by_all, limit.times(ADDRESS_FACTOR), about.closed)
    if wait:
        raise RateLimited(_("Too many requests; wait a little."), wait)


def asked(what: Literal["hit", "wait"], key: str, limit: Limit, closed: bool) -> float:
    """Seconds to wait (0: none), by the shared store or by this process."""
    if not settings.VALKEY_URL:
        return float(getattr(PROCESS_WINDOWS, what)(key, limit))
    try:
        return float(getattr(shared_store(settings.VALKEY_URL), what)(key, limit))
    except StorageError as error:
        if closed:
            text = _("Sign-in is not possible at this moment; try again.")
            raise RateLimitUnavailable(text, RETRY_SECONDS) from error
        return float(getattr(PROCESS_WINDOWS, what)(key, limit))


RateKey = Callable[[HttpRequest], str]


def by_client(request: HttpRequest) -> str:
    """The client a request claims to be: it shares an address with others.

    Never the secret beside it: keys are kept in a store, and guessing other secrets
    must not give other counts.
    """
    form = request.POST if request.content_type == FORM else {}
    scheme, _blank, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            told = base64.b64decode(value).decode()
        except ValueError:
            return ""
        return unquote_plus(told.partition(":")[0])[:255]
    return str(form.get("client_id", ""))[:255]


def by_user(request: HttpRequest) -> str:
    """Who is signed in."""
    return str(request.user.pk or "")


def by_address(request: HttpRequest) -> str:
    """The address alone."""
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
    ("GET|POST", r"/accounts/oidc/.*", "authorize", by_address),
    ("POST", r"/oauth/register", "register", by_address),
    ("POST", r"/oauth/(?:token|revoke)", "token", by_client),
    ("POST", r"/oauth/introspect", "introspect", by_client),
    ("POST", r"/oauth/device", "device", by_client),
    ("GET|POST", r"/device", "device", by_user),
    ("GET|POST", r"/oauth/authorize", "authorize", by_user),
]
"""Method, path, door, and who is counted first; the address comes second."""

COMPILED = [(re.compile(f"(?:{m}) {p}"), policy, who) for m, p, policy, who in RULES]

SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
"""Counted as GET (Django answers HEAD by it); every other method as POST."""


def rule_for(method: str, path: str) -> tuple[str, RateKey] | None:
    """The door and who is counted; None where nobody counts."""
    asked = f"{'GET' if method in SAFE_METHODS else 'POST'} {path}"
    for pattern, policy, who in COMPILED:
        if pattern.fullmatch(asked):
            return policy, who
    return None


class LimitsMiddleware:
    """Django middleware: counts requests by the rules before their view is called."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        """Pass on."""
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponse | None:
        """None, or the refusal (Django hands on no exceptions from here)."""
        rule = rule_for(str(request.method), request.path)
        return None if rule is None else self.refusal(request, *rule)

    def refusal(
        self, request: HttpRequest, policy: str, who: RateKey
    ) -> HttpResponse | None:
        """Of a request that is one too many."""
        try:
            self.counted(request, policy, who(request))
        except RateLimited as problem:
            return rate_limited_response(request, problem)
        return None

    def counted(self, request: HttpRequest, policy: str, who: str) -> None:
        """As `count` says."""
        check_rate(policy, rate_limit_prefix(client_address(request)), who)
