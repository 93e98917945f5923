"""Users and roles from CSV: errors name line and field and change nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.imports.problems import StalePreview
from accounts.imports.user_csv_apply import apply_users
from accounts.imports.user_csv_plan import plan_users
from accounts.models import AuditEvent, ImportDraft, RoleAssignment, User
from accounts.tokens.issue import issue_tokens

pytestmark = pytest.mark.django_db
HEAD = "username,email,first_name,active,roles\n"


def problems_of(text: str | bytes, actor: Any = "test") -> list[str]:
    raw = text.encode() if isinstance(text, str) else text
    return [str(problem) for problem in plan_users(raw, actor).problems]


def apply_file(text: str, actor: Any = "test") -> list[tuple[int, int]]:
    """Apply a file and return its progress."""
    raw = text.encode()
    plan = plan_users(raw, actor)
    assert plan.problems == []
    return list(apply_users(raw, plan.mark, actor))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1, username: this column is missing from the first line"),
        (
            "email\na@b.c\n",
            "line 1, username: this column is missing from the first line",
        ),
        ("username,colour\nx,red\n", "line 1, colour: unknown column"),
        ("username,is_superuser\nx,1\n", "line 1, is_superuser: a file cannot set"),
        ("username,password\nx,1\n", "line 1, password: a file cannot set this"),
        ("username,username\nx,y\n", "line 1: a column name appears twice"),
        ("username,email\nx\n", "line 2: this line has more or fewer cells"),
        ("username\nx,y\n", "line 2: this line has more or fewer cells"),
        ('username\n"x\n', "line 2: unexpected end of data"),
        (f"{HEAD}dora,nowhere,,,\n", "line 2, email: Enter a valid email address"),
        (f"{HEAD}do ra,,,,\n", "line 2, username: Enter a valid username"),
        (f"{HEAD},,,,\n", "line 2, username: This field cannot be blank"),
        (f"{HEAD}dora,,,maybe,\n", "line 2, active: 'maybe' is neither yes nor no"),
        (f"{HEAD}dora,,,,Boss\n", "line 2, roles: unknown role 'Boss'; known roles"),
        (f"{HEAD}dora,,,,User@soon\n", "line 2, roles: 'soon' is not a date or time"),
        (
            f"{HEAD}dora,,,,User@2001-02-31\n",
            "line 2, roles: '2001-02-31' is not a date",
        ),
        (
            f"{HEAD}dora,,,,User@2001-01-01\n",
            "line 2, roles: 2001-01-01 is in the past",
        ),
        (
            f"{HEAD}d,,,,\ne,,,,\nd,,,,\n",
            "line 4, username: d is a duplicate of line 2",
        ),
        (b"username\nd\xff\n", "line 2: the file is not UTF-8 text"),
    ],
    ids=str,
)
def test_a_problem_names_line_and_field(text: str | bytes, problem: str) -> None:
    found = problems_of(text)
    assert found and found[0].startswith(problem), found


def test_every_problem_is_reported_at_once(alice: User) -> None:
    text = f"{HEAD}x,nowhere,,maybe,Boss\ny y,,,,\nalice,,,no,\n"
    assert len(problems_of(text)) == 4, problems_of(text)
    own = problems_of(f"{HEAD}alice,,,no,\n", alice)
    assert own == ["line 2, active: you cannot deactivate your own account"]


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


def test_the_command_compares_and_applies(
    alice: User, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / "people.csv"
    file.write_text(f"{HEAD}dora,,,,User\nalice,,,,\n")
    call_command("import_users", file, "--dry-run")
    assert "2 lines: 1 add, 0 change, 1 same." in capsys.readouterr().out
    assert not User.objects.filter(username="dora").exists()
    call_command("import_users", file)
    assert "Done." in capsys.readouterr().out
    assert User.objects.filter(username="dora").exists()
    file.write_text(f"{HEAD}dora,,,,Boss\n")
    with pytest.raises(CommandError, match="Nothing was changed.\nline 2, roles"):
        call_command("import_users", file)
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_users", tmp_path / "none.csv")


def test_drafts_are_deleted_after_a_day(alice: User) -> None:
    """An upload for review is personal data and is not kept."""
    old = timezone.now() - timedelta(days=2)
    draft = ImportDraft.objects.create(owner=alice, kind="users", content="x")
    assert ImportDraft.objects.all().purge(timezone.now()) == 0
    ImportDraft.objects.filter(pk=draft.pk).update(made_at=old)
    assert ImportDraft.objects.all().purge(timezone.now()) == 1
    assert str(draft) == "users draft of alice"
