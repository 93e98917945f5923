"""The daily tasks of a team lead in a real Chromium: clicks and seconds of each.

`python -m tests.tools.run tests/flows/browser/test_tasks.py` with FIGURES=FILE writes
the figures of docs/administration.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accounts.models import AuditEvent, Invitation, Role, RoleAssignment, User
from tests.support.chromium import BrowserUser
from tests.support.mcp_client import mcp_client
from tests.support.run_figures import write_figure
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]
PEOPLE = 200
LOGIN_PAGE = "**/admin/accounts/user/*/change/"


class Task:
    """A window of carol on the overview; counts what she does."""

    def __init__(self, server: Portico, chromium: Any) -> None:
        self.window = BrowserUser(chromium, "light", 1366)
        self.window.enter(server.url, "carol")
        self.page = self.window.page
        self.clicks = self.searches = 0
        self.began = time.monotonic()

    def click(self, what: str) -> None:
        self.page.click(what)
        self.clicks += 1

    def search(self, text: str) -> None:
        """Ctrl-K, the text, Enter: the first result opens."""
        before = self.page.url
        self.page.keyboard.press("Control+k")
        self.page.fill("#search input[name=q]", text)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(lambda url: url != before)
        self.searches += 1

    def done(self, name: str, clicks: int) -> None:
        """At most so many clicks were needed, and the console has no error."""
        seconds = round(time.monotonic() - self.began, 1)
        counts = {"clicks": self.clicks, "searches": self.searches}
        write_figure(name, **counts, seconds=seconds)
        assert self.clicks <= clicks
        assert self.window.unfit() == [] and self.window.errors == []


@pytest.fixture
def task(server: Portico, chromium: Any) -> Iterator[Task]:
    found = Task(server, chromium)
    yield found
    found.window.window.close()


CHOSEN = "a long new password 8"


def test_a_person_is_invited_and_calls(task: Task, server: Portico) -> None:
    """The link is on the page. Behind it: a password, the portal, a first call."""
    if not task.page.is_visible("#nav-sidebar a[href='/admin/users/invite/']"):
        task.click("#nav-sidebar button.group:has-text('People')")
    task.click("#nav-sidebar a[href='/admin/users/invite/']")
    task.page.fill("input[name=username]", "dora")
    task.page.check("input[name=roles] >> nth=0")
    task.click("input[type=submit].default")
    link = task.page.inner_text("code[data-copy]")
    assert re.search("/invitation/", link)
    assert Invitation.objects.filter(user__username="dora").exists()
    task.done("invite a person", 3)
    accept(task.window, link)
    task.window.window.clear_cookies()
    page = task.window.page
    page.goto(f"{server.url}/accounts/login/?next=/portal/tools/%3Fname=look")
    task.window.sign_in("dora", CHOSEN)
    page.click("#try button")
    page.wait_for_selector("#result pre:has-text('dora looks at shelf')")
    page.goto(link)
    assert "This link does not work" in page.inner_text("main")


def accept(window: BrowserUser, link: str) -> None:
    """As the invited person, in a browser that knows nobody."""
    window.open_tab()
    window.page.goto(link)
    assert "dora" in window.page.inner_text("main")
    window.page.fill("input[name=password1]", CHOSEN)
    window.page.fill("input[name=password2]", CHOSEN)
    window.page.click("button:has-text('Set password')")
    window.page.wait_for_url("**/portal/**")


def test_a_role_for_two_days(task: Task) -> None:
    erin = make_user("erin")
    task.search("erin")
    assert str(erin.pk) in task.page.url
    role = Role.objects.get(name="User")
    task.page.select_option("#roles select[name=role]", str(role.pk))
    task.clicks += 1
    task.click("#roles .chiprow button:has-text('2 days')")
    task.page.wait_for_selector("#roles td:has-text('in 2')")
    row = RoleAssignment.objects.get(user=erin, role=role)
    assert row.expires_at is not None
    task.done("give a role for two days", 3)


def test_all_access_is_taken_away(task: Task, server: Portico) -> None:
    make_user("frank", "User")
    client = mcp_client(server, "frank")
    assert client.allowed("look")
    task.search("frank")
    task.click("a:has-text('End all access')")
    task.click("button.danger:has-text('End all access') >> nth=0")
    task.page.wait_for_url(LOGIN_PAGE)
    assert client.post("tools/list").status_code == 401
    task.done("take all access away", 3)


def test_one_call_is_found(task: Task, server: Portico) -> None:
    """By the request id that its client or a log shows."""
    make_user("gina", "User")
    mcp_client(server, "gina").call("look")
    event = AuditEvent.objects.filter(actor="gina", action="tool.called").latest("pk")
    task.search(event.request_id)
    task.page.wait_for_selector("text=tool look")
    task.done("find a call", 1)


def excel_file(folder: Path) -> Path:
    """As Excel saves it in Europe: semicolons, Windows-1252, empty lines at the end."""
    lines = ["Username;E-Mail;First name;Last name;Roles"]
    for number in range(PEOPLE):
        name = f"excel{number}"
        lines.append(f"{name};{name}@example.org;Zoë;Müller {number};User")
    path = folder / "people.csv"
    path.write_bytes("\r\n".join([*lines, ";;;;", ";;;;", ""]).encode("cp1252"))
    return path


def test_people_of_an_excel_file_are_imported(task: Task, tmp_path: Path) -> None:
    """Two hundred at the first try."""
    if not task.page.is_visible("#nav-sidebar a[href='/admin/users/import/']"):
        task.click("#nav-sidebar button.group:has-text('People')")
    task.click("#nav-sidebar a[href='/admin/users/import/']")
    task.page.set_input_files("input[type=file]", excel_file(tmp_path))
    task.click("input[type=submit][value='Preview changes']")
    task.click("button[name=apply]")
    task.page.wait_for_selector(f"text=Done: {PEOPLE} users")
    assert User.objects.filter(username__startswith="excel").count() == PEOPLE
    assert User.objects.get(username="excel7").first_name == "Zoë"
    task.done("import 200 people", 4)
