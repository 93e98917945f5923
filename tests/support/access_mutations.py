"""Ways to remove access and give it back: by `update()`, by SQL, in the admin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from accounts.models import IssuedToken, RevokedToken, Role, RoleAssignment, User
from accounts.tokens.issue import issue_tokens
from mcp_bridge.models import ArgumentRule, Primitive, UpstreamServer
from tests.support.html_browser import Browser
from tests.support.raw_load import HIDDEN, LIMITED, REFUSED, TOOL, Subject
from tests.support.server import database_url

Act = Callable[[Subject], Any]


@dataclass(frozen=True)
class Change:
    """Removes `look` from one user, or from all."""

    name: str
    state: str
    off: Act
    on: Act
    everybody: bool = False


def roles(subject: Subject) -> Any:
    """The assignment that gives the tool."""
    return RoleAssignment.objects.filter(user_id=subject.user_id, role__name="User")


def give_role(subject: Subject) -> None:
    user = User.objects.get(pk=subject.user_id)
    RoleAssignment.objects.grant(user, Role.objects.get(name="User"))


def revoke(subject: Subject) -> None:
    """Add one row to the revocation table."""
    until = timezone.now() + timedelta(hours=1)
    RevokedToken.objects.create(jti=subject.jti, until=until)


def renew(subject: Subject) -> None:
    """Revocation is permanent: continue with a new token."""
    user = User.objects.get(pk=subject.user_id)
    pair = issue_tokens(user, issued_via="password", refresh=False)
    subject.raw, subject.jti = pair.access, pair.row.jti


def active(subject: Subject, on: bool) -> None:
    User.objects.filter(pk=subject.user_id).update(is_active=on)


def enabled(on: bool) -> None:
    Primitive.objects.filter(name=TOOL).update(enabled=on)


def by_update() -> list[Change]:
    """Through the ORM's bulk methods, in this process."""
    return [
        Change("token", REFUSED, revoke, renew),
        Change("role", HIDDEN, lambda s: roles(s).delete(), give_role),
        Change("user", REFUSED, lambda s: active(s, False), lambda s: active(s, True)),
        Change("tool", HIDDEN, lambda s: enabled(False), lambda s: enabled(True), True),
    ]


PROGRAM = """
import sys
url = sys.argv[1]
if url.startswith("sqlite"):
    import sqlite3
    rows = sqlite3.connect(url[10:], isolation_level=None, timeout=20)
else:
    import psycopg
    rows = psycopg.connect(url, autocommit=True)
for line in sys.stdin:
    rows.execute(line)
    print("done", flush=True)
"""


@contextmanager
def other_process() -> Iterator[Callable[[str], None]]:
    """Runs SQL in a process without Django, each line committed."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, database_url()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    stdin, said = process.stdin, process.stdout

    def run(statement: str) -> None:
        stdin.write(f"{statement}\n")
        stdin.flush()
        assert said.readline() == "done\n", statement

    with process:
        try:
            yield run
        finally:
            stdin.close()


def by_sql(run: Callable[[str], None]) -> list[Change]:
    """The same four as statements of another process."""
    role, guest = (Role.objects.get(name=name).pk for name in ("User", "Guest"))
    revoked, users = "accounts_revokedtoken", User._meta.db_table
    rights, tools = RoleAssignment._meta.db_table, Primitive._meta.db_table
    until = "'2999-01-01 00:00:00'"
    columns = "(jti, until, revoked_at, revoked_by, reason)"
    one = "WHERE user_id = {} AND role_id = {}"
    move = f"UPDATE {rights} SET role_id = {{}} {one}"  # noqa: S608
    close = f"UPDATE {users} SET is_active = {{}} WHERE id = {{}}"  # noqa: S608
    switch = f"UPDATE {tools} SET enabled = {{}} WHERE name = '{TOOL}'"  # noqa: S608
    insert = f"INSERT INTO {revoked} {columns} VALUES"
    return [
        Change(
            "token",
            REFUSED,
            lambda s: run(f"{insert} ('{s.jti}', {until}, {until}, '', '')"),
            renew,
        ),
        Change(
            "role",
            HIDDEN,
            lambda s: run(move.format(guest, s.user_id, role)),
            lambda s: run(move.format(role, s.user_id, guest)),
        ),
        Change(
            "user",
            REFUSED,
            lambda s: run(close.format("false", s.user_id)),
            lambda s: run(close.format("true", s.user_id)),
        ),
        Change(
            "tool",
            HIDDEN,
            lambda s: run(switch.format("false")),
            lambda s: run(switch.format("true")),
            True,
        ),
    ]


def by_admin(carol: Browser) -> list[Change]:
    """Through the admin's forms; permanent changes are undone by other means."""
    users, listed = "/admin/accounts/user/", "/admin/accounts/issuedtoken/"
    tool = Primitive.objects.get(name=TOOL).pk
    page = f"/admin/mcp_bridge/primitive/{tool}/change/"

    def close(subject: Subject) -> None:
        carol.save(f"{users}{subject.user_id}/change/", is_active=None)

    def reopen(subject: Subject) -> None:
        active(subject, True)
        renew(subject)

    def withdraw(subject: Subject) -> None:
        carol.open(f"{users}{subject.user_id}/change/")
        form = carol.form("_save")
        key = str(roles(subject).get().pk)
        (prefix,) = (n[: -len("-id")] for n, v in form.fields.items() if v == key)
        carol.save(f"{users}{subject.user_id}/change/", **{f"{prefix}-DELETE": "on"})
        assert not roles(subject).exists()

    def back(subject: Subject) -> None:
        give_role(subject)
        renew(subject)

    def end(subject: Subject) -> None:
        carol.act(listed, "revoke", IssuedToken.objects.get(jti=subject.jti).pk)

    return [
        Change("token", REFUSED, end, renew),
        Change("role", REFUSED, withdraw, back),
        Change("user", REFUSED, close, reopen),
        Change(
            "tool",
            HIDDEN,
            lambda s: carol.save(page, enabled=None),
            lambda s: carol.save(page, enabled="on"),
            True,
        ),
    ]


@dataclass(frozen=True)
class UpstreamTool:
    """A tool of an upstream server that the role User may use, and its one rule.

    The rule allows `/seconds` at most HIGH; LOW refuses every call.
    """

    server: UpstreamServer
    primitive: Primitive
    rule: ArgumentRule

    def by_update(self) -> list[Change]:
        """Through the ORM's bulk methods, in this process."""
        role = Role.objects.get(name="User")
        scope = self.primitive.required_scopes.get()
        server = UpstreamServer.objects.filter(pk=self.server.pk)
        rule = ArgumentRule.objects.filter(pk=self.rule.pk)
        return [
            Change(
                "upstream server",
                HIDDEN,
                lambda s: server.update(enabled=False),
                lambda s: server.update(enabled=True),
                True,
            ),
            Change("token", REFUSED, revoke, renew),
            Change(
                "cell of the matrix",
                HIDDEN,
                lambda s: role.scopes.remove(scope),
                lambda s: role.scopes.add(scope),
                True,
            ),
            Change(
                "argument rule",
                LIMITED,
                lambda s: rule.update(value=LOW),
                lambda s: rule.update(value=HIGH),
                True,
            ),
        ]

    def by_admin(self, carol: Browser) -> list[Change]:
        """The same four through the pages of the admin."""
        pages = "/admin/mcp_bridge/"
        server = f"{pages}upstreamserver/{self.server.pk}/change/"
        tool = f"{pages}primitive/{self.primitive.pk}/change/"
        listed, value = "/admin/accounts/issuedtoken/", "argument_rules-0-value"
        matrix = f"/admin/access/matrix/?upstream={self.server.pk}"
        carol.open(matrix)
        ticked = carol.form("version").fields["on"]

        def tick(boxes: Any) -> None:
            carol.open(matrix)
            carol.submit(carol.form("version"), on=boxes)
            carol.submit(carol.form("changes"))

        def end(subject: Subject) -> None:
            carol.act(listed, "revoke", IssuedToken.objects.get(jti=subject.jti).pk)

        return [
            Change(
                "upstream server",
                HIDDEN,
                lambda s: carol.save(server, enabled=None),
                lambda s: carol.save(server, enabled="on"),
                True,
            ),
            Change("token", REFUSED, end, renew),
            Change(
                "cell of the matrix",
                HIDDEN,
                lambda s: tick([]),
                lambda s: tick(ticked),
                True,
            ),
            Change(
                "argument rule",
                LIMITED,
                lambda s: carol.save(tool, **{value: str(LOW)}),
                lambda s: carol.save(tool, **{value: str(HIGH)}),
                True,
            ),
        ]


LOW, HIGH = -1, 100
