"""The admin's navigation: its sections and their permissions."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import RequestFactory

from accounts.admin_site.site import Section
from accounts.models import User
from tests.support.users import make_user

pytestmark = pytest.mark.django_db


def menu(user: User) -> dict[str, list[str]]:
    """Section -> its entries for `user`."""
    request: Any = RequestFactory().get("/admin/")
    request.user = user
    groups = admin.site.get_app_list(request)
    return {g["app_label"]: [str(m["name"]) for m in g["models"]] for g in groups}


def test_the_menu_is_grouped_by_section(carol: User) -> None:
    found = menu(carol)
    assert list(found) == list(Section)
    assert found["people"][:1] == ["Users"] and "Tokens" in found["tokens"]


def test_the_menu_shows_only_pages_the_user_may_open() -> None:
    """A page checks its permission in the menu and when it is opened."""
    judy = make_user("judy", admin=True)
    judy.is_superuser = False
    judy.save()
    assert menu(judy) == {}
    permission = Permission.objects.get(codename="view_auditevent")
    judy.user_permissions.add(permission)
    assert menu(User.objects.get(pk=judy.pk)) == {"audit": ["Audit events"]}
