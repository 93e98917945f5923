"""User: a person or a service account; an end of access ends its tokens too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.db import models, transaction
from django.db.models import F
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.http.session_store import current_key
from accounts.models.audit.events import COMMAND_LINE, AuditEvent
from accounts.models.browser_sessions import end_sessions, sessions_of
from accounts.models.issued_tokens import IssuedToken, key_batches
from accounts.models.oauth import Consent, end_pending


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
        """Close these accounts and end their access; return how many closed."""
        with transaction.atomic():
            ids = self.filter(is_active=True).lock_rows()
            closed = User.objects.filter(pk__in=ids)
            closed.update(is_active=False)
            closed.revoke_all_sessions(actor=actor, reason=reason)
        return len(ids)

    def with_admin_set_email(self, address: str) -> list[User]:
        """Accounts with this address that an administrator set, active or not.

        The database folds more letters than an address may (CVE-2019-19844), so its
        answer is compared once more.
        """
        return self.filter(email_set_by_admin=True).with_email(address)

    def with_email(self, address: str) -> list[User]:
        """Accounts whose own column has this address: allauth's rows may be older."""
        rows = self.filter(email__iexact=address)
        return [user for user in rows if user.email.lower() == address.lower()]

    def revoke_all_sessions(
        self, *, actor: Any, reason: str, keep: HttpRequest | None = None
    ) -> tuple[int, int]:
        """End all access of these accounts; how many live tokens and browsers.

        That is tokens of every kind, codes under way, consents, and browser sessions
        but for the one that `keep`, the request being answered, came with.
        """
        tokens = browsers = 0
        with transaction.atomic():
            ids = self.lock_rows()
            for some in key_batches(ids):
                whose: dict[str, Any] = {"user_id__in": some}
                end_pending(actor=actor, reason=reason, **whose)
                Consent.objects.filter(**whose).withdraw(actor=actor, reason=reason)
                live = IssuedToken.objects.filter(**whose)
                tokens += live.revoke(actor=actor, reason=reason)
            browsers = self._end_browsers(ids, actor, reason, keep)
        return tokens, browsers

    def sign_out_browsers(
        self, *, actor: Any, reason: str, keep: HttpRequest | None = None
    ) -> int:
        """End browser sessions and codes under way, `keep` excepted; how many browsers.

        For accounts that are safer than before: their tokens stay.
        """
        with transaction.atomic():
            ids = self.lock_rows()
            for some in key_batches(ids):
                end_pending(actor=actor, reason=reason, user_id__in=some)
            return self._end_browsers(ids, actor, reason, keep)

    def lock_rows(self) -> list[int]:
        """Ids, their rows locked: a code that is redeemed meanwhile waits and loses."""
        rows = User.objects.filter(pk__in=self.order_by().values("pk")).order_by("pk")
        return list(rows.select_for_update(no_key=True).values_list("pk", flat=True))

    def _end_browsers(
        self, ids: list[int], actor: Any, reason: str, keep: HttpRequest | None
    ) -> int:
        names: list[str] = []
        for some in key_batches(ids):
            # No list has to know a session: the epoch is in what each is checked by.
            User.objects.filter(pk__in=some).update(
                session_epoch=F("session_epoch") + 1
            )
            names += end_sessions(sessions_of(some, current_key(keep)))
        said = {"action": "session.ended", "reason": reason[:255]}
        AuditEvent.objects.bulk_create(
            AuditEvent(object=name, **said).acted_by(actor) for name in names
        )
        if keep is not None and keep.user.pk in ids:
            keep.user.refresh_from_db(fields=["session_epoch"])
            update_session_auth_hash(keep, keep.user)
        return len(names)

    revoke_all_sessions.queryset_only = True  # type: ignore[attr-defined]
    revoke_all_sessions.alters_data = True  # type: ignore[attr-defined]
    sign_out_browsers.queryset_only = True  # type: ignore[attr-defined]
    sign_out_browsers.alters_data = True  # type: ignore[attr-defined]
    lock_rows.queryset_only = True  # type: ignore[attr-defined]
    deactivate.queryset_only = True  # type: ignore[attr-defined]
    deactivate.alters_data = True  # type: ignore[attr-defined]


class UserManager(DjangoUserManager["User"].from_queryset(UserQuerySet)):  # type: ignore[misc]
    """Django's manager with the verbs above."""

    def create_superuser(
        self,
        username: str,
        email: str | None = None,
        password: str | None = None,
        **fields: Any,
    ) -> User:
        """As Django's, and recorded: its command `createsuperuser` records nothing."""
        # Hashing takes long and waits for its turn: not inside the transaction.
        encoded = make_password(password)
        with transaction.atomic(using=self.db):
            user: User = super().create_superuser(username, email, None, **fields)
            user.password = encoded
            user.save(update_fields=["password"])
            event = AuditEvent(action="user.added", object=user.username)
            event.changes = {"is_superuser": [False, True]}
            event.acted_by(COMMAND_LINE).save()
        return user


class EpochField(models.PositiveIntegerField):  # type: ignore[type-arg]
    """A number that only `update()` moves.

    Saving a row that was read before its access ended would bring the earlier number
    back, and with it the sessions that ended.
    """

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """For a row there is already: the number it has."""
        return super().pre_save(model_instance, add) if add else F(self.attname)

    def deconstruct(self) -> Any:
        """Migrations know it by its column."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.PositiveIntegerField", args, kwargs


class User(AbstractUser):  # type: ignore[django-manager-missing]
    """An account. What it may do is in its roles, not in these columns."""

    is_service_account = models.BooleanField(
        _("is service account"),
        default=False,
        help_text=_("This account is a program. It signs in with client credentials."),
    )
    session_epoch = EpochField(default=0, editable=False)
    """How often the account's browser sessions were ended."""

    email = AddressField(_("email address"), blank=True)
    email_set_by_admin = models.BooleanField(
        _("email set by an administrator"),
        default=True,
        help_text=_(
            "If off, a sign-in provider supplied the address. "
            "Providers link accounts only by an address that an "
            "administrator set."
        ),
    )

    objects = UserManager()  # type: ignore[misc]

    class Meta(AbstractUser.Meta):
        ordering = ("username",)
        permissions = (
            ("view_system", _("Can view the system page")),
            ("unlock_user", _("Can unlock locked-out accounts")),
        )

    def get_session_auth_hash(self) -> str:
        """What a session is checked by: it changes with the password and the epoch."""
        return self._with_epoch(super().get_session_auth_hash())

    def get_session_auth_fallback_hash(self) -> Iterator[str]:
        """The same under earlier secret keys."""
        for known in super().get_session_auth_fallback_hash():
            yield self._with_epoch(known)

    def _with_epoch(self, known: str) -> str:
        return hashlib.sha256(f"{known} {self.session_epoch}".encode()).hexdigest()

    @property
    def auth_digest(self) -> str:
        """Kept with a code: access that ended meanwhile makes it worthless."""
        return hashlib.sha256(self.get_session_auth_hash().encode()).hexdigest()

    def set_unusable_password(self) -> None:
        """As Django's. It counts as a new password, so `save` ends access."""
        super().set_unusable_password()
        if self.pk is not None:
            self._password = ""

    def revoke_tokens(
        self, *, actor: Any, reason: str, keep: HttpRequest | None = None
    ) -> int:
        """End all access of this account; return how many live tokens it had."""
        this = User.objects.filter(pk=self.pk)
        tokens, _browsers = this.revoke_all_sessions(
            actor=actor, reason=reason, keep=keep
        )
        self.refresh_from_db(fields=["session_epoch"])
        return int(tokens)
