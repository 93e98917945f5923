"""OAuthClient and our versions of the other models of django-oauth-toolkit.

Access and refresh tokens are `IssuedToken` rows. The toolkit's token tables stay empty;
they exist because its models have foreign keys to each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
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
from accounts.models.batches import Progress, delete_in_batches, unreported
from accounts.models.issued_tokens import IssuedToken, key_batches
from accounts.parsing.host_names import HostField, host_of_document, is_document_at
from accounts.parsing.urls import split_url

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"

GRANTS = {
    "authorization_code": toolkit.AbstractApplication.GRANT_AUTHORIZATION_CODE,
    "refresh_token": toolkit.AbstractApplication.GRANT_AUTHORIZATION_CODE,
    "client_credentials": toolkit.AbstractApplication.GRANT_CLIENT_CREDENTIALS,
}
"""RFC 7591 grant type -> the toolkit's constant."""

AUTH_METHODS = ("none", "client_secret_basic", "client_secret_post", "private_key_jwt")

PRIVATE_KEY_JWT = "private_key_jwt"
CLIENT_CREDENTIALS = "client_credentials"


LOOPBACK = re.compile(r"\Ahttp://(?:127\.0\.0\.1|\[::1\])(?=[:/])")


class OAuthClientQuerySet(models.QuerySet["OAuthClient"]):
    """Ends the access of clients and deletes unused ones."""

    def purge(self, now: Any, progress: Progress = unreported) -> int:
        """Delete self-registered clients that are unused and have no live token.

        Some programs register a new client for every connection.
        """
        source = toolkit.AbstractApplication.RegistrationSource
        before = now - settings.UNUSED_CLIENTS_AFTER
        idle = models.Q(last_used_at=None, created__lt=before)
        idle |= models.Q(last_used_at__lt=before)
        live = IssuedToken.objects.live().filter(client_id=models.OuterRef("client_id"))
        unused = self.filter(idle, registration_source__in=(source.DCR, source.CIMD))
        expired = unused.filter(~models.Exists(live), blocked=False)
        return delete_in_batches(expired, "pk", progress)

    purge.queryset_only = True  # type: ignore[attr-defined]
    purge.alters_data = True  # type: ignore[attr-defined]

    def names_of(self, client_ids: Iterable[str]) -> dict[str, str]:
        """Return client_id -> name for the clients that have a row and a name."""
        rows = self.filter(client_id__in=set(client_ids)).exclude(name="")
        return dict(rows.values_list("client_id", "name"))

    def name_of(self, client_id: str) -> str:
        """Return the name of this client; its id if there is no name."""
        return self.names_of([client_id]).get(client_id, client_id)

    def end_access(self, *, actor: Any, reason: str) -> int:
        """Revoke tokens and codes, but no consents; return the number of tokens."""
        with transaction.atomic():
            client_ids = self.end_pending(actor=actor, reason=reason)
            return sum(
                IssuedToken.objects.filter(client_id__in=batch).revoke(
                    actor=actor, reason=reason
                )
                for batch in key_batches(client_ids)
            )

    def end_pending(self, *, actor: Any, reason: str) -> list[str]:
        """Lock the clients and delete their pending codes; return their client_ids.

        Clients are locked before accounts, in the order of accounts/tokens/issue.py.
        """
        client_ids: list[str] = []
        with transaction.atomic():
            keys = list(self.order_by("pk").values_list("pk", flat=True))
            for batch in key_batches(keys):
                rows = OAuthClient.objects.filter(pk__in=batch).order_by("pk")
                locked = rows.select_for_update(no_key=True)
                ids = list(locked.values_list("client_id", flat=True))
                end_pending(actor=actor, reason=reason, client_id__in=ids)
                client_ids += ids
        return client_ids

    end_pending.queryset_only = True  # type: ignore[attr-defined]
    end_pending.alters_data = True  # type: ignore[attr-defined]
    end_access.queryset_only = True  # type: ignore[attr-defined]
    end_access.alters_data = True  # type: ignore[attr-defined]


class OAuthClientManager(models.Manager.from_queryset(OAuthClientQuerySet)):  # type: ignore[misc]
    """Finds a client by its `client_id`, as the toolkit does."""

    def get_by_natural_key(self, client_id: str) -> OAuthClient:
        client: OAuthClient = self.get(client_id=client_id)
        return client


class OAuthClient(toolkit.AbstractApplication):
    """An OAuth client; an admin, the client or its metadata document registers it."""

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
    document_copy = models.ForeignKey(
        "DocumentCopy",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
        verbose_name=_("document copy"),
        help_text=_("The copy that was used because its host served no document."),
    )
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
        return (str(self.client_id),)

    def clean(self) -> None:
        """Check nothing: forms, commands and registration ask `problems`.

        The toolkit's check assumes one grant type per client, so it requires redirect
        URIs of service accounts and devices.
        """

    def problems(self) -> dict[str, Any]:
        """Return field -> text for parts that the token endpoint would always refuse.

        It asks the authentication method, because forms set `client_type` from it.
        """
        grants, found = self.grant_types or (), dict[str, Any]()
        if "authorization_code" in grants and not self.redirect_uris:
            found["redirect_uris"] = _("authorization_code needs a redirect URI.")
        has_keys = self.client_jwks or "jwks_uri" in self.registered
        if self.uses_private_key_jwt and not has_keys:
            found["client_jwks"] = _("private_key_jwt needs public keys.")
        account = self.service_account_id is not None
        if account and CLIENT_CREDENTIALS not in grants:
            found["service_account"] = _(
                "Only client_credentials uses a service account. Add this grant type."
            )
        if CLIENT_CREDENTIALS in grants and not account:
            found["service_account"] = _("client_credentials needs a service account.")
        public = self.token_endpoint_auth_method == AUTH_METHODS[0]
        if CLIENT_CREDENTIALS in grants and public:
            found["token_endpoint_auth_method"] = _(
                "A public client has no secret, so it cannot use client_credentials."
            )
        return found

    def allows_grant_type(self, *grant_types: str) -> bool:
        """Allow several grant types; the toolkit's model allows one."""
        allowed = {GRANTS[g] for g in self.grant_types if g in GRANTS}
        return bool(allowed & set(grant_types))

    def is_usable(self, request: Any) -> bool:
        """Treat blocked clients, and clients of refused hosts, as unknown."""
        trusted = self.host_trusted is not False
        return not self.blocked and trusted and not self.copy_switched_off

    def redirect_uri_allowed(self, uri: str) -> bool:
        """Also allow the loopback addresses if `localhost` is registered.

        goose sends http://127.0.0.1, and its document names http://localhost. The
        address never leaves the machine (RFC 8252 8.3).
        """
        named = LOOPBACK.sub("http://localhost", uri)
        registered = self.redirect_uris.split()
        if named != uri and toolkit.redirect_to_uri_allowed(named, registered):
            return True
        return bool(super().redirect_uri_allowed(uri))

    def get_allowed_schemes(self) -> list[str]:
        """Return the schemes of its registered redirect URIs."""
        uris = map(split_url, self.redirect_uris.split())
        return sorted({parts.scheme for parts in uris if parts is not None})

    @property
    def verified(self) -> bool:
        """Whether an admin added it, approved it, or trusts its document's host."""
        added_by_admin = self.registration_source == self.RegistrationSource.MANUAL
        return bool(self.approved or added_by_admin or self.host_trusted)

    @property
    def host_trusted(self) -> bool | None:
        """Whether the host of its metadata document is trusted; None without a rule."""
        if self.registration_source != self.RegistrationSource.CIMD:
            return None
        try:
            host = host_of_document(self.client_id)
        except ValueError:
            return False  # DocumentHost cannot store this host.
        hosts = DocumentHost.objects.filter(host=host)
        return hosts.values_list("trusted", flat=True).first()

    @property
    def copy_switched_off(self) -> bool:
        """Whether it stands on a copy of its document that is switched off."""
        return self.document_copy is not None and not self.document_copy.enabled

    @property
    def uses_private_key_jwt(self) -> bool:
        """Whether it authenticates with a signed assertion only (RFC 7523)."""
        return bool(self.token_endpoint_auth_method == PRIVATE_KEY_JWT)

    def update_last_used(self) -> None:
        OAuthClient.objects.filter(pk=self.pk).update(last_used_at=timezone.now())

    def tokens(self) -> Any:
        return IssuedToken.objects.filter(client_id=self.client_id)


class OAuthGrant(toolkit.AbstractGrant):
    """An authorization code; `code` holds only its SHA-256."""

    family = models.UUIDField(_("family"), default=uuid4)
    redeemed_at = models.DateTimeField(_("redeemed at"), null=True, blank=True)
    auth_digest = models.CharField(max_length=64, default="", editable=False)
    """The account's `auth_digest` at the time of consent."""

    class Meta(toolkit.AbstractGrant.Meta):
        verbose_name = _("authorization code")
        verbose_name_plural = _("authorization codes")

    def __str__(self) -> str:
        text = gettext("code of %(user)s for %(client)s")
        return text % {"user": self.user, "client": self.application}

    @property
    def audit_owner(self) -> tuple[str, int]:
        """The history of its user shows its events."""
        return "user", self.user_id


class OAuthIDToken(toolkit.AbstractIDToken):
    """Unused: no OpenID Connect."""


class OAuthAccessToken(toolkit.AbstractAccessToken):
    """Unused: access tokens are IssuedToken rows."""


class OAuthRefreshToken(toolkit.AbstractRefreshToken):
    """Unused: refresh tokens are IssuedToken rows."""


class OAuthDeviceGrant(toolkit.AbstractDeviceGrant):
    """A device authorization (RFC 8628); `device_code` holds only its SHA-256."""

    client_id = models.CharField(max_length=255, db_index=True)
    polled_at = models.DateTimeField(null=True, blank=True)
    auth_digest = models.CharField(max_length=64, default="", editable=False)
    """The account's `auth_digest` at the time of the decision."""


def end_pending(*, actor: Any, reason: str, **filters: Any) -> int:
    """Delete unused codes and device codes; return their number.

    `filters` are conditions on `user_id` and `client_id`. A device code has no user
    before the decision.
    """
    unexpired = {"expires__gt": timezone.now()}
    named = {
        key.replace("client_id", "application__client_id"): value
        for key, value in filters.items()
    }
    codes = OAuthGrant.objects.filter(redeemed_at=None, **unexpired, **named)
    devices = OAuthDeviceGrant.objects.filter(**unexpired, **filters)
    devices = devices.exclude(status=OAuthDeviceGrant.DENIED)
    kinds = (
        ("authorization code", codes, "application__client_id"),
        ("device code", devices, "client_id"),
    )
    events = [
        withdrawal_event(what, owner, client_id, reason).acted_by(actor)
        for what, rows, client in kinds
        for *owner, client_id in rows.values_list("user_id", "user__username", client)
    ]
    codes.delete()
    devices.delete()
    AuditEvent.objects.bulk_create(events)
    return len(events)


def withdrawal_event(
    what: str, owner: Sequence[Any], client_id: str, reason: str
) -> AuditEvent:
    """Return the unsaved event of a withdrawn consent or a revoked code.

    `owner` is the user's id and name; both are None for an undecided device code.
    """
    key, name = owner
    return AuditEvent(
        action="consent.withdrawn" if what == "consent" else "code.revoked",
        object=f"{what} of {name or 'nobody yet'}"[:255],
        client_id=client_id,
        reason=reason[:255],
        subject=f"user:{key}" if key else "",
    )


class DocumentHost(models.Model):
    """A trusted or refused host of client metadata documents; others are unverified."""

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
        """Return the clients whose metadata document is at this host."""
        documented = OAuthClient.objects.filter(
            registration_source=OAuthClient.RegistrationSource.CIMD
        )
        ids = documented.values_list("pk", "client_id").iterator()
        keys = [key for key, client_id in ids if is_document_at(client_id, self.host)]
        clients: OAuthClientQuerySet = OAuthClient.objects.filter(pk__in=keys)
        return clients


class UsedAssertion(models.Model):
    """The id of a client assertion (RFC 7523 3); each is accepted once."""

    key = models.CharField(max_length=64, primary_key=True)
    until = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.key


class ConsentQuerySet(models.QuerySet["Consent"]):
    def withdraw(self, *, actor: Any, reason: str) -> int:
        """Delete the consents with an event each; return their number.

        The next authorization request asks the user again.
        """
        columns = ("user_id", "user__username", "client__client_id")
        AuditEvent.objects.bulk_create(
            withdrawal_event("consent", owner, client_id, reason).acted_by(actor)
            for *owner, client_id in self.order_by().values_list(*columns)
        )
        return self.delete()[0]

    withdraw.queryset_only = True  # type: ignore[attr-defined]
    withdraw.alters_data = True  # type: ignore[attr-defined]


class Consent(models.Model):
    """The scopes that a user allowed a client."""

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
        text = gettext("%(user)s allowed %(client)s")
        return text % {"user": self.user, "client": self.client}

    @property
    def audit_owner(self) -> tuple[str, int]:
        """The history of its user shows its events."""
        return "user", self.user_id

    def end(self, *, actor: Any, reason: str) -> int:
        """Delete the consent and revoke the user's tokens and codes of this client.

        Returns the number of tokens.
        """
        filters = {"user_id": self.user_id, "client_id": self.client.client_id}
        with transaction.atomic():
            get_user_model().objects.filter(pk=self.user_id).lock_rows()
            end_pending(actor=actor, reason=reason, **filters)
            tokens = IssuedToken.objects.filter(**filters)
            self.delete()
            return tokens.revoke(actor=actor, reason=reason)

    def covers(self, scopes: list[str]) -> bool:
        """Whether the user has allowed all of `scopes`."""
        return set(scopes) <= set(self.scope.split())
