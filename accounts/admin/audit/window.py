"""Bound how many events a filtered audit list scans.

No index serves two filters that each match millions of events. Without a bound, such a
list would scan the whole table.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest

from accounts.admin_site.large_changelists import LargeChangeList, moment_in_query
from accounts.models import AuditEvent

WINDOW_SIZE = 200_000
"""Newest events before the end of the requested period."""
NO_FILTERS = {"at__gte", "at__lt", "p", "o", "e"}


def window_start(before: datetime | None = None) -> datetime | None:
    """Time of the oldest event in the window; None if there are fewer events."""
    events = AuditEvent.objects.order_by("-at", "-id")
    events = events if before is None else events.filter(at__lt=before)
    newest = events.values_list("id", flat=True).first()
    if newest is None:
        return None
    older = AuditEvent.objects.filter(id__lte=newest - WINDOW_SIZE)
    return older.order_by("-id").values_list("at", flat=True).first()


class WindowedChangeList(LargeChangeList):
    """Shows how far back the list searched, and links to the earlier period."""

    looked_since: datetime | None = None
    further = ""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Apply the window when several filters are set; exports have no window."""
        filters = {name for name, value in request.GET.items() if value} - NO_FILTERS
        if len(filters) > 1 and not getattr(request, "exporting", False):
            self.apply_window(request)
        return super().get_queryset(request, *args, **kwargs)

    def apply_window(self, request: HttpRequest) -> None:
        """Leave out events before the window, unless the period is shorter."""
        parameters = request.GET
        until, start = parameters.get("at__lt", ""), parameters.get("at__gte", "")
        since = window_start(moment_in_query(until, end=True) if until else None)
        if since is None or (start and moment_in_query(start, end=False) >= since):
            return
        self.root_queryset = self.root_queryset.filter(at__gte=since)
        self.looked_since = since
        query = {k: v for k, v in parameters.items() if k not in {"p", "e", "at__lt"}}
        self.further = f"?{urlencode({**query, 'at__lt': since.isoformat()})}"
