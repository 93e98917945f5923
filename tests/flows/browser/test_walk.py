"""Every page in the menu of an auditor, and the portal, in a real Chromium."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group

from accounts.models import AuditEvent, IssuedToken, Role, User
from mcp_bridge.models import Primitive
from tests.support.chromium import BrowserUser
from tests.support.mcp_client import mcp_client
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]
MENU = "links => [...new Set(links.map(link => link.getAttribute('href')))]"
FIRST_ROW = "link => link.getAttribute('href')"
PORTAL = ["", "connect/", "access/", "tokens/", "apps/", "security/"]
PORTAL += ["tools/?name=whoami"]
MATRIX = "/admin/access/matrix/?q=lonely"


def helper(name: str, group: str) -> User:
    """A staff member of one default group."""
    user = make_user(name)
    user.is_staff = True
    user.save()
    user.groups.set(Group.objects.filter(name=group))
    return user


def page_problems(window: BrowserUser, where: str, axe: bool) -> list[str]:
    unfit = window.unfit() if axe else []
    found = [f"{where}: {line}" for line in [*unfit, *window.errors]]
    window.errors.clear()
    return found if window.fits() else [*found, f"{where}: sticks out"]


def test_the_menu_of_an_auditor(server: Portico, chromium: Any) -> None:
    """Every link works, with the first row of each list; other pages are refused.

    axe reads the lists in test_admin.py, and here the pages of rows without a form.
    """
    helper("audrey", "Auditors")
    mcp_client(server, "alice").call("rule")
    window, problems = BrowserUser(chromium, "dark", 390), []
    window.enter(server.url, "audrey")
    paths = window.page.eval_on_selector_all("#nav-sidebar a", MENU)
    assert len(paths) > 8
    for path in ["/admin/", *paths]:
        answer = window.page.goto(f"{server.url}{path}")
        assert answer.status == 200, path
        problems += page_problems(window, path, axe=False)
        row = window.page.query_selector("#result_list tbody th a")
        if row is not None:
            url = row.evaluate(FIRST_ROW)
            assert window.page.goto(f"{server.url}{url}").status == 200, url
            assert not window.page.query_selector("[name=_save]"), url
            problems += page_problems(window, url, axe=True)
    for path in ("users/import/", "accounts/user/add/"):
        answer = window.page.goto(f"{server.url}/admin/{path}")
        assert answer.status == 403, path
    window.window.close()
    assert not problems, "\n".join(problems)


def test_the_portal_of_bob(server: Portico, chromium: Any) -> None:
    """Every page, light and dark; the admin refuses him."""
    window, problems = BrowserUser(chromium, "light", 1366), []
    window.page.goto(f"{server.url}/accounts/login/?next=/portal/")
    window.sign_in("bob")
    for turn, path in enumerate(PORTAL):
        assert window.page.goto(f"{server.url}/portal/{path}").status == 200, path
        problems += [f"{path}: {line}" for line in window.layout_problems(turn)]
    assert window.page.goto(f"{server.url}/admin/").status == 403
    window.window.close()
    assert not problems, "\n".join(problems)


def test_the_matrix_by_keyboard(server: Portico, chromium: Any) -> None:
    """Arrows move, space toggles, Enter opens the review and saves."""
    window, client = BrowserUser(chromium, "light", 1366), mcp_client(server, "bob")
    window.enter(server.url, "carol")
    window.page.goto(f"{server.url}{MATRIX}")
    tool = Primitive.objects.get(name="lonely")
    names = ("Admin", "Guest", "User")
    keys = [f"{Role.objects.get(name=name).pk}-{tool.pk}" for name in names]
    focused = "() => document.activeElement.value"
    window.page.focus(f"input[value='{keys[0]}']")
    window.page.keyboard.press("ArrowRight")
    assert window.page.evaluate(focused) == keys[1]
    window.page.keyboard.press("ArrowRight")
    window.page.keyboard.press("ArrowLeft")
    window.page.keyboard.press("Space")
    window.page.wait_for_selector("text=1 tick changed")
    assert window.page.is_checked(f"input[value='{keys[1]}']")
    window.page.keyboard.press("Enter")
    window.page.wait_for_selector("text=Nothing is saved yet")
    assert not client.allowed("lonely")
    window.page.focus("input.default")
    window.page.keyboard.press("Enter")
    window.page.wait_for_selector("text=1 change saved")
    assert client.allowed("lonely") and window.errors == []
    Role.objects.get(name="Guest").scopes.remove(*tool.required_scopes.all())
    window.window.close()


def test_a_filter_opens_and_closes(server: Portico, chromium: Any) -> None:
    """One filter is open at a time, by keyboard; its button shows the choice.

    Then the same window follows the audit.
    """
    IssuedToken.objects.filter(username="alice").exists() or server.issued("alice")
    window = BrowserUser(chromium, "light", 1200)
    window.enter(server.url, "carol")
    window.page.goto(f"{server.url}/admin/accounts/issuedtoken/?username=alice")
    summary = window.page.locator("#changelist-filter summary")
    assert "alice" in summary.first.inner_text()
    summary.nth(1).press("Enter")
    window.page.wait_for_selector("#changelist-filter details[open] a >> nth=0")
    assert window.unfit() == []
    summary.nth(1).press("Escape")
    window.page.wait_for_selector("#changelist-filter details[open]", state="detached")
    summary.nth(1).press("Enter")
    window.page.click("#changelist-filter details[open] a >> text=active")
    window.page.wait_for_url("**state=active**")
    assert "active" in summary.nth(1).inner_text() and window.errors == []
    follow_live(server, window)
    window.window.close()


TRIES = [
    ("look", {"what": "Straße"}, "carol looks at Straße"),
    ("look", {}, "carol looks at shelf"),
    ("rule", {"region": "서울"}, "carol rules 서울"),
    ("ponder", {"seconds": "0.1"}, "pondered"),
    ("fail", {}, "Error executing tool fail"),
    ("erase", {}, "erased"),
]
"""Tool, its arguments as typed, and a part of what the page shows."""


def test_tools_are_tried_in_the_portal(server: Portico, chromium: Any) -> None:
    """With arguments that a header repeats, errors, and a sensitive tool."""
    window = BrowserUser(chromium, "light", 1366)
    window.page.goto(f"{server.url}/accounts/login/?next=/portal/")
    window.sign_in("carol")
    for tool, typed, shown in TRIES:
        window.page.goto(f"{server.url}/portal/tools/?name={tool}")
        for name, value in typed.items():
            window.page.fill(f"[name={name}]", value)
        window.page.click("#try button")
        window.page.wait_for_selector(f"#result pre:has-text('{shown}')")
        failed = window.page.locator("#result.failed").count() > 0
        assert failed is (tool == "fail"), tool
    window.page.goto(f"{server.url}/portal/tools/?name=ponder")
    window.page.click("#try button")
    assert window.page.locator("#result").is_hidden(), "an argument is missing"
    assert window.errors == []
    window.window.close()
    row = IssuedToken.objects.filter(issued_via="portal").latest("pk")
    assert (row.username, row.scope) == ("carol", "User.Write")
    assert AuditEvent.objects.filter(object="tool rule", token_id__gt="").exists()


def follow_live(server: Portico, window: BrowserUser) -> None:
    """A call appears on top of the audit list without a reload."""
    window.page.goto(f"{server.url}/admin/accounts/auditevent/?show=calls&actor=alice")
    button = window.page.get_by_role("button", name="Follow live")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    before = window.page.locator("#result_list tbody tr").count()
    mcp_client(server, "alice").call("rule")
    rows = window.page.locator("#result_list tbody tr")
    rows.nth(before).wait_for()
    assert "rule" in rows.first.inner_text() and window.unfit() == []
    button.click()
    assert button.get_attribute("aria-pressed") == "false" and window.errors == []
