"""The admin, one file a noun."""

from accounts.admin import audit, keys, revocation, roles, tokens, users

__all__ = ["audit", "keys", "revocation", "roles", "tokens", "users"]
