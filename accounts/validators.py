"""A password validator that never objects: it hears of changes and ends access."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser
from django.utils.translation import gettext as _

from accounts.audit import record
from accounts.models import User


class EndAccessOnPasswordChange:
    """Django calls `password_changed` on every route that sets a password.

    The form, the command, the shell: all end in `AbstractBaseUser.save()`, which
    calls it after the new hash is stored (but not when a hash is only upgraded).
    """

    def validate(self, password: str, user: AbstractBaseUser | None = None) -> None:
        """Accept every password: the other validators judge strength."""

    def get_help_text(self) -> str:
        """What people read beside the password field."""
        return _("Changing the password signs you out of every client.")

    def password_changed(
        self, password: str, user: AbstractBaseUser | None = None
    ) -> None:
        """Revoke every live token of the account."""
        if isinstance(user, User):
            record("user.password_changed", object=user.username)
            user.end_access(actor=None, reason="password changed")
