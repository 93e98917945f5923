"""The unexpired roles of a user, their scopes and their networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType

from django.utils import timezone

from accounts.http.client_address import split_networks
from accounts.models import (
    Role,
    RoleAssignment,
)
from accounts.models.statements.queries import CompiledQuery, Given

GRANTS = CompiledQuery(
    lambda: (
        RoleAssignment.objects.filter(user_id=Given(RoleAssignment, "user"))
        .unexpired(Given(RoleAssignment, "expires_at"))
        .values_list("role__name", "role__scopes__name", "expires_at")
    )
)

ANYWHERE: Mapping[str, tuple[str, ...]] = MappingProxyType({})
"""For roles that are valid from any address."""


def role_networks(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Role name -> networks, for those of these roles that are limited to networks."""
    bound = Role.objects.filter(name__in=names).exclude(networks="")
    rows = bound.values_list("name", "networks")
    return {name: split_networks(text) for name, text in rows} or ANYWHERE


def current_grants(
    user_id: int, at: datetime | None = None
) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]], list[float]]:
    """Unexpired roles, scope -> roles that grant it, and expiry times in epoch seconds.

    `at` is the moment to judge expiry by; None means now.
    """
    rows = GRANTS.rows(user=user_id, expires_at=at or timezone.now())
    ends = [end.timestamp() for _, _, end in rows if end is not None]
    roles, grants = grants_of_pairs(tuple((role, scope) for role, scope, _ in rows))
    return roles, grants, ends


# The caches hold thousands of principals, and most have the same roles. This cache lets
# them share one value instead of storing a copy for each.
@lru_cache(maxsize=1024)
def grants_of_pairs(
    pairs: tuple[tuple[str, str | None], ...],
) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
    """The roles of these (role, scope) pairs, and scope -> roles that grant it."""
    grants: dict[str, tuple[str, ...]] = {}
    for role, scope in pairs:
        if scope is not None:
            grants[scope] = (*grants.get(scope, ()), role)
    roles = tuple(dict.fromkeys(role for role, _ in pairs))
    return roles, MappingProxyType(grants)
