"""A tool's page, and a token that calls this tool only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from accounts.errors import InvalidGrant
from accounts.models import AuditEvent, IssuedToken, Role, Scope, User
from accounts.tokens.principal import verify_access
from mcp_bridge.models import ArgumentRule, Offer, Primitive
from mcp_bridge.portal import try_tool
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
TOOLS = "/portal/tools/"
SCHEMA = {
    "type": "object",
    "properties": {"amount": {"type": "integer", "description": "In euros."}},
    "required": ["amount"],
}


@pytest.fixture(autouse=True)
def tools(settings: Any) -> None:
    """`refund` needs User.Write or its own scope, `rule` another role's scope."""
    settings.STORAGES = UNCOLLECTED
    Primitive.objects.all().delete()
    shown = {"name": "refund", "description": "Give back.", "inputSchema": SCHEMA}
    offers = [
        Offer("tool", "refund", "", "", ("User.Write",), False, "1", shown),
        Offer("tool", "rule", "", "", ("Admin.Write",), False, "2"),
        Offer("prompt", "greet", "", "", ("User.Write",), False, "3"),
    ]
    Primitive.objects.sync(offers)


@pytest.fixture
def alice() -> User:
    return account("alice", "User")


def page(user: User, name: str) -> Any:
    return browser_of(user).get(TOOLS, {"name": name})


def token(user: User, name: str) -> Any:
    return browser_of(user).post(TOOLS, {"tool": name})


def test_the_page_shows_the_documentation_and_the_arguments(alice: User) -> None:
    answer = page(alice, "refund")
    text = answer.content.decode()
    assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]
    assert "Give back." in text and "In euros." in text
    (field,) = answer.context["fields"]
    assert (field.name, field.kind, field.required) == ("amount", "number", True)
    assert f'id="{field.id}"' in text and " required" in text
    home = browser_of(alice).get("/portal/").content.decode()
    assert f'href="{TOOLS}?name=refund"' in home and "?name=greet" not in home


def test_limits_of_the_role_are_in_the_form(alice: User) -> None:
    row = Primitive.objects.get(name="refund")
    rule = {"pointer": "/amount", "operator": "one_of", "value": [5, 10]}
    ArgumentRule.objects.create(primitive=row, **rule)
    (field,) = page(alice, "refund").context["fields"]
    assert (field.kind, field.choices) == ("choice", ("5", "10"))


@pytest.mark.parametrize("name", ["rule", "nope", "greet", "", "x\x00", "x" * 999])
def test_what_is_not_ones_own_does_not_exist(alice: User, name: str) -> None:
    assert page(alice, name).status_code == 404
    assert token(alice, name).status_code == 404
    assert not IssuedToken.objects.exists()


@pytest.mark.parametrize("change", [{"enabled": False}, {"state": "held"}])
def test_what_nobody_may_use_does_not_exist(alice: User, change: Any) -> None:
    Primitive.objects.filter(name="refund").update(**change)
    assert (
        page(alice, "refund").status_code == token(alice, "refund").status_code == 404
    )


@pytest.mark.parametrize("own", [False, True])
def test_a_token_is_short_and_for_this_tool(alice: User, own: bool) -> None:
    """Its own scope if a role has it; else the scope that gives access."""
    if own:
        scope = Scope.objects.get(name="tool:refund")
        Role.objects.get(name="User").scopes.add(scope)
    answer = token(alice, "refund")
    assert answer.status_code == 200 and answer.json()["expires_in"] == 300
    assert "no-store" in answer["Cache-Control"]
    row = IssuedToken.objects.get()
    wanted = "tool:refund" if own else "User.Write"
    assert (row.user, row.scope, row.issued_via) == (alice, wanted, "portal")
    assert row.expires_at - row.issued_at == timedelta(minutes=5)
    assert row.issued_to == "127.0.0.1"
    assert verify_access(answer.json()["token"])["jti"] == row.jti
    event = AuditEvent.objects.get(action="token.issued")
    assert (event.actor, event.token_id) == ("alice", row.jti)


SHOWN = {"title": "Refund!", "description": "Accepted.", "inputSchema": SCHEMA}


@pytest.mark.parametrize(
    ("columns", "title", "description", "names"),
    [
        ({"accepted": SHOWN}, "Refund!", "Accepted.", ["amount"]),
        ({"accepted": SHOWN, "offered": {}}, "Refund!", "Accepted.", ["amount"]),
        (
            {"accepted": SHOWN, "offered": {"title": "New", "description": "New."}},
            "Refund!",
            "Accepted.",
            ["amount"],
        ),
        ({"accepted": None, "offered": SHOWN}, "Refund!", "Accepted.", ["amount"]),
        ({"accepted": None, "offered": None}, "Of the row", "Its text.", []),
        ({"accepted": {"inputSchema": None}}, "Of the row", "Its text.", []),
        ({"accepted": None, "offered": None, "title": ""}, "refund", "Its text.", []),
    ],
    ids=["accepted", "no-offer", "newer", "offered", "none", "bare", "untitled"],
)
def test_the_page_is_about_the_definition_that_clients_see(
    alice: User, columns: Any, title: str, description: str, names: list[str]
) -> None:
    """What is accepted, else what is offered, else the columns."""
    told = {"title": "Of the row", "description": "Its text.", **columns}
    Primitive.objects.filter(name="refund").update(**told)
    context = page(alice, "refund").context
    assert (context["title"], context["description"]) == (title, description)
    assert [field.name for field in context["fields"]] == names
    assert context["rule"].name == "refund"


def test_the_page_calls_the_endpoint_of_this_deployment(
    alice: User, settings: Any
) -> None:
    settings.RESOURCE_URL = "https://portico.example/mcp"
    text = page(alice, "refund").content.decode()
    assert 'data-mcp="https://portico.example/mcp" data-tool="refund"' in text


@pytest.mark.parametrize(
    ("granted", "scope"),
    [
        (["b", "c"], "b"),
        (["c", "b"], "b"),
        (["c"], "c"),
        (["b", "tool:refund"], "tool:refund"),
    ],
)
def test_a_token_has_the_first_scope_that_its_user_holds(
    alice: User, granted: list[str], scope: str
) -> None:
    """A required scope that no role of the user grants is not asked for."""
    row = Primitive.objects.get(name="refund")
    made = {n: Scope.objects.get_or_create(name=n)[0] for n in ["a", "z", *granted]}
    row.required_scopes.set(made.values())
    Role.objects.get(name="User").scopes.set([made[name] for name in granted])
    assert token(alice, "refund").status_code == 200
    assert IssuedToken.objects.get().scope == scope


def test_access_that_ends_meanwhile_is_explained(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_user: Any, **_more: Any) -> Any:
        raise InvalidGrant("The account was closed.")

    monkeypatch.setattr(try_tool, "issue_tokens", closed)
    answer = token(alice, "refund")
    assert answer.status_code == 400
    assert answer.json() == {"error": "The account was closed."}


def test_a_sensitive_tool_gets_its_scope_by_name(alice: User) -> None:
    Primitive.objects.filter(name="refund").update(sensitive=True)
    assert page(alice, "refund").status_code == 200
    assert token(alice, "refund").status_code == 200
    assert IssuedToken.objects.get().scope == "User.Write"


def test_it_needs_a_sign_in_and_this_sites_form(alice: User) -> None:
    assert Client().post(TOOLS, {"tool": "refund"}).status_code == 302
    strict = browser_of(alice, enforce_csrf_checks=True)
    assert strict.post(TOOLS, {"tool": "refund"}).status_code == 403
    assert not IssuedToken.objects.exists()
