"""record() writes every AuditEvent of synchronous code."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from django.http import HttpRequest

from accounts.audit.request_origin import request_id_of
from accounts.http.client_address import client_address
from accounts.http.language import in_english
from accounts.models.audit.events import AuditEvent
from accounts.parsing.text import one_line


def record(
    action: str,
    *,
    actor: Any = None,
    request: HttpRequest | None = None,
    object: Any = "",
    subject: Model | None = None,
    denied: str = "",
    **fields: Any,
) -> AuditEvent:
    """Write one event; `denied` is the reason of a refusal.

    `object` is text or a model instance, whose name is written in English. The event is
    in the history of `subject`, by default of that instance.
    """
    if denied:
        fields |= {"decision": AuditEvent.Verdict.DENIED, "reason": denied}
    if request is not None:
        fields.setdefault("address", client_address(request))
        fields.setdefault("request_id", request_id_of(request))
    with in_english():
        event = AuditEvent(action=action, object=one_line(str(object)), **fields)
    row = subject if subject is not None else object
    if isinstance(row, Model):
        event.about(row)
    event.acted_by(actor).save()
    return event
