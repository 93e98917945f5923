"""What each change at /api/v1/ answers and records, compared with `outlines/changes/`.

A superuser sends each line; what succeeds, somebody sends who has every permission but
fewer roles. After an intended change, write the files again with `NEW_OUTLINES=1`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core import mail
from django.db import transaction
from django.test import Client

from accounts.admin.notifications import channels
from accounts.models import (
    AccessRequest,
    Delivery,
    DocumentHost,
    Invitation,
    IssuedToken,
    NotificationChannel,
    OAuthClient,
    Role,
    RoleAssignment,
    Scope,
    SignInProvider,
    User,
)
from mcp_bridge.models import Primitive, UpstreamServer
from mcp_bridge.upstreams import discovery
from mcp_bridge.upstreams.problems import UpstreamProblem
from tests.support.admin_api import Caller, member_of
from tests.support.admin_scene import set_scene
from tests.support.answer_outline import events_since, newest_event
from tests.support.outlines import compare
from tests.support.page_outline import steady

pytestmark = pytest.mark.django_db
FOLDER = Path(__file__).parent / "outlines" / "changes"
ROWS: dict[str, tuple[Any, str]] = {
    "access": (Primitive, "name"),
    "access-requests": (AccessRequest, "user__username role__name state"),
    "assignments": (RoleAssignment, "user__username role__name"),
    "channels": (NotificationChannel, "name"),
    "clients": (OAuthClient, "client_id"),
    "deliveries": (Delivery, "state"),
    "document-hosts": (DocumentHost, "host"),
    "invitations": (Invitation, "user__username"),
    "people": (User, "username"),
    "providers": (SignInProvider, "slug"),
    "roles": (Role, "name"),
    "scopes": (Scope, "name"),
    "tokens": (IssuedToken, "name"),
    "tools": (Primitive, "name"),
    "upstreams": (UpstreamServer, "name"),
}
"""List -> its model, and the columns whose values, with +, name a row in a line."""
LINES = (Path(__file__).parent / "api_changes.txt").read_text().splitlines()
"""Method, path and body; `=pay` and `@tools/pay` are the keys of rows."""
SHOWN = ("ETag", "WWW-Authenticate")


def key_of(name: str) -> Any:
    """The key of a row, such as people/carol."""
    kind, _slash, values = name.partition("/")
    model, columns = ROWS[kind]
    wanted = dict(zip(columns.split(), values.split("+"), strict=True))
    row = model.objects.filter(**wanted).order_by("pk").first()
    assert row is not None, name
    return row.jti if kind == "tokens" else row.pk


def path_of(path: str) -> str:
    """With keys instead of the names of rows, which are after `=`."""
    kind, _slash, rest = path.partition("/=")
    name, _slash, rest = rest.partition("/")
    return f"{kind}/{key_of(f'{kind}/{name}')}/{rest}" if name else path


def body_of(text: str, caller: Caller) -> str:
    """The body, with the version that a review of the matrix gives now."""
    keyed = re.sub(r'"@([^"]+)"', lambda found: str(key_of(found[1])), text)
    if '"version": "now"' not in keyed:
        return keyed
    review = caller.post("access/review/", {"changes": json.loads(keyed)["changes"]})
    return keyed.replace('"now"', json.dumps(review.json().get("version", "x")))


def done(caller: Caller, line: str) -> tuple[bool, str]:
    """Whether it succeeded; the answer, mails and events. Nothing is kept."""
    verb, path, text = f"{line}  ".split(" ", 2)
    before, last = transaction.savepoint(), newest_event()
    answer = caller.send(verb, path_of(path), body_of(text.strip(), caller))
    content = answer.content.decode()
    data = json.dumps(json.loads(content), sort_keys=True) if content else ""
    headers = [name for name in SHOWN if name in answer.headers]
    sent = [f"mail {one.to} {one.subject}: {one.body}" for one in mail.outbox]
    mail.outbox.clear()
    first = " ".join([str(answer.status_code), *headers])
    lines = [first, *data.split("}, {"), *sent, *events_since(last)]
    transaction.savepoint_rollback(before)
    return answer.status_code < 300, "".join(f"    {steady(one)}\n" for one in lines)


def operations() -> set[str]:
    """Every change that the API's document has, without keys."""
    paths = yaml.safe_load(Client().get("/api/schema/").content)["paths"]
    return {
        f"{verb.upper()} {re.sub('{[a-z]+}', 'KEY', path.removeprefix('/api/v1/'))}"
        for path, verbs in paths.items()
        for verb in verbs
        if verb != "get" and path.startswith("/api/v1/")
    }


@pytest.fixture
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server answers, but each receiver of notifications does."""

    def look(*_server: Any, **_options: Any) -> Any:
        raise UpstreamProblem("unreachable", "mcp.example does not answer.")

    counts = {"added": 1, "changed": 0, "vanished": 0, "returned": 0}
    monkeypatch.setattr(discovery, "look", look)
    monkeypatch.setattr(discovery, "discover", lambda server: counts)
    sent = Delivery(state="delivered", result="HTTP 200")
    monkeypatch.setattr(channels, "send_test", lambda channel: sent)


def set_api_scene(settings: Any) -> None:
    settings.LIMIT_API = "off"
    set_scene()
    User.objects.update(password="set")
    tool = Primitive.objects.create(
        kind="tool",
        name="sum",
        state="changed",
        definition="d" * 64,
        accepted={"name": "sum"},
        offered={"name": "sum", "description": "Adds.", "inputSchema": {}},
    )
    tool.required_scopes.set([Scope.objects.create(name="tool:sum")])
    Primitive.objects.create(kind="tool", name="avg", definition="a" * 64)
    bill = User.objects.create(username="bill", password="!", email="b@example.org")
    Invitation.objects.issue(bill, actor="carol")


@pytest.mark.usefixtures("without_network")
def test_changes_do_what_they_did(settings: Any) -> None:
    set_api_scene(settings)
    root = Caller(member_of("superuser", "root"))
    mallory = Caller(User.objects.get(username="mallory"))
    found, succeeded = dict[str, str](), set[str]()
    for line in filter(None, LINES):
        good, text = done(root, line)
        text = f"{line}\n  root\n{text}"
        if good:
            succeeded.add(re.sub(r"=[^/]+", "KEY", " ".join(line.split()[:2])))
            text += f"  mallory\n{done(mallory, line)[1]}"
        file = line.split()[1].split("/")[0] + ".txt"
        found[file] = found.get(file, "") + text
    compare(found, FOLDER)
    assert operations() <= succeeded
