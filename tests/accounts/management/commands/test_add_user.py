"""`manage.py add_user`: the account, its rights and its password."""

from __future__ import annotations

import io
from typing import Any

import pytest

from accounts.models import RoleAssignment, User
from tests.support.commands import new_events, refusal, run_command

pytestmark = pytest.mark.django_db
FLAGS = ("is_staff", "is_superuser", "is_service_account")


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ([], (False, False, False)),
        (["--staff"], (True, False, False)),
        (["--superuser"], (True, True, False)),
        (["--service-account"], (False, False, True)),
    ],
)
def test_an_account_has_only_the_rights_it_was_given(
    arguments: list[str], flags: tuple[bool, ...]
) -> None:
    told = run_command("add_user", "zoe", "--email", "zoe@h.example", *arguments)
    zoe = User.objects.get(username="zoe")
    assert tuple(getattr(zoe, name) for name in FLAGS) == flags
    assert zoe.email == "zoe@h.example" and zoe.is_active
    assert not zoe.has_usable_password() and told == "Added zoe with no role.\n"


def test_account_and_roles_are_recorded() -> None:
    found = new_events(
        lambda: run_command("add_user", "zoe", "--role", "User", "--role", "Guest")
    )
    assert found == [
        ("command line", "user.added", "zoe", ""),
        ("command line", "role.granted", "zoe has User", ""),
        ("command line", "role.granted", "zoe has Guest", ""),
    ]
    reasons = RoleAssignment.objects.values_list("reason", flat=True)
    assert set(reasons) == {"added with the user"}


@pytest.mark.parametrize("end", ["\n", "\r\nx", ""])
@pytest.mark.parametrize("word", ["a long enough phrase 7", " with spaces around 7 "])
def test_the_password_is_the_first_line(monkeypatch: Any, word: str, end: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{word}{end}"))
    run_command("add_user", "zoe", "--password-stdin")
    assert User.objects.get(username="zoe").check_password(word)


@pytest.mark.parametrize(
    ("arguments", "line", "told"),
    [
        (["--password-stdin"], "\n", "No password on standard input"),
        (["--password-stdin"], "zoezoezoe1\n", "too similar"),
        (["--email", "no address"], "", "valid email"),
        (
            ["--role", "Nope"],
            "",
            "There is no role Nope; there are: Admin, Guest, User",
        ),
    ],
)
def test_nothing_is_added_when_something_is_wrong(
    monkeypatch: Any, arguments: list[str], line: str, told: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(line))
    assert told in refusal("add_user", "zoezoezoe", *arguments)
    assert not User.objects.filter(username="zoezoezoe").exists()


@pytest.mark.parametrize("name", ["ZOE", "Zoe", "ｚoe", "zoe"])
def test_a_name_that_looks_like_another_is_refused(name: str) -> None:
    run_command("add_user", "zoe")
    assert "already exists" in (told := refusal("add_user", name)) or "zoe" in told
    assert User.objects.filter(username__iexact="zoe").count() == 1


def test_a_name_of_wide_characters_is_stored_in_the_usual_ones() -> None:
    assert run_command("add_user", "ｚoe") == "Added zoe with no role.\n"


def test_a_role_that_is_named_twice_is_granted_once() -> None:
    names = ("--role", "User", "--role", "User", "--role", "Guest")
    told: list[str] = []
    found = new_events(lambda: told.append(run_command("add_user", "zoe", *names)))
    assert told == ["Added zoe with User, Guest.\n"]
    assert [event[1] for event in found].count("role.granted") == 2
