"""Password reset links, which revoking the account's access invalidates."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.tokens import PasswordResetTokenGenerator


class ResetTokenGenerator(PasswordResetTokenGenerator):
    """Adds the session epoch to Django's hash of password, last sign-in and address.

    Otherwise a link in an old mail would still work after a revocation.
    """

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        return f"{super()._make_hash_value(user, timestamp)} {user.session_epoch}"
