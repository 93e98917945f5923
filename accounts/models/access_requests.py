"""AccessRequest: a user asks for a role and says why; staff approve or decline."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models.roles import Role, RoleAssignment
from accounts.parsing.ends import EndField

if TYPE_CHECKING:
    from accounts.models.users import User


class RequestNotPossible(Exception):
    """The request conflicts with existing rows; the text says why."""


class RequestState(models.TextChoices):
    """A request is open until staff decide or the user withdraws it."""

    OPEN = "open", gettext_lazy("waiting for approval")
    APPROVED = "approved", gettext_lazy("approved")
    DECLINED = "declined", gettext_lazy("declined")
    WITHDRAWN = "withdrawn", gettext_lazy("withdrawn")


class AccessRequestQuerySet(models.QuerySet["AccessRequest"]):
    def open(self) -> AccessRequestQuerySet:
        """Return the requests that wait for a decision."""
        return self.filter(state=RequestState.OPEN)

    def ask(
        self, user: User, role: Role, *, reason: str, until: datetime | None = None
    ) -> AccessRequest:
        """Create a request.

        Raises RequestNotPossible if the user has the role without expiry, or an open
        request for it.
        """
        assignments = RoleAssignment.objects.filter(user=user, role=role)
        if assignments.filter(expires_at=None).exists():
            raise RequestNotPossible(_("You already have %s with no end date.") % role)
        try:
            with transaction.atomic():
                return self.create(user=user, role=role, reason=reason, until=until)
        except IntegrityError as error:
            message = _(
                "You have already requested %s. The request is waiting for approval."
            )
            raise RequestNotPossible(message % role) from error


class AccessRequest(models.Model):
    """A request of a user for a role, with its reason and its decision."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="access_requests",
        verbose_name=gettext_lazy("user"),
    )
    role = models.ForeignKey(
        Role,
        on_delete=models.CASCADE,
        related_name="+",
        verbose_name=gettext_lazy("role"),
    )
    reason = models.CharField(gettext_lazy("reason"), max_length=255)
    until = EndField(gettext_lazy("requested until"), null=True, blank=True)
    state = models.CharField(
        gettext_lazy("state"),
        max_length=9,
        choices=RequestState,
        default=RequestState.OPEN,
        db_index=True,
    )
    asked_at = models.DateTimeField(gettext_lazy("requested at"), default=timezone.now)
    decided_at = models.DateTimeField(gettext_lazy("decided at"), null=True, blank=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=gettext_lazy("decided by"),
    )
    given_until = EndField(
        gettext_lazy("granted until"),
        null=True,
        blank=True,
        help_text=gettext_lazy("Leave empty for no end date."),
    )
    answer = models.CharField(
        gettext_lazy("message"),
        max_length=255,
        blank=True,
        help_text=gettext_lazy("The requester sees this message in the portal."),
    )

    objects = AccessRequestQuerySet.as_manager()

    class Meta:
        ordering = ("-asked_at", "-id")
        verbose_name = gettext_lazy("access request")
        verbose_name_plural = gettext_lazy("access requests")
        constraints = [
            models.UniqueConstraint(
                fields=("user", "role"),
                condition=Q(state="open"),
                name="one_open_request_per_user_and_role",
            )
        ]

    def __str__(self) -> str:
        text = _("%(user)s requests %(role)s")
        return text % {"user": self.user, "role": self.role}

    def approve(
        self, *, actor: User, until: datetime | None, answer: str = ""
    ) -> tuple[RoleAssignment, bool]:
        """Grant the role: (assignment, whether it was granted or extended now).

        An assignment that lasts as long stays unchanged: a sign-in provider finds its
        assignments by their reason, and could not withdraw one with another reason.
        """
        with transaction.atomic():
            self._decide(RequestState.APPROVED, actor, answer)
            rows = RoleAssignment.objects.filter(user=self.user, role=self.role)
            assignment = rows.first()
            extends = assignment is None or not assignment.lasts_until(until)
            if assignment is None or extends:
                assignment, _new = RoleAssignment.objects.grant(
                    self.user,
                    self.role,
                    granted_by=actor,
                    reason=self.reason,
                    expires_at=until,
                )
            self.given_until = assignment.expires_at
            self.save(update_fields=["given_until"])
        return assignment, extends

    def decline(self, *, actor: User, answer: str = "") -> None:
        with transaction.atomic():
            self._decide(RequestState.DECLINED, actor, answer)

    def withdraw(self) -> None:
        with transaction.atomic():
            self._decide(RequestState.WITHDRAWN, None, "")

    def _decide(self, state: RequestState, actor: User | None, answer: str) -> None:
        """Leave the state open, once. Raises RequestNotPossible if it was decided."""
        rows = AccessRequest.objects.filter(pk=self.pk, state=RequestState.OPEN)
        fields = {
            "state": state,
            "decided_at": timezone.now(),
            "decided_by": actor,
            "answer": answer,
        }
        if not rows.update(**fields):
            raise RequestNotPossible(_("%s: already decided.") % self)
        for name, value in fields.items():
            setattr(self, name, value)
