"""The access matrix and the access check, through their real forms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission

from accounts.models import AuditEvent, IssuedToken, Role, Scope, User
from mcp_bridge.models import Primitive
from tests.support.html_browser import Browser
from tests.support.mcp_client import McpClient, mcp_client
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
ACCESS = "access"
MATRIX, CHECK = "/admin/access/matrix/", "/admin/access/check/"


@pytest.fixture
def carol(server: Portico, default_users: None) -> Iterator[Browser]:
    """carol, signed in to the admin."""
    with Browser(server.url) as browser:
        browser.sign_in("carol")
        yield browser


@pytest.fixture
def client(server: Portico) -> McpClient:
    """bob's client, connected before the changes."""
    connected = mcp_client(server, "bob")
    assert not connected.allowed("lonely")
    return connected


def key(role: str, tool: str) -> str:
    """A cell's name in the form."""
    pair = Role.objects.get(name=role), Primitive.objects.get(name=tool)
    return f"{pair[0].pk}-{pair[1].pk}"


def ticks(browser: Browser) -> list[str]:
    found = browser.form("version").fields.get("on", [])
    return [found] if isinstance(found, str) else list(found)


def save_review(browser: Browser) -> str:
    """The text after pressing save on the review page."""
    assert "Nothing is saved yet" in browser.page.text
    browser.submit(browser.form("changes"))
    return browser.page.text


def test_a_changed_cell_applies_to_the_next_message(
    carol: Browser, client: McpClient
) -> None:
    """Select, review, save, and undo."""
    carol.open(f"{MATRIX}?q=lonely")
    carol.submit(carol.form("version"), on=[*ticks(carol), key("Guest", "lonely")])
    assert "Guest" in carol.page.text and "tool:lonely" in carol.page.text
    assert not client.allowed("lonely"), "a review changes nothing"
    assert "1 change saved" in save_review(carol)
    assert client.allowed("lonely") and "lonely" in client.tools()
    assert key("Guest", "lonely") in ticks(carol)
    carol.submit(carol.form("version"), on=[])
    assert "1 change saved" in save_review(carol)
    assert "Unknown tool: lonely" in client.call("lonely").text
    events = AuditEvent.objects.filter(action__startswith="role.scope_")[:2]
    assert [(e.actor, e.action, e.object) for e in events] == [
        ("carol", "role.scope_taken", "Guest"),
        ("carol", "role.scope_given", "Guest"),
    ]


def test_whole_columns_and_rows_change_at_once(
    carol: Browser, client: McpClient
) -> None:
    """All rows that match the filter change, on other pages too."""
    guest = Role.objects.get(name="Guest")
    lonely = Primitive.objects.get(name="lonely")
    carol.open(f"{MATRIX}?q=l&kind=tool")
    carol.submit(carol.form("version"), **{f"column-{guest.pk}": "on"})
    assert "gains" in carol.page.text
    save_review(carol)
    assert client.allowed("lonely") and client.allowed("look")
    carol.open(f"{MATRIX}?q=l&kind=tool")
    carol.submit(carol.form("version"), **{f"column-{guest.pk}": "off"})
    save_review(carol)
    assert not client.allowed("lonely") and not client.allowed("look")
    carol.open(f"{MATRIX}?q=lonely")
    carol.submit(carol.form("version"), **{f"row-{lonely.pk}": "on"})
    save_review(carol)
    assert client.allowed("lonely")
    carol.open(f"{MATRIX}?q=lonely")
    carol.submit(carol.form("version"), **{f"row-{lonely.pk}": "off"})
    save_review(carol)
    assert not client.allowed("lonely")


def test_access_by_a_shared_scope_is_not_removed(
    carol: Browser, server: Portico
) -> None:
    """The page names the scope that still gives access."""
    role, alice = Role.objects.get(name="User"), mcp_client(server, "alice")
    role.scopes.add(Scope.objects.get(name="tool:look"))
    carol.open(f"{MATRIX}?q=look&role={role.pk}")
    assert "through User.Read" in carol.page.text
    carol.submit(carol.form("version"), on=[])
    assert "stays allowed through User.Read" in carol.page.text
    save_review(carol)
    assert alice.allowed("look") and key("User", "look") not in ticks(carol)


@pytest.mark.parametrize("when", ["before the review", "before saving"])
def test_a_conflicting_change_is_refused(
    carol: Browser, client: McpClient, when: str
) -> None:
    """Nothing is saved; the page shows the conflict and the current state."""
    guest, scope = Role.objects.get(name="Guest"), Scope.objects.get(name="tool:rule")
    carol.open(f"{MATRIX}?q=l")
    form = carol.form("version")
    cells = [*ticks(carol), key("Guest", "lonely")]
    if when == "before saving":
        form = carol.submit(form, on=cells).form("changes")
    guest.scopes.add(scope)
    left: Any = {} if when == "before saving" else {"on": cells}
    carol.submit(form, **left)
    guest.scopes.remove(scope)
    assert carol.page.status_code == 409 and "Nothing was saved" in carol.page.text
    assert not client.allowed("lonely")


def test_invalid_filters_are_ignored(carol: Browser) -> None:
    for query in ("kind=prompt", "sensitive=1", "role=x", "p=99", "p=-1", "kind=x"):
        assert carol.open(f"{MATRIX}?{query}").page.status_code == 200, query
    carol.open(f"{MATRIX}?q=no-such-tool")
    assert "Nothing matches" in carol.page.text
    carol.open(MATRIX)
    carol.submit(carol.form("version"))
    assert "Nothing was changed" in carol.page.text


def staff(name: str, *codenames: str) -> User:
    """A staff member with only these permissions."""
    user = make_user(name, admin=True)
    user.is_superuser = False
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def test_viewing_the_matrix_does_not_allow_changing_it(server: Portico) -> None:
    """Each page and each save has its own permission."""
    staff("judy", "view_role", "view_primitive")
    staff("kate", "view_auditevent")
    with Browser(server.url) as judy:
        judy.sign_in("judy")
        assert "Review changes" not in judy.open(MATRIX).page.text
        assert judy.open(CHECK).page.status_code == 403
        token = judy.http.cookies.get("csrftoken") or ""
        sent = {"changes": f"+{key('Guest', 'lonely')}", "version": ""}
        headers = {"referer": f"{server.url}{MATRIX}", "x-csrftoken": token}
        assert judy.http.post(MATRIX, data=sent, headers=headers).status_code == 403
    with Browser(server.url) as kate:
        kate.sign_in("kate")
        for path in (MATRIX, CHECK, "/admin/system/"):
            assert kate.open(path).page.status_code == 403
            assert path not in kate.open("/admin/").page.text


def test_role_managers_grant_only_their_own_rights(
    carol: Browser, server: Portico, client: McpClient
) -> None:
    """The matrix applies the rules of delegated administration."""
    staff("rita", "view_role", "change_role", "view_primitive")
    with Browser(server.url) as rita:
        rita.sign_in("rita")
        rita.open(f"{MATRIX}?q=lonely")
        rita.submit(rita.form("version"), on=[key("Guest", "lonely")])
        rita.submit(rita.form("changes"))
        assert rita.page.status_code == 403 and "Nothing was saved" in rita.page.text
    assert not client.allowed("lonely")


def page_text(browser: Browser, path: str) -> str:
    """The text of a page, without markup."""
    text = re.sub(r"<[^>]+>", " ", browser.open(path).page.text)
    return re.sub(r"\s+", " ", text)


def test_the_check_explains_a_decision(carol: Browser, server: Portico) -> None:
    """The page shows the real decision, its cause and the fix."""
    tool = {t.name: t.pk for t in Primitive.objects.filter(kind="tool")}
    text = page_text(carol, f"{CHECK}?user=alice&primitive={tool['look']}")
    assert "allowed" in text and "role User grants User.Read" in text
    text = page_text(carol, f"{CHECK}?user=alice&primitive={tool['rule']}")
    assert "requires one of Admin.Write, tool:rule; roles: User" in text
    assert "Assign a role that has one of its scopes" in text
    text = page_text(carol, f"{CHECK}?user=alice&primitive={tool['erase']}")
    assert "token lacks scope" in text and "include one of: User.Write" in text
    assert "look" in page_text(carol, f"{CHECK}?user=bob")
    assert "There is no user called" in page_text(carol, f"{CHECK}?user=nobody")
    assert "alice" in page_text(carol, f"{CHECK}?primitive={tool['look']}")
    assert "none, so no one can use it" in page_text(
        carol, f"{CHECK}?primitive={tool['lonely']}"
    )
    make_user("mallory", "User").revoke_tokens(actor="test", reason="test")
    User.objects.filter(username="mallory").update(is_active=False)
    assert "account is deactivated" in page_text(carol, f"{CHECK}?user=mallory")


def test_the_check_and_the_decision_agree(carol: Browser, server: Portico) -> None:
    """Compares every tool for every test user."""
    for name in ("alice", "bob", "carol"):
        client = mcp_client(server, name)
        for tool in ("look", "rule", "erase", "lonely", "whoami"):
            pk = Primitive.objects.get(name=tool).pk
            text = page_text(carol, f"{CHECK}?user={name}&primitive={pk}")
            assert ("(granted)" in text) == client.allowed(tool), (name, tool)


def test_a_pasted_token_is_never_shown(carol: Browser, server: Portico) -> None:
    """Only the token id is used, in the address too."""
    client = mcp_client(server, "alice")
    carol.open(CHECK)
    carol.submit(carol.form("token"), token=f"Bearer {client.token}")
    text = carol.page.text
    row = IssuedToken.objects.filter(user__username="alice", kind="access")[0]
    assert f"jti={row.jti}" in str(carol.page.url) and row.jti in text
    assert client.token not in text and "role User grants User.Read" in text
    IssuedToken.objects.filter(pk=row.pk).revoke(actor="test", reason="test")
    assert (
        "token is revoked. All its requests"
        in carol.open(str(carol.page.url)).page.text
    )
    carol.submit(carol.form("token"), token="secret-nonsense")
    assert carol.page.status_code == 400 and "secret-nonsense" not in carol.page.text
    assert "No token has this ID" in carol.open(f"{CHECK}?jti=0").page.text


def test_pages_link_to_the_check(carol: Browser, server: Portico) -> None:
    """Users, tools, tokens, roles and refusals link to it with the form filled in."""
    mcp_client(server, "bob").call("rule")
    event = AuditEvent.objects.filter(action="tool.denied", actor="bob")[0]
    rule = Primitive.objects.get(name="rule")
    bob = User.objects.get(username="bob")
    links = {
        f"accounts/user/{bob.pk}": "user=bob",
        f"mcp_bridge/primitive/{rule.pk}": f"primitive={rule.pk}",
        f"accounts/auditevent/{event.pk}": f"primitive={rule.pk}",
        f"accounts/issuedtoken/{IssuedToken.objects.filter(kind=ACCESS)[0].pk}": "jti=",
        f"accounts/role/{Role.objects.all()[0].pk}": "matrix/?role=",
    }
    for path, query in links.items():
        page: Any = carol.open(f"/admin/{path}/change/").page
        found = re.findall(r'href="(/admin/access/[^"]+)"', page.text)
        assert any(query in link for link in found), path
    listed = carol.open("/admin/accounts/auditevent/?actor=bob").page.text
    assert f"?event={event.pk}" in listed
    by_event = carol.open(f"{CHECK}?event={event.pk}").page
    assert f"primitive={rule.pk}" in str(by_event.url)
    assert str(carol.open(f"{CHECK}?event=999999").page.url).endswith(CHECK)
    denied = f"/admin/access/check/?jti={event.token_id}&primitive={rule.pk}"
    assert "role_lacks_scope" in page_text(carol, denied)
