"""Invitation: a link with which a new person sets a password or a passkey."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.crypto.secrets import secret_hash
from accounts.models.audit.events import AuditEvent
from accounts.models.audit.origins import COMMAND_LINE

TOKEN_BYTES = 32
WAITING = Q(accepted_at=None, withdrawn_at=None)


class InvitationState(models.TextChoices):
    PENDING = "pending", _("pending")
    ACCEPTED = "accepted", _("accepted")
    WITHDRAWN = "withdrawn", _("withdrawn")
    EXPIRED = "expired", _("expired")


class InvitationQuerySet(models.QuerySet["Invitation"]):
    """Issues, finds and withdraws invitations."""

    def waiting(self) -> InvitationQuerySet:
        """Neither accepted nor withdrawn; these may have expired."""
        return self.filter(WAITING)

    def in_state(self, state: str) -> InvitationQuerySet:
        now = timezone.now()
        conditions = {
            InvitationState.PENDING: WAITING & Q(expires_at__gt=now),
            InvitationState.EXPIRED: WAITING & Q(expires_at__lte=now),
            InvitationState.ACCEPTED: ~Q(accepted_at=None),
            InvitationState.WITHDRAWN: ~Q(withdrawn_at=None),
        }
        return self.filter(conditions[InvitationState(state)])

    def with_token_hash(self, hashed: str) -> Invitation | None:
        """The pending invitation whose token has this hash."""
        rows = self.in_state(InvitationState.PENDING)
        return rows.select_related("user", "invited_by").filter(token=hashed).first()

    def issue(
        self, user: Any, *, actor: Any, made_account: bool = False
    ) -> tuple[Invitation, str]:
        """The invitation and its token; the token of an earlier link stops working.

        `actor` is a user, or the text for the command line.
        Only the hash of the token is stored, so it cannot be shown a second time.
        """
        raw = secrets.token_urlsafe(TOKEN_BYTES)
        person = None if isinstance(actor, str) else actor
        fields = {
            "token": secret_hash(raw),
            "invited_by": person,
            "inviter": actor if person is None else person.get_username(),
            "sent_at": timezone.now(),
            "expires_at": timezone.now() + settings.INVITATION_LIFETIME,
            "mailed_to": "",
        }
        with transaction.atomic():
            waiting = {"user": user, "accepted_at": None, "withdrawn_at": None}
            row, new = self.update_or_create(
                **waiting,
                defaults=fields,
                create_defaults={**fields, "made_account": made_account},
            )
            row.record("created" if new else "resent", actor)
        return row, raw

    def withdraw(self, *, actor: Any, reason: str) -> int:
        """End the links that were not accepted; return their number."""
        with transaction.atomic():
            rows = list(self.waiting().select_related("user"))
            keys = [row.pk for row in rows]
            Invitation.objects.filter(pk__in=keys).update(withdrawn_at=timezone.now())
            for row in rows:
                row.record("withdrawn", actor, reason=reason[:255])
        return len(rows)

    withdraw.queryset_only = True  # type: ignore[attr-defined]
    withdraw.alters_data = True  # type: ignore[attr-defined]


class Invitation(models.Model):
    """A link for one account; it works once and expires."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="invitations",
        verbose_name=_("user"),
    )
    token = models.CharField(max_length=64, unique=True, editable=False)
    """The SHA-256 of the token."""
    made_account = models.BooleanField(default=False, editable=False)
    """Whether the account was added with the invitation."""
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        editable=False,
        related_name="+",
        verbose_name=_("invited by"),
    )
    inviter = models.CharField(_("invited by"), max_length=150, editable=False)
    """The name of `invited_by`, which outlives the account, or the command line."""
    sent_at = models.DateTimeField(_("invited at"), default=timezone.now)
    expires_at = models.DateTimeField(_("link expires at"))
    mailed_to = models.EmailField(_("mailed to"), blank=True)
    accepted_at = models.DateTimeField(_("accepted at"), null=True, blank=True)
    accepted_from = models.CharField(_("accepted from"), max_length=45, blank=True)
    withdrawn_at = models.DateTimeField(_("withdrawn at"), null=True, blank=True)

    objects = InvitationQuerySet.as_manager()

    class Meta:
        ordering = ("-sent_at", "-id")
        verbose_name = _("invitation")
        verbose_name_plural = _("invitations")
        constraints = [
            models.UniqueConstraint(
                fields=("user",),
                condition=WAITING,
                name="one_waiting_invitation_per_user",
            )
        ]

    def __str__(self) -> str:
        return str(self.user)

    @property
    def audit_owner(self) -> tuple[str, int]:
        """An invitation is a part of its user."""
        return "user", self.user_id

    @property
    def by_command(self) -> bool:
        return self.inviter == COMMAND_LINE

    @property
    def state(self) -> InvitationState:
        if self.accepted_at is not None:
            return InvitationState.ACCEPTED
        if self.withdrawn_at is not None:
            return InvitationState.WITHDRAWN
        expired = self.expires_at <= timezone.now()
        return InvitationState.EXPIRED if expired else InvitationState.PENDING

    def claim(self, address: str) -> bool:
        """Mark it as accepted; False if it was used or ended in the meantime."""
        rows = Invitation.objects.filter(pk=self.pk, token=self.token)
        fields = {"accepted_at": timezone.now(), "accepted_from": address}
        claimed = rows.in_state(InvitationState.PENDING).update(**fields)
        if claimed:
            self.record("accepted", self.user)
        return bool(claimed)

    def record(self, verb: str, actor: Any, **fields: Any) -> None:
        """Write the audit event `invitation.<verb>`."""
        event = AuditEvent(
            action=f"invitation.{verb}", object=self.user.username, **fields
        )
        event.about(self).acted_by(actor).save()
