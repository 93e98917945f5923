"""OAuthClient and the toolkit's other models, all swapped for ours.

Access and refresh tokens are rows of the one list (`IssuedToken`); the toolkit's own
token tables stay empty and exist because its models point at each other.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from oauth2_provider import models as toolkit

from accounts.http.ip_networks import network_field_options
from accounts.models.audit.events import AuditEvent
from accounts.models.issued_tokens import IssuedToken, key_batches
from accounts.parsing.host_names import HostField, host_of_document, is_document_at

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"

GRANTS = {
    "authorization_code": toolkit.AbstractApplication.GRANT_AUTHORIZATION_CODE,
    "refresh_token": toolkit.AbstractApplication.GRANT_AUTHORIZATION_CODE,
    "client_credentials": toolkit.AbstractApplication.GRANT_CLIENT_CREDENTIALS,
}
"""RFC 7591 grant type -> the toolkit's constant."""


AUTH_METHODS = ("none", "client_secret_basic", "client_secret_post", "private_key_jwt")


PRIVATE_KEY_JWT = "private_key_jwt"


class OAuthClientQuerySet(models.QuerySet["OAuthClient"]):
    """Cleaning up after clients that register on every connection."""

    def purge(self, now: Any) -> int:
        """Drop self-registered clients unused for long, never one with a live token."""
        source = toolkit.AbstractApplication.RegistrationSource
        before = now - settings.UNUSED_CLIENTS_AFTER
        idle = models.Q(last_used_at=None, created__lt=before)
        idle |= models.Q(last_used_at__lt=before)
        live = IssuedToken.objects.live().filter(client_id=models.OuterRef("client_id"))
        own = self.filter(idle, registration_source__in=(source.DCR, source.CIMD))
        gone = own.filter(~models.Exists(live), blocked=False)
        return sum(1 for client in gone if client.delete())

    purge.queryset_only = True  # type: ignore[attr-defined]
    purge.alters_data = True  # type: ignore[attr-defined]

    def end_access(self, *, actor: Any, reason: str) -> int:
        """End tokens and codes of these clients; how many tokens. Consents stay."""
        with transaction.atomic():
            names = self.end_pending(actor=actor, reason=reason)
            return sum(
                IssuedToken.objects.filter(client_id__in=some).revoke(
                    actor=actor, reason=reason
                )
                for some in key_batches(names)
            )

    def end_pending(self, *, actor: Any, reason: str) -> list[str]:
        """Delete their codes under way, their rows locked; the clients' public ids.

        Locked before any account, as redeeming does (accounts/tokens/issue.py: lock).
        """
        names: list[str] = []
        with transaction.atomic():
            keys = list(self.order_by("pk").values_list("pk", flat=True))
            for some in key_batches(keys):
                rows = OAuthClient.objects.filter(pk__in=some).order_by("pk")
                locked = rows.select_for_update(no_key=True)
                theirs = list(locked.values_list("client_id", flat=True))
                end_pending(actor=actor, reason=reason, client_id__in=theirs)
                names += theirs
        return names

    end_pending.queryset_only = True  # type: ignore[attr-defined]
    end_pending.alters_data = True  # type: ignore[attr-defined]
    end_access.queryset_only = True  # type: ignore[attr-defined]
    end_access.alters_data = True  # type: ignore[attr-defined]


class OAuthClientManager(models.Manager.from_queryset(OAuthClientQuerySet)):  # type: ignore[misc]
    """Finding a client by its public id."""

    def get_by_natural_key(self, client_id: str) -> OAuthClient:
        """The toolkit's own look-up."""
        found: OAuthClient = self.get(client_id=client_id)
        return found


class OAuthClient(toolkit.AbstractApplication):
    """A program that signs people in: put here by an admin, itself or its document."""

    token_endpoint_auth_method = models.CharField(
        _("token endpoint auth method"),
        max_length=32,
        default="none",
        choices=[(m, m) for m in AUTH_METHODS],
    )
    grant_types = models.JSONField(_("grant types"), default=list, blank=True)
    approved = models.BooleanField(
        _("approved"),
        default=False,
        help_text=_(
            "If on, users see the client as verified even if it registered itself."
        ),
    )
    blocked = models.BooleanField(
        _("blocked"),
        default=False,
        help_text=_("If on, the client can neither sign users in nor refresh tokens."),
    )
    service_account = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text=_("The account that the client acts as with client credentials."),
        verbose_name=_("service account"),
    )
    client_jwks = models.JSONField(
        _("client JWKS"),
        default=dict,
        blank=True,
        help_text=_("The JWK Set with the client's public keys, for private_key_jwt."),
    )
    networks = models.TextField(_("allowed IP addresses"), **network_field_options())
    max_idle = models.PositiveIntegerField(
        _("idle timeout (seconds)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(300)],
        help_text=_(
            "Tokens expire after this time without use. The minimum is "
            "300. Leave empty to use the server setting."
        ),
    )
    registered = models.JSONField(default=dict, blank=True, editable=False)
    last_used_at = models.DateTimeField(
        _("last used at"), null=True, blank=True, editable=False
    )

    objects = OAuthClientManager()

    class Meta(toolkit.AbstractApplication.Meta):
        verbose_name = _("OAuth client")
        verbose_name_plural = _("OAuth clients")

    def __str__(self) -> str:
        return f"{self.name or self.client_id}"

    def natural_key(self) -> tuple[str]:
        """By public id."""
        return (str(self.client_id),)

    def allows_grant_type(self, *grant_types: str) -> bool:
        """Several at once, unlike the toolkit's own model (W3)."""
        allowed = {GRANTS[g] for g in self.grant_types if g in GRANTS}
        return bool(allowed & set(grant_types))

    def is_usable(self, request: Any) -> bool:
        """Blocked clients, and those of refused hosts, are as unknown ones."""
        return not self.blocked and self.host_trusted is not False

    def get_allowed_schemes(self) -> list[str]:
        """Schemes it may be redirected to: those of its registered URIs."""
        return sorted({urlsplit(uri).scheme for uri in self.redirect_uris.split()})

    @property
    def verified(self) -> bool:
        """Whether an admin put it here, approved it, or trusts its document's host."""
        put_here = self.registration_source == self.RegistrationSource.MANUAL
        return bool(self.approved or put_here or self.host_trusted)

    @property
    def host_trusted(self) -> bool | None:
        """What the admin says of its document's host; None: nothing, or none."""
        if self.registration_source != self.RegistrationSource.CIMD:
            return None
        try:
            host = host_of_document(self.client_id)
        except ValueError:
            return False  # Nobody could name it, neither to trust nor to refuse it.
        hosts = DocumentHost.objects.filter(host=host)
        return hosts.values_list("trusted", flat=True).first()

    @property
    def uses_private_key_jwt(self) -> bool:
        """Whether it proves itself with a key and by nothing else."""
        return bool(self.token_endpoint_auth_method == PRIVATE_KEY_JWT)

    def update_last_used(self) -> None:
        """Note that it was."""
        OAuthClient.objects.filter(pk=self.pk).update(last_used_at=timezone.now())

    def tokens(self) -> Any:
        """Its tokens in the one list."""
        return IssuedToken.objects.filter(client_id=self.client_id)


class OAuthGrant(toolkit.AbstractGrant):
    """An authorization code: `code` is a SHA-256, the code itself is stored nowhere."""

    family = models.UUIDField(_("family"), default=uuid4)
    redeemed_at = models.DateTimeField(_("redeemed at"), null=True, blank=True)
    auth_digest = models.CharField(max_length=64, default="", editable=False)
    """The account's `auth_digest` when its person allowed it."""

    class Meta(toolkit.AbstractGrant.Meta):
        verbose_name = _("authorization code")
        verbose_name_plural = _("authorization codes")


class OAuthIDToken(toolkit.AbstractIDToken):
    """Unused: no OpenID Connect."""


class OAuthAccessToken(toolkit.AbstractAccessToken):
    """Unused: access tokens are IssuedToken rows."""


class OAuthRefreshToken(toolkit.AbstractRefreshToken):
    """Unused: refresh tokens are IssuedToken rows."""


class OAuthDeviceGrant(toolkit.AbstractDeviceGrant):
    """A device waiting for its person; `device_code` is a SHA-256."""

    client_id = models.CharField(max_length=255, db_index=True)
    polled_at = models.DateTimeField(null=True, blank=True)
    auth_digest = models.CharField(max_length=64, default="", editable=False)
    """The account's `auth_digest` when its person decided."""


def end_pending(*, actor: Any, reason: str, **whose: Any) -> int:
    """Delete codes and device codes that would still give tokens; how many.

    `whose` are conditions on `user_id` and `client_id`. A device code that nobody has
    decided about is nobody's yet.
    """
    unexpired = {"expires__gt": timezone.now()}
    named = {
        key.replace("client_id", "application__client_id"): value
        for key, value in whose.items()
    }
    codes = OAuthGrant.objects.filter(redeemed_at=None, **unexpired, **named)
    devices = OAuthDeviceGrant.objects.filter(**unexpired, **whose)
    devices = devices.exclude(status=OAuthDeviceGrant.DENIED)
    kinds = (
        ("authorization code", codes, "application__client_id"),
        ("device code", devices, "client_id"),
    )
    events = [
        withdrawal_event(what, name, client_id, reason).acted_by(actor)
        for what, rows, client in kinds
        for name, client_id in rows.values_list("user__username", client)
    ]
    codes.delete()
    devices.delete()
    AuditEvent.objects.bulk_create(events)
    return len(events)


def withdrawal_event(
    what: str, name: str | None, client_id: str, reason: str
) -> AuditEvent:
    """The event that says a grant was taken back (unsaved)."""
    return AuditEvent(
        action="consent.withdrawn" if what == "consent" else "code.revoked",
        object=f"{what} of {name or 'nobody yet'}"[:255],
        client_id=client_id,
        reason=reason[:255],
    )


class DocumentHost(models.Model):
    """A host whose client documents are trusted, or refused; others are unverified."""

    host = HostField(
        _("host"),
        max_length=255,
        unique=True,
        help_text=_(
            "Enter a host name such as claude.ai, without scheme, port or path."
        ),
    )
    trusted = models.BooleanField(
        _("trusted"),
        default=True,
        help_text=_(
            "If on, clients of this host are verified. If off, they are blocked."
        ),
    )

    class Meta:
        ordering = ("host",)
        verbose_name = _("client document host")
        verbose_name_plural = _("client document hosts")

    def __str__(self) -> str:
        return str(self.host)

    def clients(self) -> OAuthClientQuerySet:
        """Those whose document is there."""
        documented = OAuthClient.objects.filter(
            registration_source=OAuthClient.RegistrationSource.CIMD
        )
        ids = documented.values_list("pk", "client_id").iterator()
        here = [key for key, client_id in ids if is_document_at(client_id, self.host)]
        found: OAuthClientQuerySet = OAuthClient.objects.filter(pk__in=here)
        return found


class UsedAssertion(models.Model):
    """The id of a client assertion seen before (RFC 7523 3): it counts once."""

    key = models.CharField(max_length=64, primary_key=True)
    until = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.key


class ConsentQuerySet(models.QuerySet["Consent"]):
    """The verb that takes consents back."""

    def withdraw(self, *, actor: Any, reason: str) -> int:
        """Forget these: the next authorization asks again; how many there were."""
        named = self.order_by().values_list("user__username", "client__client_id")
        AuditEvent.objects.bulk_create(
            withdrawal_event("consent", name, client_id, reason).acted_by(actor)
            for name, client_id in named
        )
        return self.delete()[0]

    withdraw.queryset_only = True  # type: ignore[attr-defined]
    withdraw.alters_data = True  # type: ignore[attr-defined]


class Consent(models.Model):
    """What somebody allowed a client: remembered per client and scope."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="consents",
        verbose_name=_("user"),
    )
    client = models.ForeignKey(
        OAuthClient,
        on_delete=models.CASCADE,
        related_name="consents",
        verbose_name=_("client"),
    )
    scope = models.TextField(
        _("scope"),
        help_text=_("The scopes that the user allowed, separated by spaces."),
    )
    redirect_host = models.CharField(_("redirect host"), max_length=255, blank=True)
    given_at = models.DateTimeField(_("granted at"), default=timezone.now)

    objects = ConsentQuerySet.as_manager()

    class Meta:
        ordering = ("-given_at",)
        verbose_name = _("consent")
        verbose_name_plural = _("consents")
        constraints = [
            models.UniqueConstraint(
                fields=("user", "client"), name="one_consent_per_user_and_client"
            )
        ]

    def __str__(self) -> str:
        told = gettext("%(user)s allowed %(client)s")
        return told % {"user": self.user, "client": self.client}

    def end(self, *, actor: Any, reason: str) -> int:
        """Forget it, and end what its person holds through it; how many tokens."""
        whose = {"user_id": self.user_id, "client_id": self.client.client_id}
        with transaction.atomic():
            get_user_model().objects.filter(pk=self.user_id).lock_rows()
            end_pending(actor=actor, reason=reason, **whose)
            ended = IssuedToken.objects.filter(**whose)
            self.delete()
            return ended.revoke(actor=actor, reason=reason)

    def covers(self, scopes: list[str]) -> bool:
        """Whether nothing in `scopes` is new."""
        return set(scopes) <= set(self.scope.split())
