"""`python -m tests.tools.screenshots`: pictures for docs/screenshots, light and dark.

Starts a server with the example shop, makes real calls, and opens Chromium. A new
page is a new line in PAGES.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from tests.support.chromium import BrowserUser, launched  # noqa: E402
from tests.support.mcp_client import HTTP, McpClient  # noqa: E402
from tests.support.server import DEMO_PASSWORD, ROOT, Portico, sqlite_server  # noqa: E402
from tests.support.upstream_servers import running_upstream  # noqa: E402

FOLDER = ROOT / "docs" / "screenshots"
SIZE = {"width": 1200, "height": 760}
ADMIN = "carol"
PAGES: list[tuple[str, str, str]] = [
    ("dashboard", "/admin/", ADMIN),
    ("access-check", "/admin/access/check/?user=bob", ADMIN),
    ("access-matrix", "/admin/access/matrix/?kind=tool", ADMIN),
    ("tokens", "/admin/accounts/issuedtoken/", ADMIN),
    ("audit", "/admin/accounts/auditevent/", ADMIN),
    ("user", "/admin/accounts/user/2/change/", ADMIN),
    ("system", "/admin/system/", ADMIN),
    ("upstream-servers", "/admin/mcp_bridge/upstreamserver/", ADMIN),
    ("upstream-review", "/admin/definitions/", ADMIN),
    (
        "argument-rules",
        "/admin/mcp_bridge/primitive/13/change/#argument_rules-group",
        ADMIN,
    ),
    ("portal-connect", "/portal/connect/", "alice"),
    ("portal-tools", "/portal/", "alice"),
]
"""(name, path, user)."""

YESTERDAY = """
import math, random
from datetime import timedelta
from accounts.models import AuditEvent
from django.utils import timezone
random.seed(7)
now, seen = timezone.now(), list(AuditEvent.objects.exclude(duration_ms=None))
rows = []
for hours in range(1, 24):
    for _ in range(int(20 + 15 * math.sin(hours / 3.5)) + random.randrange(8)):
        row = random.choice(seen)
        row.at = now - timedelta(hours=hours, minutes=random.randrange(50))
        rows.append(AuditEvent(**{f.attname: getattr(row, f.attname)
                                  for f in AuditEvent._meta.fields if f.name != "id"}))
AuditEvent.objects.bulk_create(sorted(rows, key=lambda row: row.at))
"""
"""Copies today's real calls to the day before, so that the charts show a day."""


RULES = """
from accounts.models import Role
from mcp_bridge.models import ArgumentRule, Primitive
row, role = Primitive.objects.get(name="shop__add"), Role.objects.get(name="User")
for pointer, operator, value in (("/a", "at_most", 100), ("/b", "at_least", 0)):
    ArgumentRule.objects.create(
        primitive=row, role=role, pointer=pointer, operator=operator, value=value
    )
"""


def run_manage(server: Portico, *words: str) -> None:
    """Run a command of manage.py on the server's database."""
    command = [sys.executable, "manage.py", *words]
    subprocess.run(command, cwd=ROOT, env=server.environment, check=True)


def add_upstream(server: Portico, url: str) -> None:
    """An upstream server with an accepted tool, argument rules and held tools."""
    run_manage(server, "add_upstream", "shop", url, "--title", "Shop")
    run_manage(server, "accept_definitions", "shop", "add", "--role", "User")
    run_manage(server, "shell", "-c", RULES)
    McpClient(server, server.signed_in("alice")).call("shop__add", a=2, b=3)


def calls(server: Portico) -> None:
    """Allowed and refused calls of all users."""
    for name in ("alice", "bob", "carol"):
        client = McpClient(server, server.signed_in(name))
        for tool in ("list_products", "whoami", "list_products"):
            client.call(tool)
        client.call("create_product", name=f"soap of {name}", price=5)
        client.call("delete_product", name="soap")


def history(server: Portico) -> None:
    run_manage(server, "shell", "-c", YESTERDAY)


def sign_in(person: BrowserUser, server: Portico, name: str) -> None:
    """Sign in to the admin or to the portal."""
    if name == ADMIN:
        person.enter(server.url, name, DEMO_PASSWORD)
        return
    person.page.goto(f"{server.url}/accounts/login/")
    person.sign_in(name, DEMO_PASSWORD)
    person.page.wait_for_url("**/portal/**")


def pictures(
    chromium: Any, server: Portico, folder: Path, pages: list[tuple[str, str, str]]
) -> None:
    """Every page in both colour schemes, by its user."""
    for name in dict.fromkeys(person for _, _, person in pages):
        person = BrowserUser(chromium, "light", SIZE["width"])
        sign_in(person, server, name)
        for picture, path, whose in pages:
            if whose == name:
                take(person, f"{server.url}{path}", folder / picture)
        person.window.close()
        if person.errors:
            sys.exit("\n".join(person.errors))


def take(person: BrowserUser, url: str, target: Path) -> None:
    person.page.goto(url)
    for scheme in ("light", "dark"):
        person.look(scheme, SIZE["width"])
        person.page.set_viewport_size(SIZE)
        person.page.screenshot(path=f"{target}-{scheme}.png", scale="css")
        print(f"{target.name}-{scheme}.png")


def main(folder: Path = FOLDER, pages: list[tuple[str, str, str]] = PAGES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="portico-") as name, HTTP:
        extra = {"EXTRA_APPS": "examples.products"}
        with sqlite_server(Path(name), **extra) as server, running_upstream() as other:
            calls(server)
            add_upstream(server, other.url)
            history(server)
            with launched() as chromium:
                pictures(chromium, server, folder, pages)


if __name__ == "__main__":
    main()
