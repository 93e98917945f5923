"""The predefined groups have exactly the permissions of the list."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission

from accounts.authorization.staff_groups import GROUPS, fill_staff_groups

pytestmark = pytest.mark.django_db
LAST = list(apps.get_app_configs())[-1]

HELPDESK_MAY_DO = {"unlock_user", "change_issuedtoken", "add_revokedtoken"}
ROLE_MANAGERS_MAY_DO = {
    "add_roleassignment",
    "change_roleassignment",
    "delete_roleassignment",
    "change_accessrequest",
}
DOING = {
    "Auditors": set(),
    "Helpdesk": HELPDESK_MAY_DO,
    "Role managers": ROLE_MANAGERS_MAY_DO,
}
"""Group -> its permissions other than `view_...`."""
VIEWING = {
    "Helpdesk": {
        "view_user",
        "view_role",
        "view_roleassignment",
        "view_issuedtoken",
        "view_revokedtoken",
        "view_consent",
        "view_oauthclient",
        "view_auditevent",
        "view_accessattempt",
    },
    "Role managers": {
        "view_user",
        "view_scope",
        "view_role",
        "view_primitive",
        "view_roleassignment",
        "view_accessrequest",
    },
}


def permissions_of(name: str) -> set[str]:
    group = Group.objects.get(name=name)
    return set(group.permissions.values_list("codename", flat=True))


def migrate() -> None:
    fill_staff_groups(
        LAST, app_config=LAST, verbosity=0, interactive=False, using="default"
    )


def test_every_migrate_resets_the_groups() -> None:
    for name in GROUPS:
        group = Group.objects.get(name=name)
        group.permissions.set(Permission.objects.filter(codename="delete_user"))
    Group.objects.get(name="Helpdesk").delete()
    migrate()
    views = set(
        Permission.objects.filter(codename__startswith="view_").values_list(
            "codename", flat=True
        )
    )
    views.remove("view_arguments")
    assert set(GROUPS) == DOING.keys()
    for name in GROUPS:
        expected = DOING[name] | VIEWING.get(name, views)
        assert permissions_of(name) == expected


def test_only_the_last_app_fills_the_groups() -> None:
    """Before its turn, its permissions do not exist."""
    Group.objects.get(name="Auditors").permissions.clear()
    for app in list(apps.get_app_configs())[:-1]:
        fill_staff_groups(app, app_config=app, verbosity=0, using="default")
    assert permissions_of("Auditors") == set()
    migrate()
    assert permissions_of("Auditors")


def test_permissions_of_the_last_app_are_created_first() -> None:
    """A permission that is missing is created before the groups are filled."""
    Permission.objects.filter(content_type__app_label=LAST.label).delete()
    app = apps.get_app_config("accounts")
    Permission.objects.filter(codename="view_auditevent").delete()
    fill_staff_groups(
        LAST, app_config=app, verbosity=0, interactive=False, using="default"
    )
    assert "view_auditevent" in permissions_of("Auditors")
