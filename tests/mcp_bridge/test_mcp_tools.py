"""Portico's own tools, called as functions within a message of somebody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.utils import timezone
from mcp.server.mcpserver.exceptions import ToolError

from accounts.models import AuditEvent, IssuedToken, Role, RoleAssignment, Scope, User
from accounts.tokens.issue import issue_tokens
from accounts.tokens.principal import hypothetical_principal
from mcp_bridge import mcp_tools
from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.server import mcp
from tests.support.asgi import run
from tests.support.mcp_in_process import caller
from tests.support.users import account

pytestmark = pytest.mark.django_db
WRITING = ("grant_role", "revoke_role", "revoke_tokens")
ADMIN_TOOLS = ("list_users", "recent_refusals", *WRITING)


@contextmanager
def called_by(user: User) -> Iterator[None]:
    """Runs the tool as if within a message of this user."""
    verdict = Decision(True, Reason.GRANTED)
    message = Message("tools/call")
    call = Call(hypothetical_principal(user, ["mcp"]), message, Catalogue(), verdict)
    token = call_var.set(call)
    try:
        yield
    finally:
        call_var.reset(token)


@pytest.fixture
def carol() -> User:
    """A superuser."""
    return account("carol", "Admin", is_staff=True, is_superuser=True)


@pytest.fixture
def adm() -> User:
    """Has Admin.Write, and is neither staff nor superuser."""
    return account("adm", "Admin")


@pytest.fixture
def bob() -> User:
    return account("bob", "Guest")


def refused(tool: Callable[..., Any], *given: Any, **named: Any) -> str:
    """The text of a refusal, which changed nothing."""

    def rows() -> list[Any]:
        grants = RoleAssignment.objects.order_by("pk")
        columns = ("user", "role", "expires_at", "reason", "granted_by")
        live = IssuedToken.objects.live().order_by("pk").values_list("pk")
        return [*grants.values_list(*columns), *live, AuditEvent.objects.count()]

    before = rows()
    with pytest.raises(ToolError) as error:
        tool(*given, **named)
    assert rows() == before
    return str(error.value)


def events(prefix: str = "role.") -> list[tuple[str, str, int | None, str, str]]:
    found = AuditEvent.objects.filter(action__startswith=prefix)
    columns = ("action", "actor", "actor_id", "object", "reason")
    return list(found.order_by("pk").values_list(*columns))


# ----------------------------------------------------------------------- access


def test_writing_tools_are_sensitive_and_for_administrators() -> None:
    """A client that acts within a user's roles may read hostile text."""
    own = {name: mcp.access["tool", name] for name in ADMIN_TOOLS}
    assert own == {
        "grant_role": (("Admin.Write",), True),
        "revoke_role": (("Admin.Write",), True),
        "revoke_tokens": (("Admin.Write",), True),
        "list_users": (("Admin.Write",), False),
        "recent_refusals": (("Admin.Write",), False),
    }
    everybody = ("Guest.Read", "User.Read", "User.Write", "Admin.Write")
    assert mcp.access["tool", "whoami"] == (everybody, False)
    assert mcp.access["resource", "portico://me"] == (everybody, False)


@pytest.mark.parametrize("tool", ["whoami", "my_account"])
def test_everybody_may_ask_who_they_are(tool: str) -> None:
    who = caller("alice", "Use", token_scopes=frozenset({"mcp", "a"}), expires_at=0)
    call = Call(who, Message("x"), Catalogue(), Decision(True, Reason.GRANTED))
    token = call_var.set(call)
    found = run(getattr(mcp_tools, tool)())
    call_var.reset(token)
    assert found == {
        "user": "alice",
        "roles": ["Crew"],
        "scopes": ["a", "mcp"],
        "client": "the-client",
        "expires_at": "1970-01-01T00:00:00+00:00",
    }


CALLS: list[Callable[[], Any]] = [
    lambda: mcp_tools.list_users(),
    lambda: mcp_tools.recent_refusals(),
    lambda: mcp_tools.grant_role("bob", "User"),
    lambda: mcp_tools.revoke_role("bob", "Guest"),
    lambda: mcp_tools.revoke_tokens("bob"),
]


@pytest.mark.parametrize("call", CALLS)
def test_staff_without_a_second_factor_have_to_set_it_up(
    carol: User, bob: User, settings: Any, call: Callable[[], Any]
) -> None:
    """The admin requires it, so the tools do too."""
    with called_by(carol):
        call()
        settings.STAFF_SECOND_FACTOR = True
        assert "/portal/security/" in refused(call)


# ------------------------------------------------------------------- list_users


def listed(*given: Any, **named: Any) -> dict[str, Any]:
    return {row.pop("user"): row for row in mcp_tools.list_users(*given, **named)}


def test_users_are_listed_with_their_unexpired_roles(carol: User, bob: User) -> None:
    past = timezone.now() - timedelta(seconds=1)
    user = account("bobby", "User", "Guest", is_active=False)
    user.role_assignments.filter(role__name="User").update(expires_at=past)
    with called_by(carol):
        assert listed("BOB") == {
            "bob": {"active": True, "roles": ["Guest"]},
            "bobby": {"active": False, "roles": ["Guest"]},
        }
        assert listed("nobody") == {}


@pytest.mark.parametrize(
    ("limit", "shown"), [(-5, 1), (0, 1), (1, 1), (2, 2), (500, 501), (501, 501)]
)
def test_the_list_is_limited(carol: User, limit: int, shown: int) -> None:
    User.objects.bulk_create(
        User(username=f"many-{n}", password="!") for n in range(501)
    )
    with called_by(carol):
        assert len(mcp_tools.list_users("many", limit)) == min(shown, 500)


def test_without_a_limit_fifty_are_listed(carol: User) -> None:
    User.objects.bulk_create(
        User(username=f"many-{n}", password="!") for n in range(51)
    )
    with called_by(carol):
        assert len(mcp_tools.list_users("many")) == 50


def test_who_may_not_view_users_sees_none_that_outrank_them(
    carol: User, adm: User, bob: User
) -> None:
    account("stella", "Guest", is_staff=True)
    with called_by(adm):
        assert set(listed()) == {"adm", "bob"}
        adm.user_permissions.set(Permission.objects.filter(codename="view_user"))
        assert set(listed()) == {"adm", "bob"}, "not in the admin"
        User.objects.filter(pk=adm.pk).update(is_staff=True)
        assert set(listed()) == {"adm", "bob", "carol", "stella"}


# ------------------------------------------------------------------- grant_role


def test_a_grant_is_stored_and_recorded(carol: User, bob: User) -> None:
    with called_by(carol):
        text = mcp_tools.grant_role("bob", "User", "stand-in")
    assert text == "bob now has User."
    grant = RoleAssignment.objects.get(user=bob, role__name="User")
    assert (grant.granted_by, grant.reason, grant.expires_at) == (
        carol,
        "stand-in",
        None,
    )
    assert events() == [("role.granted", "carol", carol.pk, "bob has User", "stand-in")]


def test_a_grant_may_end(carol: User, bob: User) -> None:
    with called_by(carol):
        text = mcp_tools.grant_role("bob", "User", until="2999-12-31")
    assert text == "bob now has User until 2999-12-31 23:59 UTC."
    grant = RoleAssignment.objects.get(user=bob, role__name="User")
    assert grant.expires_at == datetime(2999, 12, 31, 23, 59, 59, 999999, UTC)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("nobody", "User"), "There is no user named nobody."),
        (
            ("bob", "King"),
            "There is no role named King; there are: Admin, Guest, User.",
        ),
        (("bob", "User", "", "x"), "is no moment"),
        (("bob", "User", "", "2001-01-01"), "has passed already"),
    ],
)
def test_a_mistake_is_explained(
    carol: User, bob: User, given: tuple[str, ...], text: str
) -> None:
    with called_by(carol):
        assert text in refused(mcp_tools.grant_role, *given)


@pytest.mark.parametrize(
    ("ends", "words"), [(None, "without an end"), (timedelta(days=3), "until ")]
)
def test_a_role_that_is_held_stays_as_it_is(
    carol: User, bob: User, ends: timedelta | None, words: str
) -> None:
    """A provider finds its grants by their reason and changes them itself."""
    end = timezone.now() + ends if ends else None
    user = Role.objects.get(name="User")
    RoleAssignment.objects.grant(bob, user, reason="provider", expires_at=end)
    words += f"{end:%Y-%m-%d %H:%M} UTC" if end else ""
    with called_by(carol):
        text = refused(mcp_tools.grant_role, "bob", "User", "mine", "1h")
    assert text == (
        f"bob already has User, {words}. Nothing was changed: change its end in "
        "the admin, or take it with revoke_role first."
    )


def test_an_expired_role_and_that_of_another_person_are_no_obstacle(
    carol: User, bob: User
) -> None:
    account("alice", "User")
    grant, _new = RoleAssignment.objects.grant(bob, Role.objects.get(name="User"))
    past = timezone.now() - timedelta(seconds=1)
    RoleAssignment.objects.filter(pk=grant.pk).update(expires_at=past)
    with called_by(carol):
        assert mcp_tools.grant_role("bob", "User") == "bob now has User."


def test_the_rules_of_the_admin_apply_to_granting(adm: User, bob: User) -> None:
    grant = RoleAssignment.objects.get(user=adm)
    with called_by(adm):
        assert "cannot change your own" in refused(mcp_tools.grant_role, "adm", "User")
        assert "Only superusers" in refused(mcp_tools.grant_role, "bob", "Admin")
        ends = timezone.now() + timedelta(hours=1)
        RoleAssignment.objects.filter(pk=grant.pk).update(expires_at=ends)
        assert "earlier end" in refused(mcp_tools.grant_role, "bob", "User")
        assert "earlier end" in refused(mcp_tools.grant_role, "bob", "User", until="2h")
        assert mcp_tools.grant_role("bob", "User", until="5m").startswith("bob now has")


def test_refusals_are_in_english(adm: User) -> None:
    """The client's language says nothing about the reader's."""
    from django.utils.translation import override

    with called_by(adm), override("ko"):
        text = refused(mcp_tools.grant_role, "adm", "User")
    assert text == "You cannot change your own roles. Ask another administrator."


# ------------------------------------------------------------------ revoke_role


def tokens_of(user: User) -> int:
    return int(IssuedToken.objects.filter(user=user).live().count())


def issued(user: User) -> None:
    issue_tokens(user, issued_via="password")


def test_a_role_is_taken_and_recorded(carol: User, bob: User) -> None:
    other = account("alice", "Guest")
    RoleAssignment.objects.grant(bob, Role.objects.get(name="User"))
    issued(bob)
    with called_by(carol):
        text = mcp_tools.revoke_role("bob", "Guest", "left")
    assert text == "bob no longer has Guest."
    held = RoleAssignment.objects.filter(user=bob).values_list("role__name", flat=True)
    assert list(held) == ["User"] and tokens_of(bob)
    assert RoleAssignment.objects.filter(user=other).count() == 1
    assert events() == [("role.withdrawn", "carol", carol.pk, "bob has Guest", "left")]


@pytest.mark.parametrize(
    ("given", "reason"), [("left", "left"), ("", "role withdrawn")]
)
def test_with_the_last_role_the_tokens_end(
    carol: User, bob: User, given: str, reason: str
) -> None:
    other = account("alice", "Guest")
    for user in (bob, other):
        issued(user)
    with called_by(carol):
        mcp_tools.revoke_role("bob", "Guest", given)
    assert tokens_of(bob) == 0 and tokens_of(other) > 0
    revoked = events("token.revoked")
    assert revoked and {(e[1], e[4]) for e in revoked} == {("carol", reason)}


def test_a_role_that_is_not_held_cannot_be_taken(carol: User, bob: User) -> None:
    account("alice", "User")
    with called_by(carol):
        text = refused(mcp_tools.revoke_role, "bob", "User")
        assert text == "bob does not hold User."
        assert "no user named x" in refused(mcp_tools.revoke_role, "x", "User")
        assert "no role named x" in refused(mcp_tools.revoke_role, "bob", "x")


def test_the_rules_of_the_admin_apply_to_taking(carol: User, adm: User) -> None:
    with called_by(adm):
        assert "your own roles" in refused(mcp_tools.revoke_role, "adm", "Admin")
        assert "a superuser" in refused(mcp_tools.revoke_role, "carol", "Admin")


# ---------------------------------------------------------------- revoke_tokens


def test_all_tokens_of_one_user_are_revoked(carol: User, bob: User) -> None:
    other = account("alice", "Guest")
    for user in (bob, bob, other):
        issued(user)
    before, count = tokens_of(other), tokens_of(bob)
    assert count > 1
    with called_by(carol):
        text = mcp_tools.revoke_tokens("bob", "lost laptop")
        assert "no user named x" in refused(mcp_tools.revoke_tokens, "x")
    assert text == f"{count} tokens of bob revoked."
    assert (tokens_of(bob), tokens_of(other)) == (0, before)
    found = events("token.revoked")
    assert {(e[1], e[4]) for e in found} == {("carol", "lost laptop")}


def test_tokens_of_those_who_outrank_the_caller_stay(carol: User, adm: User) -> None:
    issued(carol)
    with called_by(adm):
        assert "Ask a superuser" in refused(mcp_tools.revoke_tokens, "carol")


# -------------------------------------------------------------- recent_refusals


def denied(person: User, number: int = 1, **changed: Any) -> None:
    for _ in range(number):
        values = {
            "action": "tool.denied",
            "decision": "denied",
            "actor": person.username,
            "actor_id": person.pk,
            "object": "tool x",
            "reason": "role_lacks_scope",
            "via": "requires one of X",
        } | changed
        AuditEvent(**values).save()


def test_the_newest_refusals_come_first(carol: User, bob: User) -> None:
    denied(bob, object="tool first")
    denied(carol, object="tool second")
    denied(bob, decision="allowed")
    denied(bob, decision="")
    with called_by(carol):
        found = mcp_tools.recent_refusals()
    assert [row["object"] for row in found] == ["tool second", "tool first"]
    datetime.fromisoformat(found[1].pop("at"))
    assert found[1] == {
        "actor": "bob",
        "object": "tool first",
        "reason": "role_lacks_scope",
        "via": "requires one of X",
    }


def test_who_may_not_view_the_audit_sees_only_the_own(adm: User, bob: User) -> None:
    for user in (adm, bob):
        denied(user)
    # The name is text, and another account may have had it before.
    denied(bob, actor="adm")
    with called_by(adm):
        assert len(mcp_tools.recent_refusals()) == 1
        adm.user_permissions.set(Permission.objects.filter(codename="view_auditevent"))
        assert len(mcp_tools.recent_refusals()) == 1, "not in the admin"
        User.objects.filter(pk=adm.pk).update(is_staff=True)
        assert len(mcp_tools.recent_refusals()) == 3


@pytest.mark.parametrize(
    ("limit", "shown"), [(-1, 1), (0, 1), (2, 2), (200, 200), (201, 200), (None, 20)]
)
def test_refusals_are_limited(carol: User, bob: User, limit: Any, shown: int) -> None:
    denied(bob, 201)
    with called_by(carol):
        given = {} if limit is None else {"limit": limit}
        assert len(mcp_tools.recent_refusals(**given)) == shown


def test_a_text_fits_its_column() -> None:
    tools = {tool.name: tool.parameters for tool in mcp.tools.all_tools()}
    for name in (*WRITING, "list_users"):
        for argument, schema in tools[name]["properties"].items():
            if argument != "limit":
                assert (schema["maxLength"], schema["pattern"]) == (255, r"^[^\x00]*$")


def test_roles_with_scopes_of_others_cannot_be_given(adm: User, bob: User) -> None:
    payroll = Role.objects.create(name="Payroll")
    payroll.scopes.add(Scope.objects.create(name="Payroll.Read"))
    with called_by(adm):
        assert "Payroll.Read" in refused(mcp_tools.grant_role, "bob", "Payroll")
