"""The access check: who sees which decision, and what the page never shows."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.test import RequestFactory
from django.utils import timezone

from accounts.admin_site.site import cells_of, links_of
from accounts.models import (
    AuditEvent,
    IssuedToken,
    Role,
    RoleAssignment,
    Scope,
    User,
)
from mcp_bridge.admin import access_check
from mcp_bridge.models import ArgumentRule, Primitive
from tests.support.page_tables import rows_on
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
CHECK = "/admin/access/check/"
PAGE = ("view_user", "view_role", "view_primitive")
EVERYTHING = (
    *PAGE,
    "view_issuedtoken",
    "view_auditevent",
    "view_roleassignment",
)


@pytest.fixture(autouse=True)
def catalogue(settings: Any) -> None:
    """The role User grants Use; `look` needs it, `erase` too and is sensitive."""
    settings.STORAGES = UNCOLLECTED
    Primitive.objects.all().delete()
    use, rule = (Scope.objects.get_or_create(name=n)[0] for n in ("Use", "Rule"))
    Role.objects.get(name="User").scopes.add(use)
    for name, scope in (("erase", use), ("look", use), ("rule", rule)):
        row = Primitive.objects.create(
            kind="tool", name=name, sensitive=name == "erase"
        )
        row.required_scopes.add(scope)


@pytest.fixture
def alice() -> User:
    return account("alice", "User")


def staff(*codenames: str) -> User:
    user = account("rita", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def tool(name: str) -> Primitive:
    return Primitive.objects.get(name=name)


def token(user: User, **columns: Any) -> IssuedToken:
    """A row of the list of tokens; nothing is signed."""
    now = timezone.now()
    fields = {
        "jti": uuid4().hex,
        "kind": "access",
        "issued_via": "password",
        "username": user.username,
        "client_id": "portico",
        "scope": "mcp",
        "family": uuid4(),
        "issued_at": now,
        "expires_at": now + timedelta(hours=1),
    }
    return IssuedToken.objects.create(user=user, **{**fields, **columns})


def event(**columns: Any) -> AuditEvent:
    values = {"action": "tool.denied", "decision": "denied", "object": "tool rule"}
    row = AuditEvent(**(values | columns))
    row.save()
    return row


def shown(staff_user: User, **query: Any) -> Any:
    """The page's context."""
    answer = browser_of(staff_user).get(CHECK, query)
    assert answer.status_code == 200
    return answer.context


# ------------------------------------------------------------------ permissions


@pytest.mark.parametrize("missing", PAGE)
def test_the_page_needs_each_permission(missing: str) -> None:
    browser = browser_of(staff(*(set(EVERYTHING) - {missing})))
    assert browser.get(CHECK).status_code == 403
    assert browser.post(CHECK, {"token": "x"}).status_code == 403


def test_tokens_need_the_permission_to_view_tokens(alice: User) -> None:
    """Otherwise ids could be tried here."""
    row = token(alice)
    browser = browser_of(staff(*(set(EVERYTHING) - {"view_issuedtoken"})))
    assert browser.get(CHECK, {"jti": row.jti}).status_code == 403
    assert browser.get(CHECK, {"jti": "unknown"}).status_code == 403
    assert browser.post(CHECK, {"token": row.jti}).status_code == 403
    page = browser.get(CHECK)
    assert page.status_code == 200
    context: Any = page.context
    assert context["paste"] is None


def test_events_need_the_permission_to_view_the_audit() -> None:
    row = event()
    browser = browser_of(staff(*(set(EVERYTHING) - {"view_auditevent"})))
    for text in (row.pk, "9999", "x"):
        assert browser.get(CHECK, {"event": text}).status_code == 403
    assert browser.get(CHECK).status_code == 200


def test_assignments_need_the_permission_to_view_them(alice: User) -> None:
    """Roles are shown with the user, but neither expiry nor reasons."""
    user = staff(*(set(EVERYTHING) - {"view_roleassignment"}))
    context = shown(user, user="alice", primitive=tool("look").pk)
    assert context["held"] is None and context["holders"] is None
    assert context["verdicts"]
    assert shown(user, primitive=tool("look").pk)["holders"] is None


# -------------------------------------------------------------------- decisions


def verdicts(context: Any) -> dict[str, tuple[str, str]]:
    return {
        one["rule"].name: (str(one["decision"].reason), one["why"])
        for one in context["verdicts"]
    }


def test_all_decisions_about_a_user_are_shown(alice: User) -> None:
    context = shown(staff(*EVERYTHING), user=" alice ")
    assert context["person"] == alice and context["token"] is None
    assert list(verdicts(context)) == ["look", "erase", "rule"], "allowed ones first"
    assert verdicts(context) == {
        "look": ("granted", "role User grants Use; the token includes mcp"),
        "erase": ("token_lacks_scope", "sensitive; the token includes none of Use"),
        "rule": ("role_lacks_scope", "requires one of Rule; roles: User"),
    }
    first = context["verdicts"][0]
    assert (first["pk"], str(first["kind"]), first["remedy"]) == (
        tool("look").pk,
        "tool",
        "",
    )
    assert "one of: Use" in context["verdicts"][1]["remedy"]
    assert [grant.role.name for grant in context["held"]] == ["User"]


def test_one_primitive_is_explained(alice: User) -> None:
    row = tool("rule")
    context = shown(staff(*EVERYTHING), user="alice", primitive=row.pk)
    assert list(verdicts(context)) == ["rule"] and context["primitive"] == row
    assert context["roles"] == []


def test_only_unexpired_roles_of_that_user_are_held(alice: User) -> None:
    past = timezone.now() - timedelta(seconds=1)
    grant, _new = RoleAssignment.objects.grant(alice, Role.objects.get(name="Guest"))
    RoleAssignment.objects.filter(pk=grant.pk).update(expires_at=past)
    account("bob", "Admin")
    context = shown(staff(*EVERYTHING), user="alice")
    assert [grant.role.name for grant in context["held"]] == ["User"]


def test_holders_of_a_primitive_are_listed(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    account("bob", "Guest")
    account("gone", "User", is_active=False)
    RoleAssignment.objects.filter(user__username="bob").update(reason="r")
    context = shown(staff(*EVERYTHING), primitive=tool("look").pk)
    assert [one.user for one in context["holders"]] == [alice]
    assert context["holder_count"] == 1
    assert [role.name for role in context["roles"]] == ["User"]
    assert "verdicts" not in context and "person" not in context
    for number in range(3):
        account(f"more-{number}", "User")
    monkeypatch.setattr(access_check, "MAX_HOLDERS", 2)
    context = shown(User.objects.get(username="rita"), primitive=tool("look").pk)
    assert (len(context["holders"]), context["holder_count"]) == (2, 4)


def test_an_empty_form_asks_nothing() -> None:
    assert access_check.MAX_HOLDERS == 100
    context = shown(staff(*EVERYTHING))
    assert "verdicts" not in context and "holders" not in context
    assert shown(User.objects.get(username="rita"), user="  ")["primitive"] is None


def test_a_deactivated_account_is_refused(alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)
    context = shown(staff(*EVERYTHING), user="alice")
    assert "account is deactivated" in context["refused"]
    assert "verdicts" not in context


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"user": "nobody"}, "There is no user called nobody. Check the username."),
        ({"jti": "0" * 32}, "No token has this ID. Check the ID."),
        ({"primitive": "9999"}, "Select a valid choice"),
    ],
)
def test_a_mistake_is_explained(query: dict[str, str], text: str) -> None:
    answer = browser_of(staff(*EVERYTHING)).get(CHECK, query)
    assert answer.status_code == 200 and text in answer.content.decode()


def test_a_token_is_decided_with_its_own_scopes(alice: User) -> None:
    row = token(alice, scope="Use")
    context = shown(staff(*EVERYTHING), jti=row.jti)
    assert context["token"] == row and context["person"] == alice
    assert verdicts(context)["erase"][0] == "granted"


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"kind": "refresh"}, "This is a refresh token."),
        ({"expires_at": timezone.now() - timedelta(1)}, "The token has expired."),
        ({"client_id": "deleted"}, "client was deleted"),
    ],
)
def test_a_token_that_is_refused_is_explained(
    alice: User, columns: dict[str, Any], text: str
) -> None:
    context = shown(staff(*EVERYTHING), jti=token(alice, **columns).jti)
    assert text in context["refused"] and "verdicts" not in context


# ------------------------------------------------------------------------ paste


def test_only_the_id_of_a_pasted_token_is_used(alice: User) -> None:
    row, look = token(alice), tool("look")
    browser = browser_of(staff(*EVERYTHING))
    answer = browser.post(CHECK, {"token": f" {row.jti[:9]}\n{row.jti[9:]} "})
    assert (answer.status_code, answer["Location"]) == (302, f"{CHECK}?jti={row.jti}")
    answer = browser.post(CHECK, {"token": row.jti, "primitive": look.pk})
    assert answer["Location"] == f"{CHECK}?jti={row.jti}&primitive={look.pk}"
    answer = browser.post(CHECK, {"token": row.jti, "primitive": "1 or x"})
    assert answer["Location"] == f"{CHECK}?jti={row.jti}"


@pytest.mark.parametrize("pasted", ["secret-nonsense", "", "f" * 32])
def test_what_is_no_token_is_400_and_not_repeated(pasted: str) -> None:
    answer = browser_of(staff(*EVERYTHING)).post(CHECK, {"token": pasted})
    page = answer.content.decode()
    assert answer.status_code == 400 and 'class="errornote"' in page
    assert not pasted or pasted not in page


def test_error_reports_hide_the_pasted_token() -> None:
    request: Any = RequestFactory().post(CHECK, {"token": "secret"})
    request.user = account("carol", is_staff=True, is_superuser=True)
    page = access_check.AccessCheck()
    page.setup(request)
    page.post(request)
    assert request.sensitive_post_parameters == ("token", "arguments")


def test_a_form_of_another_site_is_refused(alice: User) -> None:
    browser = browser_of(staff(*EVERYTHING), enforce_csrf_checks=True)
    assert browser.post(CHECK, {"token": token(alice).jti}).status_code == 403


# ------------------------------------------------------------------------ links


def request_of(user: User) -> Any:
    request: Any = RequestFactory().get("/")
    request.user = user
    return request


def links(user: User, row: Any) -> list[str]:
    found = [url for _label, url in links_of(request_of(user), row)]
    return [url for url in found if url.startswith("/admin/access/")]


def test_rows_link_to_their_check(alice: User) -> None:
    user, look = staff(*EVERYTHING), tool("look")
    row, refresh = token(alice), token(alice, kind="refresh")
    role = Role.objects.get(name="User")
    assert links(user, alice) == [f"{CHECK}?user=alice"]
    assert links(user, look) == [f"{CHECK}?primitive={look.pk}"]
    assert links(user, row) == [f"{CHECK}?jti={row.jti}"]
    assert links(user, refresh) == []
    assert links(user, role) == [f"/admin/access/matrix/?role={role.pk}"]


def test_who_may_not_open_the_page_gets_no_link(alice: User) -> None:
    user = staff("view_user", "view_auditevent", "view_issuedtoken")
    rows = [alice, tool("look"), token(alice), Role.objects.get(name="User")]
    denied = event(token_id="j", actor="alice")
    assert [links(user, row) for row in [*rows, denied]] == [[]] * 5
    assert cells_of(request_of(user), denied) == []


def test_an_event_links_to_its_token_or_its_user(alice: User) -> None:
    user, rule, row = staff(*EVERYTHING), tool("rule"), token(alice)
    refresh = token(alice, kind="refresh")
    by_token, by_user = f"?jti={row.jti}", "?user=alice"
    target = f"&primitive={rule.pk}"
    for columns, url in (
        ({"token_id": row.jti, "actor": "alice"}, f"{by_token}{target}"),
        ({"token_id": row.jti, "object": "tool gone"}, by_token),
        ({"token_id": refresh.jti, "actor": "alice"}, f"{by_user}{target}"),
        ({"token_id": "unknown", "actor": "alice"}, f"{by_user}{target}"),
        ({"actor": "alice"}, f"{by_user}{target}"),
        ({"actor": "alice", "object": "prompt rule"}, None),
        ({"actor": "alice", "object": "tool gone"}, None),
        ({}, None),
    ):
        found = links(user, event(**columns))
        assert found == ([f"{CHECK}{url}"] if url else []), columns
    user.user_permissions.remove(Permission.objects.get(codename="view_issuedtoken"))
    again = User.objects.get(pk=user.pk)
    found = links(again, event(token_id=row.jti, actor="alice"))
    assert found == [f"{CHECK}{by_user}{target}"]


def test_the_check_of_an_event_is_found_by_its_id(alice: User) -> None:
    browser = browser_of(staff(*EVERYTHING))
    row = event(actor="alice")
    answer = browser.get(CHECK, {"event": row.pk})
    rule = tool("rule").pk
    assert answer.status_code == 302
    assert answer["Location"] == f"{CHECK}?user=alice&primitive={rule}"
    assert browser.get(CHECK, {"event": "999999"})["Location"] == CHECK
    assert browser.get(CHECK, {"event": event(object="x").pk})["Location"] == CHECK
    assert browser.get(CHECK, {"event": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("columns", "linked"),
    [
        ({"token_id": "j"}, True),
        ({"token_id": ""}, False),
        ({"token_id": "j", "decision": "allowed"}, False),
        ({"token_id": "j", "decision": ""}, False),
    ],
)
def test_refusals_of_a_token_are_explained_in_the_list(
    columns: dict[str, str], linked: bool
) -> None:
    row = event(**columns)
    found = cells_of(request_of(staff(*EVERYTHING)), row)
    expected = [("why?", f"{CHECK}?event={row.pk}")] if linked else []
    assert [(str(label), url) for label, url in found] == expected


# --------------------------------------------------------------------- arguments


def with_limit(name: str, role: str | None, limit: int) -> Primitive:
    row = tool(name)
    holder = Role.objects.get(name=role) if role else None
    ArgumentRule.objects.create(
        primitive=row, role=holder, pointer="/amount", operator="at_most", value=limit
    )
    return row


def checked(checker: User, **sent: Any) -> Any:
    return browser_of(checker).post(CHECK, sent)


@pytest.mark.parametrize(
    ("arguments", "allowed", "reason"),
    [
        ('{"amount": 100}', True, "granted"),
        ('{"amount": 101}', False, "argument_refused"),
        ("{}", False, "argument_refused"),
        ("", True, "granted"),
    ],
)
def test_arguments_are_decided_by_the_rules(
    alice: User, arguments: str, allowed: bool, reason: str
) -> None:
    row = with_limit("look", "User", 100)
    page = checked(
        staff(*EVERYTHING), user="alice", primitive=row.pk, arguments=arguments
    )
    (one,) = page.context["verdicts"]
    assert (one["decision"].allowed, one["decision"].reason) == (allowed, reason)
    text = page.content.decode()
    assert "/amount must be a number of at most 100 (role User)" in text
    assert page.context["arguments_form"]["arguments"].value() in (arguments, None)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ('{"amount": }', "This is not JSON."),
        ("[" * 100_000, "This is not JSON."),
        ("[1]", "Arguments are a JSON object"),
        ('"text"', "Arguments are a JSON object"),
        ('{"a": "\\ud800"}', "This is not JSON."),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_lost(
    alice: User, arguments: str, problem: str
) -> None:
    row = with_limit("look", "User", 100)
    page = checked(
        staff(*EVERYTHING), user="alice", primitive=row.pk, arguments=arguments
    )
    assert page.status_code == 400 and problem in page.content.decode()
    form = page.context["arguments_form"]
    assert form["arguments"].value() == arguments
    assert (form["user"].value(), form["primitive"].value()) == ("alice", str(row.pk))
    assert page.context["verdicts"]


def test_arguments_of_a_token_need_the_permission_to_view_tokens(alice: User) -> None:
    row, issued = with_limit("look", None, 5), token(alice)
    sent = {"jti": issued.jti, "primitive": row.pk, "arguments": '{"amount": 6}'}
    user = staff(*PAGE)
    assert checked(user, **sent).status_code == 403
    view = Permission.objects.get(codename="view_issuedtoken")
    user.user_permissions.add(view)
    (one,) = checked(user, **sent).context["verdicts"]
    assert one["decision"].reason == "argument_refused"


def test_arguments_in_a_url_are_ignored(alice: User) -> None:
    """Servers and browsers keep URLs."""
    row = with_limit("look", "User", 100)
    query: Any = {"user": "alice", "primitive": row.pk, "arguments": "{}"}
    page = browser_of(staff(*EVERYTHING)).get(CHECK, query)
    (one,) = page.context["verdicts"]
    assert one["decision"].allowed
    assert page.context["arguments_form"]["arguments"].value() == ""


def test_a_role_without_limits_lifts_those_of_another(alice: User) -> None:
    row, user = with_limit("look", "User", 100), staff(*EVERYTHING)
    (one,) = shown(user, user="alice", primitive=row.pk)["verdicts"]
    assert len(one["limits"]) == 1
    free = Role.objects.create(name="Free")
    free.scopes.add(Scope.objects.get(name="Use"))
    RoleAssignment.objects.grant(alice, free)
    (one,) = shown(user, user="alice", primitive=row.pk)["verdicts"]
    assert one["limits"] == []


GRANTING = (*EVERYTHING, "add_roleassignment", "change_roleassignment")


def test_a_refusal_is_lifted_where_it_shows() -> None:
    """With a role that gives the tool and that the reader may give."""
    rita, bob = staff(*GRANTING), account("bob")
    RoleAssignment.objects.grant(rita, Role.objects.get(name="User"))
    look = Primitive.objects.get(name="look")
    path = f"{CHECK}?user=bob&primitive={look.pk}"
    browser: Any = browser_of(rita)
    (role,) = browser.get(path).context["gifts"]
    sent = {"user": bob.pk, "role": role.pk, "next": path, "until_0": "8h"}
    page = browser.post("/admin/users/role/", sent, follow=True)
    assert role.name == "User" and page.redirect_chain[0][0] == path
    assert page.context["gifts"] == [] and b"allowed" in page.content


@pytest.mark.parametrize(
    ("codenames", "reader", "tool"),
    [
        (EVERYTHING, "User", "look"),
        (GRANTING, "Guest", "look"),
        (GRANTING, "User", ""),
        (GRANTING, "User", "rule"),
    ],
)
def test_no_role_is_offered(codenames: tuple[str, ...], reader: str, tool: str) -> None:
    """Without the permission or the scopes, for all tools at once, without a role."""
    rita = staff(*codenames)
    RoleAssignment.objects.grant(rita, Role.objects.get(name=reader))
    account("bob")
    row = Primitive.objects.filter(name=tool).first()
    path = f"{CHECK}?user=bob&primitive={row.pk if row else ''}"
    browser: Any = browser_of(rita)
    assert browser.get(path).context["gifts"] == []


def test_a_tool_is_called_with_ones_own_account_only(alice: User) -> None:
    """The decision is about alice; the link is for who reads it."""
    reader, link = staff(*PAGE), 'href="/portal/tools/?name=look"'
    before = browser_of(reader).get(CHECK, {"primitive": tool("look").pk})
    assert link not in before.content.decode()
    RoleAssignment.objects.grant(reader, Role.objects.get(name="User"))
    query: dict[str, Any] = {"user": "alice", "primitive": tool("look").pk}
    page = browser_of(reader).get(CHECK, query)
    assert link in page.content.decode()
    assert verdicts(page.context)["look"][0] == "granted"
    other = browser_of(reader).get(CHECK, {"primitive": tool("rule").pk})
    assert "/portal/tools/" not in other.content.decode()


# -------------------------------------------------------------------------- page


def page_of(**query: Any) -> str:
    checker = User.objects.filter(username="rita").first() or staff(*EVERYTHING)
    return str(browser_of(checker).get(CHECK, query).content.decode())


def test_holders_are_shown_with_their_columns(alice: User) -> None:
    until = timezone.now() + timedelta(hours=1)
    RoleAssignment.objects.filter(user=alice).update(expires_at=until, reason="<why>")
    account("bert", "User")
    page, head = page_of(primitive=tool("look").pk), ("User", "By role")
    rows = rows_on(page, *head, "Until", "Reason")
    assert [list(row.values()) for row in rows] == [
        ["alice", "User", "in 1 hour", "<why>"],
        ["bert", "User", "no end date", "-"],
    ]
    assert "2 people in total." in page and "Who can use look" in page
    link = f'href="?user=alice&amp;primitive={tool("look").pk}"'
    assert link in page and "&lt;why&gt;" in page


def test_nobody_may_hold_a_role(alice: User) -> None:
    page = page_of(primitive=tool("rule").pk)
    assert "none, so no one can use it" in page and "No user has such a role." in page
    assert "0 people in total." in page


def test_decisions_are_shown_with_their_columns(alice: User) -> None:
    """Each with its reason, and what would have to change."""
    page = page_of(user="alice")
    rows = {
        row.pop("Item"): row
        for row in rows_on(page, "Item", "Decision", "Decided by", "Required change")
    }
    assert {item: row["Decision"] for item, row in rows.items()} == {
        "erase tool, sensitive": "token lacks scope",
        "look tool": "allowed",
        "rule tool": "denied",
    }
    assert rows["look tool"]["Required change"] == "-"
    assert all(row["Decided by"] for row in rows.values())
    assert rows["rule tool"]["Required change"] != "-"
    assert "with a token that has the general scope (mcp)" in page
    assert f'href="/admin/accounts/user/{alice.pk}/change/"' in page


def test_roles_of_the_person_are_shown_with_their_end(alice: User) -> None:
    until = datetime(2999, 5, 1, 12, 30, tzinfo=UTC)
    RoleAssignment.objects.filter(user=alice).update(expires_at=until)
    (shown_roles,) = re.findall(r"<p>Current roles: (.*?)</p>", page_of(user="alice"))
    assert shown_roles.endswith(">User</a> (until 2999-05-01 12:30)")
    account("bob")
    assert "<p>Current roles: none</p>" in page_of(user="bob")
