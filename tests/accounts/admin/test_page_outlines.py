"""What every page of the admin and the portal shows, compared with `outlines/`.

After an intended change, write the files again and read the difference:
`NEW_OUTLINES=1 .venv/bin/python -m pytest tests/accounts/admin/test_page_outlines.py`
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import Permission
from django.urls import resolve

from accounts.models import Role, RoleAssignment, User
from tests.support.admin_browser import staff_member
from tests.support.admin_scene import set_scene
from tests.support.outlines import compare, difference
from tests.support.page_outline import outline
from tests.support.page_walk import kind_of, walk
from tests.support.users import browser_of

pytestmark = pytest.mark.django_db
OUTLINES = Path(__file__).parent / "outlines"
NAME = re.compile(r"\(\?P<(\w+)>[^)]*\)|<(?:\w+:)?(\w+)>")
"""A parameter of a route."""


def file_name(path: str) -> str:
    words = NAME.sub(r"\1\2", kind_of(path))
    return re.sub(r"[^\w.-]+", "_", words).strip("_") + ".txt"


def is_compared(path: str) -> bool:
    """Guides have tests of their own; a filtered list is like the whole one."""
    parts = urlsplit(path)
    filtered = parts.query and str(resolve(parts.path).url_name).endswith("changelist")
    return not (filtered or path.startswith("/help/"))


def outlines(user: User) -> dict[str, str]:
    """File -> what the user's pages show, in English."""
    RoleAssignment.objects.grant(user, Role.objects.get(name="User"))
    User.objects.update(password="set")
    user.refresh_from_db()
    pages = walk(browser_of(user), "/admin/", "/portal/")
    return {
        file_name(path): outline(text)
        for path, _answer, text in pages
        if text and is_compared(path)
    }


def test_pages_show_what_they_showed() -> None:
    """To a superuser, and what is different for somebody who may only look."""
    set_scene()
    root = outlines(staff_member("root", superuser=True))
    compare(root, OUTLINES / "superuser")
    auditor = staff_member("auditor")
    views = Permission.objects.filter(codename__startswith="view_")
    auditor.user_permissions.set(views)
    less = {
        file: difference(root.get(file, ""), lines)
        for file, lines in outlines(auditor).items()
    }
    compare(less, OUTLINES / "auditor")
