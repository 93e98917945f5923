"""An import of users is applied whole, with an event per change, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.authorization.delegation import NotAllowed
from accounts.imports import user_csv_apply, user_csv_plan
from accounts.imports.problems import StalePreview
from accounts.imports.user_csv_apply import Batch, apply_users
from accounts.imports.user_csv_plan import plan_users
from accounts.models import AuditEvent, IssuedToken, Role, RoleAssignment, User
from accounts.tokens.issue import issue_tokens
from tests.support.accounts import HOUR, role_of, stop_clock
from tests.support.model_rows import person
from tests.support.users import account, unguarded_users

pytestmark = pytest.mark.django_db
HEAD = "username,email,first_name,active,roles\n"


def apply_file(text: str, actor: Any = "test") -> list[tuple[int, int]]:
    """Apply a file and return its progress."""
    raw = text.encode()
    plan = plan_users(raw, actor)
    assert plan.problems == []
    return list(apply_users(raw, plan.mark, actor))


def events() -> list[tuple[str, str]]:
    """Action and object of all events, oldest first."""
    return list(AuditEvent.objects.order_by("pk").values_list("action", "object"))


def test_a_file_adds_changes_and_keeps_users(
    alice: User, bob: User, carol: User
) -> None:
    """A dry run describes the changes; applying makes and audits them."""
    pair = issue_tokens(bob, issued_via="command")
    end = f"{timezone.now() + timedelta(days=9):%Y-%m-%d}"
    text = (
        f"\ufeff{HEAD}alice,alice@example.org,,,User; Guest@{end}\n"
        "bob,,,no,\n"
        "carol,,,,\n"
        "dora,dora@example.org,Dora,yes,User\n"
    ).replace("\n", "\r\n")
    plan = plan_users(text.encode(), "test")
    assert [(s.what, s.username) for s in plan.steps] == [
        ("change", "alice"),
        ("change", "bob"),
        ("same", "carol"),
        ("add", "dora"),
    ]
    assert plan.steps[0].changes["email"] == ["", "alice@example.org"]
    assert not User.objects.filter(username="dora").exists()
    assert apply_file(text, carol)[-1] == (3, 3)
    dora = User.objects.get(username="dora")
    assert dora.first_name == "Dora" and not dora.has_usable_password()
    assignment = RoleAssignment.objects.get(user=alice, role__name="Guest")
    assert (
        assignment.expires_at is not None and f"{assignment.expires_at:%Y-%m-%d}" == end
    )
    assert assignment.granted_by == carol
    bob.refresh_from_db()
    assert not bob.is_active and pair.row.state == "revoked"
    words = AuditEvent.objects.filter(actor="carol").order_by("id")
    assert [event.action for event in words if event.action != "token.revoked"] == [
        "user.added",
        "user.changed",
        "user.changed",
        "role.granted",
        "role.granted",
        "users.imported",
    ]
    assert apply_file(text)[-1] == (0, 0), "a second time it changes nothing"
    assert apply_file(f"{HEAD}alice,,,,Guest\nbob,,,yes,\n")[-1] == (2, 2)
    assignment.refresh_from_db()
    bob.refresh_from_db()
    assert assignment.expires_at is None and bob.is_active


def test_changes_since_the_dry_run_are_checked_again(alice: User) -> None:
    """One transaction applies exactly the changes that were shown."""
    raw = f"{HEAD}alice,new@example.org,,,\n".encode()
    mark = plan_users(raw, "test").mark
    User.objects.filter(pk=alice.pk).update(email="other@example.org")
    with pytest.raises(StalePreview, match="Nothing was applied"):
        list(apply_users(raw, mark, "test"))
    alice.refresh_from_db()
    assert alice.email == "other@example.org"


def test_a_cancelled_import_changes_nothing(db: None) -> None:
    raw = (HEAD + "".join(f"u{n},,,,User\n" for n in range(450))).encode()
    work = apply_users(raw, plan_users(raw, "test").mark, "test")
    assert [next(work) for _again in range(3)] == [(0, 450), (200, 450), (400, 450)]
    work.close()  # type: ignore[attr-defined]
    assert not User.objects.filter(username="u0").exists()


def test_every_batch_is_applied(monkeypatch: pytest.MonkeyPatch, db: None) -> None:
    monkeypatch.setattr(user_csv_apply, "BATCH_SIZE", 2)
    for number in range(5):
        account(f"old{number}", "Guest")
    text = "username,first_name,roles\n"
    text += "".join(f"old{n},N{n},User\nnew{n},N{n},User\n" for n in range(5))
    done = apply_file(text)
    assert done == [(0, 10), (2, 10), (4, 10), (6, 10), (8, 10), (10, 10)]
    for number in range(5):
        for name in (f"old{number}", f"new{number}"):
            user = User.objects.get(username=name)
            assert user.first_name == f"N{number}"
            assert user.role_assignments.filter(role__name="User").count() == 1
    found = events()
    assert len(found) == 21
    for number in range(5):
        assert found.count(("user.changed", f"old{number}")) == 1
        assert found.count(("user.added", f"new{number}")) == 1
        assert found.count(("role.granted", f"new{number} has User")) == 1
    summary = AuditEvent.objects.get(action="users.imported")
    assert summary.object == "10 users" and summary.actor == "test"
    assert summary.changes == {"add": ["", 5], "change": ["", 5], "same": ["", 0]}


def test_a_file_that_changes_nothing_is_recorded(alice: User) -> None:
    assert apply_file("username\nalice\n") == [(0, 0)]
    event = AuditEvent.objects.get()
    assert (event.action, event.object) == ("users.imported", "0 users")
    assert event.changes == {"add": ["", 0], "change": ["", 0], "same": ["", 1]}


def test_an_error_in_a_later_batch_undoes_all(
    monkeypatch: pytest.MonkeyPatch, db: None
) -> None:
    monkeypatch.setattr(user_csv_apply, "BATCH_SIZE", 1)
    raw = b"username\na\nb\n"
    work = apply_users(raw, plan_users(raw, "test").mark, "test")
    assert [next(work), next(work)] == [(0, 2), (1, 2)]
    assert User.objects.filter(username="a").exists()

    def fail(batch: Batch) -> None:
        raise OSError

    monkeypatch.setattr(Batch, "apply", fail)
    with pytest.raises(OSError):
        next(work)
    assert not User.objects.exists() and events() == []


def unchanged(raw: bytes, mark: str, actor: Any, error: type[Exception]) -> None:
    """The import is refused before its first change."""
    before = (list(User.objects.order_by("pk").values()), events())
    with pytest.raises(error):
        next(apply_users(raw, mark, actor))
    assert (list(User.objects.order_by("pk").values()), events()) == before


def test_only_superusers_and_commands_import(alice: User, carol: User) -> None:
    raw = b"username\nx\n"
    mark = plan_users(raw, "test").mark
    unchanged(raw, mark, alice, NotAllowed)
    unguarded_users().filter(pk=carol.pk).update(is_superuser=False)
    unchanged(raw, mark, carol, NotAllowed)
    User.objects.filter(pk=carol.pk).update(is_superuser=True)
    assert list(apply_users(raw, mark, carol))[-1] == (1, 1)
    assert AuditEvent.objects.get(action="user.added").actor_id == carol.pk


def test_another_plan_than_the_shown_one_is_stale(alice: User, carol: User) -> None:
    raw = b"username,active\nx,yes\n"
    unchanged(raw, "", "test", StalePreview)
    unchanged(raw, plan_users(b"username\nx\n", "test").mark, "test", StalePreview)


def test_a_plan_with_problems_is_not_applied(carol: User) -> None:
    raw = b"username,active\nx,yes\ncarol,no\n"
    unchanged(raw, plan_users(raw, carol).mark, carol, StalePreview)


def test_a_role_deleted_meanwhile_makes_the_plan_stale(
    monkeypatch: pytest.MonkeyPatch, db: None
) -> None:
    role_of("Short")
    raw = b"username,roles\nx,User;Short\n"
    mark = plan_users(raw, "test").mark
    parse = user_csv_plan.parse_csv

    def parse_and_delete(given: bytes) -> Any:
        parsed = parse(given)
        Role.objects.filter(name="Short").delete()
        return parsed

    monkeypatch.setattr(user_csv_apply, "parse_csv", parse_and_delete)
    unchanged(raw, mark, "test", StalePreview)


def test_a_new_account_has_the_values_of_its_line(db: None) -> None:
    text = "username,email,first_name,last_name,active,service_account\n"
    apply_file(f"{text}x,X@Example.org,First,Last,no,yes\ny,,,,,\n", "test")
    x, y = User.objects.order_by("username")
    assert (x.email, x.first_name, x.last_name) == ("x@example.org", "First", "Last")
    assert not x.is_active and x.is_service_account and x.email_set_by_admin
    assert not x.has_usable_password() and not x.is_staff and not x.is_superuser
    assert y.is_active and not y.is_service_account and y.email == ""
    added = AuditEvent.objects.filter(action="user.added").order_by("pk")
    assert [event.object for event in added] == ["x", "y"]
    assert added[0].changes["email"] == [None, "x@example.org"]


def test_an_address_in_a_file_is_set_by_an_administrator(db: None) -> None:
    for name in ("given", "same", "kept"):
        person(name, email=f"{name}@example.org", email_set_by_admin=False)
    apply_file(
        "username,email,first_name\n"
        "given,new@example.org,\nsame,same@example.org,S\nkept,,K\n"
    )
    given, same, kept = (
        User.objects.get(username=name) for name in ("given", "same", "kept")
    )
    assert given.email == "new@example.org" and given.email_set_by_admin
    assert (same.first_name, same.email_set_by_admin) == ("S", False)
    assert (kept.first_name, kept.email_set_by_admin) == ("K", False)
    assert kept.email == "kept@example.org"


def test_accounts_are_opened_and_closed_in_one_batch(db: None) -> None:
    """Closing revokes tokens, so it is not a plain update."""
    for name, active in {"opens": False, "closes": True, "stays": True}.items():
        account(name, "User", is_active=active)
    tokens = {
        name: issue_tokens(User.objects.get(username=name), issued_via="command").row
        for name in ("closes", "stays")
    }
    apply_file("username,active\nopens,yes\ncloses,no\nstays,yes\n", "test")
    active = User.objects.filter(is_active=True).values_list("username", flat=True)
    assert set(active) == {"opens", "stays"}
    assert tokens["closes"].state == "revoked" and tokens["stays"].state == "active"
    revoked = AuditEvent.objects.filter(action="token.revoked")
    assert {event.actor for event in revoked} == {"test"}
    changes = dict(
        AuditEvent.objects.filter(action="user.changed").values_list(
            "object", "changes"
        )
    )
    assert changes == {
        "opens": {"is_active": [False, True]},
        "closes": {"is_active": [True, False]},
    }


def close_first(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def keep_open(user: User) -> None:
    """As it is."""


@pytest.mark.parametrize(("prepare", "ends"), [(close_first, 0), (keep_open, 1)])
def test_an_account_is_closed_once(
    prepare: Callable[[User], None], ends: int, db: None
) -> None:
    user = account("x")
    prepare(user)
    apply_file("username,active\nx,no\n")
    user.refresh_from_db()
    assert not user.is_active and user.session_epoch == ends


def test_a_grant_names_who_made_it_and_why(
    monkeypatch: pytest.MonkeyPatch, carol: User
) -> None:
    now = stop_clock(monkeypatch, datetime(2026, 5, 1, 12, tzinfo=UTC))
    user, other = account("x", "Guest"), account("other", "Guest")
    RoleAssignment.objects.update(reason="old", granted_at=now - HOUR)
    apply_file("username,roles\nx,Guest@2026-05-02 12:00;User\n", carol)
    rows = {row.role.name: row for row in user.role_assignments.all()}
    assert rows.keys() == {"Guest", "User"}
    for row in rows.values():
        assert (row.granted_by, row.reason) == (carol, "imported from CSV")
        assert row.granted_at == now
    assert rows["Guest"].expires_at == now + timedelta(days=1)
    assert rows["User"].expires_at is None
    assert other.role_assignments.get().reason == "old"
    changes = {
        (event.action, event.object): event.changes
        for event in AuditEvent.objects.filter(action__startswith="role.")
    }
    end = "until 2026-05-02 12:00 UTC"
    assert changes == {
        ("role.extended", "x has Guest"): {"expires_at": ["no end date", end]},
        ("role.granted", "x has User"): {"expires_at": [None, "no end date"]},
    }


def test_events_have_the_longest_names(db: None) -> None:
    name, role = "x" * 150, Role.objects.create(name="r" * 100)
    apply_file(f"{HEAD}{name},,,,{role}\n")
    held = str(RoleAssignment.objects.get())
    assert len(held) > 250
    assert events()[-3:-1] == [("user.added", name), ("role.granted", held[:255])]


def test_a_command_is_no_granter(db: None) -> None:
    apply_file("username,roles\nx,Guest\n", "command line")
    row = RoleAssignment.objects.get()
    assert row.granted_by is None and row.reason == "imported from CSV"
    event = AuditEvent.objects.get(action="role.granted")
    assert (event.actor, event.actor_id) == ("command line", None)
    assert not IssuedToken.objects.exists()
