"""The admin in process: a superuser's browser, and pages without collectstatic."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.admin_browser import AdminBrowser, staff_member
from tests.support.static_files import UNCOLLECTED


@pytest.fixture(autouse=True)
def uncollected(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


@pytest.fixture
def root(db: None) -> AdminBrowser:
    """A superuser, signed in."""
    return AdminBrowser(staff_member("root", superuser=True))
