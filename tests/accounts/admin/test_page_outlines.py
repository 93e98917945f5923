"""What every page of the admin and the portal shows, compared with `outlines/`.

After an intended change, write the files again and read the difference:
`NEW_OUTLINES=1 .venv/bin/python -m pytest tests/accounts/admin/test_page_outlines.py`
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission

from accounts.models import User
from tests.support.admin_browser import staff_member
from tests.support.admin_scene import reader_of_pages, set_scene
from tests.support.outlines import compare, difference
from tests.support.page_outline import outline
from tests.support.page_walk import file_name, is_compared, walk

pytestmark = pytest.mark.django_db
OUTLINES = Path(__file__).parent / "outlines"


NAVIGATION = re.compile(r'<nav class="sticky" id="nav-sidebar".*?</nav>', re.DOTALL)
"""Each page has it, so the outlines of pages do not."""


def outlines(user: User) -> dict[str, str]:
    """File -> what the user's pages show, in English."""
    browser = reader_of_pages(user)
    found = {
        file_name(path): outline(text)
        for path, _answer, text in walk(browser, "/admin/", "/portal/")
        if text and is_compared(path)
    }
    (menu,) = NAVIGATION.findall(browser.get("/admin/").content.decode())
    return {**found, "navigation.txt": outline(menu.replace("id=", "name="))}


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
