"""The admin in process: a superuser's browser, and pages without collectstatic."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.admin.notifications import channels
from accounts.admin.tokens import document_copies
from accounts.models import Delivery
from mcp_bridge.upstreams import discovery
from tests.support.admin_browser import AdminBrowser, staff_member
from tests.support.static_files import UNCOLLECTED


@pytest.fixture(autouse=True)
def uncollected(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


@pytest.fixture
def root(db: None) -> AdminBrowser:
    """A superuser, signed in."""
    return AdminBrowser(staff_member("root", superuser=True))


@pytest.fixture
def no_internet(monkeypatch: Any) -> None:
    """Fetching a copy and testing a channel always succeed, without a call."""
    monkeypatch.setattr(document_copies, "fetch_copy", lambda copy: None)
    sent = Delivery(state="delivered", result="HTTP 200")
    monkeypatch.setattr(channels, "send_test", lambda channel: sent)


@pytest.fixture
def without_upstream_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here contacts a server: its transaction would be open meanwhile."""
    found = {"added": 1, "changed": 0, "vanished": 0, "returned": 0}
    monkeypatch.setattr(discovery, "discover", lambda server: found)
