"""User: a person or a service account; an end of access ends its tokens too."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from accounts.models.audit import AuditEvent
from accounts.models.browsers import browsers_of, end_browsers
from accounts.models.tokens import IssuedToken


class AddressField(models.EmailField):  # type: ignore[type-arg]
    """A mail address in lower case, whichever form, file or command wrote it.

    Two spellings of one address would be two people to whoever compares them.
    """

    def get_prep_value(self, value: Any) -> Any:
        """Lower case, in what is stored and in what is looked for."""
        prepared = super().get_prep_value(value)
        return prepared.lower() if isinstance(prepared, str) else prepared

    def to_python(self, value: Any) -> Any:
        """Likewise in forms."""
        found = super().to_python(value)
        return found.lower() if isinstance(found, str) else found


class UserQuerySet(models.QuerySet["User"]):
    """Bulk verbs on accounts."""

    def deactivate(self, *, actor: Any, reason: str = "account deactivated") -> int:
        """Close these accounts and revoke their tokens; return how many closed."""
        with transaction.atomic():
            ids = list(
                self.filter(is_active=True)
                .select_for_update()
                .values_list("pk", flat=True)
            )
            closed = User.objects.filter(pk__in=ids)
            closed.update(is_active=False)
            closed.sign_out(actor=actor, reason=reason)
        return len(ids)

    def addressed(self, address: str) -> list[User]:
        """Accounts with this address that an administrator set, active or not.

        The database folds more letters than an address may (CVE-2019-19844), so its
        answer is compared once more.
        """
        rows = self.filter(email__iexact=address, email_set_by_admin=True)
        return [user for user in rows if user.email.lower() == address.lower()]

    def sign_out(self, *, actor: Any, reason: str, keep: str = "") -> tuple[int, int]:
        """End every live token and every browser session; how many of each.

        `keep` is the stored key of the session that the actor is using.
        """
        ids = list(self.values_list("pk", flat=True))
        with transaction.atomic():
            live = IssuedToken.objects.filter(user_id__in=ids).live()
            tokens = live.revoke(actor=actor, reason=reason)
            browsers = end_browsers(browsers_of(ids, keep))
            AuditEvent.objects.bulk_create(
                AuditEvent(action="session.ended", object=name, reason=reason).acted_by(
                    actor
                )
                for name in browsers
            )
        return tokens, len(browsers)

    sign_out.queryset_only = True  # type: ignore[attr-defined]
    sign_out.alters_data = True  # type: ignore[attr-defined]
    deactivate.queryset_only = True  # type: ignore[attr-defined]
    deactivate.alters_data = True  # type: ignore[attr-defined]


class UserManager(DjangoUserManager["User"].from_queryset(UserQuerySet)):  # type: ignore[misc]
    """Django's manager with the verbs above."""


class User(AbstractUser):  # type: ignore[django-manager-missing]
    """An account. What it may do is in its roles, not in these columns."""

    is_service_account = models.BooleanField(
        _("is service account"),
        default=False,
        help_text=_("A program, not a person: it signs in by client credentials."),
    )

    email = AddressField(_("email address"), blank=True)
    email_set_by_admin = models.BooleanField(
        _("address set by an administrator"),
        default=True,
        help_text=_(
            "Off: a sign-in provider said it. A sign-in provider links only accounts "
            "whose address an administrator set."
        ),
    )

    objects = UserManager()  # type: ignore[misc]

    class Meta(AbstractUser.Meta):
        ordering = ("username",)
        permissions = (
            ("view_system", _("Can see the system page")),
            ("unlock_user", _("Can unlock accounts that are locked out")),
        )

    def end_access(self, *, actor: Any, reason: str) -> int:
        """Revoke every live token of this account; return how many."""
        live = IssuedToken.objects.filter(user=self).live()
        return live.revoke(actor=actor, reason=reason)
