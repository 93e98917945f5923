"""IssuedToken: the list of all tokens, for every grant type and for personal tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, models, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.http.ip_networks import network_field_options
from accounts.models import lookups  # noqa: F401  (registers a lookup)
from accounts.models.audit.events import AuditEvent
from accounts.models.batches import (
    BATCH_ROWS,
    Progress,
    delete_in_batches,
    unreported,
)
from accounts.models.revoked_tokens import RevokedToken, RevokedTokenQuerySet

K = TypeVar("K")

OWN_CLIENT = "portico"
"""`client_id` of tokens that no OAuth client asked for (RFC 9068 2.2 requires one)."""


class TokenKind(models.TextChoices):
    ACCESS = "access", _("access")
    REFRESH = "refresh", _("refresh")
    PERSONAL = "personal", _("personal access token")


class IssuedVia(models.TextChoices):
    """How a token was obtained."""

    PASSWORD = "password", _("password (/api/token/)")
    AUTHORIZATION_CODE = "authorization_code", _("browser sign-in")
    DEVICE = "device", _("device code")
    CLIENT_CREDENTIALS = "client_credentials", _("client credentials")
    PERSONAL = "personal", _("personal access token")
    COMMAND = "command", _("command line")
    PORTAL = "portal", _("portal (try a tool)")


STATES = {"active": _("active"), "expired": _("expired"), "revoked": _("revoked")}
"""State of a token -> label."""


def _revocation() -> RevokedTokenQuerySet:
    return RevokedToken.objects.filter(jti=OuterRef("jti"))


def key_batches(keys: Sequence[K]) -> Iterator[Sequence[K]]:
    """Yield slices of BATCH_ROWS keys, as many as one statement can hold."""
    for start in range(0, len(keys), BATCH_ROWS):
        yield keys[start : start + BATCH_ROWS]


REVOKED = models.Q(jti__in=RevokedToken.objects.values("jti"))
"""Filter of the revoked tokens.

SQLite walks both indexes of the id side by side. With EXISTS it probes the revoked
tokens for each token, which takes seconds if they are few or old.
"""


class TokenQuerySet(models.QuerySet["IssuedToken"]):
    """Filters tokens by state, revokes and purges them."""

    def with_revoked(self) -> TokenQuerySet:
        """Annotate `revoked` (bool) from the table of revoked tokens."""
        return self.annotate(revoked=Exists(_revocation()))

    def live(self, now: datetime | None = None) -> TokenQuerySet:
        """Return tokens that are neither expired nor revoked."""
        return self.filter(~Exists(_revocation()), expires_at__gt=now or timezone.now())

    def effect(self) -> dict[str, int]:
        """Count what `revoke` would affect: live `tokens`, `people` and `clients`."""
        return (
            self.live()
            .order_by()
            .aggregate(
                tokens=models.Count("pk"),
                people=models.Count("user_id", distinct=True),
                clients=models.Count("client_id", distinct=True),
            )
        )

    def revoke(self, *, actor: Any, reason: str) -> int:
        """Revoke these tokens from the next message on; return how many were live.

        Locks the owners and commits all batches in one transaction.
        """
        count = last = 0
        with transaction.atomic():
            self._lock_owners()
            live = self.live().select_related(None).order_by("pk")
            while rows := list(live.filter(pk__gt=last)[:BATCH_ROWS]):
                self._revoke(rows, actor, reason)
                count, last = count + len(rows), rows[-1].pk
        return count

    def _lock_owners(self) -> None:
        """Make a concurrent refresh end first, or find its token revoked."""
        if connection.features.has_select_for_update:
            owners = self.live().order_by().values("user_id")
            users = get_user_model()._default_manager.filter(pk__in=owners)
            list(users.order_by("pk").select_for_update(no_key=True).values("pk"))

    def _revoke(self, rows: list[IssuedToken], actor: Any, reason: str) -> None:
        username, now = getattr(actor, "username", actor) or "", timezone.now()
        RevokedToken.objects.bulk_create(
            [
                RevokedToken(
                    jti=row.jti,
                    until=row.expires_at,
                    revoked_at=now,
                    revoked_by=username[:150],
                    reason=reason[:255],
                )
                for row in rows
            ],
            ignore_conflicts=True,
        )
        AuditEvent.objects.bulk_create(
            [row.revocation_event(actor, reason) for row in rows]
        )

    revoke.queryset_only = True  # type: ignore[attr-defined]
    revoke.alters_data = True  # type: ignore[attr-defined]

    def purge(self, before: Any = None, progress: Progress = unreported) -> int:
        """Delete tokens that expired before `before` (default: now)."""
        expired = self.filter(expires_at__lt=before or timezone.now())
        return delete_in_batches(expired, "expires_at", progress)

    purge.queryset_only = True  # type: ignore[attr-defined]
    purge.alters_data = True  # type: ignore[attr-defined]

    def drop_successors(self, redeemed_before: Any) -> int:
        """Clear the encrypted successors of tokens redeemed before that time."""
        tokens = self.filter(
            successor_sealed__isnull=False, redeemed_at__lt=redeemed_before
        )
        return tokens.update(successor_sealed=None)

    drop_successors.queryset_only = True  # type: ignore[attr-defined]
    drop_successors.alters_data = True  # type: ignore[attr-defined]


TokenManager = models.Manager.from_queryset(TokenQuerySet)


class IssuedToken(models.Model):
    """The record of one token. The token itself is never stored."""

    jti = models.CharField(_("token ID"), max_length=64, unique=True)
    kind = models.CharField(_("kind"), max_length=8, choices=TokenKind)
    issued_via = models.CharField(_("issued through"), max_length=20, choices=IssuedVia)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="tokens",
        verbose_name=_("user"),
    )
    username = models.CharField(_("username"), max_length=150)
    client_id = models.CharField(_("client"), max_length=255)
    scope = models.TextField(
        _("scope"), help_text=_("The scopes of the token, separated by spaces.")
    )
    family = models.UUIDField(
        _("family"),
        db_index=True,
        help_text=_("All tokens of one sign-in share this ID."),
    )
    kid = models.CharField(_("signing key"), max_length=64, blank=True)
    issued_at = models.DateTimeField(_("issued at"), db_index=True)
    issued_to = models.CharField(_("from address"), max_length=45, blank=True)
    expires_at = models.DateTimeField(_("expires at"), db_index=True)
    last_used_at = models.DateTimeField(_("last used at"), null=True, blank=True)
    last_used_from = models.CharField(_("last used from"), max_length=45, blank=True)
    redeemed_at = models.DateTimeField(
        _("redeemed at"),
        null=True,
        blank=True,
        help_text=_("The time when this refresh token was used."),
    )
    secret_hash = models.CharField(
        max_length=64,
        unique=True,
        null=True,
        editable=False,
        help_text=_("SHA-256 (hex) of an opaque token. Empty for a signed token."),
    )
    name = models.CharField(
        _("name"),
        max_length=100,
        blank=True,
        help_text=_("The name that the owner gave this token."),
    )
    networks = models.TextField(_("allowed IP addresses"), **network_field_options())
    successor = models.OneToOneField(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("successor"),
    )
    # The opaque successor, encrypted: a client that lost the response may retry.
    successor_sealed = models.BinaryField(null=True, editable=False)

    objects = TokenManager()

    class Meta:
        ordering = ("-issued_at", "-id")
        verbose_name = _("token")
        verbose_name_plural = _("tokens")
        indexes = [
            models.Index(fields=["username", "issued_at"], name="token_owner"),
            models.Index(fields=["client_id", "issued_at"], name="token_client"),
            # The dashboard lists personal tokens that expire soon.
            models.Index(fields=["kind", "expires_at"], name="token_kind_and_end"),
        ]

    def __str__(self) -> str:
        text = gettext("%(kind)s %(id)s of %(user)s")
        kind = self.get_kind_display()
        return text % {"kind": kind, "id": self.jti[:8], "user": self.username}

    @property
    def state_in_words(self) -> str:
        return str(STATES[self.state])

    @property
    def state(self) -> str:
        """`active`, `expired` or `revoked`."""
        revoked = getattr(self, "revoked", None)
        if revoked is None:
            revoked = RevokedToken.objects.filter(jti=self.jti).exists()
        if revoked:
            return "revoked"
        return "expired" if self.expires_at <= timezone.now() else "active"

    def revocation_event(self, actor: Any, reason: str) -> AuditEvent:
        """Return the unsaved `token.revoked` event of this token."""
        return AuditEvent(
            action="token.revoked",
            object=f"{self.kind} token of {self.username}"[:255],
            client_id=self.client_id,
            token_id=self.jti,
            reason=reason[:255],
            subject=f"user:{self.user_id}" if self.user_id else "",
        ).acted_by(actor)
