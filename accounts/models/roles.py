"""Scope, Role (a set of scopes) and RoleAssignment (a role of a user)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from accounts.http.ip_networks import network_field_options
from accounts.parsing.ends import LAST_END, EndField
from accounts.parsing.moments import too_late

if TYPE_CHECKING:
    from accounts.models.users import User

ACT_WITHIN_ROLES = "mcp"
"""The scope of tokens that may use all roles of their user."""

ADMIN_API = "portico:admin"
"""The scope of personal tokens for /api/v1/. It stands alone: /mcp refuses them."""

scope_name_validator = RegexValidator(
    r"\A[\x21\x23-\x5B\x5D-\x7E]+\Z",
    _(
        "A scope must be printable ASCII without spaces, quotes or "
        "backslashes (RFC 6749)."
    ),
)


ONE_ITEM = {
    "tool": gettext_noop("Use the tool %s."),
    "resource": gettext_noop("Read the resource %s."),
    "prompt": gettext_noop("Use the prompt %s."),
}
"""Kind in a scope such as tool:whoami -> its description."""


def scope_in_words(name: str) -> str:
    """The description of a scope for which no row has one."""
    kind, _colon, item = name.partition(":")
    return gettext(ONE_ITEM[kind]).replace("%s", item) if kind in ONE_ITEM else name


class ScopeQuerySet(models.QuerySet["Scope"]):
    def descriptions(self, names: Iterable[str]) -> dict[str, str]:
        """Return name -> translated description, in the given order.

        A scope without description is shown by its name, or as the one tool of it.
        """
        known = dict(self.filter(name__in=names).values_list("name", "description"))
        translated = {name: gettext(text) for name, text in known.items() if text}
        return {name: translated.get(name) or scope_in_words(name) for name in names}

    def in_words(self, scopes: Iterable[str]) -> dict[str, list[str]]:
        """Scopes of a token, such as "mcp User.Read" -> what each of them allows."""
        texts = set(scopes)
        words = self.descriptions({name for text in texts for name in text.split()})
        return {text: [words[name] for name in text.split()] for text in texts}


class Scope(models.Model):
    """An OAuth scope, such as `User.Read` or `tool:delete_product`."""

    name = models.CharField(
        _("name"), max_length=255, unique=True, validators=[scope_name_validator]
    )
    description = models.CharField(
        _("description"),
        max_length=255,
        blank=True,
        help_text=_("Explain in plain words what this scope allows."),
    )

    objects = ScopeQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        verbose_name = _("scope")
        verbose_name_plural = _("scopes")

    def __str__(self) -> str:
        return self.name


class Role(models.Model):
    """A named set of scopes. Users are assigned roles, never scopes."""

    name = models.CharField(_("name"), max_length=100, unique=True)
    description = models.CharField(_("description"), max_length=255, blank=True)
    scopes = models.ManyToManyField(
        Scope, blank=True, related_name="roles", verbose_name=_("scopes")
    )
    networks = models.TextField(_("allowed IP addresses"), **network_field_options())

    class Meta:
        ordering = ("name",)
        verbose_name = _("role")
        verbose_name_plural = _("roles")

    def __str__(self) -> str:
        return self.name


def name_through(table: Any, one: Any, many: Any) -> None:
    """Name the rows of a many-to-many table, which delete pages list.

    Django translates its own names once, when it starts.
    """
    meta = table._meta
    meta.verbose_name, meta.verbose_name_plural = one, many


name_through(Role.scopes.through, _("scope of a role"), _("scopes of roles"))


class RoleAssignmentQuerySet(models.QuerySet["RoleAssignment"]):
    """Filters assignments by expiry and grants roles."""

    def unexpired(self, at: Any = None) -> RoleAssignmentQuerySet:
        """Return the assignments that are valid at `at` (default: now).

        It is a datetime, or an expression of one.
        """
        moment = at or timezone.now()
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=moment))

    def grant(
        self,
        user: User,
        role: Role,
        *,
        granted_by: User | None = None,
        reason: str = "",
        expires_at: datetime | None = None,
    ) -> tuple[RoleAssignment, bool]:
        """Grant or renew `role`; return (assignment, whether it is new)."""
        return self.update_or_create(
            user=user,
            role=role,
            defaults={
                "granted_by": granted_by,
                "reason": reason,
                "expires_at": expires_at,
                "granted_at": timezone.now(),
            },
        )


class RoleAssignment(models.Model):
    """A role of a user, with the granter, the reason and the expiry."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="role_assignments",
        verbose_name=_("user"),
    )
    role = models.ForeignKey(
        Role,
        on_delete=models.PROTECT,
        related_name="assignments",
        verbose_name=_("role"),
    )
    granted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
        verbose_name=_("granted by"),
    )
    reason = models.CharField(_("reason"), max_length=255, blank=True)
    granted_at = models.DateTimeField(
        _("granted at"), default=timezone.now, editable=False
    )
    expires_at = EndField(
        _("expires at"),
        null=True,
        blank=True,
        help_text=_("Leave empty for no end date."),
    )

    objects = RoleAssignmentQuerySet.as_manager()

    class Meta:
        ordering = ("role__name",)
        verbose_name = _("role assignment")
        verbose_name_plural = _("role assignments")
        constraints = [
            models.UniqueConstraint(
                fields=("user", "role"), name="one_assignment_per_user_and_role"
            )
        ]

    def __str__(self) -> str:
        text = gettext("%(user)s has %(role)s")
        return text % {"user": self.user, "role": self.role}

    @property
    def audit_owner(self) -> tuple[str, int]:
        """An assignment is a part of its user: others may follow it."""
        return "user", self.user_id

    @property
    def expired(self) -> bool:
        return bool(self.expires_at is not None and self.expires_at <= timezone.now())

    def lasts_until(self, moment: datetime | None) -> bool:
        """Whether it is valid at least until `moment`; None means without expiry."""
        if self.expired:
            return False
        if self.expires_at is None or moment is None:
            return self.expires_at is None
        return bool(self.expires_at >= moment)

    def extend(self, by: timedelta) -> None:
        """Postpone the expiry, from now if it has passed; None stays None."""
        if self.expires_at is not None:
            extended = max(self.expires_at, timezone.now()) + by
            self.expires_at = LAST_END if too_late(extended) else extended
            self.save(update_fields=["expires_at"])

    def end(self, *, actor: Any, reason: str = "role ended", keep: Any = None) -> int:
        """Expire the assignment now; return the number of tokens revoked.

        Without another role, the user loses all access.
        """
        self.expires_at = timezone.now()
        self.save(update_fields=["expires_at"])
        return self._end_access_without_roles(actor, reason, keep)

    def withdraw(
        self, *, actor: Any, reason: str = "role withdrawn", keep: Any = None
    ) -> int:
        """Delete the assignment; return the number of tokens revoked.

        Without another role, the user loses all access. The browser session of the
        request `keep` stays signed in.
        """
        self.delete()
        return self._end_access_without_roles(actor, reason, keep)

    def _end_access_without_roles(self, actor: Any, reason: str, keep: Any) -> int:
        if RoleAssignment.objects.filter(user=self.user).unexpired().exists():
            return 0
        # Staff may use the admin without a role, so only a superuser ends their access.
        # Commands and providers are actors without `is_superuser` and may do so, too.
        administers = self.user.is_staff or self.user.is_superuser
        if administers and not getattr(actor, "is_superuser", True):
            return 0
        return self.user.revoke_tokens(actor=actor, reason=reason, keep=keep)
