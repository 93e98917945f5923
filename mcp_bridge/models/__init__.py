"""Primitives, and the log of changes that decisions depend on."""

from mcp_bridge.models.change_log import ChangeCounter, LoggedChange
from mcp_bridge.models.primitives import (
    SCOPE_PREFIX,
    Offer,
    Primitive,
    PrimitiveKind,
    PrimitiveQuerySet,
    own_scope,
    summary,
)

__all__ = [
    "SCOPE_PREFIX",
    "LoggedChange",
    "ChangeCounter",
    "Offer",
    "Primitive",
    "PrimitiveKind",
    "PrimitiveQuerySet",
    "own_scope",
    "summary",
]
