"""Rate limits: how often a door may be used, by whom, and who is told to wait.

Sliding windows: in this process, or (VALKEY_URL) in Valkey or Redis for every worker
through the `limits` library. Its own memory storage starts a thread every 10 ms and
walks over all keys, so one process counts by `Windows` below.
"""

from __future__ import annotations

import base64
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from threading import Lock
from typing import Any, Literal, TypeVar
from urllib.parse import unquote_plus

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from limits import RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from accounts.audit import client_address
from accounts.proxies import neighbourhood
from accounts.toomany import CannotCount, TooMany, answer

logger = logging.getLogger(__name__)
Store = TypeVar("Store")

FORM = "application/x-www-form-urlencoded"
SPANS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
WIDER = 10
"""How many times a limit all clients (or people) of one address have together."""
MOST_KEYS = 100_000
PATIENCE = 1.0
"""Seconds the shared store has to answer."""
LOOK_AGAIN = 2.0
"""Seconds after which a store that was away is asked again."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many in so many seconds."""

    most: int
    span: int

    def times(self, factor: int) -> Limit:
        """A wider one."""
        return Limit(self.most * factor, self.span)


@lru_cache(maxsize=256)
def parsed(text: str) -> Limit | None:
    """`120/minute` as a Limit; None for `off`. The settings have checked the form."""
    if text == "off":
        return None
    most, _slash, word = text.partition("/")
    return Limit(int(most), SPANS[word])


Window = tuple[int, int, int, float]
"""Index, counts in it and in the last one, and when both say nothing any more.

A plain tuple: a named one takes three times as long to make, for each message.
"""
NO_WINDOW: Window = (0, 0, 0, 0.0)
"""Of a key that has not been counted."""


class Windows:
    """Sliding windows of one process: the last window counts by its overlap.

    The keys used least recently come first.
    """

    def __init__(self) -> None:
        self.counts: OrderedDict[str, Window] = OrderedDict()
        self.lock = Lock()

    def hit(self, key: str, limit: Limit, now: float | None = None) -> float:
        """Count one: 0 if it is within the limit, else the seconds to wait."""
        moment = time.time() if now is None else now
        with self.lock:
            index, current, last, wait = self.read(key, limit, moment)
            if not wait:
                ends = (index + 2) * limit.span
                self.counts[key] = index, current + 1, last, ends
            self.counts.move_to_end(key)
            if len(self.counts) > MOST_KEYS:
                self.forget(moment)
        return wait

    def wait(self, key: str, limit: Limit, now: float | None = None) -> float:
        """What `hit` would say. Counts nothing, so that no key is kept for it."""
        with self.lock:
            return self.read(key, limit, time.time() if now is None else now)[3]

    def read(self, key: str, limit: Limit, now: float) -> Window:
        """The window of `key` now; in place of its end the seconds to wait."""
        moment = now / limit.span
        index, passed = int(moment), moment % 1
        at, current, last, _ends = self.counts.get(key, NO_WINDOW)
        if at != index:
            current, last = 0, current if at == index - 1 else 0
        if last * (1 - passed) + current + 1 <= limit.most:
            return index, current, last, 0.0
        wait = limit.span * _until(limit.most, current, last, passed)
        return index, current, last, wait

    def forget(self, now: float) -> None:
        """Make room: a flood of keys must not fill the memory.

        What is over goes first: a flood that one address may make within its limit
        ends with its window, and must not push out counts of an hour or a day.
        """
        for key in [key for key, found in self.counts.items() if found[3] <= now]:
            del self.counts[key]
        while len(self.counts) > MOST_KEYS // 2:
            self.counts.popitem(last=False)


def _until(most: int, current: int, last: int, passed: float) -> float:
    """In windows: how long until one more fits."""
    if current + 1 <= most:
        return 1 - (most - 1 - current) / last - passed
    return 1 - passed + (1 - (most - 1) / current)


LOCAL = Windows()


def item_of(limit: Limit) -> RateLimitItemPerSecond:
    """A limit as the library writes it."""
    return RateLimitItemPerSecond(limit.most, limit.span, namespace="portico")


class Shared:
    """The store all workers count in, and what is known of its health."""

    def __init__(self, url: str) -> None:
        store = opened(RedisStorage, redis_url(url))
        self.limiter = SlidingWindowCounterRateLimiter(store)
        self.health = Health()

    def hit(self, key: str, limit: Limit) -> float:
        """As Windows.hit. Raises StorageError while the store is away."""
        item = item_of(limit)
        with self.health:
            return 0.0 if self.limiter.hit(item, key) else self.left(item, key)

    def wait(self, key: str, limit: Limit) -> float:
        """As Windows.wait. Raises StorageError while the store is away."""
        item = item_of(limit)
        with self.health:
            return 0.0 if self.limiter.test(item, key) else self.left(item, key)

    def left(self, item: RateLimitItemPerSecond, key: str) -> float:
        """Seconds until one more fits."""
        reset = self.limiter.get_window_stats(item, key).reset_time
        return max(1.0, reset - time.time())


class Health:
    """Asks an absent store again only now and then, and says once that it is away."""

    def __init__(self) -> None:
        self.again_at = 0.0

    def __enter__(self) -> None:
        if time.monotonic() < self.again_at:
            raise StorageError(ConnectionError("away a moment ago"))

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, StorageError):
            if not self.again_at:
                logger.error("The store of the rate limits is away: %s", error)
            self.again_at = time.monotonic() + LOOK_AGAIN
        elif error is None and self.again_at:
            logger.warning("The store of the rate limits is back")
            self.again_at = 0.0


def redis_url(url: str) -> str:
    """Valkey speaks Redis' protocol; one client library serves both."""
    return re.sub(r"\Avalkey", "redis", url)


def opened(kind: Callable[..., Store], url: str, **options: Any) -> Store:
    """A storage of `limits`, told how long it may wait.

    `limits` looks up redis in sys.modules, and takes what another thread has imported
    half for a version too old; the import here waits until it is whole.
    """
    import_module("redis")
    options |= {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
    return kind(url, wrap_exceptions=True, **options)


@cache
def shared(url: str) -> Shared:
    """The store at `url`, one per process."""
    return Shared(url)


@dataclass(frozen=True, slots=True)
class Door:
    """A limit by its setting, and whether the door shuts when nobody can count."""

    setting: str
    closed: bool = False


DOORS = {
    "password": Door("LIMIT_PASSWORD", closed=True),
    "mail": Door("LIMIT_MAIL", closed=True),
    "register": Door("LIMIT_REGISTER", closed=True),
    "token": Door("LIMIT_TOKEN"),
    "authorize": Door("LIMIT_AUTHORIZE"),
    "introspect": Door("LIMIT_INTROSPECT"),
    "device": Door("LIMIT_DEVICE"),
}


def limit_of(setting: str) -> Limit | None:
    """What a setting says."""
    return parsed(getattr(settings, setting))


def count(door: str, address: str, who: str = "") -> None:
    """Count one use of a door. Raises TooMany, or CannotCount where it shuts.

    Client or person first, then everybody of the address: a client over its limit
    does not use up what its neighbours have. But an address over its limit is
    refused before that, or each name it invents would add a key to the store.
    """
    about = DOORS[door]
    limit = limit_of(about.setting)
    if limit is None:
        return
    own, shared_by_all = f"{door} {address} {who}", f"{door} {address}"
    wait = 0.0
    if who:
        wait = asked("wait", shared_by_all, limit.times(WIDER), about.closed)
    wait = wait or asked("hit", own, limit, about.closed)
    if who and not wait:
        wait = asked("hit", shared_by_all, limit.times(WIDER), about.closed)
    if wait:
        raise TooMany(_("Too many requests; wait a little."), wait)


def asked(what: Literal["hit", "wait"], key: str, limit: Limit, closed: bool) -> float:
    """Seconds to wait (0: none), by the shared store or by this process."""
    if not settings.VALKEY_URL:
        return float(getattr(LOCAL, what)(key, limit))
    try:
        return float(getattr(shared(settings.VALKEY_URL), what)(key, limit))
    except StorageError as error:
        if closed:
            text = _("Sign-in is not possible at this moment; try again.")
            raise CannotCount(text, LOOK_AGAIN) from error
        return float(getattr(LOCAL, what)(key, limit))


Who = Callable[[HttpRequest], str]


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


def by_person(request: HttpRequest) -> str:
    """Who is signed in."""
    return str(request.user.pk or "")


def nobody(request: HttpRequest) -> str:
    """The address alone."""
    return ""


RULES: list[tuple[str, str, str, Who]] = [
    ("POST", r"/api/token/", "password", nobody),
    ("POST", r"/api/token/\w+/", "token", nobody),
    ("POST", r"/(?:admin|accounts)/login/", "password", nobody),
    ("POST", r"/admin/password_change/", "password", nobody),
    ("POST", r"/accounts/(?:2fa|reauthenticate)/.*", "password", nobody),
    ("POST", r"/accounts/password/(?:change|set)/", "password", nobody),
    ("GET|POST", r"/accounts/password/reset/key/.*", "password", nobody),
    ("POST", r"/accounts/password/reset/", "mail", nobody),
    ("GET|POST", r"/accounts/oidc/.*", "authorize", nobody),
    ("POST", r"/oauth/register", "register", nobody),
    ("POST", r"/oauth/(?:token|revoke)", "token", by_client),
    ("POST", r"/oauth/introspect", "introspect", by_client),
    ("POST", r"/oauth/device", "device", by_client),
    ("GET|POST", r"/device", "device", by_person),
    ("GET|POST", r"/oauth/authorize", "authorize", by_person),
]
"""Method, path, door, and who is counted first; the address comes second."""

COMPILED = [(re.compile(f"(?:{m}) {p}"), door, who) for m, p, door, who in RULES]

READING = ("GET", "HEAD", "OPTIONS", "TRACE")
"""Counted as GET (Django answers HEAD by it); every other method as POST."""


def rule_for(method: str, path: str) -> tuple[str, Who] | None:
    """The door and who is counted; None where nobody counts."""
    asked = f"{'GET' if method in READING else 'POST'} {path}"
    for pattern, door, who in COMPILED:
        if pattern.fullmatch(asked):
            return door, who
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

    def refusal(self, request: HttpRequest, door: str, who: Who) -> HttpResponse | None:
        """Of a request that is one too many."""
        try:
            self.counted(request, door, who(request))
        except TooMany as problem:
            return answer(request, problem)
        return None

    def counted(self, request: HttpRequest, door: str, who: str) -> None:
        """As `count` says."""
        count(door, neighbourhood(client_address(request)), who)
