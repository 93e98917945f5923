"""The three ready groups of delegated administration, kept as written here."""

from __future__ import annotations

from typing import Any

from django.apps import apps

HELPDESK = (
    "view_user",
    "unlock_user",
    "view_role",
    "view_roleassignment",
    "view_issuedtoken",
    "change_issuedtoken",
    "view_revokedtoken",
    "add_revokedtoken",
    "view_consent",
    "view_oauthclient",
    "view_auditevent",
    "view_accessattempt",
)
ROLE_MANAGERS = (
    "view_user",
    "view_scope",
    "view_role",
    "view_primitive",
    "view_roleassignment",
    "add_roleassignment",
    "change_roleassignment",
    "delete_roleassignment",
    "view_accessrequest",
    "change_accessrequest",
)
GROUPS: dict[str, tuple[str, ...]] = {
    "Auditors": (),
    "Helpdesk": HELPDESK,
    "Role managers": ROLE_MANAGERS,
}
"""Group -> permissions. Auditors look at everything, so theirs are not listed."""


def fill_staff_groups(sender: Any, **kwargs: Any) -> None:
    """After a migrate: permissions exist only once every app has had its turn."""
    if sender is not list(apps.get_app_configs())[-1]:
        return
    from django.contrib.auth.management import create_permissions
    from django.contrib.auth.models import Group, Permission

    create_permissions(**kwargs)
    for name, codenames in GROUPS.items():
        group, _new = Group.objects.get_or_create(name=name)
        known = Permission.objects.all()
        wanted = (
            known.filter(codename__in=codenames)
            if codenames
            else known.filter(codename__startswith="view_")
        )
        group.permissions.set(wanted)
