"""First steps of a new installation: who sees them, and when they are done."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.admin_site.overview import checklist
from accounts.models import AuditEvent, Role, RoleAssignment, Scope, User
from mcp_bridge.models import Offer, Primitive, UpstreamServer
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
INDEX, HIDE = "/admin/", "/admin/first-steps/"


@pytest.fixture(autouse=True)
def installation(settings: Any) -> None:
    """A new one: no users but carol, no tools but Portico's own."""
    settings.STORAGES = UNCOLLECTED
    settings.EMAIL_HOST = ""
    Primitive.objects.all().delete()
    Primitive.objects.sync(
        [Offer("tool", "whoami", "", "", ("User.Read",), False, "1")]
    )


@pytest.fixture
def carol() -> User:
    return account("carol", is_staff=True, is_superuser=True)


def steps(browser: Client) -> dict[str, bool]:
    """Title -> whether it is done."""
    found: Any = browser.get(INDEX).context["steps"]
    return {str(step.title): step.done for step in found}


TITLES = [
    "Add a second factor to your account",
    "Set up mail (EMAIL_HOST)",
    "Add your tools",
    "Decide which roles can use your tools",
    "Invite a person and give them a role",
    "Connect an MCP client and call a tool",
]


def test_a_new_installation_shows_every_step(carol: User) -> None:
    RoleAssignment.objects.grant(carol, Role.objects.get(name="Admin"))
    assert steps(browser_of(carol)) == dict.fromkeys(TITLES, False)
    page = browser_of(carol).get(INDEX).content.decode()
    for step in browser_of(carol).get(INDEX).context["steps"]:
        assert f'href="{step.url}"' in page
        assert browser_of(carol).get(step.url).status_code in (200, 302)


def test_each_step_is_done_by_its_rows(carol: User, settings: Any) -> None:
    """Whoever did it, and by whatever way."""
    browser, done = browser_of(carol), dict.fromkeys(TITLES, False)

    def now_done(title: str) -> None:
        done[title] = True
        assert steps(browser) == done

    settings.EMAIL_HOST = "mail.example"
    now_done(TITLES[1])
    server = UpstreamServer.objects.create(name="acme", url="https://a.example/mcp")
    offer = Offer("tool", "acme__add", "", "", (), False, "2")
    Primitive.objects.sync([offer], server)
    now_done(TITLES[2])
    own = Scope.objects.get(name="tool:acme__add")
    Role.objects.get(name="User").scopes.add(own)
    now_done(TITLES[3])
    RoleAssignment.objects.grant(account("bob"), Role.objects.get(name="User"))
    now_done(TITLES[4])
    AuditEvent(actor="bob", action="tool.called", object="tool whoami").save()
    now_done(TITLES[5])
    Authenticator.objects.create(user=carol, type="totp", data={"secret": "x"})
    assert steps(browser) == {}, "all are done"
    assert "First steps" not in browser.get(INDEX).content.decode()


def test_a_held_tool_is_not_yet_decided(carol: User) -> None:
    server = UpstreamServer.objects.create(name="acme", url="https://a.example/mcp")
    Primitive.objects.sync(
        [Offer("tool", "t", "", "", (), False, "2")], server, hold=True
    )
    Role.objects.get(name="User").scopes.add(Scope.objects.get(name="tool:t"))
    assert steps(browser_of(carol))[TITLES[3]] is False


def test_a_step_needs_its_permission(carol: User) -> None:
    judy = account("judy", is_staff=True)
    assert steps(browser_of(judy)) == {}
    judy.user_permissions.add(Permission.objects.get(codename="view_auditevent"))
    assert list(steps(browser_of(judy))) == [TITLES[5]]


def test_the_steps_are_hidden_in_one_browser(carol: User) -> None:
    browser, other = browser_of(carol), browser_of(carol)
    assert browser.get(HIDE).status_code == 405 and steps(browser)
    answer = browser.post(HIDE)
    assert (answer.status_code, answer["Location"]) == (302, INDEX)
    cookie = answer.cookies[checklist.COOKIE]
    assert cookie["httponly"] and cookie["path"] == INDEX
    assert cookie["samesite"] == "Lax"
    assert steps(browser) == {} and steps(other)
    assert browser_of(carol, enforce_csrf_checks=True).post(HIDE).status_code == 403
    assert Client().post(HIDE).status_code == 302, "to the sign-in"
