"""The scopes and roles every installation begins with."""

from __future__ import annotations

from typing import Any

SCOPES = {
    "mcp": "Act within one's roles.",
    "Admin.Write": "Administer users, roles and tokens.",
    "User.Write": "Change things.",
    "User.Read": "Look at things.",
    "Guest.Read": "Look at what everybody may see.",
}
ROLES = {
    "Admin": (
        "May do everything, administration included.",
        ("Admin.Write", "User.Write", "User.Read", "Guest.Read"),
    ),
    "User": ("May look and change.", ("User.Write", "User.Read", "Guest.Read")),
    "Guest": ("May look at what everybody may see.", ("Guest.Read",)),
}


def install(scope_model: Any, role_model: Any) -> None:
    """Add what is missing; never change what an admin has set."""
    scopes = {
        name: scope_model.objects.get_or_create(
            name=name, defaults={"description": description}
        )[0]
        for name, description in SCOPES.items()
    }
    for name, (description, given) in ROLES.items():
        role, new = role_model.objects.get_or_create(
            name=name, defaults={"description": description}
        )
        if new:
            role.scopes.set([scopes[scope] for scope in given])
