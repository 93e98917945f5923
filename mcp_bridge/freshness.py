"""Is what this worker knows still true? For now: read anew for every message."""

from __future__ import annotations

from accounts.principal import Principal, authenticate
from mcp_bridge.db import in_database
from mcp_bridge.decision import Catalogue, Rule
from mcp_bridge.models import Primitive


async def facts(raw: str) -> tuple[Principal, Catalogue]:
    """Who `raw` stands for and the rules, both as committed when this is called.

    Raises accounts.principal.Unauthenticated; database errors pass through.
    """
    return await in_database(_read, raw)


def _read(raw: str) -> tuple[Principal, Catalogue]:
    return authenticate(raw), read_catalogue()


def read_catalogue() -> Catalogue:
    """All rules in two queries."""
    rows = Primitive.objects.prefetch_related("required_scopes")
    return Catalogue(
        Rule(
            kind=row.kind,
            name=row.name,
            enabled=row.enabled,
            sensitive=row.sensitive,
            required=frozenset(scope.name for scope in row.required_scopes.all()),
        )
        for row in rows
    )
