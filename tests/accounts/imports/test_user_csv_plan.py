"""Users and roles from CSV: errors name line and field and change nothing."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.imports import user_csv_plan
from accounts.imports.spreadsheets import column_name, separator_of
from accounts.imports.user_csv_plan import Plan, Step, plan_users
from accounts.models import ImportDraft, Role, RoleAssignment, User
from tests.support.accounts import role_of, stop_clock
from tests.support.model_rows import person
from tests.support.users import account, unguarded_users

pytestmark = pytest.mark.django_db
HEAD = "username,email,first_name,active,roles\n"


def problems_of(text: str | bytes, actor: Any = "test") -> list[str]:
    raw = text.encode() if isinstance(text, str) else text
    return [str(problem) for problem in plan_users(raw, actor).problems]


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
        (f"{HEAD},a@b.c,,,\n", "line 2, username: This field cannot be blank"),
        ("username,\nx,y\n", "line 2: a cell with a value has no column name"),
        (b"PK\x03\x04...", "the file: this workbook cannot be read"),
        (b"\xd0\xcf\x11\xe0...", "the file: this is an old Excel workbook"),
        (b"\xff\xfeu", "line 1: the file is not valid UTF-16 text"),
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
        (b"username\nd\x81\n", "line 2: the file is not UTF-8 text"),
        ("username\né\n".encode() + b"\xff", "line 3: the file is not UTF-8 text"),
        (b"username\n\0\xff\n", "line 2: the file is not UTF-8 text"),
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


@pytest.mark.parametrize(
    "column", ["password", "is_superuser", "is_staff", "groups", "user_permissions"]
)
def test_a_file_makes_nobody_staff(column: str) -> None:
    text = "a file cannot set this; a superuser sets it in the admin"
    assert problems_of(f"username,{column}\nx,1\n") == [f"line 1, {column}: {text}"]


def test_an_unknown_column_is_told_the_known_ones() -> None:
    known = "username, email, first_name, last_name, active, service_account, roles"
    text = f"unknown column; known columns: {known}"
    assert problems_of("username,colour\nx,y\n") == [f"line 1, colour: {text}"]
    everything = plan_users(f"{known.replace(' ', '')}\nx,,,,,,\n".encode(), "test")
    assert everything.problems == [] and everything.count("add") == 1


PEOPLE = [
    ("Username", "E-Mail", "First name", "Last Name", "Roles", ""),
    ("zoe", "Zoe@example.org", "Zoë", "O'Neill, Dr.", "User; Guest", ""),
    ("", "", "", "", "", ""),
    (" ", "", "", "", "", ""),
]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_is_read_as_a_spreadsheet_saves_it(
    db: None, separator: str, encoding: str, end: str
) -> None:
    """Any separator and encoding, headers in words, empty lines and columns."""
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator=end).writerows(PEOPLE)
    plan = plan_users(out.getvalue().encode(encoding), "test")
    assert plan.problems == []
    (step,) = plan.steps
    assert step.values == {
        "email": "zoe@example.org",
        "first_name": "Zoë",
        "last_name": "O'Neill, Dr.",
    }
    assert step.roles == {"User": None, "Guest": None}


@pytest.mark.parametrize(
    ("header", "column"),
    [
        (" USERNAME ", "username"),
        ("Login", "username"),
        ("E-mail address", "email"),
        ("mail", "email"),
        ("Given Name", "first_name"),
        ("Surname", "last_name"),
        ("Service account", "service_account"),
        ("Role", "roles"),
        ("Colour", "colour"),
        ("is_superuser", "is_superuser"),
        ("Is Superuser", "is_superuser"),
    ],
)
def test_a_header_is_a_column_in_other_words(header: str, column: str) -> None:
    assert column_name(header) == column


SPELLINGS = {
    True: ("yes", "YES", "true", "True", "1"),
    False: ("no", "No", "false", "0"),
}


@pytest.mark.parametrize(
    ("cell", "value"), [(c, v) for v, cells in SPELLINGS.items() for c in cells]
)
@pytest.mark.parametrize(
    ("column", "attribute"),
    [("active", "is_active"), ("service_account", "is_service_account")],
)
def test_flags_are_yes_or_no(
    db: None, column: str, attribute: str, cell: str, value: bool
) -> None:
    (one,) = plan_users(f"username,{column}\nx, {cell} \n".encode(), "test").steps
    assert one.values == {attribute: value}
    assert one.changes == {attribute: [None, value]}
    text = f"line 2, {column}: 'y' is neither yes nor no"
    assert problems_of(f"username,{column}\nx,y\n") == [text]


def test_cells_are_trimmed_and_empty_ones_change_nothing(db: None) -> None:
    person("x", email="old@example.org", first_name="Old")
    text = "username,email,first_name,last_name\n x , NEW@Example.org , ,  Last \n"
    (one,) = plan_users(text.encode(), "test").steps
    assert (one.username, one.what) == ("x", "change")
    assert one.values == {"email": "new@example.org", "last_name": "Last"}
    assert one.changes == {
        "email": ["old@example.org", "new@example.org"],
        "last_name": ["", "Last"],
    }


@pytest.mark.parametrize("column", ["first_name", "last_name"])
def test_the_models_own_limits_apply(db: None, column: str) -> None:
    (text,) = problems_of(f"username,{column}\nx,{'n' * 151}\n")
    assert text.startswith(f"line 2, {column}: Ensure this value has at most 150")
    assert problems_of(f"username,{column}\nx,{'n' * 150}\n") == []


def test_all_problems_of_a_field_are_shown(db: None) -> None:
    (text,) = problems_of(f"username\n{'!' * 151}\n")
    assert "Enter a valid username" in text and "at most 150 characters" in text


def test_a_duplicate_names_the_first_line(db: None) -> None:
    assert problems_of("username\nd\nD\nd\nd\n") == [
        "line 3, username: D is a duplicate of line 2",
        "line 4, username: d is a duplicate of line 2",
        "line 5, username: d is a duplicate of line 2",
    ]


def test_a_wrong_line_keeps_the_others(db: None) -> None:
    text = f"{HEAD}a,nowhere,,,\nb,,,,\nc,,,maybe,User\nd,,,,\n"
    plan = plan_users(text.encode(), "test")
    assert [s.username for s in plan.steps] == ["b", "d"]
    assert [(p.line, p.field) for p in plan.problems] == [(2, "email"), (4, "active")]
    assert [s.line for s in plan.steps] == [3, 5]


def test_a_wrong_first_line_ends_the_reading(db: None) -> None:
    plan = plan_users(b"username,colour\nx,y,z\nx\n", "test")
    assert len(plan.problems) == 1 and plan.steps == []


def roles_in(cell: str) -> Any:
    plan = plan_users(f"username,roles\nx,{cell}\n".encode(), "test")
    assert plan.problems == []
    return plan.steps[0].roles


NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("", {}),
        (" ; ;", {}),
        ("User", {"User": None}),
        ("User@", {"User": None}),
        (" User ; Guest ", {"User": None, "Guest": None}),
        (
            "User;Guest@2026-05-02 08:30",
            {"User": None, "Guest": datetime(2026, 5, 2, 8, 30, tzinfo=UTC)},
        ),
        (
            "Guest@2026-05-01",
            {"Guest": datetime(2026, 5, 1, 23, 59, 59, 999_999, UTC)},
        ),
        (
            "Guest@20260501",
            {"Guest": datetime(2026, 5, 1, 23, 59, 59, 999_999, UTC)},
        ),
        (
            "Guest@2026-05-01T15:00:00+02:00",
            {"Guest": datetime(2026, 5, 1, 13, 0, tzinfo=UTC)},
        ),
        (
            "Guest@2026-05-01 12:00:01",
            {"Guest": datetime(2026, 5, 1, 12, 0, 1, tzinfo=UTC)},
        ),
        ("ops@night@2026-05-02T00:00", {"ops@night": datetime(2026, 5, 2, tzinfo=UTC)}),
    ],
)
def test_roles_have_an_end_or_none(
    monkeypatch: pytest.MonkeyPatch, cell: str, expected: Any
) -> None:
    stop_clock(monkeypatch, NOW)
    role_of("ops@night")
    assert roles_in(cell) == expected


@pytest.mark.parametrize(
    ("end", "text"),
    [
        ("2026-05-01 12:00", "2026-05-01 12:00 is in the past"),
        ("2026-04-30", "2026-04-30 is in the past"),
        ("2026-05-01x", "'2026-05-01x' is not"),
        ("8h", "'8h' is not a date or time; write 2026-12-31"),
        ("9999-12-31", "9999-12-31 is too late; for no end date"),
        ("9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59-12:00 is too late"),
    ],
)
def test_an_end_is_a_moment_that_the_database_can_store(
    monkeypatch: pytest.MonkeyPatch, end: str, text: str
) -> None:
    stop_clock(monkeypatch, NOW)
    (problem,) = problems_of(f"username,roles\nx,User@{end}\n")
    assert problem.startswith(f"line 2, roles: {text}")


def test_an_unknown_role_is_told_the_known_ones(db: None) -> None:
    text = "unknown role 'Boss'; known roles: Admin, Guest, User"
    assert problems_of("username,roles\nx,Boss;User\n") == [f"line 2, roles: {text}"]


def test_accounts_are_read_in_batches(
    db: None, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    monkeypatch.setattr(user_csv_plan, "LOOKUP_BATCH", 2)
    for number in range(5):
        account(f"u{number}", "User", first_name=f"n{number}")
    text = "username,first_name\n" + "".join(f"u{n},n{n}\n" for n in range(6))
    lines, problems = user_csv_plan.parse_csv(text.encode())
    with django_assert_num_queries(3 * 3 + 2):
        plan = user_csv_plan.plan_rows(lines, problems, "test")
    assert [s.what for s in plan.steps] == ["same"] * 5 + ["add"]


def test_a_step_names_the_ends_that_differ(
    monkeypatch: pytest.MonkeyPatch, alice: User
) -> None:
    stop_clock(monkeypatch, NOW)
    guest = Role.objects.get(name="Guest")
    end = NOW + timedelta(days=1)
    RoleAssignment.objects.grant(alice, guest, expires_at=end)
    text = "username,roles\nalice,User;Guest@2026-05-02 12:00;Admin@2026-05-03 10:00\n"
    (one,) = plan_users(text.encode(), "test").steps
    assert one.roles == {"Admin": datetime(2026, 5, 3, 10, tzinfo=UTC)}
    assert one.changes == {"role Admin": [None, "until 2026-05-03 10:00 UTC"]}
    text = "username,roles\nalice,User@2026-05-02 12:00;Guest\n"
    (one,) = plan_users(text.encode(), "test").steps
    before = "until 2026-05-02 12:00 UTC"
    assert one.changes == {
        "role User": ["no end date", before],
        "role Guest": [before, "no end date"],
    }
    assert one.what == "change" and one.roles == {"User": end, "Guest": None}


def test_a_plan_has_a_mark_of_all_its_changes() -> None:
    made = {
        "line": Step(3, "a", "add", {"x": [1, 2]}),
        "name": Step(2, "b", "add", {"x": [1, 2]}),
        "what": Step(2, "a", "change", {"x": [1, 2]}),
        "changes": Step(2, "a", "add", {"x": [1, 3]}),
        "first": Step(2, "a", "add", {"x": [1, 2]}),
    }
    marks = {Plan([one]).mark for one in made.values()}
    assert len(marks) == 5
    assert Plan([Step(2, "a", "add", {"x": [1, 2]})]).mark in marks
    plan = Plan(list(made.values()))
    assert [plan.count(w) for w in ("add", "change", "same")] == [4, 1, 0]


@pytest.mark.parametrize(
    ("line", "active", "refused"),
    [
        ("alice,no", True, True),
        ("alice,no", False, False),
        ("alice,yes", False, False),
        ("bob,no", True, False),
    ],
)
def test_nobody_deactivates_their_own_account(
    alice: User, bob: User, line: str, active: bool, refused: bool
) -> None:
    User.objects.update(is_active=active)
    found = problems_of(f"username,active\n{line}\n", alice)
    text = "line 2, active: you cannot deactivate your own account"
    assert found == ([text] if refused else [])
    assert problems_of(f"username,active\n{line}\n", "alice") == []


def test_the_last_superusers_stay_active() -> None:
    """One may go while another is left; all of them may not."""
    for name in ("carol", "dana"):
        person(name, is_superuser=True, is_staff=True)
    unguarded_users().exclude(username__in=["carol", "dana"]).update(is_superuser=False)
    found = problems_of("username,active\ndana,no\ncarol,no\n")
    assert [text.partition(":")[0] for text in found] == [
        "line 2, active",
        "line 3, active",
    ]
    assert problems_of("username,active\ndana,no\ncarol,yes\n") == []
    unguarded_users().filter(username="dana").update(is_active=False)
    (problem,) = problems_of("username,active\ndana,no\ncarol,no\n")
    assert problem.startswith("line 3, active:")


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


@pytest.mark.parametrize(
    ("existing", "name"), [("bob", "BOB"), ("Bob", "bob"), ("émile", "ÉMILE")]
)
def test_a_new_name_may_not_look_like_an_accounts(existing: str, name: str) -> None:
    person(existing)
    text = f"a user {existing} exists already; write that name, or another one"
    assert problems_of(f"{HEAD}ann,,,,\n{name},,,,\n") == [f"line 3, username: {text}"]


def test_the_names_of_every_batch_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_csv_plan, "LOOKUP_BATCH", 2)
    for number in range(5):
        person(f"u{number}")
    found = problems_of(HEAD + "".join(f"U{number},,,,\n" for number in range(5)))
    assert [one.partition(",")[0] for one in found] == [
        f"line {number}" for number in range(2, 7)
    ]


def test_names_of_a_file_differ_in_more_than_case() -> None:
    assert problems_of(f"{HEAD}dora,,,,\nDORA,,,,\nｄora,,,,\n") == [
        "line 3, username: DORA is a duplicate of line 2",
        "line 4, username: ｄora is a duplicate of line 2",
    ]


def test_a_wide_name_is_the_name_that_the_form_would_store() -> None:
    person("dora")
    (step,) = plan_users(f"{HEAD}ｄora,d@h.example,,,\n".encode(), "test").steps
    assert (step.username, step.what) == ("dora", "change")


def test_a_local_time_that_clocks_skip_is_a_problem() -> None:
    with timezone.override(ZoneInfo("Europe/Berlin")):
        (problem,) = problems_of(f"{HEAD}dora,,,,User@2038-03-28 02:30\n")
    start = "line 2, roles: 2038-03-28 02:30 does not exist in the time zone"
    assert problem.startswith(f"{start} Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("username,roles\n", ","),
        ("username;roles\na,b,c;d\n", ";"),
        ("username\troles\n", "\t"),
        ('"user, the name, and more";roles\n', ";"),
        ("username\n", ","),
    ],
)
def test_the_separator_is_that_of_the_first_line(text: str, separator: str) -> None:
    """A cell in quotes may contain others."""
    assert separator_of(text) == separator
