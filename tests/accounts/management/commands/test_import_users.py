"""`manage.py import_users`: the preview, the changes, the problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accounts.management.commands import import_users
from accounts.models import AuditEvent, User
from tests.support.commands import new_events, refusal, run_command

pytestmark = pytest.mark.django_db


@pytest.fixture
def file(tmp_path: Path, alice: User) -> Path:
    path = tmp_path / "users.csv"
    path.write_text("username,email,roles\nzoe,zoe@h.example,Guest\nalice,,\n")
    return path


PLAN = "2 lines: 1 add, 0 change, 1 same."


def test_a_dry_run_prints_and_changes_nothing(file: Path) -> None:
    before = AuditEvent.objects.count()
    told = run_command("import_users", str(file), "--dry-run").splitlines()
    assert told[0].startswith("add zoe  ") and " -> zoe@h.example" in told[0]
    assert told[1:] == [PLAN]
    assert not User.objects.filter(username="zoe").exists()
    assert AuditEvent.objects.count() == before


def test_the_changes_are_applied_and_recorded(file: Path) -> None:
    told: list[str] = []
    found = new_events(lambda: told.append(run_command("import_users", str(file))))
    assert told[0].splitlines()[-2:] == [PLAN, "Done."]
    zoe = User.objects.get(username="zoe")
    assert zoe.email == "zoe@h.example" and zoe.role_assignments.count() == 1
    assert {actor for actor, *_rest in found} == {"command line"}
    assert {"user.added", "role.granted"} <= {action for _a, action, *_r in found}


def test_a_change_is_printed_with_both_values(file: Path) -> None:
    file.write_text("username,first_name\nalice,Alice\n")
    told = run_command("import_users", str(file), "--dry-run")
    assert told.splitlines() == [
        "change alice  first_name:  -> Alice",
        "1 line: 0 add, 1 change, 0 same.",
    ]


@pytest.mark.parametrize(("count", "rest"), [(50, ""), (51, "\nand 1 more")])
def test_at_most_fifty_problems_are_listed(file: Path, count: int, rest: str) -> None:
    file.write_text("username\n" + "".join(f"x{n}!\n" for n in range(count)))
    told = refusal("import_users", str(file))
    assert told.startswith("Nothing was changed.\n") and told.endswith(rest)
    assert len(told.removesuffix(rest).splitlines()) == 51
    assert ("more" in told.splitlines()[-1]) == bool(rest)


def test_one_problem_is_enough_to_change_nothing(file: Path) -> None:
    file.write_text("username\nzoe\nx!\n")
    assert refusal("import_users", str(file)).startswith("Nothing was changed.\n")
    assert not User.objects.filter(username="zoe").exists()


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "missing.csv"
    assert refusal("import_users", str(path)) == f"{path}: No such file or directory."


def test_long_imports_print_their_progress(file: Path, monkeypatch: Any) -> None:
    steps = [(0, 4001), (1999, 4001), (2000, 4001), (4000, 4001), (4001, 4001)]
    monkeypatch.setattr(import_users, "apply_users", lambda *_arguments: steps)
    told = run_command("import_users", str(file)).splitlines()
    assert told[-3:] == ["2000 of 4001", "4000 of 4001", "Done."]
    assert "0 of 4001" not in told


def test_a_link_is_printed_for_each_person_who_cannot_sign_in(file: Path) -> None:
    told = run_command("import_users", str(file), "--invite").splitlines()
    assert told[-2] == "Done." and told[-1].startswith("zoe  http")
    assert "/accounts/invitation/" in told[-1]
    file.write_text("username,roles\nsam,Guest\n")
    run_command("import_users", str(file))
    told = run_command("import_users", str(file), "--invite").splitlines()
    assert told[-1].startswith("sam  http"), "also one who was there before"
    file.write_text("username,roles\nyan,Guest\n")
    assert "/accounts/invitation/" not in run_command("import_users", str(file))
