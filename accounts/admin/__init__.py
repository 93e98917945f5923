"""The admin, one file a noun."""

from accounts.admin import (
    audit,
    clients,
    keys,
    lockout,
    revocation,
    roles,
    tokens,
    users,
)

__all__ = [
    "audit",
    "clients",
    "keys",
    "lockout",
    "revocation",
    "roles",
    "tokens",
    "users",
]
