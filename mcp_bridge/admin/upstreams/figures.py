"""What the list of upstream servers shows besides the rows: state, calls, latency."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import median
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.models import AuditEvent
from mcp_bridge.models import UpstreamServer
from mcp_bridge.upstreams.registration.checks import (
    credential_missing,
    credential_unreadable,
    has_rejected_credential,
)
from mcp_bridge.upstreams.registration.problem_texts import problem_in_words

MOST_CALLS = 10_000
"""Newest calls of a server that are counted; the list shows "10,000+" for more."""


@dataclass(frozen=True)
class Figures:
    """Calls of the last 24 hours."""

    calls: int
    p50_ms: float | None
    server_ms: float | None = None
    """The median of the server's own share."""

    @property
    def shown(self) -> str:
        more = self.calls >= MOST_CALLS
        return f"{MOST_CALLS:,}+" if more else f"{self.calls:,}"


def figures_of(server: UpstreamServer) -> Figures:
    """The calls of all of a server's primitives, in one indexed query."""
    keys = server.primitives.values_list("kind", "name")
    since = timezone.now() - timedelta(hours=24)
    names = [f"{kind} {name}"[:255] for kind, name in keys]
    calls = AuditEvent.objects.filter(
        object__in=names,
        at__gte=since,
        decision=AuditEvent.Verdict.ALLOWED,
        outcome__gt="",
    )
    newest = calls.order_by("-at").values_list("duration_ms", "via")[:MOST_CALLS]
    rows = list(newest)
    shares = [found for _whole, via in rows if (found := share_of(via)) is not None]
    whole = of_durations(duration for duration, _via in rows)
    return replace(whole, server_ms=round(median(shares), 1) if shares else None)


SHARE = re.compile(r"; upstream [^;:]+: (\d+(?:\.\d+)?) ms")


def share_of(via: str) -> float | None:
    """The server's share of a call in ms, from the text of its audit event."""
    found = SHARE.search(via)
    return float(found[1]) if found else None


def of_durations(durations: Iterable[float | None]) -> Figures:
    """Figures of calls; a duration is in ms, None if it is not known."""
    rows = list(durations)
    known = [value for value in rows if value is not None]
    return Figures(len(rows), round(median(known), 1) if known else None)


@dataclass(frozen=True)
class State:
    """The state of a server in words, with the look of its badge."""

    text: str
    look: str
    detail: str = ""


def state_of(server: UpstreamServer) -> State:
    """The most important thing to know about a server."""
    status: Any = getattr(server, "status", None)
    if not server.enabled:
        return State(_("disabled"), "")
    if credential_missing(server):
        return State(_("credential missing"), "bad", _("Enter it on this page."))
    if credential_unreadable(server):
        return State(_("credential unreadable"), "bad", _("Enter it again."))
    if has_rejected_credential(server):
        return State(_("credential rejected"), "bad", _("Enter a new one."))
    if status is None or status.checked_at is None:
        return State(_("not contacted yet"), "warn", _("Use Discover now."))
    if status.error:
        whole = status.contacted_at is None or status.contacted_at < status.checked_at
        return State(
            _("failing") if whole else _("incomplete"),
            "warn",
            problem_in_words(status.error),
        )
    return State(_("working"), "good")
