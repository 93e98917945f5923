"""SigningKey: the keys tokens are signed with, as rows with a state."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.crypto.signing_keys import can_decrypt, generate_key_pair
from accounts.models.audit.events import AuditEvent


class KeyState(models.TextChoices):
    """A key is made, announced, used, kept for old tokens, and done with."""

    NEXT = "next", _("next (announced, not used yet)")
    ACTIVE = "active", _("active (signs new tokens)")
    RETIRING = "retiring", _("retiring (verification only)")
    RETIRED = "retired", _("retired (its tokens are rejected)")


class SigningKeyQuerySet(models.QuerySet["SigningKey"]):
    """Which key signs, which verify, and the verbs that move them on."""

    def verifying(self) -> SigningKeyQuerySet:
        """Keys whose signatures count."""
        return self.filter(state__in=(KeyState.ACTIVE, KeyState.RETIRING))

    def published(self) -> SigningKeyQuerySet:
        """Keys shown at /oauth/jwks.json."""
        return self.exclude(state=KeyState.RETIRED)

    def any_decryptable(self) -> bool:
        """Whether KEY_ENCRYPTION_KEY opens any key (also true where there is none)."""
        stored = self.exclude(state=KeyState.RETIRED)
        keys = list(stored.values_list("kid", "private_encrypted"))
        return not keys or any(can_decrypt(kid, bytes(data)) for kid, data in keys)

    def ensure_active(self) -> SigningKey:
        """The active key, made now if there is none."""
        active = self.filter(state=KeyState.ACTIVE).first()
        if active is not None:
            return active
        try:
            return self.rotate(actor="set-up")
        except IntegrityError:
            # Another process has made one meanwhile.
            return self.get(state=KeyState.ACTIVE)

    def rotate(self, *, actor: Any, algorithm: str = "") -> SigningKey:
        """Put the next key to use, retire the active one gently, make a new next."""
        wanted = algorithm or settings.SIGNING_ALGORITHM
        # An RSA key takes as long as its primes do: nobody waits for that in a lock.
        fresh = [self._make(wanted), self._make(wanted)]
        with transaction.atomic():
            rows = list(
                self.model.objects.select_for_update().exclude(state=KeyState.RETIRED)
            )
            current = next((k for k in rows if k.state == KeyState.ACTIVE), None)
            chosen = self._take_next(rows, wanted) or fresh.pop()
            if current is not None:
                current.move(KeyState.RETIRING)
            chosen.move(KeyState.ACTIVE)
            fresh.pop().save()
            AuditEvent(
                action="key.rotated", object=f"signing key {chosen.kid}"
            ).acted_by(actor).save()
        return chosen

    def _take_next(self, rows: list[SigningKey], wanted: str) -> SigningKey | None:
        """The announced key of the wanted algorithm; others of state next go."""
        waiting = [k for k in rows if k.state == KeyState.NEXT]
        chosen = next((k for k in waiting if k.algorithm == wanted), None)
        for key in waiting:
            if key is not chosen:
                key.move(KeyState.RETIRED)
        return chosen

    def _make(self, algorithm: str) -> SigningKey:
        made = generate_key_pair(algorithm)
        return self.model(
            kid=made.kid,
            algorithm=algorithm,
            public_pem=made.public_pem,
            private_encrypted=made.private_encrypted,
        )


class SigningKey(models.Model):
    """A key pair; the private part is encrypted with KEY_ENCRYPTION_KEY."""

    class Algorithm(models.TextChoices):
        """JWS algorithms (RFC 7518, RFC 8037)."""

        ES256 = "ES256", "ES256"
        RS256 = "RS256", "RS256"
        EDDSA = "EdDSA", "EdDSA"

    kid = models.CharField(_("key ID"), max_length=64, unique=True)
    algorithm = models.CharField(_("algorithm"), max_length=8, choices=Algorithm)
    state = models.CharField(
        _("state"), max_length=8, choices=KeyState, default=KeyState.NEXT, db_index=True
    )
    public_pem = models.TextField(_("public key"))
    private_encrypted = models.BinaryField()
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    activated_at = models.DateTimeField(_("activated at"), null=True, blank=True)
    retiring_at = models.DateTimeField(_("retiring at"), null=True, blank=True)
    retired_at = models.DateTimeField(_("retired at"), null=True, blank=True)

    objects = SigningKeyQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name = _("signing key")
        verbose_name_plural = _("signing keys")
        constraints = [
            models.UniqueConstraint(
                fields=("state",),
                condition=Q(state="active"),
                name="one_active_signing_key",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kid} ({self.algorithm}, {self.state})"

    def move(self, state: KeyState) -> None:
        """Change the state and note when; a retired key keeps no private part."""
        self.state = state
        stamp = {
            KeyState.ACTIVE: "activated_at",
            KeyState.RETIRING: "retiring_at",
            KeyState.RETIRED: "retired_at",
        }[state]
        setattr(self, stamp, timezone.now())
        if state == KeyState.RETIRED:
            self.private_encrypted = b""
        self.save()

    @property
    def needed_until(self) -> Any:
        """When the last token it signed has expired (None while it signs)."""
        if self.retiring_at is None:
            return None
        longest = max(settings.ACCESS_TOKEN_LIFETIME, settings.REFRESH_TOKEN_LIFETIME)
        return self.retiring_at + longest
