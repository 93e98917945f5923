"""Lock-out: after some wrong passwords a door stays shut for a while.

django-axes counts (in the database, so for every worker); what counts and how long is
said here. The only importer of `axes`.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from axes.backends import AxesBackend
from axes.handlers.database import AxesDatabaseHandler
from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from axes.signals import user_locked_out
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.signals import user_login_failed
from django.core.exceptions import PermissionDenied
from django.db.models import Max, Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from accounts.audit import client_address, record
from accounts.hashers import hashing_slot
from accounts.proxies import neighbourhood
from accounts.toomany import TooMany, answer, locked_text

WIDER = 10
"""How many times LOCKOUT_AFTER for an account from anywhere, an address for anybody."""


def folded(name: str) -> str:
    """One spelling of a user name: its case must not give more attempts."""
    return unicodedata.normalize("NFKC", name).casefold().replace("\x00", "")[:150]


def name_tried(request: Any, credentials: dict[str, Any] | None) -> str:
    """For axes: whom somebody tried to be."""
    return folded(str((credentials or {}).get("username") or ""))


def address_tried_from(request: HttpRequest) -> str | None:
    """For axes: the address that accounts/proxies.py found."""
    return neighbourhood(client_address(request)) or None


class Counter(AxesDatabaseHandler):
    """Counts per account and address; far more is needed to lock either alone."""

    def failures(self, request: Any, credentials: Any = None) -> list[int]:
        """Of the pair; of the account and of the address, in its measure."""
        pair, account, address = (
            rows.aggregate(n=Sum("failures_since_start"))["n"] or 0
            for rows in self.get_user_attempts(request, credentials)
        )
        return [pair, account // WIDER, address // WIDER]

    def get_failures(self, request: Any, credentials: Any = None) -> int:
        """The worst of the three."""
        return max(self.failures(request, credentials))

    def reset_user_attempts(self, request: Any, credentials: Any = None) -> int:
        """A success forgives the pair: never the address, or guessing on from one's
        own account would be free."""
        pair: QuerySet[Any] = self.filter_user_attempts(request, credentials)[0]
        return pair.delete()[0]

    def wait(self, request: Any, credentials: Any = None) -> float:
        """Seconds until the door opens by itself."""
        shut = zip(
            self.failures(request, credentials),
            self.get_user_attempts(request, credentials),
            strict=True,
        )
        last = [
            rows.aggregate(at=Max("attempt_time"))["at"]
            for count, rows in shut
            if count >= settings.LOCKOUT_AFTER
        ]
        span = float(settings.AXES_COOLOFF_TIME.total_seconds())
        if not last:
            return 1
        return span - float((timezone.now() - max(last)).total_seconds())


class PasswordDoor(AxesBackend):
    """Passwords are looked at one at a time, and not at all while locked out."""

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
            if request is not None and shut(request, username):
                request.axes_locked_out = True
                raise PermissionDenied("locked out")
            return ModelBackend.authenticate(
                self, request, username, password, **kwargs
            )


def shut(request: Any, username: str) -> bool:
    """Whether this account, address or pair is locked out now."""
    return not AxesProxyHandler.is_allowed(request, {"username": username})


def locked_out(request: Any) -> TooMany | None:
    """The refusal due to a request that met a lock; None if it met none."""
    if not getattr(request, "axes_locked_out", False):
        return None
    counter = AxesProxyHandler.get_implementation()
    return TooMany(locked_text(), counter.wait(request, request.axes_credentials))


def refuse_if_shut(request: Any, username: str) -> None:
    """Raises TooMany: for doors that look at something other than a password."""
    if shut(request, username):
        tried = {"username": username}
        counter = AxesProxyHandler.get_implementation()
        raise TooMany(locked_text(), counter.wait(request, tried))


def failed(request: Any, username: str) -> None:
    """A wrong second factor counts as a wrong password does."""
    tried = {"username": username, "factor": "second"}
    user_login_failed.send(sender=__name__, credentials=tried, request=request)


def forgive(request: Any, username: str) -> None:
    """Somebody is in, every factor given: forget the pair's wrong attempts."""
    counter = AxesProxyHandler.get_implementation()
    counter.reset_user_attempts(request, {"username": username})


def response(request: HttpRequest, original: Any, credentials: Any) -> HttpResponse:
    """For axes' middleware: what a locked-out person sees."""
    return answer(request, locked_out(request) or TooMany(locked_text(), 1))


def unlock(*, username: str = "", address: str = "", actor: Any) -> int:
    """Open the door again; how many counts were forgotten. On record."""
    rows = Q()
    if username:
        rows |= Q(username=folded(username))
    if address:
        rows |= Q(ip_address=neighbourhood(address))
    forgotten: int = AccessAttempt.objects.filter(rows).delete()[0] if rows else 0
    what = " ".join(filter(None, (username, address)))
    record("user.unlocked", actor=actor, object=what, changes={"attempts": forgotten})
    return forgotten


def connect() -> None:
    """Put lock-outs on record."""
    user_locked_out.connect(on_lock_out, dispatch_uid="portico-locked")


def on_lock_out(request: Any, username: str, ip_address: str, **kwargs: Any) -> None:
    """The attempt that closed the door; what follows is told as refused sign-ins."""
    if getattr(request, "axes_failures_since_start", None) is not None:
        record("user.locked_out", request=request, object=username, denied="attempts")
