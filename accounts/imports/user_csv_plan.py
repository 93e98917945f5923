"""Parses users and roles from CSV, and plans the changes.

Empty lines, empty cells and missing columns change nothing. An import deletes no
account, removes no role, and refuses columns that make staff or superusers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.imports.problems import ImportProblem, fingerprint
from accounts.imports.spreadsheets import (
    column_name,
    separator_of,
    spreadsheet_text,
)
from accounts.models import Role, RoleAssignment, User
from accounts.models.users import LastSuperuser, fold_name
from accounts.parsing.moments import SkippedTime, day_or_moment, too_late

TEXT_COLUMNS = ("email", "first_name", "last_name")
FLAG_COLUMNS = {"active": "is_active", "service_account": "is_service_account"}
COLUMNS = ("username", *TEXT_COLUMNS, *FLAG_COLUMNS, "roles")
FORBIDDEN_COLUMNS = (
    "password",
    "is_superuser",
    "is_staff",
    "groups",
    "user_permissions",
)
BOOLEANS = {
    "yes": True,
    "true": True,
    "1": True,
    "no": False,
    "false": False,
    "0": False,
}
LOOKUP_BATCH = 500

RoleExpiries = dict[str, datetime | None]
"""Role name -> expiry; None means that the role does not expire."""


@dataclass(frozen=True, slots=True)
class CsvRow:
    """A valid line of the file."""

    line: int
    username: str
    values: dict[str, Any]
    roles: RoleExpiries


@dataclass(slots=True)
class Step:
    """The effect of one line; `what` is `add`, `change` or `same`."""

    line: int
    username: str
    what: str
    changes: dict[str, list[Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    roles: RoleExpiries = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """The changes that a file would make, and its problems."""

    steps: list[Step] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)

    def count(self, what: str) -> int:
        """The number of steps with this value of `what`."""
        return sum(step.what == what for step in self.steps)

    @property
    def mark(self) -> str:
        """The fingerprint of the changes; equal plans have equal fingerprints."""
        return fingerprint((s.line, s.username, s.what, s.changes) for s in self.steps)


def plan_users(raw: bytes, actor: Any) -> Plan:
    """The dry run: all problems of the file, or all changes."""
    return plan_text(*spreadsheet_text(raw), actor)


def plan_text(text: str, problems: list[ImportProblem], actor: Any) -> Plan:
    """The same, of a file that `spreadsheet_text` has read."""
    return plan_rows(*parse_text(text, problems), actor)


def parse_csv(raw: bytes) -> tuple[list[CsvRow], list[ImportProblem]]:
    """The valid lines of a file, and its problems.

    Takes long for large files: call it outside a transaction.
    """
    return parse_text(*spreadsheet_text(raw))


def parse_text(
    text: str, problems: list[ImportProblem]
) -> tuple[list[CsvRow], list[ImportProblem]]:
    lines = [] if problems else list(CsvParser(text, problems).rows())
    return lines, problems


def plan_rows(rows: list[CsvRow], problems: list[ImportProblem], actor: Any) -> Plan:
    """Compare the lines with the database's current state."""
    plan = Plan(list(steps(rows)), list(problems))
    plan.problems += self_deactivation_problems(plan.steps, actor)
    plan.problems += last_superuser_problems(plan.steps)
    plan.problems += look_alike_problems(plan.steps)
    return plan


class CsvParser:
    """Yields the valid lines of a CSV file and adds errors to `problems`."""

    def __init__(self, text: str, problems: list[ImportProblem]) -> None:
        separator = separator_of(text)
        self.lines = csv.DictReader(io.StringIO(text), strict=True, delimiter=separator)
        self.problems = problems
        self.line_of: dict[str, int] = {}
        self.roles = set(Role.objects.values_list("name", flat=True))

    def rows(self) -> Iterator[CsvRow]:
        """The valid lines. Reads the file once."""
        try:
            if not self.check_header():
                return
            for row in self.lines:
                parsed = self.row(self.lines.line_num, row)
                if parsed is not None:
                    yield parsed
        except csv.Error as error:
            self.add_problem(self.lines.reader.line_num, "", str(error))

    def add_problem(self, line: int, column: str, text: str) -> None:
        self.problems.append(ImportProblem(line, column, text))

    def check_header(self) -> bool:
        """Whether the first line names known columns, each once; adds problems."""
        names = [column_name(name) for name in self.lines.fieldnames or []]
        self.lines.fieldnames = names
        if "username" not in names:
            self.add_problem(
                1, "username", _("this column is missing from the first line")
            )
        for name in names:
            if name in FORBIDDEN_COLUMNS:
                self.add_problem(
                    1,
                    name,
                    _("a file cannot set this; a superuser sets it in the admin"),
                )
            elif name and name not in COLUMNS:
                text = _("unknown column; known columns: %s")
                self.add_problem(1, name, text % ", ".join(COLUMNS))
        named = [name for name in names if name]
        if len(set(named)) < len(named):
            self.add_problem(1, "", _("a column name appears twice"))
        return not self.problems

    def row(self, line: int, row: dict[Any, Any]) -> CsvRow | None:
        """The parsed line, or None if it has a problem."""
        before = len(self.problems)
        filled = [cell for cell in row.values() if cell and cell != [""]]
        if not any(str(cell).strip() for cell in filled):
            return None
        if row.get(""):
            self.add_problem(line, "", _("a cell with a value has no column name"))
            return None
        if None in row or None in row.values():
            self.add_problem(
                line, "", _("this line has more or fewer cells than the first line")
            )
            return None
        cells = {name: value.strip() for name, value in row.items()}
        name = self.name(line, cells["username"])
        values: dict[str, Any] = {c: cells[c] for c in TEXT_COLUMNS if cells.get(c)}
        if "email" in values:
            values["email"] = values["email"].lower()
        for column, attribute in FLAG_COLUMNS.items():
            cell = cells.get(column, "")
            if cell.lower() in BOOLEANS:
                values[attribute] = BOOLEANS[cell.lower()]
            elif cell:
                self.add_problem(line, column, _("%r is neither yes nor no") % cell)
        roles = self.parse_roles(line, cells.get("roles", ""))
        self.check(line, name, values)
        valid = len(self.problems) == before
        return CsvRow(line, name, values, roles) if valid else None

    def name(self, line: int, name: str) -> str:
        """Return the user name; add a problem if an earlier line has it too."""
        folded = fold_name(name)
        if folded in self.line_of:
            text = _("%(name)s is a duplicate of line %(line)d")
            first = {"name": name, "line": self.line_of[folded]}
            self.add_problem(line, "username", text % first)
        self.line_of.setdefault(folded, line)
        return User.normalize_username(name)

    def parse_roles(self, line: int, cell: str) -> RoleExpiries:
        """Parse `User; Guest@2026-12-31`: role names with an optional expiry."""
        roles: RoleExpiries = {}
        for part in filter(None, (p.strip() for p in cell.split(";"))):
            name, _at, end = part.rpartition("@") if "@" in part else (part, "", "")
            if name not in self.roles:
                known = ", ".join(sorted(self.roles))
                text = _("unknown role %(name)r; known roles: %(known)s")
                self.add_problem(line, "roles", text % {"name": name, "known": known})
            roles[name] = self.parse_expiry(line, end) if end else None
        return roles

    def parse_expiry(self, line: int, text: str) -> datetime | None:
        """Parse a future date and time; a date alone means the end of that day."""
        try:
            moment = day_or_moment(text, end=True)
        except SkippedTime as error:
            self.add_problem(line, "roles", str(error))
            return None
        except ValueError:
            moment = None
        if moment is None:
            message = _("%r is not a date or time; write 2026-12-31")
            self.add_problem(line, "roles", message % text)
        elif too_late(moment):
            message = _("%s is too late; for no end date, write the role alone")
            self.add_problem(line, "roles", message % text)
        elif moment <= timezone.now():
            self.add_problem(line, "roles", _("%s is in the past") % text)
        return moment

    def check(self, line: int, name: str, values: dict[str, Any]) -> None:
        """Add a problem for each error of the model's field validators."""
        try:
            User(username=name, **values).clean_fields(exclude=["password"])
        except ValidationError as error:
            for column, messages in error.message_dict.items():
                self.add_problem(line, column, " ".join(messages))


def steps(rows: list[CsvRow]) -> Iterator[Step]:
    """The step of each line; reads accounts in batches of LOOKUP_BATCH."""
    for start in range(0, len(rows), LOOKUP_BATCH):
        batch = rows[start : start + LOOKUP_BATCH]
        names = [row.username for row in batch]
        users = User.objects.prefetch_related("role_assignments__role")
        accounts = {user.username: user for user in users.filter(username__in=names)}
        for row in batch:
            yield step(row, accounts.get(row.username))


def step(row: CsvRow, user: User | None) -> Step:
    """The difference between a line and the account (None: not created yet)."""
    changes: dict[str, list[Any]] = {}
    for name, value in row.values.items():
        before = getattr(user, name) if user else None
        if before != value:
            changes[name] = [before, value]
    current = roles_until(user)
    roles = {n: end for n, end in row.roles.items() if current.get(n, ...) != end}
    for name, end in roles.items():
        before = format_expiry(current[name]) if name in current else None
        changes[f"role {name}"] = [before, format_expiry(end)]
    what = "add" if user is None else "change" if changes else "same"
    return Step(row.line, row.username, what, changes, row.values, roles)


def roles_until(user: User | None) -> RoleExpiries:
    """Role name -> expiry of the account's assignments; empty without an account."""
    rows: list[RoleAssignment] = list(user.role_assignments.all()) if user else []
    return {row.role.name: row.expires_at for row in rows}


def format_expiry(end: datetime | None) -> str:
    if end is None:
        return _("no end date")
    return _("until %s") % f"{timezone.localtime(end):%Y-%m-%d %H:%M %Z}"


def look_alike_problems(planned: list[Step]) -> Iterator[ImportProblem]:
    """A problem for each new name that differs from an account's in case only."""
    new = [step for step in planned if step.what == "add"]
    for start in range(0, len(new), LOOKUP_BATCH):
        batch = new[start : start + LOOKUP_BATCH]
        similar = User.objects.all().look_alikes(step.username for step in batch)
        for step in batch:
            other = similar.get(fold_name(step.username))
            if other is not None:
                text = _("a user %s exists already; write that name, or another one")
                yield ImportProblem(step.line, "username", text % other)


def self_deactivation_problems(
    planned: list[Step], actor: Any
) -> Iterator[ImportProblem]:
    """A problem for each step that deactivates the actor's own account."""
    name = getattr(actor, "username", None)
    for row in planned:
        if row.username == name and row.changes.get("is_active", [])[1:] == [False]:
            yield ImportProblem(
                row.line, "active", _("you cannot deactivate your own account")
            )


def last_superuser_problems(planned: list[Step]) -> Iterator[ImportProblem]:
    """A problem for each superuser that the file deactivates, if none is left."""
    closing = {
        step.username: step.line
        for step in planned
        if step.changes.get("is_active", [])[1:] == [False]
    }
    administrators = User.objects.all().administrators()
    names = set(administrators.values_list("username", flat=True))
    if names and names <= closing.keys():
        for name in sorted(names, key=closing.__getitem__):
            yield ImportProblem(closing[name], "active", str(LastSuperuser().message))
