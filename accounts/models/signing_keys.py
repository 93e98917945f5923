"""SigningKey: key pairs that sign tokens, with their rotation state."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.crypto.signing_keys import can_decrypt, generate_key_pair
from accounts.models.audit.events import AuditEvent
from accounts.models.statements.queries import CompiledQuery


class KeyState(models.TextChoices):
    """The life of a key: published, signing, verifying old tokens, removed."""

    NEXT = "next", _("next (announced, not used yet)")
    ACTIVE = "active", _("active (signs new tokens)")
    RETIRING = "retiring", _("retiring (verification only)")
    RETIRED = "retired", _("retired (its tokens are rejected)")


class SigningKeyQuerySet(models.QuerySet["SigningKey"]):
    def verifying(self) -> SigningKeyQuerySet:
        """Return the keys whose signatures are accepted."""
        return self.filter(state__in=(KeyState.ACTIVE, KeyState.RETIRING))

    def published(self) -> SigningKeyQuerySet:
        """Return the keys in /oauth/jwks.json."""
        return self.exclude(state=KeyState.RETIRED)

    def any_decryptable(self) -> bool:
        """Whether KEY_ENCRYPTION_KEY decrypts any key; True if there are no keys."""
        stored = self.exclude(state=KeyState.RETIRED)
        keys = list(stored.values_list("kid", "private_encrypted"))
        return not keys or any(can_decrypt(kid, bytes(data)) for kid, data in keys)

    def ensure_active(self) -> SigningKey:
        """Return the active key; create it if there is none."""
        active: SigningKey | None = ACTIVE_KEY.first()
        if active is not None:
            return active
        try:
            return self.rotate(actor="set-up")
        except IntegrityError:
            # Another process has created one meanwhile.
            return self.get(state=KeyState.ACTIVE)

    def rotate(self, *, actor: Any, algorithm: str = "") -> SigningKey:
        """Activate the next key, retire the active one and create a new next key.

        The old key still verifies. Locks all keys that are not retired.
        """
        algorithm = algorithm or settings.SIGNING_ALGORITHM
        # RSA primes take long to find, so keys are generated before the lock.
        new_keys = [self._generate(algorithm), self._generate(algorithm)]
        with transaction.atomic():
            rows = list(
                self.model.objects.select_for_update().exclude(state=KeyState.RETIRED)
            )
            current = next((k for k in rows if k.state == KeyState.ACTIVE), None)
            successor = self._take_next(rows, algorithm) or new_keys.pop()
            if current is not None:
                current.move(KeyState.RETIRING)
            successor.move(KeyState.ACTIVE)
            new_keys.pop().save()
            event = AuditEvent(
                action="key.rotated", object=f"signing key {successor.kid}"
            )
            event.about(successor).acted_by(actor).save()
        return successor

    def _take_next(self, rows: list[SigningKey], algorithm: str) -> SigningKey | None:
        """Return the next key of this algorithm; retire all other next keys."""
        published = [k for k in rows if k.state == KeyState.NEXT]
        successor = next((k for k in published if k.algorithm == algorithm), None)
        for key in published:
            if key is not successor:
                key.move(KeyState.RETIRED)
        return successor

    def _generate(self, algorithm: str) -> SigningKey:
        pair = generate_key_pair(algorithm)
        return self.model(
            kid=pair.kid,
            algorithm=algorithm,
            public_pem=pair.public_pem,
            private_encrypted=pair.private_encrypted,
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
        return f"{self.kid} ({self.algorithm}, {self.get_state_display()})"

    def move(self, state: KeyState) -> None:
        """Save the state with its time; a retired key loses its private part."""
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
        """When the last token it signed expires; None while it signs."""
        if self.retiring_at is None:
            return None
        longest = max(settings.ACCESS_TOKEN_LIFETIME, settings.REFRESH_TOKEN_LIFETIME)
        return self.retiring_at + longest


ACTIVE_KEY = CompiledQuery(lambda: SigningKey.objects.filter(state=KeyState.ACTIVE))
