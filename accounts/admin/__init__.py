"""The admin, one file a noun."""

from accounts.admin import (
    allauths,
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
    "allauths",
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
