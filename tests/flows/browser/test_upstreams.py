"""An upstream server in the admin, from its URL to a call, and to its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.chromium import BrowserUser
from tests.support.mcp_client import mcp_client
from tests.support.server import Portico
from tests.support.upstream_servers import running_upstream

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]
SERVERS = "/admin/mcp_bridge/upstreamserver/"


class Lead(BrowserUser):
    """carol, who leads the team; collects what is wrong on the pages she sees."""

    def __init__(self, chromium: Any, server: Portico) -> None:
        super().__init__(chromium, "light", 1366)
        self.url, self.problems, self.turn = server.url, list[str](), 0
        self.enter(server.url, "carol")

    def open(self, path: str) -> None:
        self.page.goto(f"{self.url}{path}")

    def seen(self) -> None:
        """Check this page in both looks; axe reads every second one in each."""
        self.turn += 1
        where = self.page.url.removeprefix(self.url)
        found = self.layout_problems(self.turn)
        self.problems += [f"{where}: {line}" for line in found]

    def press(self, text: str) -> None:
        with self.page.expect_navigation():
            self.page.get_by_role("button", name=text, exact=True).click()


@pytest.fixture
def lead(server: Portico, chromium: Any) -> Iterator[Lead]:
    person = Lead(chromium, server)
    yield person
    person.window.close()
    UpstreamServer.objects.all().delete()


def add_server(lead: Lead, url: str) -> None:
    """Add, look, save: the next page is the review."""
    lead.open(f"{SERVERS}add/")
    lead.seen()
    for field, value in (("name", "shop"), ("url", url), ("prefix", "shop")):
        lead.page.fill(f"#id_{field}", value)
    lead.press("Check server")
    assert "shop__add" in lead.page.inner_text("#found")
    lead.seen()
    lead.press("Save")


def accept(lead: Lead, name: str) -> None:
    lead.seen()
    lead.press(f"Accept {name}")


def give(lead: Lead, name: str, role: str) -> None:
    """Tick a cell of the matrix, review, save."""
    server = UpstreamServer.objects.get()
    lead.open(f"/admin/access/matrix/?upstream={server.pk}")
    lead.seen()
    lead.page.get_by_label(f"{name}, {role}", exact=True).check(force=True)
    lead.press("Review changes")
    lead.seen()
    lead.press("Save changes")


def limit(lead: Lead, row: Primitive, argument: str, most: str) -> None:
    """Add an argument rule on the tool's page."""
    lead.open(f"/admin/mcp_bridge/primitive/{row.pk}/change/")
    lead.page.click("#argument_rules-group .add-row a")
    lead.page.fill("#id_argument_rules-0-pointer", argument)
    lead.page.select_option("#id_argument_rules-0-operator", "at_most")
    lead.page.fill("#id_argument_rules-0-value", most)
    lead.seen()
    lead.press("Save")


def check_arguments(lead: Lead, row: Primitive, text: str) -> str:
    """What the access check says about these arguments of alice."""
    lead.open(f"/admin/access/check/?user=alice&primitive={row.pk}")
    lead.page.fill("#arguments textarea", text)
    lead.press("Check these arguments")
    lead.seen()
    return str(lead.page.inner_text("table.verdicts"))


def disable(lead: Lead) -> None:
    server = UpstreamServer.objects.get()
    lead.open(f"{SERVERS}{server.pk}/change/")
    lead.seen()
    lead.page.uncheck("#id_enabled")
    lead.press("Save")
    lead.seen()


def test_a_server_is_added_used_limited_and_disabled(
    server: Portico, lead: Lead
) -> None:
    """Each change applies to the next message of a client."""
    with running_upstream() as elsewhere:
        add_server(lead, elsewhere.url)
        alice = mcp_client(server, "alice")
        assert "shop__add" not in alice.tools()
        accept(lead, "shop__add")
        assert "shop__add" not in alice.tools()
        give(lead, "shop__add", "User")
        assert alice.text("shop__add", a=2, b=3) == "5"
        row = Primitive.objects.get(name="shop__add")
        limit(lead, row, "a", "10")
        refusal = alice.text("shop__add", a=11, b=3)
        assert "/a must be a number of at most 10" in refusal
        assert alice.text("shop__add", a=10, b=3) == "13"
        assert "denied" in check_arguments(lead, row, '{"a": 11, "b": 1}')
        assert "allowed" in check_arguments(lead, row, '{"a": 1, "b": 1}')
        disable(lead)
        assert "shop__add" not in alice.tools()
        assert "Unknown tool" in alice.call("shop__add", a=2, b=3).text
    assert not lead.problems, "\n".join(lead.problems)
