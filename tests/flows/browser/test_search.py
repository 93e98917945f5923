"""The search and the navigation of the admin in a real Chromium."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import User
from tests.support.chromium import BrowserUser
from tests.support.server import Portico

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]
OPEN = "#search[open]"
OPTION = "#search [role=option][aria-selected=true]"


def test_searching_by_keyboard(server: Portico, chromium: Any) -> None:
    """Ctrl-K, a name, Enter: the person. `/`, arrows, Escape, the box."""
    alice = User.objects.get(username="alice").pk
    window = BrowserUser(chromium, "light", 1366)
    window.enter(server.url, "carol")
    page, keys = window.page, window.page.keyboard
    page.keyboard.press("Control+k")
    page.wait_for_selector(OPEN)
    keys.type("alice")
    keys.press("Enter")
    page.wait_for_url(f"**/admin/accounts/user/{alice}/change/")
    keys.press("/")
    keys.type("audit")
    page.wait_for_selector(f"{OPTION}:has-text('Audit events')")
    assert window.unfit() == []
    keys.press("ArrowDown")
    page.wait_for_selector(f"{OPTION}:has-text('Audit seals')")
    keys.press("Escape")
    page.wait_for_selector(OPEN, state="detached")
    page.focus("#id_first_name")
    keys.press("/")
    assert page.input_value("#id_first_name").endswith("/")
    assert page.query_selector(OPEN) is None
    page.click("#to-search")
    keys.type("zzqq")
    page.wait_for_selector("#search-note:has-text('Nothing matches.')")
    keys.press("Enter")
    page.wait_for_url("**/admin/search/?q=zzqq")
    assert window.unfit() == [] and window.errors == []
    window.window.close()


def test_the_menu_of_a_phone(server: Portico, chromium: Any) -> None:
    """It opens in place, with the group of the page; a group opens by keyboard."""
    window = BrowserUser(chromium, "dark", 390)
    window.enter(server.url, "carol")
    page, path = window.page, f"{server.url}/admin/accounts/auditevent/"
    page.goto(path)
    assert not page.is_visible("#nav-sidebar")
    page.click("#to-menu")
    assert page.is_visible("#nav-sidebar a[aria-current=page]")
    assert page.url == path and window.fits() and window.unfit() == []
    page.press("[aria-controls=menu-people]", "Enter")
    assert page.is_visible("#menu-people a >> text=Users")
    page.keyboard.press("Escape")
    assert not page.is_visible("#nav-sidebar")
    assert page.evaluate("document.activeElement.id") == "to-menu"
    page.click("#to-search")
    page.keyboard.type("bob")
    page.wait_for_selector(OPTION)
    assert window.fits() and window.unfit() == [] and window.errors == []
    window.window.close()


def test_the_activity_is_above_the_fold(server: Portico, chromium: Any) -> None:
    """At 1366x768, whichever group is open."""
    window = BrowserUser(chromium, "light", 1366)
    window.enter(server.url, "carol")
    window.page.set_viewport_size({"width": 1366, "height": 768})
    for path in ("", "accounts/user/", "accounts/oauthclient/", "access/matrix/"):
        window.page.goto(f"{server.url}/admin/{path}")
        box = window.page.locator("[aria-controls=menu-activity]").bounding_box()
        assert box and box["y"] + box["height"] < 768, path
    assert window.errors == []
    window.window.close()
