"""A scripted user: signs in, answers the consent page, and follows the redirect."""

from __future__ import annotations

import os
import sys
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2

from tests.support.html_browser import Browser, Form
from tests.support.password import PASSWORD


class Visitor(Browser):
    """Follows redirects within the server's own pages."""

    def __init__(self, url: str, username: str, decision: str = "allow") -> None:
        super().__init__(url)
        self.http.follow_redirects = False
        self.username, self.decision, self.url = username, decision, url
        self.seen: list[str] = []

    def visit(self, url: str) -> str:
        """From an authorize URL to the last page: a callback, or an error page."""
        self.page = self.http.get(url)
        for _ in range(12):
            if self.page.is_redirect:
                target = urljoin(str(self.page.url), self.page.headers["location"])
                if not target.startswith(self.url):
                    return target
                self.page = self.http.get(target)
                continue
            self.seen.append(self.page.text)
            form = self.next_form()
            if form is None:
                return str(self.page.url)
            self.answer(form)
        raise AssertionError(f"went in circles: {self.page.url}")

    def next_form(self) -> Form | None:
        """The sign-in or consent form, if the page has one."""
        for form in self.forms:
            if "password" in form.fields or self.button(form):
                return form
        return None

    def button(self, form: Form) -> tuple[str, str, str] | None:
        """The button of the decision."""
        meant = [b for b in form.buttons if self.decision in b[2].lower()]
        return meant[0] if meant else None

    def answer(self, form: Form) -> None:
        fields: dict[str, Any] = dict(form.fields)
        if "password" in fields:
            fields |= {"login": self.username, "password": PASSWORD}
        else:
            name, value, _ = self.button(form) or ("", "", "")
            fields[name] = value
        target = urljoin(str(self.page.url), form.action)
        headers = {"referer": str(self.page.url)}
        self.page = self.http.post(target, data=fields, headers=headers)


def callback(url: str) -> dict[str, str]:
    """The parameters at the callback, each once."""
    found = parse_qs(urlsplit(url).query)
    assert all(len(values) == 1 for values in found.values()), found
    return {name: values[0] for name, values in found.items()}


def main(url: str) -> None:
    """Run as the browser of another program: decide, then open its callback."""
    server = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
    with Visitor(server, os.environ.get("VISITOR", "alice")) as visitor:
        end = visitor.visit(url)
    print(end, flush=True)
    if os.environ.get("VISITOR_RETURNS"):
        httpx2.get(end, timeout=20, verify=False)


def metadata_of(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(
        f"{url}/.well-known/oauth-authorization-server", verify=False
    ).json()
    return found


if __name__ == "__main__":
    main(sys.argv[1])
