"""System checks of upstream servers, from what is stored: nothing is contacted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.db.models import Count, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.checks import database_check
from accounts.crypto.encryption import KeyUnreadable
from accounts.http.private_addresses import is_inside
from mcp_bridge.models import (
    SERVED_STATES,
    CredentialMode,
    DefinitionState,
    UpstreamCredential,
    UpstreamServer,
)
from mcp_bridge.upstreams.credentials import secret_of
from mcp_bridge.upstreams.registration.problem_texts import problem_in_words

NEEDS_SECRET = (CredentialMode.STATIC_HEADER, CredentialMode.CLIENT_CREDENTIALS)
OVERDUE = 4
"""Missed looks after which the last contact is old."""
LEAST_OVERDUE = timedelta(minutes=15)


def enabled_servers() -> QuerySet[UpstreamServer]:
    rows = UpstreamServer.objects.filter(enabled=True).select_related("status")
    return rows.prefetch_related("credentials")


def shared_credential(server: UpstreamServer) -> UpstreamCredential | None:
    """The credential that all users share; uses prefetched rows."""
    return next((row for row in server.credentials.all() if row.user_id is None), None)


def needs_secret(server: UpstreamServer, row: UpstreamCredential | None) -> bool:
    """Whether its mode sends a secret that is stored."""
    kinds = UpstreamCredential.ClientAuthentication
    signs = row is not None and row.client_authentication == kinds.PRIVATE_KEY_JWT
    if server.credential_mode == CredentialMode.CLIENT_CREDENTIALS and signs:
        return False
    return server.credential_mode in NEEDS_SECRET


def credential_missing(server: UpstreamServer) -> bool:
    """Whether its mode needs a secret that is not there."""
    row = shared_credential(server)
    if row is None:
        return server.credential_mode in NEEDS_SECRET
    return needs_secret(server, row) and not row.secret_encrypted


def credential_unreadable(server: UpstreamServer) -> bool:
    """Whether its stored secret cannot be decrypted with the keys of the settings."""
    row = shared_credential(server)
    if row is None or not row.secret_encrypted or not needs_secret(server, row):
        return False
    try:
        secret_of(row)
    except KeyUnreadable:
        return True
    return False


def has_rejected_credential(server: UpstreamServer) -> bool:
    row = shared_credential(server)
    rejected = row is not None and row.state == UpstreamCredential.State.REJECTED
    return rejected and server.credential_mode != CredentialMode.NONE


def server_problem(server: UpstreamServer) -> str:
    """Why the server does not work, with its name; empty if it does."""
    if credential_missing(server):
        return _("The credential for %s is missing.") % server
    if credential_unreadable(server):
        return _("The credential for %s cannot be decrypted.") % server
    if has_rejected_credential(server):
        return _("%s rejected its credential. Enter a new one.") % server
    status = getattr(server, "status", None)
    if status is not None and status.error:
        return f"{server}: {problem_in_words(status.error)}"
    return ""


def problem_fix(server: UpstreamServer) -> str:
    """What to do about a server_problem."""
    if credential_unreadable(server):
        return _(
            "Add the older key to KEY_ENCRYPTION_KEY_FALLBACKS, or enter the "
            "credential again on the page of the server."
        )
    if credential_missing(server) or has_rejected_credential(server):
        return _("Enter it on the page of the server, then use Discover now.")
    text = _("Correct this, then run: %s")
    return text % f"manage.py discover {server.name}"


@database_check
def upstream_servers_work() -> Iterable[checks.CheckMessage]:
    for server in enabled_servers():
        text = server_problem(server)
        if text:
            kind = checks.Error if credential_unreadable(server) else checks.Warning
            yield kind(text, hint=problem_fix(server), id="portico.W110")


def overdue_since() -> timedelta | None:
    """The age at which a contact is old; None if nothing looks by itself."""
    every = settings.UPSTREAM_DISCOVERY_INTERVAL
    return max(LEAST_OVERDUE, OVERDUE * timedelta(seconds=every)) if every else None


@database_check
def upstream_servers_were_contacted() -> Iterable[checks.CheckMessage]:
    """Those with another problem are left out."""
    most, now = overdue_since(), timezone.now()
    for server in enabled_servers():
        status = getattr(server, "status", None)
        last = status.contacted_at if status is not None else None
        if server_problem(server) or (last and (most is None or now - last < most)):
            continue
        text = _("%s has not been contacted yet.") % server
        if last:
            words = {"server": server, "when": f"{timezone.localtime(last):%F %H:%M}"}
            text = _("%(server)s was last contacted at %(when)s.") % words
        hint = _("Start the server, which looks by itself, or run: %s")
        command = f"manage.py discover {server.name}"
        yield checks.Warning(text, hint=hint % command, id="portico.W111")


def counts_of(**states: Iterable[DefinitionState]) -> Any:
    """The enabled servers, with the number of primitives in these states."""
    return enabled_servers().annotate(
        **{
            name: Count("primitives", filter=Q(primitives__state__in=found))
            for name, found in states.items()
        }
    )


@database_check
def new_definitions_are_decided() -> Iterable[checks.CheckMessage]:
    for server in counts_of(held=(DefinitionState.HELD,)):
        held = server.held
        if held:
            text = ngettext(
                "%(n)d new definition of %(server)s is held.",
                "%(n)d new definitions of %(server)s are held.",
                held,
            )
            yield checks.Warning(
                text % {"n": held, "server": server},
                hint=review_hint(server),
                id="portico.W112",
            )


def review_hint(server: UpstreamServer) -> str:
    text = _("Review them in the admin, or run: %s")
    return text % f"manage.py accept_definitions {server.name}"


@database_check
def upstream_servers_offer_something() -> Iterable[checks.CheckMessage]:
    """Nobody can use an enabled server of which nothing is accepted."""
    for server in counts_of(served=SERVED_STATES):
        if not server.served:
            text = _("No definition of %s is accepted, so nobody can use it.")
            hint = review_hint(server)
            yield checks.Warning(text % server, hint=hint, id="portico.W114")


def unencrypted(server: UpstreamServer) -> Iterator[str]:
    """URLs of the server that are http outside private networks."""
    row = shared_credential(server)
    oauth = server.credential_mode == CredentialMode.CLIENT_CREDENTIALS
    urls = [server.url, row.token_url if row is not None and oauth else ""]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_inside(parts.hostname or ""):
            yield url


@database_check
def upstream_servers_are_encrypted() -> Iterable[checks.CheckMessage]:
    for server in enabled_servers():
        for url in unencrypted(server):
            words = {"server": server, "url": url}
            text = _("%(server)s is contacted without encryption: %(url)s.") % words
            hint = _("Use https. Anyone on the way can read and change the calls.")
            yield checks.Warning(text, hint=hint, id="portico.W113")
