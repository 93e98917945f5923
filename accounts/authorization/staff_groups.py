"""The three predefined groups of delegated administration.

Every migrate resets their permissions to this list.
"""

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
"""Group -> permission codenames. An empty tuple means every view permission.

Nobody gets `view_arguments` by a group: what people send to tools may be personal.
"""
EXPLICIT = ("view_arguments",)


def fill_staff_groups(sender: Any, **kwargs: Any) -> None:
    """Set the groups' permissions after migrate.

    Waits for the last app: permissions of an app exist only after its own turn.
    """
    if sender is not list(apps.get_app_configs())[-1]:
        return
    # Imported late: apps.py imports this module before models are loaded.
    from django.contrib.auth.management import create_permissions
    from django.contrib.auth.models import Group, Permission

    create_permissions(**kwargs)
    for name, codenames in GROUPS.items():
        group, _new = Group.objects.get_or_create(name=name)
        permissions = Permission.objects.all()
        if codenames:
            permissions = permissions.filter(codename__in=codenames)
        else:
            permissions = permissions.filter(codename__startswith="view_")
            permissions = permissions.exclude(codename__in=EXPLICIT)
        group.permissions.set(permissions)
