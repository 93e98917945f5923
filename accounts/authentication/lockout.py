"""Lock-out: after some wrong attempts a secret is not compared for a while.

django-axes keeps the counts (in the database, so for every worker); what counts and
how long is said here. Every attempt is counted before its secret is compared, so a
burst of parallel ones sees no more comparisons than one after the other. The only
importer of `axes`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from uuid import uuid4

from axes.backends import AxesBackend
from axes.handlers.database import AxesDatabaseHandler
from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from axes.signals import user_locked_out
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.signals import user_login_failed
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.db.models import F, Max, Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.authentication.passwords.hashers import hashing_slot
from accounts.http.client_address import client_address, rate_limit_prefix
from accounts.rate_limits.errors import RateLimited, lockout_text, rate_limited_response

T = TypeVar("T")

WIDE_FACTOR = 10
"""How many times LOCKOUT_AFTER for an account from anywhere, an address for anybody."""
IN_FLIGHT = "in flight "
"""How the user agent of an attempt begins that is counted and not judged yet."""
# Sign-in forms strip blanks, so nobody can type such a name at another endpoint.
CLIENT_PREFIX, REGISTRATION_PREFIX, DEVICE_PREFIX = (
    " client:",
    " registration:",
    " device:",
)
"""How names begin that are no user names: each has counts of its own.

Wrong client secrets of a broken program must not shut its office out of signing in.
"""
NON_USER_PREFIXES = (CLIENT_PREFIX, REGISTRATION_PREFIX, DEVICE_PREFIX)
PAIR_ONLY_PREFIXES = (CLIENT_PREFIX, REGISTRATION_PREFIX)
"""Made at random, so nobody guesses them from many addresses; but whoever knows the
public client_id could lock the client for everybody."""


def normalize_username(name: str) -> str:
    """One spelling of a user name: its case must not give more attempts."""
    return unicodedata.normalize("NFKC", name).casefold().replace("\x00", "")[:150]


def attempted_username(request: Any, credentials: dict[str, Any] | None) -> str:
    """For axes: whom somebody tried to be."""
    return normalize_username(str((credentials or {}).get("username") or ""))


def attempt_address(request: HttpRequest) -> str | None:
    """For axes: the address that accounts/http/client_address.py found."""
    return rate_limit_prefix(client_address(request)) or None


class LockoutHandler(AxesDatabaseHandler):
    """Counts per account and address; far more is needed to lock either alone."""

    def filter_user_attempts(
        self, request: Any, credentials: dict[str, Any] | None = None
    ) -> list[QuerySet[AccessAttempt]]:
        """Rows of the pair, of the account, and of the address."""
        name, address = (
            attempted_username(request, credentials),
            request.axes_ip_address,
        )
        rows = AccessAttempt.objects.all()
        own = rows.filter(username=name)
        pair = own.filter(ip_address=address)
        if name.startswith(NON_USER_PREFIXES):
            return [pair, rows.none() if name.startswith(PAIR_ONLY_PREFIXES) else own]
        others = Q()
        for prefix in NON_USER_PREFIXES:
            others |= Q(username__startswith=prefix)
        return [pair, own, rows.filter(~others, ip_address=address)]

    def failure_counts(self, request: Any, credentials: Any = None) -> list[list[int]]:
        """[judged wrong, with those in flight]: of the pair; then of the account and
        of the address, in their measure."""
        in_flight = Q(user_agent__startswith=IN_FLIGHT)
        count = Sum("failures_since_start", default=0)
        open_ = Sum("failures_since_start", filter=in_flight, default=0)
        found = [
            rows.aggregate(all=count, open=open_)
            for rows in self.get_user_attempts(request, credentials)
        ]
        pairs = [[row["all"] - row["open"], row["all"]] for row in found]
        return [pairs[0], *([n // WIDE_FACTOR for n in pair] for pair in pairs[1:])]

    def get_failures(self, request: Any, credentials: Any = None) -> int:
        """The worst of the three."""
        return max(judged for judged, _all in self.failure_counts(request, credentials))

    def reset_user_attempts(self, request: Any, credentials: Any = None) -> int:
        """A success forgives the pair: never the address, or guessing on from one's
        own account would be free."""
        pair: QuerySet[Any] = self.filter_user_attempts(request, credentials)[0]
        return pair.exclude(user_agent__startswith=IN_FLIGHT).delete()[0]

    def wait(self, request: Any, credentials: Any = None) -> float:
        """Seconds until the lock ends by itself."""
        shut = zip(
            self.failure_counts(request, credentials),
            self.get_user_attempts(request, credentials),
            strict=True,
        )
        last = [
            rows.aggregate(at=Max("attempt_time"))["at"]
            for (judged, _all), rows in shut
            if judged >= settings.LOCKOUT_AFTER
        ]
        span = float(settings.AXES_COOLOFF_TIME.total_seconds())
        if not last:
            return 1
        return span - float((timezone.now() - max(last)).total_seconds())

    def user_login_failed(
        self, sender: Any, credentials: Any, request: Any = None, **kwargs: Any
    ) -> None:
        """Count; the form, the query string and the headers are not kept.

        axes' own method keeps them but for fields it is told of, and one that it is
        not told of holds a secret sooner or later.
        """
        if request is None:
            return
        request.axes_credentials = credentials
        if request.axes_locked_out:
            # A locked attempt must not prolong the lock.
            return
        self.clean_expired_user_attempts(request, credentials)
        with transaction.atomic():
            self.count(request, attempted_username(request, credentials))
        worst = self.get_failures(request, credentials)
        request.axes_failures_since_start = worst
        if worst >= settings.LOCKOUT_AFTER:
            request.axes_locked_out = True
            user_locked_out.send(
                "axes",
                request=request,
                username=attempted_username(request, credentials),
                ip_address=request.axes_ip_address,
            )

    def count(self, request: Any, name: str) -> None:
        """One more; an attempt that was in flight is counted already."""
        release_attempt(request)
        seen = {
            "attempt_time": request.axes_attempt_time,
            "path_info": route_of_request(request),
        }
        row, made = AccessAttempt.objects.select_for_update().get_or_create(
            username=name,
            ip_address=request.axes_ip_address,
            user_agent="",
            defaults={**seen, "failures_since_start": 1},
        )
        if not made:
            rows = AccessAttempt.objects.filter(pk=row.pk)
            rows.update(**seen, failures_since_start=F("failures_since_start") + 1)


def route_of_request(request: HttpRequest) -> str:
    """The route, not the path: a path may hold a key."""
    route = request.resolver_match.route if request.resolver_match else ""
    return f"/{route}"[:255]


class PasswordBackend(AxesBackend):
    """Passwords are counted, then hashed a few at a time; not at all while locked."""

    def authenticate(
        self,
        request: Any,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """As Django's. Raises TooMany where too many hash at once."""
        if username is None or password is None:
            return None
        with hashing_slot():
            if request is None:
                return ModelBackend.authenticate(self, None, username, password)
            reserve_attempt(request, username)
            user = ModelBackend.authenticate(
                self, request, username, password, **kwargs
            )
            if user is not None:
                release_attempt(request)
            return user


def reserve_attempt(request: Any, name: str) -> None:
    """Count an attempt that is about to be judged.

    Hashing lasts too long for a transaction around it. Who dies in between leaves a
    wrong attempt behind. Raises PermissionDenied, TooMany.
    """
    AxesProxyHandler.update_request(request)
    with transaction.atomic(durable=True):
        serialize_attempts(request, name)
        try:
            refuse_if_locked_out(request, name)
        except LockedOut as locked:
            # Django's own way: the refusal is on record, then the middleware's 429.
            request.axes_locked_out = True
            raise PermissionDenied("locked out") from locked
        row = AccessAttempt.objects.create(
            username=normalize_username(name),
            ip_address=request.axes_ip_address,
            user_agent=IN_FLIGHT + uuid4().hex,
            path_info=route_of_request(request),
            failures_since_start=1,
        )
    request.portico_in_flight = row.pk


def release_attempt(request: Any) -> None:
    """The attempt is judged: its row in flight goes."""
    row = getattr(request, "portico_in_flight", None)
    if row is not None:
        AccessAttempt.objects.filter(pk=row).delete()
        request.portico_in_flight = None


def limit_attempts(request: Any, name: str, judge: Callable[[], T]) -> T:
    """What `judge` says; what is false counts as a wrong attempt. Raises TooMany.

    For secrets that are compared in an instant: nobody else judges one of this name
    or from this address meanwhile, in any process. Never inside of a transaction,
    which could take the count back.
    """
    with transaction.atomic(durable=True):
        AxesProxyHandler.update_request(request)
        serialize_attempts(request, name)
        refuse_if_locked_out(request, name)
        found = judge()
        if not found:
            count_failed_factor(request, name)
    return found


def serialize_attempts(request: Any, name: str) -> None:
    """Wait for others who count for this name or address; until the transaction ends.

    SQLite lets one transaction write anyway (it begins IMMEDIATE). PostgreSQL locks
    what is named, for names that no account has, too.
    """
    if connection.vendor != "postgresql":
        return
    keys = (f"name {normalize_username(name)}", f"address {request.axes_ip_address}")
    with connection.cursor() as cursor:
        for number in sorted(map(lock_number, keys)):
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [number])


def lock_number(key: str) -> int:
    """64 bits of a name, as PostgreSQL counts its locks."""
    digest = hashlib.sha256(f"portico lock-out {key}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def lockout_refusal(request: Any) -> RateLimited | None:
    """The refusal due to a request that met a lock; None if it met none."""
    if not getattr(request, "axes_locked_out", False):
        return None
    counter = AxesProxyHandler.get_implementation()
    return RateLimited(lockout_text(), counter.wait(request, request.axes_credentials))


class LockedOut(RateLimited):
    """Enough wrong attempts; the rest of the lock is in `wait`."""


def refuse_if_locked_out(request: Any, name: str) -> None:
    """Raises LockedOut, or TooMany where those in flight could fill the count."""
    counter, tried = AxesProxyHandler.get_implementation(), {"username": name}
    failure_counts = counter.failure_counts(request, tried)
    if max(judged for judged, _all in failure_counts) >= settings.LOCKOUT_AFTER:
        raise LockedOut(lockout_text(), counter.wait(request, tried))
    if max(counted for _judged, counted in failure_counts) >= settings.LOCKOUT_AFTER:
        raise RateLimited(_("Too many attempts at the same time; try again."), 1)


def count_failed_factor(request: Any, name: str) -> None:
    """Count a wrong secret: a person's as a wrong password, others as their own."""
    if name.startswith(NON_USER_PREFIXES):
        AxesProxyHandler.user_login_failed(__name__, {"username": name}, request)
        record("secret.refused", request=request, object=name, denied="credentials")
        return
    tried = {"username": name, "factor": "second"}
    user_login_failed.send(sender=__name__, credentials=tried, request=request)


def clear_failures(request: Any, username: str) -> None:
    """Somebody is in, every factor given: forget the pair's wrong attempts."""
    counter = AxesProxyHandler.get_implementation()
    counter.reset_user_attempts(request, {"username": username})


def lockout_response(
    request: HttpRequest, original: Any, credentials: Any
) -> HttpResponse:
    """For axes' middleware: what a locked-out person sees."""
    return rate_limited_response(
        request, lockout_refusal(request) or RateLimited(lockout_text(), 1)
    )


def unlock(
    *, username: str = "", address: str = "", keep: Iterable[str] = (), actor: Any
) -> int:
    """Open the door again; how many counts were forgotten. On record.

    Counts of the names in `keep` stay, whatever the address.
    """
    rows = Q()
    if username:
        rows |= Q(username=normalize_username(username))
    if address:
        rows |= Q(ip_address=rate_limit_prefix(address))
    counts = AccessAttempt.objects.exclude(
        username__in=[normalize_username(n) for n in keep]
    )
    forgotten: int = counts.filter(rows).delete()[0] if rows else 0
    what = " ".join(filter(None, (username, address)))
    record("user.unlocked", actor=actor, object=what, changes={"attempts": forgotten})
    return forgotten


def connect_lockout_audit() -> None:
    """Put lock-outs on record."""
    user_locked_out.connect(on_lock_out, dispatch_uid="portico-locked")


def on_lock_out(request: Any, username: str, ip_address: str, **kwargs: Any) -> None:
    """The attempt that closed the door; what follows is told as refused sign-ins."""
    if getattr(request, "axes_failures_since_start", None) is not None:
        record("user.locked_out", request=request, object=username, denied="attempts")
