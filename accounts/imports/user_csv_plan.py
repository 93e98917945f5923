"""Users and roles from CSV: read the file, and plan what it would change.

Cells left empty and columns left away change nothing; nobody is deleted, no role is
taken away, and what makes staff or superusers is refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Any

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _

from accounts.imports.problems import ImportProblem, decode_upload, fingerprint
from accounts.models import Role, RoleAssignment, User

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
"""Role name -> its end (None: for good)."""


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One line of the file, understood."""

    line: int
    username: str
    values: dict[str, Any]
    roles: RoleExpiries


@dataclass(slots=True)
class Step:
    """What one line changes: `add`, `change` or `same`."""

    line: int
    username: str
    what: str
    changes: dict[str, list[Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    roles: RoleExpiries = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What the file would change, or what is wrong with it."""

    steps: list[Step] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)

    def count(self, what: str) -> int:
        """How many lines add, change, or change nothing."""
        return sum(step.what == what for step in self.steps)

    @property
    def mark(self) -> str:
        """Equal for equal plans."""
        return fingerprint((s.line, s.username, s.what, s.changes) for s in self.steps)


def plan_users(raw: bytes, actor: Any) -> Plan:
    """The dry run: every problem at once, or every change."""
    return plan_rows(*parse_csv(raw), actor)


def parse_csv(raw: bytes) -> tuple[list[CsvRow], list[ImportProblem]]:
    """The lines of a file, and what is wrong with it: long work, for no transaction."""
    text, problems = decode_upload(raw)
    lines = [] if problems else list(CsvParser(text, problems).rows())
    return lines, problems


def plan_rows(wanted: list[CsvRow], problems: list[ImportProblem], actor: Any) -> Plan:
    """What these lines change, as things are now."""
    made = Plan(problems=list(problems))
    if not problems or wanted:
        made.steps = list(steps(wanted))
        made.problems += self_deactivation_problems(made.steps, actor)
    return made


class CsvParser:
    """Lines of a CSV file; what is wrong is added to `problems`."""

    def __init__(self, text: str, problems: list[ImportProblem]) -> None:
        self.lines = csv.DictReader(io.StringIO(text), strict=True)
        self.problems = problems
        self.seen: dict[str, int] = {}
        self.roles = set(Role.objects.values_list("name", flat=True))

    def rows(self) -> Iterator[CsvRow]:
        """Each line that can be understood."""
        try:
            if not self.check_header():
                return
            for row in self.lines:
                found = self.row(self.lines.line_num, row)
                if found is not None:
                    yield found
        except csv.Error as error:
            self.add_problem(self.lines.reader.line_num, "", str(error))

    def add_problem(self, line: int, column: str, text: str) -> None:
        """Note one."""
        self.problems.append(ImportProblem(line, column, text))

    def check_header(self) -> bool:
        """Whether the first line names columns that there are."""
        names = list(self.lines.fieldnames or [])
        if "username" not in names:
            self.add_problem(1, "username", _("the first line has to name this column"))
        for name in names:
            if name in FORBIDDEN_COLUMNS:
                self.add_problem(
                    1, name, _("a superuser sets this by hand, never a file")
                )
            elif name not in COLUMNS:
                told = _("there is no such column; there are: %s")
                self.add_problem(1, name or "?", told % ", ".join(COLUMNS))
        if len(set(names)) < len(names):
            self.add_problem(1, "", _("a column is named twice"))
        return not self.problems

    def row(self, line: int, row: dict[Any, Any]) -> CsvRow | None:
        """One line, or None if something is wrong with it."""
        before = len(self.problems)
        if None in row or None in row.values():
            self.add_problem(
                line, "", _("it has more or fewer cells than the first line")
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
        good = len(self.problems) == before
        return CsvRow(line, name, values, roles) if good else None

    def name(self, line: int, name: str) -> str:
        """A user name, once in a file."""
        if name in self.seen:
            told = _("%(name)s stands in line %(line)d already")
            known = {"name": name, "line": self.seen[name]}
            self.add_problem(line, "username", told % known)
        self.seen.setdefault(name, line)
        return name

    def parse_roles(self, line: int, cell: str) -> RoleExpiries:
        """`User; Guest@2026-12-31`: roles, perhaps with an end."""
        found: RoleExpiries = {}
        for part in filter(None, (p.strip() for p in cell.split(";"))):
            name, _at, end = part.rpartition("@") if "@" in part else (part, "", "")
            if name not in self.roles:
                known = ", ".join(sorted(self.roles))
                told = _("there is no role %(name)r; there are: %(known)s")
                self.add_problem(line, "roles", told % {"name": name, "known": known})
            found[name] = self.end(line, end) if end else None
        return found

    def end(self, line: int, text: str) -> datetime | None:
        """A day (its last moment) or a moment, in the future."""
        try:
            day, moment = parse_date(text), parse_datetime(text)
        except ValueError:
            day = moment = None
        if day is not None and len(text) == len("2026-12-31"):
            moment = datetime.combine(day, time.max)
        if moment is None:
            told = _("%r is no day and no moment; write 2026-12-31")
            self.add_problem(line, "roles", told % text)
            return None
        aware = moment if timezone.is_aware(moment) else timezone.make_aware(moment)
        if aware <= timezone.now():
            self.add_problem(line, "roles", _("%s has passed") % text)
        return aware

    def check(self, line: int, name: str, values: dict[str, Any]) -> None:
        """What the model's own fields say."""
        try:
            User(username=name, **values).clean_fields(exclude=["password"])
        except ValidationError as error:
            for column, told in error.message_dict.items():
                self.add_problem(line, column, " ".join(told))


def steps(wanted: list[CsvRow]) -> Iterator[Step]:
    """What each line changes, looked up in batches."""
    for start in range(0, len(wanted), LOOKUP_BATCH):
        batch = wanted[start : start + LOOKUP_BATCH]
        names = [row.username for row in batch]
        users = User.objects.prefetch_related("role_assignments__role")
        known = {user.username: user for user in users.filter(username__in=names)}
        for row in batch:
            yield step(row, known.get(row.username))


def step(row: CsvRow, user: User | None) -> Step:
    """The difference between a line and the account."""
    changes: dict[str, list[Any]] = {}
    for name, value in row.values.items():
        before = getattr(user, name) if user else None
        if before != value:
            changes[name] = [before, value]
    held = roles_until(user)
    roles = {n: end for n, end in row.roles.items() if held.get(n, ...) != end}
    for name, end in roles.items():
        before = format_expiry(held[name]) if name in held else None
        changes[f"role {name}"] = [before, format_expiry(end)]
    what = "add" if user is None else "change" if changes else "same"
    return Step(row.line, row.username, what, changes, row.values, roles)


def roles_until(user: User | None) -> RoleExpiries:
    """Role -> end, for an account that there is."""
    rows: list[RoleAssignment] = list(user.role_assignments.all()) if user else []
    return {row.role.name: row.expires_at for row in rows}


def format_expiry(end: datetime | None) -> str:
    """An end for people."""
    return _("until %s") % f"{end:%Y-%m-%d %H:%M %Z}" if end else _("for good")


def self_deactivation_problems(
    planned: list[Step], actor: Any
) -> Iterator[ImportProblem]:
    """Nobody closes the account that they are signed in with."""
    name = getattr(actor, "username", None)
    for one in planned:
        if one.username == name and one.changes.get("is_active", [])[1:] == [False]:
            yield ImportProblem(one.line, "active", _("this is your own account"))
