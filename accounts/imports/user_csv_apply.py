"""Applies an import of users in one transaction, with an audit event per change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.utils import timezone

from accounts.authorization.delegation import NotAllowed, objection_to_importing
from accounts.imports.problems import StalePreview
from accounts.imports.user_csv_plan import CsvRow, Plan, Step, parse_csv, plan_rows
from accounts.models import AuditEvent, Role, RoleAssignment, User
from accounts.parsing.text import counted

BATCH_SIZE = 200
REASON = "imported from CSV"


def apply_users(raw: bytes, mark: str, actor: Any) -> Iterator[tuple[int, int]]:
    """Apply the plan whose fingerprint is `mark`; yields (done, total).

    Raises StalePreview or NotAllowed before any change. Everything is rolled back if
    an error occurs or the caller stops iterating.
    """
    lines, problems = parse_csv(raw)
    with transaction.atomic():
        text = objection_to_importing(actor)
        if text:
            raise NotAllowed(text)
        plan: Plan = plan_rows(lines, problems, actor)
        if plan.problems or plan.mark != mark or not roles_exist(lines):
            raise StalePreview
        todo = [step for step in plan.steps if step.what != "same"]
        yield 0, len(todo)
        for start in range(0, len(todo), BATCH_SIZE):
            batch = todo[start : start + BATCH_SIZE]
            Batch(batch, actor).apply()
            yield start + len(batch), len(todo)
        summary = {what: ["", plan.count(what)] for what in ("add", "change", "same")}
        new_event("users.imported", actor, counted(len(todo), "user"), summary).save()


def roles_exist(lines: list[CsvRow]) -> bool:
    """Whether no role was deleted after the file was parsed."""
    names = {name for line in lines for name in line.roles}
    return Role.objects.filter(name__in=names).count() == len(names)


def new_event(
    action: str, actor: Any, about: str, changes: Any, **more: Any
) -> AuditEvent:
    """An unsaved audit event; the batch stores all of its events at once."""
    event = AuditEvent(action=action, object=about[:255], changes=changes, **more)
    return event.acted_by(actor)


class Batch:
    """Steps that are written with a few queries; runs in the caller's transaction."""

    def __init__(self, steps: list[Step], actor: Any) -> None:
        self.steps, self.actor = steps, actor
        self.events: list[AuditEvent] = []

    def apply(self) -> None:
        """Write accounts before roles, because an assignment needs its account."""
        self.add()
        users = self.users()
        for what, action in (("add", "user.added"), ("change", "user.changed")):
            for s in self.steps_that(what):
                event = new_event(action, self.actor, s.username, s.changes)
                self.events.append(event.about(users[s.username]))
        self.change(users)
        self.close(users)
        self.grant(users)
        AuditEvent.objects.bulk_create(self.events)

    def add(self) -> None:
        """Create the new accounts, with an unusable password."""
        new = self.steps_that("add")
        User.objects.bulk_create(
            User(username=s.username, password=make_password(None), **s.values)
            for s in new
        )

    def steps_that(self, what: str) -> list[Step]:
        """The steps that `add` or `change` an account."""
        return [step for step in self.steps if step.what == what]

    def users(self) -> dict[str, User]:
        """Username -> account, for all accounts of this batch."""
        names = [step.username for step in self.steps]
        return {u.username: u for u in User.objects.filter(username__in=names)}

    def change(self, users: dict[str, User]) -> None:
        """Update existing accounts, except for deactivation (see `close`)."""
        old = self.steps_that("change")
        columns = {c for s in old for c in s.values if c != "is_active" or s.values[c]}
        if "email" in columns:
            columns.add("email_set_by_admin")
        for s in old:
            if "email" in s.changes:
                users[s.username].email_set_by_admin = True
            for column, value in s.values.items():
                if column in columns and (column != "is_active" or value):
                    setattr(users[s.username], column, value)
        if columns:
            User.objects.bulk_update([users[s.username] for s in old], sorted(columns))

    def close(self, users: dict[str, User]) -> None:
        """Deactivate accounts, which also revokes their tokens."""
        keys = [
            users[s.username].pk
            for s in self.steps_that("change")
            if s.values.get("is_active") is False
        ]
        if keys:
            User.objects.filter(pk__in=keys).deactivate(actor=self.actor)

    def grant(self, users: dict[str, User]) -> None:
        """Create role assignments, or change the expiry of existing ones."""
        roles = {role.name: role for role in Role.objects.all()}
        rows, granter = [], self.actor if isinstance(self.actor, User) else None
        for s in self.steps:
            for name, end in s.roles.items():
                assignment = RoleAssignment(
                    user=users[s.username],
                    role=roles[name],
                    expires_at=end,
                    granted_by=granter,
                    reason=REASON,
                    granted_at=timezone.now(),
                )
                rows.append(assignment)
                new = s.changes[f"role {name}"][0] is None
                verb = "role.granted" if new else "role.extended"
                ends = {"expires_at": s.changes[f"role {name}"]}
                event = new_event(verb, self.actor, str(assignment), ends)
                self.events.append(event.about(assignment))
        RoleAssignment.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["user", "role"],
            update_fields=["expires_at", "granted_by", "reason", "granted_at"],
        )
