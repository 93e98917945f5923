"""Bound how many events a filtered audit list scans.

No index serves two filters that each match millions of events. Without a bound, such a
list would scan the whole table.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from heapq import nlargest
from typing import Any
from urllib.parse import urlencode

from django.db import connection
from django.http import HttpRequest, QueryDict

from accounts.admin_site.filters.clients import client_ids
from accounts.admin_site.filters.period import end_of_period
from accounts.admin_site.large_changelists import SEARCH_LIMIT, LargeChangeList
from accounts.http.client_address import normalize_address
from accounts.models import AuditEvent

WINDOW_SIZE = 200_000
"""Newest events before the end of the requested period."""
FREQUENT = 20_000
"""Events of one value that a list sorts."""
BY_VALUE = ("actor", "client_id", "object", "action", "token_id")
"""Filters whose index has no time on PostgreSQL (accounts/models/audit/indexes.py)."""
NO_FILTERS = {"at__gte", "at__gte_time", "at__lt", "at__lt_time", "p", "o", "e"}


def window_start(before: datetime | None = None) -> datetime | None:
    """Time of the oldest event in the window; None if there are fewer events."""
    events = AuditEvent.objects.order_by("-at", "-id")
    events = events if before is None else events.filter(at__lt=before)
    newest = events.values_list("id", flat=True).first()
    if newest is None:
        return None
    older = AuditEvent.objects.filter(id__lte=newest - WINDOW_SIZE)
    return older.order_by("-id").values_list("at", flat=True).first()


def bound(parameters: QueryDict, name: str) -> datetime | None:
    """One end of the requested period; None if there is none, or no valid one."""
    try:
        return end_of_period(parameters, name)
    except ValueError:
        return None


def lacks_index(parameters: QueryDict) -> bool:
    """Whether one filter alone could scan or sort the whole table."""
    client, outcome = parameters.get("client_id", ""), parameters.get("outcome", "")
    if parameters.get("show") or outcome not in ("", "error"):
        return True
    if normalize_address(parameters.get("q", "")):
        return True
    return bool(client) and client_ids(client) != [client]


def sorts_matches() -> bool:
    """Whether the indexes of BY_VALUE lack the time."""
    return connection.vendor == "postgresql"


def is_frequent(parameters: Mapping[str, str]) -> bool:
    """Whether a filter's value has so many events that they cannot be sorted.

    PostgreSQL then walks back in time, which could be far if the value was frequent
    long ago only.
    """
    given = [(name, parameters.get(name)) for name in BY_VALUE]
    events = AuditEvent.objects.order_by()
    return sorts_matches() and any(
        events.filter(**{name: value})[: FREQUENT + 1].count() > FREQUENT
        for name, value in given
        if value
    )


def has_ordered_index(lookup: str) -> bool:
    """Whether an index has the matches of this lookup in the order of time."""
    return not sorts_matches() and not lookup.endswith("__prefix")


def rare_keys(rows: Any) -> list[int] | None:
    """The newest SEARCH_LIMIT keys of at most FREQUENT events; None if there are more.

    The query has no order: PostgreSQL takes a value that it does not know for frequent,
    and would walk back in time through the whole table. No index has the order of
    several objects.
    """
    found = list(rows.order_by().values_list("at", "pk")[: FREQUENT + 1])
    if len(found) > FREQUENT:
        return None
    return [key for _at, key in nlargest(SEARCH_LIMIT, found)]


class WindowedChangeList(LargeChangeList):
    """Shows how far back the list searched, and links to the earlier period."""

    looked_since: datetime | None = None
    further = ""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Apply the window when several filters are set; exports have no window."""
        filters = {name for name, value in request.GET.items() if value} - NO_FILTERS
        following = getattr(request, "following", None)
        if following is not None:
            # New events are few, whatever the filters match.
            self.root_queryset = self.root_queryset.filter(pk__gt=following)
        exporting = getattr(request, "exporting", False) or following is not None
        many = len(filters) > 1 or lacks_index(request.GET)
        if not exporting and (many or is_frequent(request.GET)):
            self.apply_window(request)
        return super().get_queryset(request, *args, **kwargs)

    def apply_window(self, request: HttpRequest) -> None:
        """Leave out events before the window, unless the period is shorter."""
        parameters = request.GET
        start = bound(parameters, "at__gte")
        since = window_start(bound(parameters, "at__lt"))
        if since is None or (start is not None and start >= since):
            return
        self.root_queryset = self.root_queryset.filter(at__gte=since)
        self.looked_since = since
        replaced = {"p", "e", "at__lt", "at__lt_time"}
        query = {k: v for k, v in parameters.items() if k not in replaced}
        self.further = f"?{urlencode({**query, 'at__lt': since.isoformat()})}"
