"""SignInProvider and ClaimRule: OpenID Connect Core 1.0 sign-in, and its roles.

A claim grants a role; the next sign-in without the claim withdraws it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.crypto.encrypted_columns import SIGN_IN_PROVIDERS
from accounts.crypto.encryption import KeyUnreadable, seal, unseal
from accounts.models.audit.events import AuditEvent
from accounts.models.roles import Role, RoleAssignment
from accounts.parsing.host_names import is_host
from accounts.parsing.urls import split_url

if TYPE_CHECKING:
    from accounts.models.users import User

PURPOSE = SIGN_IN_PROVIDERS.purpose


LOOPBACK = ("127.0.0.1", "::1", "localhost")


def https_or_loopback(value: str) -> None:
    """Raises ValidationError unless the URL is https or loopback: it gets secrets."""
    parts = split_url(value)
    near = parts is not None and parts.hostname in LOOPBACK and parts.port
    schemes = ("https://", "http://") if near else ("https://",)
    if not value.startswith(schemes):
        raise ValidationError(_("The issuer must start with https://."))
    if parts is None or not is_host(parts.hostname or "") or "@" in parts.netloc:
        text = _("%s is not a URL such as https://login.example.com/tenant.")
        raise ValidationError(text % value[:80])


class SignInProvider(models.Model):
    """An OpenID provider: Entra, Okta, Keycloak, Google or any other."""

    slug = models.SlugField(
        _("short name"),
        unique=True,
        help_text=_("This name is part of the callback URL: /accounts/oidc/NAME/..."),
    )
    name = models.CharField(
        _("name"), max_length=40, help_text=_("The sign-in button shows this name.")
    )
    issuer = models.CharField(
        _("issuer"),
        max_length=255,
        validators=[https_or_loopback],
        help_text=_("The URL without /.well-known/openid-configuration."),
    )
    client_id = models.CharField(_("client ID"), max_length=191)
    secret_encrypted = models.TextField(blank=True, editable=False)
    enabled = models.BooleanField(_("enabled"), default=True)
    sign_up = models.BooleanField(
        _("create accounts on first sign-in"),
        default=False,
        help_text=_("If on, users who sign in for the first time get an account."),
    )
    link_by_email = models.BooleanField(
        _("link accounts by verified email"),
        default=False,
        help_text=_(
            "If on, a verified email address links to the account that "
            "has this address."
        ),
    )
    roles_last = models.PositiveSmallIntegerField(
        _("role lifetime (days)"),
        default=30,
        validators=[MinValueValidator(1)],
        help_text=_(
            "Roles end this many days after the last sign-in through this provider."
        ),
    )

    class Meta:
        ordering = ("name",)
        verbose_name = _("sign-in provider")
        verbose_name_plural = _("sign-in providers")

    def __str__(self) -> str:
        return self.name

    @property
    def reason(self) -> str:
        """The `reason` of all role assignments that this provider granted."""
        return f"from provider {self.slug}"

    @property
    def secret(self) -> str:
        """The decrypted client secret; empty if there is none. Raises KeyUnreadable."""
        if not self.secret_encrypted:
            return ""
        try:
            raw = base64.b64decode(self.secret_encrypted)
            return unseal(PURPOSE, raw).decode()
        except (KeyUnreadable, ValueError) as error:
            text = f"The secret of {self.slug} cannot be decrypted: enter it again."
            raise KeyUnreadable(text) from error

    def set_secret(self, raw: str) -> None:
        """Encrypt the secret; the caller saves the row."""
        sealed = seal(PURPOSE, raw.encode())
        self.secret_encrypted = base64.b64encode(sealed).decode()

    def apply(
        self, user: User, claims: dict[str, Any], keep: HttpRequest | None = None
    ) -> None:
        """Grant and withdraw roles by the current claims, with an event for each.

        Roles are granted first: without any role for a moment, the user would lose all
        access. `keep` is the request that signs in.
        """
        matching = [rule for rule in self.rules.all() if rule.matches(claims)]
        due = {rule.role_id: rule.role for rule in matching}
        assignments = RoleAssignment.objects.filter(user=user).select_related("role")
        provided = {a.role_id: a for a in assignments if a.reason == self.reason}
        other = {a.role_id for a in assignments if a.role_id not in provided}
        roles = [role for key, role in due.items() if key not in other]
        self.grant_roles(user, roles, provided)
        for key, assignment in provided.items():
            if key not in due:
                self.record_role_event("role.withdrawn", user, assignment.role)
                assignment.withdraw(actor=self.reason, reason=self.reason, keep=keep)

    def grant_roles(
        self, user: User, roles: Iterable[Role], known: dict[int, Any]
    ) -> None:
        """Grant or renew roles for `roles_last` days; roles in `known` get no event."""
        expiry = timezone.now() + timedelta(days=self.roles_last)
        for role in roles:
            RoleAssignment.objects.grant(
                user, role, reason=self.reason, expires_at=expiry
            )
            if role.pk not in known:
                self.record_role_event("role.granted", user, role)

    def record_role_event(self, action: str, user: User, role: Role) -> None:
        """Write an event whose actor is the user."""
        text = f"{user} has {role}"[:255]
        event = AuditEvent(action=action, object=text, reason=self.reason)
        event.about(user).acted_by(user).save()


class ClaimRule(models.Model):
    """Users whose claim has this value get this role."""

    provider = models.ForeignKey(
        SignInProvider,
        on_delete=models.CASCADE,
        related_name="rules",
        verbose_name=_("provider"),
    )
    claim = models.CharField(
        _("claim"),
        max_length=100,
        help_text=_(
            "The name of the claim, such as groups, or "
            "realm_access.roles for a nested claim."
        ),
    )
    value = models.CharField(
        _("value"), max_length=255, help_text=_("The value must match exactly.")
    )
    role = models.ForeignKey(
        Role, on_delete=models.CASCADE, related_name="+", verbose_name=_("role")
    )

    class Meta:
        ordering = ("claim", "value")
        verbose_name = _("claim rule")
        verbose_name_plural = _("claim rules")
        constraints = [
            models.UniqueConstraint(
                fields=("provider", "claim", "value", "role"), name="one_claim_rule"
            )
        ]

    def __str__(self) -> str:
        return f"{self.claim} = {self.value}: {self.role}"

    def matches(self, claims: dict[str, Any]) -> bool:
        """Whether the claim is the value, or a list that contains it."""
        claim: Any = claims
        for name in self.claim.split("."):
            claim = claim.get(name) if isinstance(claim, dict) else None
        items = claim if isinstance(claim, list) else [claim]
        return any(isinstance(item, str) and item == self.value for item in items)
