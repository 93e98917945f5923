"""User: a person or a service account, and how to end its access."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F
from django.db.models.functions import Lower
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.http.session_store import current_key
from accounts.models.audit.events import AuditEvent
from accounts.models.audit.origins import current_actor
from accounts.models.browser_sessions import end_sessions, sessions_of
from accounts.models.issued_tokens import IssuedToken, key_batches
from accounts.models.oauth import Consent, end_pending
from accounts.models.onboarding.invitations import Invitation
from accounts.models.statements.queries import CompiledQuery, Given

NOT_ASCII = "[^ -~]"
"""A regular expression that both databases understand."""


def fold_name(name: str) -> str:
    """A user name without case and width: equal for names that people confuse."""
    return unicodedata.normalize("NFKC", name).casefold()


class AddressField(models.EmailField):  # type: ignore[type-arg]
    """An email address in lower case, from any form, file or command.

    Comparisons would treat two spellings of one address as two people.
    """

    def get_prep_value(self, value: Any) -> Any:
        """Return lower case for stored values and for lookups."""
        prepared = super().get_prep_value(value)
        return prepared.lower() if isinstance(prepared, str) else prepared

    def to_python(self, value: Any) -> Any:
        address = super().to_python(value)
        return address.lower() if isinstance(address, str) else address


class LastSuperuser(ValidationError):
    """Nobody could administer any more; the text names the fix."""

    def __init__(self) -> None:
        super().__init__(
            _(
                "This is the last active superuser. Make another user a superuser "
                "(with staff status) first."
            )
        )


ADMINISTERING = frozenset({"is_active", "is_staff", "is_superuser"})
"""A superuser who can enter the admin has all of them."""


class UserQuerySet(models.QuerySet["User"]):
    """Finds accounts and ends their access."""

    def administrators(self) -> UserQuerySet:
        """Return the superusers who can enter the admin."""
        return self.filter(is_superuser=True, is_active=True, is_staff=True)

    def refuse_last_superuser(self) -> None:
        """Raise LastSuperuser if nobody could administer without these accounts.

        In a transaction it locks all administrators, so that two of them cannot remove
        each other at once.
        """
        administrators = User.objects.all().administrators().order_by("pk")
        if transaction.get_connection().in_atomic_block:
            administrators = administrators.select_for_update(no_key=True)
        everyone = set(administrators.values_list("pk", flat=True))
        losing = self.order_by().filter(pk__in=everyone)
        if everyone and everyone == set(losing.values_list("pk", flat=True)):
            raise LastSuperuser

    def update(self, **columns: Any) -> int:
        """Like Django's, but raises LastSuperuser; `bulk_update` calls it, too."""
        if ADMINISTERING.isdisjoint(columns):
            return super().update(**columns)
        with transaction.atomic(using=self.db):
            administrators = User.objects.using(self.db).administrators()
            # Locked, as in refuse_last_superuser; a value may be an expression.
            locked = administrators.order_by("pk").select_for_update(no_key=True)
            before = list(locked.values_list("pk", flat=True))
            changed = super().update(**columns)
            if before and not administrators.exists():
                raise LastSuperuser
        return changed

    update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        """Like Django's, but raises LastSuperuser."""
        with transaction.atomic(using=self.db):
            self.refuse_last_superuser()
            return super().delete()

    delete.queryset_only = True  # type: ignore[attr-defined]
    delete.alters_data = True  # type: ignore[attr-defined]

    def named(self, name: str) -> User | None:
        """The account with this name; its characters may have another width."""
        if "\x00" in name:
            return None
        return self.filter(username=User.normalize_username(name)).first()

    def look_alikes(self, names: Iterable[str]) -> dict[str, str]:
        """Folded name -> the name that an account with it has.

        The databases fold ASCII only, or depend on their locale, so Python folds the
        names that are not ASCII.
        """
        wanted = {fold_name(name) for name in names}
        lower = self.annotate(lower=Lower("username")).filter(lower__in=wanted)
        found = list(lower.values_list("username", flat=True))
        if not all(name.isascii() for name in wanted):
            others = self.filter(username__regex=NOT_ASCII)
            found += others.values_list("username", flat=True)
        folded = {fold_name(name): name for name in found}
        return {name: folded[name] for name in wanted if name in folded}

    def deactivate(self, *, actor: Any, reason: str = "account deactivated") -> int:
        """Deactivate the active accounts and end their access; return their number.

        Raises LastSuperuser.
        """
        with transaction.atomic():
            self.refuse_last_superuser()
            ids = self.filter(is_active=True).lock_rows()
            accounts = User.objects.filter(pk__in=ids)
            accounts.update(is_active=False)
            accounts.revoke_all_sessions(actor=actor, reason=reason)
        return len(ids)

    def with_admin_set_email(self, address: str) -> list[User]:
        """Return active and inactive accounts whose address an administrator set."""
        return self.filter(email_set_by_admin=True).with_email(address)

    def with_email(self, address: str) -> list[User]:
        """Return accounts with this address; allauth's own rows may be outdated.

        The database may treat different letters as equal (CVE-2019-19844), so Python
        compares the rows again.
        """
        rows = self.filter(email__iexact=address)
        return [user for user in rows if user.email.lower() == address.lower()]

    def revoke_all_sessions(
        self, *, actor: Any, reason: str, keep: HttpRequest | None = None
    ) -> tuple[int, int]:
        """End all access of these accounts; return (live tokens, browser sessions).

        Revokes all tokens, pending codes, consents, invitation links and browser
        sessions, except the session of the request `keep`. Commits one transaction and
        locks the accounts.
        """
        tokens = browsers = 0
        with transaction.atomic():
            ids = self.lock_rows()
            for batch in key_batches(ids):
                owners: dict[str, Any] = {"user_id__in": batch}
                end_pending(actor=actor, reason=reason, **owners)
                Consent.objects.filter(**owners).withdraw(actor=actor, reason=reason)
                links = Invitation.objects.filter(**owners)
                links.withdraw(actor=actor, reason=reason)
                live = IssuedToken.objects.filter(**owners)
                tokens += live.revoke(actor=actor, reason=reason)
            browsers = self._end_browser_sessions(ids, actor, reason, keep)
        return tokens, browsers

    def sign_out_browsers(
        self, *, actor: Any, reason: str, keep: HttpRequest | None = None
    ) -> int:
        """End browser sessions, except that of `keep`, and pending codes.

        Tokens stay, because the account only became safer (a new second factor).
        Returns the number of browser sessions.
        """
        with transaction.atomic():
            ids = self.lock_rows()
            for batch in key_batches(ids):
                end_pending(actor=actor, reason=reason, user_id__in=batch)
            return self._end_browser_sessions(ids, actor, reason, keep)

    def lock_rows(self) -> list[int]:
        """Lock the rows and return their ids.

        A concurrent code exchange waits for the lock and then fails.
        """
        rows = User.objects.filter(pk__in=self.order_by().values("pk")).order_by("pk")
        return list(rows.select_for_update(no_key=True).values_list("pk", flat=True))

    def _end_browser_sessions(
        self, ids: list[int], actor: Any, reason: str, keep: HttpRequest | None
    ) -> int:
        owners: list[Any] = []
        for batch in key_batches(ids):
            # The epoch also ends sessions that have no UserSession row.
            User.objects.filter(pk__in=batch).update(
                session_epoch=F("session_epoch") + 1
            )
            owners += end_sessions(sessions_of(batch, current_key(keep)))
        fields = {"action": "session.ended", "reason": reason[:255]}
        AuditEvent.objects.bulk_create(
            AuditEvent(object=user.username, **fields).about(user).acted_by(actor)
            for user in owners
        )
        if keep is not None and keep.user.pk in ids:
            keep.user.refresh_from_db(fields=["session_epoch"])
            update_session_auth_hash(keep, keep.user)
        return len(owners)

    revoke_all_sessions.queryset_only = True  # type: ignore[attr-defined]
    revoke_all_sessions.alters_data = True  # type: ignore[attr-defined]
    sign_out_browsers.queryset_only = True  # type: ignore[attr-defined]
    sign_out_browsers.alters_data = True  # type: ignore[attr-defined]
    lock_rows.queryset_only = True  # type: ignore[attr-defined]
    deactivate.queryset_only = True  # type: ignore[attr-defined]
    deactivate.alters_data = True  # type: ignore[attr-defined]


class UserManager(DjangoUserManager["User"].from_queryset(UserQuerySet)):  # type: ignore[misc]
    """Django's manager with UserQuerySet's methods."""

    def get_by_natural_key(self, username: str | None) -> User:
        """The account that signs in. Raises User.DoesNotExist."""
        name = "" if "\x00" in (username or "") else username or ""
        user: User | None = BY_NAME.first(username=User.normalize_username(name))
        if user is None:
            raise User.DoesNotExist
        return user

    def create_superuser(
        self,
        username: str,
        email: str | None = None,
        password: str | None = None,
        **fields: Any,
    ) -> User:
        """Create a superuser and an audit event; `createsuperuser` writes none.

        Raises ValidationError if another account has a similar name.
        """
        User(username=username).clean()
        # Hashing is slow and may queue, so it runs before the transaction.
        encoded = make_password(password)
        with transaction.atomic(using=self.db):
            user: User = super().create_superuser(username, email, None, **fields)
            user.password = encoded
            user.save(update_fields=["password"])
            event = AuditEvent(action="user.added", object=user.username)
            event.changes = {"is_superuser": [False, True]}
            event.about(user).acted_by(current_actor()).save()
        return user


class EpochField(models.PositiveIntegerField):  # type: ignore[type-arg]
    """A number that only `update()` changes.

    Saving an instance that is older than the end of its access would restore the old
    number, and the ended sessions with it.
    """

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Keep the number that an existing row has in the database."""
        return super().pre_save(model_instance, add) if add else F(self.attname)

    def deconstruct(self) -> Any:
        """Appear in migrations as a PositiveIntegerField."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.PositiveIntegerField", args, kwargs


class User(AbstractUser):  # type: ignore[django-manager-missing]
    """An account. Its roles grant access, not these columns."""

    is_service_account = models.BooleanField(
        _("is service account"),
        default=False,
        help_text=_("This account is a program. It signs in with client credentials."),
    )
    session_epoch = EpochField(default=0, editable=False)
    """Counts how often all browser sessions of the account were ended."""

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

    def clean(self) -> None:
        """Raise LastSuperuser if these columns would leave nobody to administer.

        Raises ValidationError for a new name that differs from another user's in case
        only. Every way to add or rename an account calls this.
        """
        super().clean()
        self.refuse_look_alike()
        self.refuse_losing_administration()

    def refuse_losing_administration(self) -> None:
        """Raise LastSuperuser if nobody could administer once this is saved."""
        administers = self.is_superuser and self.is_active and self.is_staff
        if self.pk is None or self._state.adding or administers:
            return
        stored = User.objects.filter(pk=self.pk)
        if stored.administrators().exists():
            stored.refuse_last_superuser()

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save. Raises LastSuperuser, also for callers that validate nothing."""
        names = kwargs.get("update_fields")
        if names is not None and ADMINISTERING.isdisjoint(names):
            super().save(*args, **kwargs)
            return
        with transaction.atomic(using=kwargs.get("using")):
            self.refuse_losing_administration()
            super().save(*args, **kwargs)

    def refuse_look_alike(self) -> None:
        """Raises ValidationError; a name that the account has already stays valid."""
        if not self.username:
            return  # the field's own validation refuses it
        others = User.objects.exclude(pk=self.pk)
        mine = User.objects.filter(pk=self.pk, username=self.username)
        similar = others.look_alikes([self.username])
        if similar and not mine.exists():
            (other,) = similar.values()
            text = _("A user %s exists already. Choose a name that differs more.")
            raise ValidationError({"username": text % other})

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete the account. Raises LastSuperuser."""
        with transaction.atomic():
            User.objects.filter(pk=self.pk).refuse_last_superuser()
            return super().delete(*args, **kwargs)

    def get_session_auth_hash(self) -> str:
        """Return the hash that sessions must match: it covers password and epoch."""
        return self._with_epoch(super().get_session_auth_hash())

    def get_session_auth_fallback_hash(self) -> Iterator[str]:
        """Yield the same hash for each entry of SECRET_KEY_FALLBACKS."""
        for auth_hash in super().get_session_auth_fallback_hash():
            yield self._with_epoch(auth_hash)

    def _with_epoch(self, auth_hash: str) -> str:
        return hashlib.sha256(f"{auth_hash} {self.session_epoch}".encode()).hexdigest()

    @property
    def auth_digest(self) -> str:
        """Stored with each code; the code fails if access has ended since."""
        return hashlib.sha256(self.get_session_auth_hash().encode()).hexdigest()

    def accepts_digest(self, digest: str) -> bool:
        """Whether it is the present `auth_digest`, also under an older SECRET_KEY."""
        hashes = [self.get_session_auth_hash(), *self.get_session_auth_fallback_hash()]
        digests = [hashlib.sha256(text.encode()).hexdigest() for text in hashes]
        return digest in digests

    def set_unusable_password(self) -> None:
        """Count as a password change, so that `save` ends access."""
        super().set_unusable_password()
        if self.pk is not None:
            self._password = ""

    def revoke_tokens(
        self, *, actor: Any, reason: str, keep: HttpRequest | None = None
    ) -> int:
        """End all access of this account; return how many live tokens it had."""
        account = User.objects.filter(pk=self.pk)
        tokens, _browsers = account.revoke_all_sessions(
            actor=actor, reason=reason, keep=keep
        )
        self.refresh_from_db(fields=["session_epoch"])
        return int(tokens)


BY_NAME = CompiledQuery(lambda: User.objects.filter(username=Given(User, "username")))
