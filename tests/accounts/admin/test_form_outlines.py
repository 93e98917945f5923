"""What forms of the admin with entered values answer, send and record.

After an intended change, write the files again and read the difference:
`NEW_OUTLINES=1 .venv/bin/python -m pytest tests/accounts/admin/test_form_outlines.py`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.http import QueryDict
from django.test import Client

from accounts.models import IssuedToken, NotificationChannel, Role, User
from mcp_bridge.access.matrix.cells import Matrix
from mcp_bridge.admin.access_matrix import parse_view
from mcp_bridge.models import Primitive
from tests.support.admin_browser import row_url
from tests.support.admin_scene import superuser_of_scene
from tests.support.answer_outline import answer_outline, newest_event
from tests.support.html_browser import FormReader
from tests.support.outlines import compare
from tests.support.page_outline import address
from tests.support.users import browser_of

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.once,
    pytest.mark.usefixtures("no_internet", "without_upstream_servers"),
]
OUTLINES = Path(__file__).parent / "outlines"
SITE: Any = admin.site
PAGES = sorted(SITE._registry.values(), key=lambda page: page.opts.label)


TEXTS = set("name title description reason first_name text origin".split())
"""Fields that a changed form changes."""
USERS = (
    "username,first_name,roles\nbert,<b>B</b>,User\nnew,N,Guest@2030-01-01\n",
    "username,email,roles\nbert,b<>@example.com,User\nnew,n@example.com,Guest@2030-01-01\n",
    "username,roles\nbert,Nothing\nbert,User\n,User\n",
    "username\nbert\n",
    "nothing\nx\n",
)
POLICIES: tuple[dict[str, Any], ...] = (
    {"scopes": [{"name": "New.Read", "description": "<b>new</b>"}]},
    {"scopes": [{"name": "Bare"}], "roles": [{"name": "Bare"}]},
    {"roles": [{"name": "Guest", "description": "seen", "scopes": ["mcp"]}]},
    {"roles": [{"name": "Guest", "scopes": ["No.Such"]}]},
    {},
)


@pytest.fixture(autouse=True)
def unguarded_hashing(settings: Any) -> None:
    """The guard of tests refuses Argon2 in a transaction, as `nothing_kept` opens."""
    other = "django.contrib.auth.hashers.MD5PasswordHasher"
    settings.PASSWORD_HASHERS = [other, *settings.PASSWORD_HASHERS]


@contextmanager
def nothing_kept(browser: Client) -> Iterator[None]:
    cookies: Any = browser.cookies.copy()
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    browser.cookies = cookies


def run(browser: Client, path: str, sent: dict[str, Any]) -> str:
    """The page that an action answers, or its results."""
    with nothing_kept(browser):
        last = newest_event()
        return answer_outline(browser.post(path, sent), last)
    raise AssertionError


@pytest.fixture
def root() -> User:
    return superuser_of_scene()


def filled(browser: Client, path: str) -> dict[str, Any]:
    """The fields of a form, with changed texts."""
    reader = FormReader()
    reader.feed(browser.get(path).content.decode())
    forms = [one for one in reader.forms if any(b[0] == "_save" for b in one.buttons)]
    fields = dict(forms[0].fields) if forms else {}
    for name in TEXTS & {*fields}:
        fields[name] = f"{fields[name]}2"
    sent = {name: value for name, value in fields.items() if value is not None}
    return {**sent, "_save": "1"}


def test_changed_forms_do_what_they_did(root: User) -> None:
    """The last row of each list with changed texts, and without values."""
    browser, shown = browser_of(root), {}
    for page in PAGES:
        row = page.model._default_manager.exclude(pk=root.pk).order_by("-pk")[0]
        path = row_url(page.model, row)
        with nothing_kept(browser):
            sent = filled(browser, path)
        changed, emptied = run(browser, path, sent), run(browser, path, {"_save": "1"})
        parts = f"# changed\n{changed}\n# without values\n{emptied}"
        shown[f"{page.opts.app_label}_{page.opts.object_name}.txt"] = parts
    compare(shown, OUTLINES / "forms")


Task = tuple[str, dict[str, Any]]
"""(path, fields) of a page that has no list."""
Tasks = Callable[[], Iterator[Task]]


def invitations_and_imports() -> Iterator[Task]:
    guest = Role.objects.get(name="Guest").pk
    dana = {"username": "dana", "first_name": "D", "email": "d@example.com"}
    yield "users/invite/", {}
    yield "users/invite/", {"username": "carol"}
    yield "users/invite/", {**dana, "roles": [guest], "until_0": "none"}
    for text in USERS:
        yield "users/import/", {"file": SimpleUploadedFile("u.csv", text.encode())}
    for data in POLICIES:
        raw = json.dumps({"format": "portico-policy-1", **data}).encode()
        yield "policy/", {"file": SimpleUploadedFile("p.json", raw)}


def people() -> Iterator[Task]:
    for name in ("carol", "bert"):
        person = {"person": User.objects.get(username=name).pk}
        for more in ({}, {"deactivate": "yes"}, {"reason": "left"}):
            yield "users/end-access/", {**person, **more}
    bert = User.objects.get(username="bert").pk
    for role in Role.objects.filter(name__in=("Guest", "Office")).order_by("name"):
        change = {"user": bert, "role": role.pk, "reason": "asked"}
        for until in ("8h", "none", "until", "x"):
            yield "users/role/", {**change, "until_0": until}
        yield "users/role/", {**change, "extend": "yes", "until_0": "2d"}
        yield "users/role/", {**change, "end": "yes"}
    password = {"password1": "a long phrase 7", "usable_password": "true"}
    for second in ("a long phrase 7", "other"):
        sent = {**password, "password2": second}
        yield f"accounts/user/{bert}/password/", sent


def access() -> Iterator[Task]:
    tools = {name: Primitive.objects.get(name=name).pk for name in ("pay", "open")}
    roles = Role.objects.filter(name__in=("Guest", "Office")).order_by("name")
    yield "access/check/", {"token": "nonsense"}
    for token in IssuedToken.objects.order_by("pk"):
        yield "access/check/", {"token": token.jti, "primitive": tools["pay"]}
    for name, arguments in product(("carol", "alice", "nobody"), ('{"a": 7}', "[")):
        sent = {"user": name, "primitive": tools["pay"], "arguments": arguments}
        yield "access/check/", sent
    view = parse_view(QueryDict(""))
    version = Matrix(view.primitives, view.roles).version
    on = [f"{role.pk}-{tool}" for role in roles for tool in tools.values()]
    yield "access/matrix/", {"version": version, "on": on}
    yield "definitions/", {"selected": "1"}
    yield "definitions/", {"reject": "1", "reason": "no"}


def others() -> Iterator[Task]:
    views = {"name": "mine", "query": "actor=carol", "shared": "on"}
    channel = NotificationChannel.objects.order_by("pk")[0].pk
    yield "accounts/auditevent/verify/", {}
    yield "accounts/auditevent/views/", views
    yield "accounts/auditevent/views/", {**views, "name": ""}
    yield "accounts/auditevent/views/", {"drop": "1"}
    yield "accounts/signingkey/rotate/", {}
    yield f"accounts/notificationchannel/{channel}/test/", {"_test": "1"}
    yield "first-steps/", {}


@pytest.mark.parametrize(
    "tasks",
    [invitations_and_imports, people, access, others],
    ids=lambda tasks: tasks.__name__,
)
def test_pages_do_what_they_did(
    root: User, tasks: Callable[[], Iterator[Task]]
) -> None:
    browser, parts = browser_of(root), list[str]()
    for path, sent in tasks():
        words = " ".join(f"{k}={v}" for k, v in sent.items() if isinstance(v, str))
        answer = run(browser, f"/admin/{path}", sent)
        parts.append(f"# {address(f'{path} {words}')}\n{answer}")
    name = tasks.__name__
    compare({f"{name}.txt": "\n".join(parts)}, OUTLINES / "tasks" / name)
