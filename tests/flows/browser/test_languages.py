"""Korean in a real Chromium: pages fit at 390 px and pass axe, the button works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import BrowserUser
from tests.support.oauth_client import authorize_url, register_client
from tests.support.server import Portico

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]
PORTAL = ("connect/", "", "access/", "tokens/", "security/")
ADMIN = ("", "accounts/user/", "accounts/issuedtoken/", "system/")


@pytest.fixture
def reader(chromium: Any) -> Iterator[BrowserUser]:
    """A user in a narrow window that asks for Korean."""
    person = BrowserUser(chromium, "light", 390)
    person.window.set_extra_http_headers({"Accept-Language": "ko"})
    yield person
    person.window.close()
    assert person.errors == []


def problems(reader: BrowserUser, name: str, axe: bool = False) -> list[str]:
    """The problems of the current page; axe reads each in English elsewhere."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        path = Path(folder) / f"ko-{name.strip('/').replace('/', '-') or 'index'}.png"
        reader.page.screenshot(path=str(path), full_page=True)
    found = [f"{name}: {line}" for line in (reader.unfit() if axe else ())]
    found += [] if reader.fits() else [f"{name}: sticks out"]
    spoken = reader.page.locator("html").get_attribute("lang")
    return found if spoken == "ko" else [*found, f"{name}: lang is {spoken}"]


def test_sign_in_consent_and_portal_in_korean(
    server: Portico, reader: BrowserUser
) -> None:
    """WCAG 2 3.1.1, 1.4.10."""
    client = register_client(server, client_name="편집기")["client_id"]
    reader.page.goto(authorize_url(server, client)[0])
    found = problems(reader, "sign-in")
    reader.sign_in()
    found += problems(reader, "consent", axe=True)
    for path in PORTAL:
        reader.page.goto(f"{server.url}/portal/{path}")
        found += problems(reader, f"portal/{path}")
    assert not found, "\n".join(found)


def test_the_admin_in_korean(server: Portico, reader: BrowserUser) -> None:
    """WCAG 2 3.1.1, 1.4.10."""
    reader.enter(server.url, "carol")
    found = []
    for path in ADMIN:
        reader.page.goto(f"{server.url}/admin/{path}")
        found += problems(reader, f"admin/{path}", axe=not path)
    assert not found, "\n".join(found)


def test_the_button_changes_the_language_and_stays_on_the_page(
    server: Portico, reader: BrowserUser
) -> None:
    """Tested under the strict CSP, in the portal and in the admin."""
    reader.page.goto(f"{server.url}/accounts/login/")
    reader.page.click("form.language button")
    reader.page.wait_for_selector("html[lang=en]")
    reader.sign_in("carol")
    reader.page.goto(f"{server.url}/admin/accounts/role/")
    reader.page.click("form.language button")
    reader.page.wait_for_selector("html[lang=ko]")
    assert reader.page.url == f"{server.url}/admin/accounts/role/"
