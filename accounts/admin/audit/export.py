"""The audit as a download of any size, in constant memory; records each export."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.admin_site.base import may
from accounts.audit.export import CONTENT_TYPES, FORMATS, export_events
from accounts.audit.record import record
from accounts.http.streaming import stream_from_thread

VIEW_ARGUMENTS = "accounts.view_arguments"
"""The permission to see what is recorded of the arguments of calls."""


def export_response(
    request: HttpRequest, queryset: Any, form: str
) -> HttpResponse | StreamingHttpResponse:
    """Stream the events of `queryset` as a download. Records the export.

    It has recorded arguments only for users who may view them.
    """
    if form not in FORMATS:
        message = _("Unknown format %s. Use csv or jsonl.") % form
        return HttpResponse(
            message, status=404, content_type="text/plain; charset=utf-8"
        )
    arguments = may(request, VIEW_ARGUMENTS)
    record(
        "audit.exported",
        actor=request.user,
        request=request,
        object=form,
        changes={"filter": ["", request.GET.urlencode()]},
        via=VIEW_ARGUMENTS if arguments else "",
    )
    answer = StreamingHttpResponse(
        stream_from_thread(lambda: export_events(queryset, form, arguments=arguments)),
        content_type=CONTENT_TYPES[form],
    )
    name = f"audit-{timezone.now():%Y%m%d-%H%M%S}.{form}"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    answer["Cache-Control"] = "no-store"
    answer["X-Content-Type-Options"] = "nosniff"
    return answer
