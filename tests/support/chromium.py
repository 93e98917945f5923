"""A user in a real Chromium, with its console errors and layout problems."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.requirements_skip import skip_or_fail
from tests.support.users import PASSWORD

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
"""The shell has no windows and menus, and takes two thirds of the time."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# axe may not load style sheets itself, because strict CSP forbids it. Passed rules
# return one node each: reading thousands of nodes takes longer than finding them.
AXE = {
    "runOnly": ["wcag2a", "wcag2aa"],
    "preload": False,
    "resultTypes": ["violations"],
}
UNDER_BUTTONS = """
() => {
  const box = e => e.getBoundingClientRect();
  const meet = (a, b) => a.left < b.right && b.left < a.right
    && a.top < b.bottom && b.top < a.bottom;
  const all = Array.from(document.querySelectorAll(
    "#content :is(p, table, fieldset, .cards > *, .panel)"));
  const tools = Array.from(document.querySelectorAll("#content .object-tools a"));
  return all.filter(e => tools.some(t => meet(box(e), box(t))) && e.checkVisibility())
    .map(e => e.textContent.trim().slice(0, 40));
}
"""
"""The elements under the buttons that float beside a heading."""
LOOKS = [("light", 1366), ("dark", 390)]
LOADED = "typeof window.axe === 'object'"
FRAME = ["#header", "#nav-sidebar"]
"""The parts that are equal on every page of the admin."""
FRAMED = f"document.querySelector('{FRAME[-1]}') !== null"


def require_chromium() -> None:
    """Skip without Chromium; in CI fail."""
    if not CHROMIUM:
        skip_or_fail("chromium", "install it: apt-get install chromium-headless-shell")


@contextmanager
def launched() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    require_chromium()
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


class BrowserUser:
    """A user in a window of one size and colour scheme."""

    def __init__(self, chromium: Any, scheme: str, width: int) -> None:
        size = {"width": width, "height": 800}
        self.window = chromium.new_context(
            color_scheme=scheme, viewport=size, reduced_motion="reduce"
        )
        self.errors: list[str] = []
        self.now = (scheme, width)
        self.read_frames = set[tuple[str, int]]()
        """The looks in which axe has read FRAME."""
        self.open_tab()

    def open_tab(self) -> None:
        """Go on in a new tab of the window, as somebody who has not signed in."""
        self.window.clear_cookies()
        self.page = self.window.new_page()
        self.page.set_default_timeout(8_000)
        self.page.on("console", self.heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def heard(self, message: Any) -> None:
        """The browser's errors; CSP reports are among them."""
        if message.type in ("error", "warning") and "favicon" not in str(
            message.location
        ):
            self.errors.append(message.text)

    def sign_in(self, username: str = "alice", password: str = PASSWORD) -> None:
        self.page.fill("input[name=login]", username)
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")

    def enter(self, url: str, username: str, password: str = PASSWORD) -> None:
        """Sign in to the admin on its own page."""
        self.page.goto(f"{url}/admin/")
        self.page.fill("input[type=text], input[name=login]", username)
        self.page.fill("input[type=password]", password)
        self.page.press("input[type=password]", "Enter")
        self.page.wait_for_url("**/admin/")

    def look(self, scheme: str, width: int) -> None:
        """Change the window without reloading the page."""
        self.now = (scheme, width)
        self.page.emulate_media(color_scheme=scheme)
        self.page.set_viewport_size({"width": width, "height": 800})

    def fits(self) -> bool:
        self.page.wait_for_function("document.readyState === 'complete'")
        script = "document.documentElement.scrollWidth <= window.innerWidth"
        return bool(self.page.evaluate(script))

    def covered(self) -> list[str]:
        """The beginning of every block that the buttons beside the heading cover."""
        return list(self.page.evaluate(UNDER_BUTTONS))

    def unfit(self) -> list[str]:
        """The WCAG 2 A and AA violations that axe finds, one line per rule.

        It reads FRAME once in each look: that takes as long as the rest of a page.
        """
        from axe_playwright_python.base import AXE_SCRIPT

        if not self.page.evaluate(LOADED):
            self.page.evaluate(AXE_SCRIPT)
        where = {"exclude": FRAME} if self.now in self.read_frames else {}
        if self.page.evaluate(FRAMED):
            self.read_frames.add(self.now)
        arguments = ", ".join(json.dumps(part) for part in (where, AXE) if part)
        run = f"axe.run({arguments}).then(found => found.violations)"
        return [
            f"{rule['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
            for rule in self.page.evaluate(run)
            for node in rule["nodes"][:3]
        ]

    def layout_problems(self, turn: int) -> list[str]:
        """What is wrong on this page in each of LOOKS.

        axe takes most of the time, so it reads the page in one look, by `turn`: pages
        share their styles.
        """
        found = []
        for number, (scheme, width) in enumerate(LOOKS):
            self.look(scheme, width)
            problems = [] if self.fits() else ["sticks out"]
            problems += [f"covered: {text}" for text in self.covered()]
            problems += self.unfit() if number == turn % len(LOOKS) else []
            found += [f"{scheme} {width}: {problem}" for problem in problems]
        found += self.errors
        self.errors.clear()
        self.look(*LOOKS[0])
        return found
