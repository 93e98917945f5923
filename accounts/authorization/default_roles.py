"""Descriptions of the scopes and roles that 0002_default_data adds.

They are marked for translation here, because a migration contains plain text.
"""

from __future__ import annotations

from django.utils.translation import gettext_noop as _

SCOPES = {
    "mcp": _("Use the tools that your roles allow."),
    "Admin.Write": _("Manage users, roles and tokens."),
    "User.Write": _("Change data."),
    "User.Read": _("Read data."),
    "Guest.Read": _("Read public data."),
}
ROLES = {
    "Admin": (
        _("Full access, including administration."),
        ("Admin.Write", "User.Write", "User.Read", "Guest.Read"),
    ),
    "User": (_("Read and change data."), ("User.Write", "User.Read", "Guest.Read")),
    "Guest": (_("Read public data."), ("Guest.Read",)),
}
