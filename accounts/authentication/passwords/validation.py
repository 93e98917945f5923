"""A password validator that accepts all passwords and revokes access on a change."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.models import User
from accounts.models.audit.origins import current_actor


class RevokeOnPasswordChange:
    """Revokes an account's access when its password changes.

    Forms, commands and the shell all use `AbstractBaseUser.save()`. It calls
    `password_changed` after it stores a new hash, but not after a hash upgrade.
    """

    def validate(self, password: str, user: AbstractBaseUser | None = None) -> None:
        """Accept every password; other validators check its strength."""

    def get_help_text(self) -> str:
        return _("A new password signs the account out of every client.")

    def password_changed(
        self, password: str, user: AbstractBaseUser | None = None
    ) -> None:
        """Record the change and revoke all access of the account."""
        if isinstance(user, User):
            # An anonymous request holds the reset link that was mailed to the user.
            actor = current_actor() or user
            record("user.password_changed", actor=actor, object=user)
            user.revoke_tokens(actor=actor, reason="password changed")
