"""Lock-out: refuses to compare secrets for a while after LOCKOUT_AFTER failures.

django-axes stores the counts in the database, so all workers share them. Every attempt
is counted before its secret is compared. Parallel attempts therefore get no more
comparisons than sequential ones. Only this module imports `axes`.
"""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial, reduce
from ipaddress import ip_address
from operator import or_
from typing import Any, TypeVar
from uuid import uuid4

from axes.attempts import get_cool_off_threshold
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
from django.db.models import F, Max, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from accounts.audit.record import record
from accounts.authentication.passwords.hashers import hashing_slot
from accounts.http.client_address import client_address, rate_limit_prefix
from accounts.http.outbound_calls import release_pooled_connections
from accounts.models import OAuthClient, User
from accounts.models.statements.durability import unsynced_transaction
from accounts.models.statements.execution import cursor_of
from accounts.models.statements.queries import CompiledQuery, Given
from accounts.models.statements.writes import delete_row, insert_rows
from accounts.rate_limits.errors import RateLimited, lockout_text, rate_limited_response

T = TypeVar("T")

WIDE_FACTOR = 10
"""Factor on LOCKOUT_AFTER for an account from all addresses, or an address alone."""
IN_FLIGHT = "in flight "
"""User agent prefix of a row for an attempt whose comparison is still running."""
IN_FLIGHT_PAUSE = 0.05
"""Seconds between two tries while attempts in flight fill the count."""
# Sign-in forms strip blanks, so no user can type such a name at another endpoint.
CLIENT_PREFIX, REGISTRATION_PREFIX, DEVICE_PREFIX = (
    " client:",
    " registration:",
    " device:",
)
"""Prefixes of counted names that are not user names; they have separate counts.

Wrong client secrets of a broken program must not lock the users at its address out.
"""
NON_USER_PREFIXES = (CLIENT_PREFIX, REGISTRATION_PREFIX, DEVICE_PREFIX)
PAIR_ONLY_PREFIXES = (CLIENT_PREFIX, REGISTRATION_PREFIX)
"""Names that are counted per address only, because these secrets are random.

A count over all addresses would let any holder of a public client_id lock the client.
"""


def normalize_username(name: str) -> str:
    """Fold case and width, so that spellings of one name share a count."""
    return unicodedata.normalize("NFKC", name).casefold().replace("\x00", "")[:150]


def attempted_username(request: Any, credentials: dict[str, Any] | None) -> str:
    """The user name of an attempt (AXES_USERNAME_CALLABLE)."""
    return normalize_username(str((credentials or {}).get("username") or ""))


def attempt_address(request: HttpRequest) -> str | None:
    """The address, or its IPv6 prefix, of an attempt (AXES_CLIENT_IP_CALLABLE)."""
    return rate_limit_prefix(client_address(request)) or None


def counted_rows(request: Any, credentials: dict[str, Any] | None = None) -> list[Q]:
    """Conditions for rows of the pair, of the account and of the address.

    Names of NON_USER_PREFIXES have no count of the address.
    """
    name = attempted_username(request, credentials)
    place = Q(ip_address=request.axes_ip_address)
    own = Q(username=name)
    pair = own & place
    if name.startswith(NON_USER_PREFIXES):
        return [pair, Q(pk__in=[]) if name.startswith(PAIR_ONLY_PREFIXES) else own]
    return [pair, own, place & ~of_nobody()]


def count_of_counts(name: str) -> int:
    """How many conditions `counted_rows` has for this name."""
    return 2 if name.startswith(NON_USER_PREFIXES) else 3


def of_nobody() -> Q:
    """Rows whose names are not user names."""
    return reduce(or_, (Q(username__startswith=text) for text in NON_USER_PREFIXES))


GIVEN_NAME, GIVEN_PLACE = (
    Given(AccessAttempt, "username"),
    Given(AccessAttempt, "ip_address"),
)
RECENT = CompiledQuery(
    lambda: AccessAttempt.objects.filter(
        Q(username=GIVEN_NAME) | Q(ip_address=GIVEN_PLACE) & ~of_nobody(),
        attempt_time__gte=Given(AccessAttempt, "attempt_time"),
    )
)
"""The rows of `counted_rows` together, for a user name and an address."""
FAILURES = CompiledQuery(
    lambda: (
        AccessAttempt.objects.filter(username=GIVEN_NAME, ip_address=GIVEN_PLACE)
        .exclude(user_agent__startswith=IN_FLIGHT)
        .values_list("pk")
    )
)
"""The ids of the pair's failures."""


def recent_rows(request: Any, name: str) -> list[AccessAttempt]:
    """Rows of any of `counted_rows` that are not too old to count."""
    since, place = get_cool_off_threshold(request), request.axes_ip_address
    if place is not None and not name.startswith(NON_USER_PREFIXES):
        rows: list[AccessAttempt] = RECENT.rows(
            username=name, ip_address=place, attempt_time=since
        )
        return rows
    anyone = reduce(or_, counted_rows(request, {"username": name}))
    return list(AccessAttempt.objects.filter(anyone, attempt_time__gte=since))


def in_counts(row: AccessAttempt, name: str, place: str | None) -> list[bool]:
    """Whether the row, which one of `counted_rows` has found, is in each of them."""
    own, here = row.username == name, same_address(row.ip_address, place)
    others = here and not row.username.startswith(NON_USER_PREFIXES)
    if name.startswith(NON_USER_PREFIXES):
        return [own and here, own and not name.startswith(PAIR_ONLY_PREFIXES)]
    return [own and here, own, others]


def same_address(one: str | None, other: str | None) -> bool:
    """Whether both are the same address, in any spelling, or none."""
    if one is None or other is None:
        return one is other
    return ip_address(one) == ip_address(other)


class LockoutHandler(AxesDatabaseHandler):
    """Counts failures per pair of account and address, and per each alone."""

    def filter_user_attempts(
        self, request: Any, credentials: dict[str, Any] | None = None
    ) -> list[QuerySet[AccessAttempt]]:
        """Rows of each count (`counted_rows`)."""
        counts = counted_rows(request, credentials)
        return [AccessAttempt.objects.filter(rows) for rows in counts]

    def failure_counts(self, request: Any, credentials: Any = None) -> list[list[int]]:
        """[failures, failures and attempts in flight] for each of the querysets.

        Counts of the account and of the address are divided by WIDE_FACTOR.
        """
        name = attempted_username(request, credentials)
        pairs = [[0, 0] for _ in range(count_of_counts(name))]
        # The limits bound the rows. Django took longer to build sums for SQL.
        for row in recent_rows(request, name):
            failed = 0 if row.user_agent.startswith(IN_FLIGHT) else 1
            belongs = in_counts(row, name, request.axes_ip_address)
            for pair, counted in zip(pairs, belongs, strict=True):
                pair[0] += counted * failed * row.failures_since_start
                pair[1] += counted * row.failures_since_start
        return [pairs[0], *([n // WIDE_FACTOR for n in pair] for pair in pairs[1:])]

    def get_failures(self, request: Any, credentials: Any = None) -> int:
        """The largest of the failure counts."""
        return max(failed for failed, _all in self.failure_counts(request, credentials))

    def reset_user_attempts(self, request: Any, credentials: Any = None) -> int:
        """Delete the pair's failures after a success, but not those of the address.

        Otherwise an attacker could reset the count by a sign-in to a second account.
        """
        name, place = attempted_username(request, credentials), request.axes_ip_address
        if place is not None and not FAILURES.rows(username=name, ip_address=place):
            return 0  # Most sign-ins have nothing to delete, and need no transaction.
        pair: QuerySet[Any] = self.filter_user_attempts(request, credentials)[0]
        return pair.exclude(user_agent__startswith=IN_FLIGHT).delete()[0]

    def wait(self, request: Any, credentials: Any = None) -> float:
        """Seconds until the lock expires."""
        counted = zip(
            self.failure_counts(request, credentials),
            self.get_user_attempts(request, credentials),
            strict=True,
        )
        last = [
            rows.aggregate(at=Max("attempt_time"))["at"]
            for (failed, _all), rows in counted
            if failed >= settings.LOCKOUT_AFTER
        ]
        span = float(settings.AXES_COOLOFF_TIME.total_seconds())
        if not last:
            return 1
        return span - float((timezone.now() - max(last)).total_seconds())

    def user_login_failed(
        self, sender: Any, credentials: Any, request: Any = None, **kwargs: Any
    ) -> None:
        """Count a failure; do not store the form, the query string or the headers.

        axes' method stores them except for a list of sensitive fields. A field that the
        list lacks would put a secret in the database.
        """
        if request is None:
            return
        request.axes_credentials = credentials
        if request.axes_locked_out:
            # A locked attempt must not prolong the lock.
            return
        self.clean_expired_user_attempts(request, credentials)
        name = attempted_username(request, credentials)
        with transaction.atomic():  # The count and the event of a lock-out.
            self.count(request, name)
            worst = self.get_failures(request, credentials)
            request.axes_failures_since_start = worst
            if worst >= settings.LOCKOUT_AFTER:
                request.axes_locked_out = True
                user_locked_out.send(
                    "axes",
                    request=request,
                    username=name,
                    ip_address=request.axes_ip_address,
                )

    def count(self, request: Any, name: str) -> None:
        """Add one failure; it replaces the row of the attempt in flight."""
        release_attempt(request)
        attempt = {
            "attempt_time": request.axes_attempt_time,
            "path_info": route_of_request(request),
        }
        row, created = AccessAttempt.objects.select_for_update().get_or_create(
            username=name,
            ip_address=request.axes_ip_address,
            user_agent="",
            defaults={**attempt, "failures_since_start": 1},
        )
        if not created:
            rows = AccessAttempt.objects.filter(pk=row.pk)
            rows.update(**attempt, failures_since_start=F("failures_since_start") + 1)


def route_of_request(request: HttpRequest) -> str:
    """The URL pattern instead of the path, because a path may contain a secret."""
    route = request.resolver_match.route if request.resolver_match else ""
    return f"/{route}"[:255]


class PasswordBackend(AxesBackend):
    """Counts an attempt, then hashes in a slot; refuses while locked out."""

    def authenticate(
        self,
        request: Any,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """As ModelBackend. Raises RateLimited while all hashing slots are busy."""
        if username is None or password is None:
            return None
        compare = partial(self.compare, request, username, password, **kwargs)
        return when_others_end(compare)

    def compare(self, request: Any, username: str, password: str, **kwargs: Any) -> Any:
        """As `authenticate`. Raises TooManyInFlight."""
        with hashing_slot():
            if request is None:
                return ModelBackend.authenticate(self, None, username, password)
            reserve_attempt(request, username)
            user = ModelBackend.authenticate(
                self, request, username, password, **kwargs
            )
            if user is not None and not getattr(request, "portico_ends_later", False):
                release_attempt(request)
            return user


def when_others_end(attempt: Callable[[], T]) -> T:
    """The result of `attempt`, which may raise TooManyInFlight.

    The others may all succeed and leave the count empty, so it tries again for
    HASHING_WAIT seconds.
    """
    until = time.monotonic() + settings.HASHING_WAIT
    while True:
        try:
            return attempt()
        except TooManyInFlight:
            if time.monotonic() >= until:
                raise
        release_pooled_connections()
        time.sleep(IN_FLIGHT_PAUSE)


def reserve_attempt(request: Any, name: str) -> None:
    """Store a row that counts an attempt before its password is hashed.

    Commits first, because hashing takes too long for a transaction. A process that dies
    meanwhile leaves a failure; a power failure need not. Raises PermissionDenied,
    TooManyInFlight.
    """
    AxesProxyHandler.update_request(request)
    with unsynced_transaction():
        serialize_attempts(request, name)
        try:
            failures = refuse_if_locked_out(request, name)
        except LockedOut as locked:
            # Django audits this exception as a failed sign-in; axes' middleware then
            # answers 429. RateLimited would skip the audit.
            request.axes_locked_out = True
            raise PermissionDenied("locked out") from locked
        row = AccessAttempt(
            username=normalize_username(name),
            ip_address=request.axes_ip_address,
            user_agent=IN_FLIGHT + uuid4().hex,
            path_info=route_of_request(request),
            failures_since_start=1,
        )
        insert_rows([row])
    request.portico_in_flight, request.portico_failures = row.pk, failures


def release_attempt(request: Any) -> None:
    """Delete the row that `reserve_attempt` stored; the attempt has a result now."""
    row = getattr(request, "portico_in_flight", None)
    if row is not None:
        # Nothing refers to such a row, so Django need not look for what does.
        delete_row(AccessAttempt, row)
        request.portico_in_flight = None


@contextmanager
def ending_attempt(request: Any) -> Iterator[None]:
    """A sign-in that calls `end_attempt` in its own transaction.

    If it does not get there, the attempt ends with the block.
    """
    request.portico_ends_later = True
    try:
        yield
    finally:
        release_attempt(request)


def end_attempt(request: Any, username: str) -> None:
    """End the attempt in flight after a complete sign-in, and clear the failures.

    Failures that others counted since the attempt began may stay.
    """
    release_attempt(request)
    if request.portico_failures:
        clear_failures(request, username)


def limit_attempts(request: Any, name: str, compare: Callable[[], T]) -> T:
    """Return the result of `compare`; count a false one. Raises RateLimited.

    For fast comparisons: all processes run them one at a time per name and per address.
    Opens a durable transaction, because an outer one could roll the count back.
    """

    def limited() -> T:
        with transaction.atomic(durable=True):
            AxesProxyHandler.update_request(request)
            serialize_attempts(request, name)
            refuse_if_locked_out(request, name)
            result = compare()
            if not result:
                count_failed_factor(request, name)
        return result

    return when_others_end(limited)


def serialize_attempts(request: Any, name: str) -> None:
    """Lock this name and this address until the transaction ends.

    SQLite needs no lock: its transactions begin IMMEDIATE, so one writes at a time.
    PostgreSQL uses advisory locks, because a name may have no row to lock.
    """
    if connection.vendor != "postgresql":
        return
    keys = (f"name {normalize_username(name)}", f"address {request.axes_ip_address}")
    with cursor_of(connection) as cursor:
        # Rows of unnest come in the order of the array.
        locks = "SELECT pg_advisory_xact_lock(n) FROM unnest(%s::bigint[]) AS n"
        cursor.execute(locks, [sorted(map(lock_number, keys))])


def lock_number(key: str) -> int:
    """A signed 64-bit hash, the key type of PostgreSQL's advisory locks."""
    digest = hashlib.sha256(f"portico lock-out {key}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def lockout_refusal(request: Any) -> RateLimited | None:
    """The error for a request that was locked out; None for others."""
    if not getattr(request, "axes_locked_out", False):
        return None
    counter = AxesProxyHandler.get_implementation()
    return RateLimited(lockout_text(), counter.wait(request, request.axes_credentials))


class LockedOut(RateLimited):
    """Too many failures; `wait` has the seconds until the lock expires."""


class TooManyInFlight(RateLimited):
    """The failures would be too many if all attempts in flight failed."""


def refuse_if_locked_out(request: Any, name: str) -> int:
    """The pair's failures, which are below the limit.

    Raises LockedOut, or TooManyInFlight if attempts in flight could reach the limit.
    """
    counter, tried = AxesProxyHandler.get_implementation(), {"username": name}
    failure_counts = counter.failure_counts(request, tried)
    if max(failed for failed, _all in failure_counts) >= settings.LOCKOUT_AFTER:
        raise LockedOut(lockout_text(), counter.wait(request, tried))
    if max(counted for _failed, counted in failure_counts) >= settings.LOCKOUT_AFTER:
        raise TooManyInFlight(_("Too many attempts at the same time. Try again."), 1)
    return int(failure_counts[0][0])


def count_failed_factor(request: Any, name: str) -> None:
    """Count a wrong secret: a user's as a failed sign-in, others under their name."""
    if name.startswith(NON_USER_PREFIXES):
        AxesProxyHandler.user_login_failed(__name__, {"username": name}, request)
        about = attempted(name)
        record("secret.refused", request=request, denied="credentials", **about)
        return
    tried = {"username": name, "factor": "second"}
    user_login_failed.send(sender=__name__, credentials=tried, request=request)


def clear_failures(request: Any, username: str) -> None:
    """Delete the pair's failures after a complete sign-in with all factors."""
    counter = AxesProxyHandler.get_implementation()
    counter.reset_user_attempts(request, {"username": username})


def lockout_response(
    request: HttpRequest, original: Any, credentials: Any
) -> HttpResponse:
    """The 429 response of axes' middleware (AXES_LOCKOUT_CALLABLE)."""
    return rate_limited_response(
        request, lockout_refusal(request) or RateLimited(lockout_text(), 1)
    )


def failures_of(username: str) -> bool:
    """Whether failed sign-ins are counted for this name, which may be nobody's."""
    name = normalize_username(username)
    return bool(AccessAttempt.objects.filter(username=name).exists())


def unlock(
    *, username: str = "", address: str = "", keep: Iterable[str] = (), actor: Any
) -> int:
    """Delete failure counts, so that sign-in is possible again; returns how many.

    Keeps the counts of the names in `keep`, also at `address`. Audited.
    """
    rows = Q()
    if username:
        name = normalize_username(username)
        rows |= Q(username__in=[name, f"{DEVICE_PREFIX}{name}"])
    if address:
        rows |= Q(ip_address=rate_limit_prefix(address))
    counts = AccessAttempt.objects.exclude(
        username__in=[normalize_username(n) for n in keep]
    )
    deleted: int = counts.filter(rows).delete()[0] if rows else 0
    target = " ".join(filter(None, (name_in_words(username), address)))
    record(
        "user.unlocked",
        actor=actor,
        object=target,
        subject=User.objects.all().named(username),
        changes={"attempts": deleted},
    )
    return deleted


def connect_lockout_audit() -> None:
    user_locked_out.connect(on_lock_out, dispatch_uid="portico-locked")


def on_lock_out(request: Any, username: str, ip_address: str, **kwargs: Any) -> None:
    """Record the attempt that locked out; later attempts are failed sign-ins."""
    if getattr(request, "axes_failures_since_start", None) is not None:
        about = attempted(username)
        record("user.locked_out", request=request, denied="attempts", **about)


def attempted(name: str) -> dict[str, Any]:
    """Columns of an event about a counted name."""
    client_id = name.removeprefix(CLIENT_PREFIX)[:255]
    about = {"client_id": client_id} if name.startswith(CLIENT_PREFIX) else {}
    return {"object": name_in_words(name)[:255], **about}


WORDS = {
    CLIENT_PREFIX: gettext_noop("client %s"),
    REGISTRATION_PREFIX: gettext_noop("client registration"),
    DEVICE_PREFIX: gettext_noop("device codes of %s"),
}
"""Prefix of a counted name -> what is counted, for readers."""


def name_in_words(name: str, translate: Callable[[str], str] = str) -> str:
    """A counted name for readers; `translate` is gettext on pages. Names the client."""
    for prefix, words in WORDS.items():
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            if prefix == CLIENT_PREFIX:
                rest = OAuthClient.objects.all().name_of(rest[:255])
            return translate(words).replace("%s", rest)
    return name
