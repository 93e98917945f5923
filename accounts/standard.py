"""The scopes and roles every installation begins with."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_noop as _

SCOPES = {
    "mcp": _("Act within one's roles."),
    "Admin.Write": _("Administer users, roles and tokens."),
    "User.Write": _("Change things."),
    "User.Read": _("Look at things."),
    "Guest.Read": _("Look at what everybody may see."),
}
ROLES = {
    "Admin": (
        _("May do everything, administration included."),
        ("Admin.Write", "User.Write", "User.Read", "Guest.Read"),
    ),
    "User": (_("May look and change."), ("User.Write", "User.Read", "Guest.Read")),
    "Guest": (_("May look at what everybody may see."), ("Guest.Read",)),
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
