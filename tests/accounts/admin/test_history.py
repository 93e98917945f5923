"""History: the audit of one row, however it was changed."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.admin_site import base
from accounts.audit.record import record
from accounts.imports.user_csv_apply import apply_users
from accounts.imports.user_csv_plan import plan_users
from accounts.models import (
    AuditEvent,
    IssuedToken,
    OAuthClient,
    Role,
    RoleAssignment,
    Scope,
    SigningKey,
    User,
)
from mcp_bridge.access.matrix.cells import Matrix
from mcp_bridge.access.matrix.saving import save_matrix
from mcp_bridge.access.policy_file import apply_policy, export_text, policy_diff
from mcp_bridge.models import Primitive
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    row_url,
    staff_member,
)
from tests.support.commands import run_command
from tests.support.page_tables import rows_on
from tests.support.users import account

pytestmark = pytest.mark.django_db


def history(root: AdminBrowser, row: Any) -> str:
    page = root.open(row_url(type(row), row, "history")).page
    assert page.status_code == 200
    return str(page.text)


def by_form(root: AdminBrowser, role: Role) -> str:
    root.open(row_url(Role, role))
    root.submit(root.form("_save"), "_save", description="by form")
    return "role.changed"


def by_matrix(root: AdminBrowser, role: Role) -> str:
    scope = Scope.objects.create(name="tool:look")
    tool = Primitive.objects.create(kind="tool", name="look")
    tool.required_scopes.set([scope])
    matrix = Matrix([tool], [role])
    codes = [f"+{role.pk}-{tool.pk}"]
    save_matrix(matrix, matrix.version, codes, actor=root.user, request=None)
    return "role.scope_given"


def by_policy(root: AdminBrowser, role: Role) -> str:
    text = export_text().replace(role.description, "by policy").encode()
    assert apply_policy(text, policy_diff(text).mark, root.user)
    return "role.changed"


@pytest.mark.parametrize("change", [by_form, by_matrix, by_policy])
def test_every_way_to_change_a_role_is_in_its_history(
    root: AdminBrowser, change: Any
) -> None:
    role = Role.objects.create(name="Crew", description="unique words")
    other = Role.objects.create(name="Crew too")
    action = change(root, role)
    assert f"<td>{action}</td>" in history(root, role)
    text = history(root, other)
    assert action not in text and "no events about this item" in text


def by_user_form(root: AdminBrowser, alice: User) -> str:
    root.open(row_url(User, alice))
    root.submit(root.form("_save"), "_save", first_name="Al")
    return "user.changed"


def by_import(root: AdminBrowser, alice: User) -> str:
    raw = b"username,first_name\nalice,Al\n"
    list(apply_users(raw, plan_users(raw, root.user).mark, root.user))
    return "user.changed"


def by_command(root: AdminBrowser, alice: User) -> str:
    run_command("grant_role", "alice", "User")
    return "role.granted"


def by_action(root: AdminBrowser, alice: User) -> str:
    root.run(User, "deactivate", alice)
    return "user.deactivated"


def by_revocation(root: AdminBrowser, alice: User) -> str:
    add_token(alice)
    run_command("revoke_tokens", "--user", "alice")
    return "token.revoked"


@pytest.mark.parametrize(
    "change", [by_user_form, by_import, by_command, by_action, by_revocation]
)
def test_every_way_to_change_a_user_is_in_its_history(
    root: AdminBrowser, change: Any
) -> None:
    """Also after a rename: the history follows the row, not the name."""
    alice, bob = account("alice", "Guest"), account("bob", "Guest")
    action = change(root, alice)
    User.objects.filter(pk=alice.pk).update(username="alicia")
    alice.refresh_from_db()
    assert f"<td>{action}</td>" in history(root, alice)
    assert "no events about this item" in history(root, bob)


def test_other_rows_have_their_history(root: AdminBrowser) -> None:
    run_command("add_client", "app", "--redirect-uri", "https://a.example/cb")
    assert "client.registered" in history(root, OAuthClient.objects.get())
    SigningKey.objects.rotate(actor=root.user)
    active = SigningKey.objects.get(state="active")
    assert "key.rotated" in history(root, active)
    alice = account("alice")
    token = add_token(alice)
    IssuedToken.objects.filter(pk=token.pk).revoke(actor=root.user, reason="lost")
    assert "token.revoked" in history(root, token)
    run_command("grant_role", "alice", "User")
    run_command("grant_role", "alice", "Guest")
    held = RoleAssignment.objects.get(user=alice, role__name="User")
    text = history(root, held)
    assert "alice has User" in text and "alice has Guest" not in text


def test_a_history_shows_what_changed_as_text(root: AdminBrowser) -> None:
    role = Role.objects.create(name="Crew")
    changes = {"name": ["<b>old</b>", "new"], "scopes": [[], ["a", "b"]]}
    record("role.changed", object=role, changes=changes, actor=root.user)
    text = history(root, role)
    assert "&lt;b&gt;old&lt;/b&gt;" in text and "a, b" in text
    link = f"/admin/accounts/auditevent/?subject=role%3A{role.pk}"
    assert link in text
    shown = root.open(link).page.text
    assert "role.changed" in shown and "role Crew" in shown
    assert shown.count('class="moment"') == 1


def test_a_history_is_bounded(root: AdminBrowser, monkeypatch: Any) -> None:
    assert base.HISTORY_LENGTH == 100
    monkeypatch.setattr(base, "HISTORY_LENGTH", 2)
    role = Role.objects.create(name="Crew")
    for number in range(3):
        record("role.changed", object=role, reason=f"reason {number}")
    text = history(root, role)
    assert [f"reason {n}" in text for n in range(3)] == [False, True, True]


def test_the_history_needs_the_audit_permission() -> None:
    role = Role.objects.create(name="Crew")
    vera = AdminBrowser(staff_member("vera", "view_role"))
    path = row_url(Role, role, "history")
    assert path not in vera.open(row_url(Role, role)).page.text
    assert vera.open(path).page.status_code == 403
    auditor = AdminBrowser(staff_member("aud", "view_role", "view_auditevent"))
    assert path in auditor.open(row_url(Role, role)).page.text
    assert auditor.open(path).page.status_code == 200
    blind = AdminBrowser(staff_member("blind", "view_auditevent"))
    assert blind.open(path).page.status_code == 403


def test_a_row_that_does_not_exist_has_no_history(root: AdminBrowser) -> None:
    page = root.open("/admin/accounts/role/999999/history/").page
    assert "doesn’t exist" in page.text and page.url == "/admin/"


def test_the_events_of_one_request_are_the_history_of_an_event(
    root: AdminBrowser,
) -> None:
    one = record("a.one", request_id="same")
    record("a.two", request_id="same"), record("a.three", request_id="other")
    text = history(root, AuditEvent.objects.get(pk=one.pk))
    assert "a.one" in text and "a.two" in text and "a.three" not in text


def test_each_event_has_its_columns(root: AdminBrowser) -> None:
    role = Role.objects.create(name="Crew")
    known: dict[str, Any] = {
        "actor": root.user,
        "reason": "<why>",
        "changes": {"name": ["old", "new"]},
    }
    first = record("role.changed", object=role, **known)
    record("role.seen", subject=role)
    head = ("When", "Actor", "Action", "Object", "Reason", "Before and after")
    page = history(root, role)
    plain, changed = rows_on(page, *head)
    shown = ["root", "role.changed", "Crew", "<why>", "name: old new"]
    assert list(changed.values())[1:] == shown
    assert list(plain.values())[1:] == ["-", "role.seen", "-", "-", "-"]
    assert f'href="/admin/accounts/auditevent/{first.pk}/change/"' in page
