"""The admin, one file a noun."""

from accounts.admin import (
    audit,
    clients,
    keys,
    lockout,
    notices,
    revocation,
    roles,
    system,
    tokens,
    users,
)

__all__ = [
    "audit",
    "clients",
    "keys",
    "lockout",
    "notices",
    "revocation",
    "roles",
    "system",
    "tokens",
    "users",
]
