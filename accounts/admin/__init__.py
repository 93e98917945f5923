"""The admin, one file a noun."""

from accounts.admin import (
    audit,
    clients,
    grants,
    keys,
    lockout,
    notices,
    providers,
    requests,
    revocation,
    roles,
    system,
    tokens,
    userimport,
    users,
)

__all__ = [
    "audit",
    "clients",
    "grants",
    "keys",
    "lockout",
    "providers",
    "notices",
    "requests",
    "revocation",
    "roles",
    "system",
    "tokens",
    "userimport",
    "users",
]
