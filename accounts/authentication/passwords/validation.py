"""A password validator that accepts all passwords and revokes access on a change."""

from __future__ import annotations

from typing import Any

from allauth.core import context
from django.contrib.auth.models import AbstractBaseUser
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.models import User
from accounts.models.audit.events import COMMAND_LINE


class RevokeOnPasswordChange:
    """Revokes an account's access when its password changes.

    Forms, commands and the shell all use `AbstractBaseUser.save()`. It calls
    `password_changed` after it stores a new hash, but not after a hash upgrade.
    """

    def validate(self, password: str, user: AbstractBaseUser | None = None) -> None:
        """Accept every password; other validators check its strength."""

    def get_help_text(self) -> str:
        return _("Changing the password signs you out of every client.")

    def password_changed(
        self, password: str, user: AbstractBaseUser | None = None
    ) -> None:
        """Record the change and revoke all access of the account."""
        if isinstance(user, User):
            request, actor = context.request, current_actor()
            record(
                "user.password_changed",
                actor=actor,
                request=request,
                object=user.username,
            )
            user.revoke_tokens(actor=actor, reason="password changed")


def current_actor() -> Any:
    """The signed-in user of the current request; COMMAND_LINE outside a request.

    Read from allauth's context, because Django passes no request to validators.
    """
    if context.request is None:
        return COMMAND_LINE
    user = getattr(context.request, "user", None)
    return user if user is not None and user.is_authenticated else None
