"""The admin in process: the Browser of plain forms on Django's test client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import httpx2
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEvent, IssuedToken, User
from tests.support.html_browser import CHEAP, Browser
from tests.support.model_rows import token_row
from tests.support.users import account, browser_of


@dataclass
class Page:
    """A response, with the names of an HTTP client's."""

    url: str
    status_code: int
    text: str
    next_request: httpx2.Request | None = None
    """Where it redirects to."""
    history: list[Page] = field(default_factory=list)


class InProcess:
    """The methods of an HTTP client that Browser calls."""

    follow_redirects = True

    def __init__(self, user: User) -> None:
        self.client = browser_of(user)

    def get(self, path: str) -> Page:
        page = self.request("GET", path)
        return self.send(page.next_request) if page.next_request else page

    def send(self, request: httpx2.Request) -> Page:
        return self.get(request.url.raw_path.decode())

    def request(self, method: str, path: str, data: Any = None, **kwargs: Any) -> Page:
        """Without following a redirect."""
        answer = getattr(self.client, method.lower())(path, data or {})
        page = Page(path, answer.status_code, answer.getvalue().decode())
        if "location" in answer.headers:
            target = urljoin(f"http://testserver{path}", answer.headers["location"])
            page.next_request = httpx2.Request("GET", target)
        return page


class AdminBrowser(Browser):
    """A browser in which `user` is signed in."""

    def __init__(self, user: User) -> None:
        self.user, self.http = user, InProcess(user)  # type: ignore[assignment]
        self.response = Page("/", 200, "")  # type: ignore[assignment]

    def run(self, model: Any, action: str, *rows: Any, **fields: Any) -> str:
        """Post a confirmed action for these rows; returns the text of the page."""
        sent = confirmed(action, rows, **fields)
        self.show(self.http.request("POST", list_url(model), data=sent))
        return str(self.page.text)

    def send(self, model: Any, action: str, *rows: Any) -> int:
        """Post a confirmed action, whether offered or not; returns the status."""
        client: Any = self.http.client  # type: ignore[attr-defined]
        return int(client.post(list_url(model), confirmed(action, rows)).status_code)

    def post(self, path: str, **fields: Any) -> Page:
        """Post these fields, whether or not a page offers a form for them."""
        self.show(self.http.request("POST", path, data=fields))
        return self.page  # type: ignore[return-value]

    def refused_save(self, path: str, **changed: Any) -> str:
        """The text of a form that is shown again with errors."""
        self.open(path)
        self.submit(self.form("_save"), "_save", **changed)
        assert "errornote" in self.response.text, "the form was saved"
        return str(self.response.text)

    def still_signed_in(self) -> bool:
        return str(self.open(CHEAP).page.url) == CHEAP

    def delete(self, model: Any, row: Any) -> Page:
        """Confirm the deletion of one row."""
        return self.post(row_url(model, row, "delete"), post="yes")


def confirmed(action: str, rows: Any, **fields: Any) -> dict[str, Any]:
    """The fields of an action on these rows, with both kinds of confirmation."""
    keys = [str(getattr(row, "pk", row)) for row in rows]
    sent = {"action": action, "_selected_action": keys, "confirmed": "yes"}
    return {**sent, "post": "yes", **fields}


def list_url(model: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def row_url(model: Any, row: Any, page: str = "change") -> str:
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"
    return reverse(name, args=[getattr(row, "pk", row)])


def staff_member(
    name: str, *codenames: str, roles: tuple[str, ...] = (), superuser: bool = False
) -> User:
    """A member of staff with exactly these permissions and roles."""
    user = account(name, *roles, is_staff=True, is_superuser=superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    assert user.user_permissions.count() == len(codenames)
    return user


def add_token(user: User, **columns: Any) -> IssuedToken:
    """The row of a live access token; nothing is signed."""
    return token_row(user, **{"issued_via": "password", **columns})


def signed_in(browser: Client) -> bool:
    return browser.get("/portal/").status_code == 200


def is_live(token: IssuedToken) -> bool:
    return IssuedToken.objects.live().filter(pk=token.pk).exists()


def events_by(actor: User) -> list[tuple[str, str, str]]:
    """(action, object, reason) of what this user did in the admin, oldest first."""
    rows = AuditEvent.objects.filter(actor=actor.username, actor_id=actor.pk)
    rows = rows.exclude(action__startswith="user.signed_").order_by("id")
    assert set(rows.values_list("address", flat=True)) <= {"127.0.0.1"}
    return list(rows.values_list("action", "object", "reason"))


def newest_event(action: str) -> AuditEvent:
    return AuditEvent.objects.filter(action=action).order_by("-id")[:1].get()
