"""The audit as a download of any size, in constant memory; records each export."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.audit.export import CONTENT_TYPES, FORMATS, export_events
from accounts.audit.record import record
from accounts.http.streaming import stream_from_thread


def export_response(
    request: HttpRequest, queryset: Any, form: str
) -> HttpResponse | StreamingHttpResponse:
    """Stream the events of `queryset` as a download. Records the export."""
    if form not in FORMATS:
        message = _("Unknown format %s. Use csv or jsonl.") % form
        return HttpResponse(
            message, status=404, content_type="text/plain; charset=utf-8"
        )
    record(
        "audit.exported",
        actor=request.user,
        request=request,
        object=form,
        changes={"filter": ["", request.GET.urlencode()]},
    )
    answer = StreamingHttpResponse(
        stream_from_thread(lambda: export_events(queryset, form)),
        content_type=CONTENT_TYPES[form],
    )
    name = f"audit-{timezone.now():%Y%m%d-%H%M%S}.{form}"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    answer["Cache-Control"] = "no-store"
    answer["X-Content-Type-Options"] = "nosniff"
    return answer
