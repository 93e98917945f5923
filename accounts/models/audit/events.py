"""AuditEvent: an action with its actor and reason. Rows are append-only."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, NoReturn, Protocol

from django.contrib.postgres.indexes import HashIndex
from django.db import models, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models.audit.columns import IdField
from accounts.models.audit.event_log import log_events
from accounts.models.audit.indexes import ByValueIndex
from accounts.models.audit.origins import origin_var
from accounts.models.notifications.kinds import RECORDED
from accounts.models.notifications.outbox import notify_of_event
from accounts.models.statements.writes import QuickInserts

APPEND_ONLY = "Audit events are append-only: they can be added and purged, not changed."


def events_about(subject: str) -> models.Q:
    """The events about one row. The index has no events without a subject."""
    return models.Q(subject=subject, subject__gt="")


def subject_of(row: models.Model) -> str:
    """`user:7`: the model and key of a row, or of the row that it is a part of.

    A row is a part of another one if it has `audit_owner`, such as ("user", 7).
    """
    model, key = getattr(row, "audit_owner", (row._meta.model_name, row.pk))
    return f"{model}:{key}"[:64]


class Actor(Protocol):
    """The part of a user that the audit needs; importing User would be a cycle."""

    pk: Any

    def get_username(self) -> str: ...


class AuditQuerySet(QuickInserts["AuditEvent"]):
    """Refuses the bulk methods that would change or delete events.

    `AuditSeal.objects.all().purge()` applies retention to whole sealed ranges.
    """

    def update(self, **kwargs: Any) -> NoReturn:
        raise TypeError(APPEND_ONLY)

    def delete(self) -> NoReturn:
        raise TypeError(APPEND_ONLY)

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(APPEND_ONLY)

    def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> Any:
        """Insert without ids: a chosen id could be a sealed event's or fill a gap."""
        objs = list(objs)
        if kwargs.get("update_conflicts") or any(o.pk is not None for o in objs):
            raise TypeError(APPEND_ONLY)
        for event in objs:
            event.add_origin()
        rows = super().bulk_create(objs, *args, **kwargs)
        transaction.on_commit(partial(log_events, rows), robust=True)
        return rows

    # Django calls these directly, past update and delete, also on the base manager.
    def _update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(APPEND_ONLY)

    def _raw_delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(APPEND_ONLY)


class AuditEvent(models.Model):
    """One event. `actor` is text, so the event outlives the account."""

    class Verdict(models.TextChoices):
        """The decision, empty for events without one."""

        NONE = "", _("no decision")
        ALLOWED = "allowed", _("allowed")
        DENIED = "denied", _("denied")

    at = models.DateTimeField(_("when"), default=timezone.now, db_index=True)
    action = models.CharField(
        _("action"),
        max_length=64,
        help_text=_("The name of the event, for example tool.called."),
    )
    actor = models.CharField(_("actor"), max_length=150, blank=True)
    actor_id = models.BigIntegerField(_("actor ID"), null=True, blank=True)
    client_id = models.CharField(_("client"), max_length=255, blank=True)
    token_id = IdField(
        _("token ID"),
        max_length=64,
        blank=True,
        help_text=_(
            "The jti of the token that was used or changed. The token "
            "itself is never stored."
        ),
    )
    address = models.CharField(_("address"), max_length=45, blank=True)
    object = models.CharField(_("object"), max_length=255, blank=True)
    decision = models.CharField(
        _("decision"), max_length=8, blank=True, choices=Verdict, default=Verdict.NONE
    )
    reason = models.CharField(_("reason"), max_length=255, blank=True)
    via = models.CharField(
        _("matched rule"),
        max_length=255,
        blank=True,
        help_text=_("The rule or row that led to the decision."),
    )
    outcome = models.CharField(
        _("outcome"),
        max_length=16,
        blank=True,
        help_text=_("The result of a call: ok or error."),
    )
    duration_ms = models.FloatField(_("duration (ms)"), null=True, blank=True)
    request_id = IdField(_("request ID"), max_length=64, blank=True)
    changes = models.JSONField(
        _("changes"),
        default=dict,
        blank=True,
        help_text=_("The changed fields, each as [before, after]."),
    )

    subject = models.CharField(
        _("subject"),
        max_length=64,
        default="",
        db_default="",
        editable=False,
        help_text=_("The changed row, as model:ID. Its history shows the event."),
    )
    # Not NULL, which costs eight bytes in each row of PostgreSQL.
    arguments = models.TextField(
        _("arguments"),
        default="",
        db_default="",
        editable=False,
        help_text=_("What the tool's policy records of the arguments, as JSON."),
    )

    objects = AuditQuerySet.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        base_manager_name = "objects"
        permissions = (("view_arguments", _("Can view recorded arguments of calls")),)
        verbose_name = _("audit event")
        verbose_name_plural = _("audit events")
        # Half of an event's bytes were in indexes (bench/sizing.py measures them).
        indexes = [
            ByValueIndex(fields=["action", "at"], name="audit_action"),
            ByValueIndex(fields=["actor", "at"], name="audit_actor"),
            ByValueIndex(fields=["client_id", "at"], name="audit_client"),
            ByValueIndex(fields=["token_id", "at"], name="audit_token"),
            HashIndex(fields=["request_id"], name="audit_request"),
            ByValueIndex(
                fields=["object", "at"],
                name="audit_object",
                opclasses=["varchar_pattern_ops", "timestamptz_ops"],
            ),
            models.Index(
                fields=["reason", "at"],
                condition=models.Q(decision="denied"),
                name="audit_refusals",
            ),
            # A person's own refusals, in the portal.
            models.Index(
                fields=["actor_id", "at"],
                condition=models.Q(decision="denied"),
                name="audit_actor_denied",
            ),
            models.Index(
                fields=["at"],
                condition=models.Q(decision="denied"),
                name="audit_denied",
            ),
            models.Index(
                fields=["at"],
                condition=models.Q(decision=""),
                name="audit_undecided",
            ),
            # Calls change no row and are rarely errors: these cost them nothing.
            models.Index(
                fields=["subject", "at"],
                condition=models.Q(subject__gt=""),
                name="audit_subject",
            ),
            models.Index(
                fields=["at"],
                condition=models.Q(outcome="error"),
                name="audit_errors",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object}".strip()

    @property
    def change_rows(self) -> list[tuple[str, str, str]]:
        """(field, before, after) of each change, as text."""
        changed = self.changes.items()
        return [(name, *before_and_after_text(value)) for name, value in changed]

    @property
    def recorded(self) -> dict[str, Any]:
        """`arguments` as an object (mcp_bridge/audit/recorded_arguments.py).

        Empty if nothing is recorded, or if another program wrote the column.
        """
        try:
            found = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert. Raises TypeError for an event that has a row already."""
        if self.pk is not None:
            raise TypeError(APPEND_ONLY)
        self.add_origin()
        super().save(*args, **kwargs)

    def save_base(self, *args: Any, **kwargs: Any) -> None:
        """Like `save`: Django offers this method to callers that bypass `save`."""
        if self.pk is not None:
            raise TypeError(APPEND_ONLY)
        if self.action in RECORDED:
            with transaction.atomic():
                super().save_base(*args, **kwargs)
                notify_of_event(self)
        else:
            super().save_base(*args, **kwargs)
        transaction.on_commit(partial(log_events, [self]), robust=True)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises TypeError; `AuditSeal.objects.all().purge()` applies retention."""
        raise TypeError(APPEND_ONLY)

    def add_origin(self) -> None:
        """Set address, request id and token of the request that is being served."""
        origin = origin_var.get()
        if origin is not None:
            self.address = self.address or origin.address
            self.request_id = self.request_id or origin.request_id
            self.token_id = self.token_id or origin.token_id()

    def about(self, row: models.Model) -> AuditEvent:
        """Set the subject: this row's history shows the event."""
        self.subject = subject_of(row)
        return self

    def acted_by(self, actor: Actor | str | None) -> AuditEvent:
        """Set the actor: a user, a text such as "command line", or None."""
        if actor is None or isinstance(actor, str):
            self.actor = (actor or "")[:150]
        else:
            self.actor, self.actor_id = actor.get_username(), actor.pk
        return self


def before_and_after_text(value: Any) -> tuple[str, str]:
    """Before and after as text; a single value counts as "after"."""
    if isinstance(value, list) and len(value) == 2:
        return value_text(value[0]), value_text(value[1])
    return "", value_text(value)


def value_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)
