"""Links in password mails: they end with the account's access."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.tokens import PasswordResetTokenGenerator


class ResetTokenGenerator(PasswordResetTokenGenerator):
    """Django's own, which knows password, last sign-in and address; and the epoch.

    Who reads somebody's mail could otherwise use a link after all was ended.
    """

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        return f"{super()._make_hash_value(user, timestamp)} {user.session_epoch}"
