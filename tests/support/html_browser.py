"""A browser for plain HTML forms: cookies, fields, buttons, no JavaScript."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Self
from urllib.parse import urljoin

import httpx2

from tests.support.password import PASSWORD

Fields = dict[str, Any]


@dataclass
class Form:
    """One form of the page with its values."""

    action: str
    method: str
    fields: Fields = field(default_factory=dict)
    buttons: list[tuple[str, str, str]] = field(default_factory=list)
    """(name, value, label)."""


class FormReader(HTMLParser):
    """Collects the forms of a page with the values of their fields."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.select = self.textarea = ""
        self.button: tuple[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            form = Form(found.get("action", ""), found.get("method", "get").lower())
            self.forms.append(form)
        elif (
            found.get("name") is not None
            or tag in ("option", "button")
            or found.get("type") == "submit"
        ):
            self.note(tag, found)

    def note(self, tag: str, found: dict[str, str]) -> None:
        """Add one field of the current form."""
        if not self.forms:
            return
        form, name = self.forms[-1], found.get("name", "")
        kind = found.get("type", "text")
        if tag == "input" and kind in ("submit", "image"):
            form.buttons.append((name, found.get("value", ""), found.get("value", "")))
        elif tag == "input" and kind in ("checkbox", "hidden", "radio"):
            if "checked" in found or kind == "hidden":
                default = "" if kind == "hidden" else "on"
                self.tick(form, name, found.get("value", default))
        elif tag == "input":
            form.fields[name] = found.get("value", "")
        elif tag == "select":
            self.select = name
            form.fields[name] = [] if "multiple" in found else ""
        elif tag == "option" and self.select and "selected" in found:
            self.choose(form, found.get("value", ""))
        elif tag == "textarea":
            self.textarea = name
            form.fields[name] = ""
        elif tag == "button":
            self.button = (name, found.get("value", ""))

    def tick(self, form: Form, name: str, value: str) -> None:
        """A checked box or a hidden field; several of one name are a list."""
        before = form.fields.get(name)
        if before is None:
            form.fields[name] = value
        else:
            form.fields[name] = [*(before if isinstance(before, list) else [before])]
            form.fields[name].append(value)

    def choose(self, form: Form, value: str) -> None:
        if isinstance(form.fields[self.select], list):
            form.fields[self.select].append(value)
        else:
            form.fields[self.select] = value

    def handle_data(self, data: str) -> None:
        """The text of a textarea or a button."""
        if self.textarea:
            self.forms[-1].fields[self.textarea] += data
        elif self.button is not None and data.strip():
            self.forms[-1].buttons.append((*self.button, data.strip()))
            self.button = None

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self.select = ""
        elif tag == "textarea":
            self.textarea = ""


CHEAP = "/admin/jsi18n/"
"""A page of the admin that queries nothing; its index takes 0.2 s."""


class Browser:
    """A browser at one server.

    The page of the admin that a form redirects to is loaded when a test reads it:
    rendering a list takes longer than most changes that lead there.
    """

    waiting: httpx2.Request | None = None
    """The request that loads it."""

    def __init__(self, url: str, transport: Any = None) -> None:
        # Reading the authorities takes 0.1 s, and most servers here have no TLS.
        tls = url.startswith("https:")
        self.http = httpx2.Client(
            base_url=url,
            follow_redirects=True,
            timeout=20,
            verify=tls,
            transport=transport,
        )
        self.response = httpx2.Response(200)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()

    @property
    def jar(self) -> Any:
        return self.http.cookies.jar

    @property
    def page(self) -> httpx2.Response:
        """The last response, after redirects."""
        self.follow()
        return self.response

    @page.setter
    def page(self, response: httpx2.Response) -> None:
        self.response, self.waiting = response, None

    def follow(self) -> None:
        """Load the page that the last response redirects to, if one waits."""
        if self.waiting is not None:
            before, self.page = self.response, self.http.send(self.waiting)
            self.response.history.insert(0, before)

    def open(self, path: str) -> Browser:
        self.page = self.http.get(path)
        return self

    @property
    def forms(self) -> list[Form]:
        reader = FormReader()
        reader.feed(self.page.text)
        return reader.forms

    def form(self, having: str) -> Form:
        """The form with a field or button of this name."""
        for form in self.forms:
            if having in form.fields or having in [b[0] for b in form.buttons]:
                return form
        raise AssertionError(f"no form with {having} on {self.page.url}")

    def submit(self, form: Form, button: str = "", **changed: Any) -> Self:
        """Fill fields (None: empty it) and press a button."""
        sent = {**form.fields, **changed}
        sent = {name: value for name, value in sent.items() if value is not None}
        if button:
            sent[button] = next(b[1] for b in form.buttons if b[0] == button)
        target = urljoin(str(self.page.url), form.action)
        headers = {"referer": str(self.page.url)}
        return self.show(
            self.http.request(
                form.method.upper(),
                target,
                data=sent,
                headers=headers,
                follow_redirects=False,
            )
        )

    def show(self, response: httpx2.Response) -> Self:
        """Follow its redirect, or wait until a test reads the page."""
        self.response, following = response, response.next_request
        if self.http.follow_redirects and following is not None:
            self.waiting = following
            if not following.url.path.startswith("/admin/"):
                self.follow()
        return self

    def sign_in(self, username: str, password: str = PASSWORD) -> Browser:
        """On the sign-in page, to a page of the admin."""
        self.open(f"/admin/login/?next={CHEAP}")
        self.submit(self.form("password"), login=username, password=password)
        return self

    def save(self, path: str, **changed: Any) -> Browser:
        """Change a row through its admin form."""
        self.open(path)
        assert self.page.status_code == 200, f"{path}: {self.page.status_code}"
        self.submit(self.form("_save"), "_save", **changed)
        # The text of a redirect is empty.
        if "errornote" in self.response.text:
            start = self.response.text.index("errornote")
            raise AssertionError(self.response.text[start : start + 2000])
        return self

    def act(
        self,
        path: str,
        action: str,
        *keys: Any,
        everything: bool = False,
        confirm: bool = True,
    ) -> Browser:
        """Run an action on rows of a list page, and confirm if asked."""
        self.open(path)
        form = self.form("action")
        chosen: Fields = {
            "action": action,
            "_selected_action": [str(key) for key in keys],
        }
        if everything:
            chosen["select_across"] = "1"
        self.submit(form, **chosen)
        forms = [form for form in self.forms if "confirmed" in form.fields]
        if forms and confirm:
            again = forms[0]
            again.fields["_selected_action"] = chosen["_selected_action"]
            self.submit(again)
        return self
