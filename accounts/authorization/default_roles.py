"""Descriptions of the scopes and roles that 0002_default_data adds.

They are marked for translation here, because a migration contains plain text.
"""

from __future__ import annotations

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
