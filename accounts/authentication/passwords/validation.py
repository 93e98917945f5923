"""A password validator that never objects: it hears of changes and ends access."""

from __future__ import annotations

from typing import Any

from allauth.core import context
from django.contrib.auth.models import AbstractBaseUser
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.models import User
from accounts.models.audit.events import COMMAND_LINE


class RevokeOnPasswordChange:
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
        """Record who did it, and end all access of the account."""
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
    """Who is signed in to the request being answered; without one an operator.

    Django tells a validator neither, and its own pages and commands tell nobody.
    """
    if context.request is None:
        return COMMAND_LINE
    user = getattr(context.request, "user", None)
    return user if user is not None and user.is_authenticated else None
