"""Portal pages about MCP: each person sees the own rights and refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import (
    AuditEvent,
    OAuthClient,
    Role,
    RoleAssignment,
    Scope,
    User,
)
from mcp_bridge.access.decision import Reason
from mcp_bridge.models import Primitive
from mcp_bridge.portal.views import refusal_in_words
from tests.support.model_rows import token_row
from tests.support.page_tables import rows_on
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
HOME, CONNECT, STATUS = "/portal/", "/portal/connect/", "/portal/connect/status"
NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def static_files(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


@pytest.fixture
def alice() -> User:
    return account("alice", "User")


@pytest.fixture
def bob() -> User:
    return account("bob", "Guest")


def event(actor: User, decision: str = "allowed", **columns: Any) -> AuditEvent:
    values = {"action": "tool.called", "object": "tool look", "at": NOW} | columns
    whose = {"actor": actor.username, "actor_id": actor.pk, "decision": decision}
    row = AuditEvent(**whose | values)
    row.save()
    return row


@pytest.mark.parametrize("path", [HOME, CONNECT, STATUS])
def test_every_page_needs_a_sign_in_and_is_not_cached(alice: User, path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 302 and answer["Location"].endswith(f"?next={path}")
    answer = browser_of(alice).get(path)
    assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]
    assert browser_of(alice).post(path).status_code == 405


# ---------------------------------------------------------------------- connect


def test_the_set_up_names_the_endpoint_and_the_present(
    alice: User, settings: Any
) -> None:
    settings.RESOURCE_URL = "https://portico.example/mcp"
    before = int(timezone.now().timestamp())
    answer = browser_of(alice).get(CONNECT)
    context: Any = answer.context
    assert context["url"] == "https://portico.example/mcp"
    shown = [snippet for snippet, _used in context["snippets"]]
    assert len(shown) == 14
    assert all("portico.example/mcp" in s.sign_in + s.with_token for s in shown)
    assert before <= context["since"] <= int(timezone.now().timestamp())
    assert 'id="claude" open' in answer.content.decode()


def test_each_client_shows_when_it_was_last_used(alice: User, bob: User) -> None:
    """The client used last is open; clients of others do not count."""
    now = timezone.now()
    for client_id, name in (
        *(("a", "Codex"), ("b", "goose"), ("c", "Other")),
        *(("0", "Codex"), ("d", "Codex")),
    ):
        OAuthClient.objects.create(client_id=client_id, name=name, client_type="public")
    for user, client_id, minutes in (
        (alice, "a", 90),
        (alice, "a", 125),
        (alice, "0", 200),
        (alice, "d", 200),
        (alice, "b", 3),
        (alice, "c", 1),
        (alice, "portico", 1),
        (bob, "a", 1),
    ):
        used = now - timedelta(minutes=minutes, seconds=5)
        token_row(user, client_id=client_id, last_used_at=used)
    token_row(alice, client_id="a")
    answer = browser_of(alice).get(CONNECT)
    found = {s.slug: used for s, used in answer.context["snippets"] if used}
    assert found.keys() == {"codex", "goose"}
    assert found["codex"] == now - timedelta(minutes=90, seconds=5)
    text = answer.content.decode().replace("\xa0", " ")
    assert "last used 3 minutes ago" in text and "last used an hour ago" in text
    assert 'id="goose" open' in text and 'id="claude" open' not in text


def status(user: User, since: str | None = None) -> Any:
    query = {} if since is None else {"since": since}
    return browser_of(user).get(STATUS, query).json()


NOTHING = {"connected": False, "what": ""}
STAMP = str(int(NOW.timestamp()))


def test_the_first_allowed_call_connects(alice: User) -> None:
    assert status(alice, STAMP) == NOTHING
    event(alice)
    assert status(alice, STAMP) == {"connected": True, "what": "tool look"}
    event(alice, object="tool newest", at=NOW + timedelta(seconds=1))
    assert status(alice, STAMP)["what"] == "tool newest"


@pytest.mark.parametrize(
    ("client_id", "name"),
    [("c1", ": Editor"), ("c2", ": c2"), ("portico", " with a token")],
)
def test_the_set_up_names_the_client_of_the_last_call(
    alice: User, client_id: str, name: str
) -> None:
    """Whoever has called before does not wait for a first call."""
    waiting = "Not connected yet."
    assert waiting in browser_of(alice).get(CONNECT).content.decode()
    OAuthClient.objects.create(client_id="c1", name="Editor", client_type="public")
    at = timezone.now() - timedelta(minutes=2, seconds=5)
    event(alice, at=at - timedelta(days=9), client_id="c1", object="tool old")
    event(alice, at=at, client_id=client_id)
    text = browser_of(alice).get(CONNECT).content.decode().replace("\xa0", " ")
    assert f"Connected{name}, last call 2 minutes ago (tool look)" in text
    assert waiting not in text


def test_calls_before_or_of_others_or_denied_connect_nothing(
    alice: User, bob: User
) -> None:
    event(alice, at=NOW - timedelta(seconds=1))
    event(alice, "denied")
    event(alice, "")
    event(bob)
    event(alice, actor_id=alice.pk + 1000)  # of an earlier alice
    assert status(alice, STAMP) == NOTHING


@pytest.mark.parametrize("since", [None, "", "x", "-1", "1.5", "1" * 12, "²"])
def test_an_invalid_time_counts_every_call(alice: User, since: str | None) -> None:
    event(alice, at=datetime(1999, 1, 1, tzinfo=UTC))
    assert status(alice, since)["connected"]


def test_the_latest_time_that_fits_is_accepted(alice: User) -> None:
    event(alice)
    assert status(alice, "9" * 11) == NOTHING


# ------------------------------------------------------------------------- home


@pytest.fixture
def tools() -> None:
    """One of each state; the role User grants Use and tool:own."""
    Primitive.objects.all().delete()
    scopes = {n: Scope.objects.create(name=n) for n in ("Use", "Hide", "tool:secret")}
    Role.objects.get(name="User").scopes.add(scopes["Use"], scopes["tool:secret"])
    for name, scope, columns in (
        ("usable", "Use", {"description": "Sells soap.\n\nNever twice."}),
        ("secret", "tool:secret", {"sensitive": True}),
        ("hidden", "Hide", {}),
        ("disabled", "Use", {"enabled": False}),
    ):
        row = Primitive.objects.create(kind="tool", name=name, **columns)
        row.required_scopes.set([scopes[scope]])


@pytest.mark.usefixtures("tools")
def test_the_list_shows_what_the_person_may_use(alice: User, bob: User) -> None:
    """A sensitive tool too: a client can ask for it."""
    context: Any = browser_of(alice).get(HOME).context
    assert [(rule.name, str(kind), text) for rule, kind, text in context["rules"]] == [
        ("secret", "tool", ""),
        ("usable", "tool", "Sells soap."),
    ]
    assert context["roles"] == ("User",)
    context = browser_of(bob).get(HOME).context
    assert (context["rules"], context["roles"]) == ([], ("Guest",))


def test_the_list_is_by_kind_then_by_name(alice: User) -> None:
    """Not in the order in which the apps were loaded."""
    Primitive.objects.all().delete()
    scope = Role.objects.get(name="User").scopes.all()[0]
    for kind, name in (("prompt", "a"), ("tool", "c"), ("resource", "a:x")):
        Primitive.objects.create(kind=kind, name=name).required_scopes.add(scope)
    Primitive.objects.create(kind="tool", name="b").required_scopes.add(scope)
    context: Any = browser_of(alice).get(HOME).context
    names = [rule.name for rule, _kind, _text in context["rules"]]
    assert names == ["b", "c", "a:x", "a"]


@pytest.mark.usefixtures("tools")
def test_an_expired_role_shows_nothing(alice: User) -> None:
    past = timezone.now() - timedelta(seconds=1)
    RoleAssignment.objects.filter(user=alice).update(expires_at=past)
    context: Any = browser_of(alice).get(HOME).context
    assert (context["rules"], context["roles"]) == ([], ())


def test_the_ten_newest_own_refusals_are_shown(alice: User, bob: User) -> None:
    """Each object once."""
    for number in (*range(12), 11, 10, 11):
        when = NOW + timedelta(seconds=number)
        event(alice, "denied", object=f"tool {number}", at=when)
    later = {"object": "no tool of alice", "at": NOW + timedelta(hours=1)}
    event(bob, "denied", **later)
    event(alice, "denied", actor_id=alice.pk + 1000, **later)  # an earlier alice
    event(alice, "allowed", object="tool allowed", at=NOW + timedelta(hours=1))
    context: Any = browser_of(alice).get(HOME).context
    shown = [found.object for found, _words in context["refusals"]]
    assert shown == [f"tool {number}" for number in range(11, 1, -1)]


def test_a_refusal_is_the_newest_of_its_object_and_reason(alice: User) -> None:
    """An older one of another reason is shown too, below it."""
    for seconds, reason in enumerate(["role", "malformed", "role", "role"]):
        when = NOW + timedelta(seconds=seconds)
        event(alice, "denied", reason=reason, at=when)
    context: Any = browser_of(alice).get(HOME).context
    found = [(shown.reason, shown.at) for shown, _words in context["refusals"]]
    assert found == [
        ("role", NOW + timedelta(seconds=3)),
        ("malformed", NOW + timedelta(seconds=1)),
    ]
    words = [text for _shown, text in context["refusals"]]
    assert words == [VAGUE, "The message was invalid."]


def test_refusals_are_of_the_newest_hundred_messages(alice: User) -> None:
    old = {"object": "tool old", "at": NOW - timedelta(days=1)}
    event(alice, "denied", **old)
    for _ in range(99):
        event(alice, "denied")
    context: Any = browser_of(alice).get(HOME).context
    shown = [found.object for found, _words in context["refusals"]]
    assert shown == ["tool look", "tool old"]
    event(alice, "denied")
    context = browser_of(alice).get(HOME).context
    shown = [found.object for found, _words in context["refusals"]]
    assert shown == ["tool look"]


def test_each_primitive_has_the_first_paragraph_of_its_own_text(alice: User) -> None:
    """Names are unique within a kind only."""
    Primitive.objects.all().delete()
    scope = Role.objects.get(name="User").scopes.all()[0]
    for kind, text in (
        ("tool", "\n\nTwo\nlines.\n\nMore.\n\nEnd."),
        ("resource", ""),
        ("prompt", "Another."),
    ):
        row = Primitive.objects.create(kind=kind, name="same", description=text)
        row.required_scopes.add(scope)
    context: Any = browser_of(alice).get(HOME).context
    assert [(str(kind), text) for _rule, kind, text in context["rules"]] == [
        ("tool", "Two\nlines."),
        ("resource", ""),
        ("prompt", "Another."),
    ]


def test_names_of_outsiders_are_text(alice: User) -> None:
    event(alice, "denied", object="tool <script>")
    page = browser_of(alice).get(HOME).content.decode()
    assert "tool &lt;script&gt;" in page and "tool <script>" not in page


VAGUE = "Your roles do not include this. Request a role under My access."


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_reveals_no_hidden_primitive(reason: Reason) -> None:
    """Unknown, disabled and not granted sound the same."""
    via = "sensitive; the token includes none of Use"
    words = refusal_in_words(AuditEvent(reason=str(reason), via=via))
    expected = {
        Reason.TOKEN_LACKS_SCOPE: f"The token lacks a required scope: {via}.",
        Reason.UNKNOWN_METHOD: "The message was invalid.",
        Reason.MALFORMED: "The message was invalid.",
    }
    assert words == expected.get(reason, VAGUE)


@pytest.mark.usefixtures("tools")
def test_each_tool_has_its_marks(alice: User) -> None:
    page = browser_of(alice).get(HOME).content.decode()
    rows = rows_on(page, "Name", "Description")
    approval = "Sensitive: needs extra approval when you connect"
    assert [list(row.values()) for row in rows] == [
        ["secret tool", f"- {approval}"],
        ["usable tool", "Sells soap."],
    ]
    assert 'href="/portal/tools/?name=usable"' in page and "My roles: User" in page
    assert "paused until" not in page and "No recent denials." in page
