"""The roles a user holds now, the scopes they give, and where they count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType

from accounts.http.client_address import split_networks
from accounts.models import (
    Role,
    RoleAssignment,
)

ANYWHERE: Mapping[str, tuple[str, ...]] = MappingProxyType({})
"""The networks of roles that count from anywhere."""


def role_networks(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Of these roles, those that count from somewhere only."""
    bound = Role.objects.filter(name__in=names).exclude(networks="")
    found = bound.values_list("name", "networks")
    return {name: split_networks(text) for name, text in found} or ANYWHERE


def current_grants(
    user_id: int, at: datetime | None = None
) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]], list[float]]:
    """Unexpired roles, the scopes they give, and their ends (epoch seconds)."""
    held = RoleAssignment.objects.filter(user_id=user_id).unexpired(at)
    rows = held.values_list("role__name", "role__scopes__name", "expires_at")
    found = [(role, scope, end) for role, scope, end in rows]
    ends = [end.timestamp() for _, _, end in found if end is not None]
    roles, grants = grants_of_pairs(tuple((role, scope) for role, scope, _ in found))
    return roles, grants, ends


# Thousands of principals are remembered at a time and most of them hold the same: each
# of these values is kept once, not once for each.
@lru_cache(maxsize=1024)
def grants_of_pairs(
    pairs: tuple[tuple[str, str | None], ...],
) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
    """The roles of these (role, scope) pairs, and scope -> roles that give it."""
    grants: dict[str, tuple[str, ...]] = {}
    for role, scope in pairs:
        if scope is not None:
            grants[scope] = (*grants.get(scope, ()), role)
    roles = tuple(dict.fromkeys(role for role, _ in pairs))
    return roles, MappingProxyType(grants)
