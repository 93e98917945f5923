"""`python -m bench.populate`: fill a database with many rows.

Uses the database of the environment (DATABASE_URL, DATA_DIR), which must be migrated.
The callers' tokens go to a file, one per line.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.contrib.auth.hashers import make_password  # noqa: E402
from django.db import connection  # noqa: E402
from django.utils import timezone  # noqa: E402

from accounts.models import (  # noqa: E402
    AuditEvent,
    IssuedToken,
    RevokedToken,
    Role,
    RoleAssignment,
    Scope,
    SigningKey,
    TokenKind,
    User,
)
from accounts.tokens import jwts  # noqa: E402
from bench.generated_rows import bare_tables, insert, reset_ids  # noqa: E402

PASSWORD = "a password for all of them 7"
DAY = 86400


def users(count: int) -> int:
    """Insert accounts `user-N`; returns the id of the first."""
    first = (User.objects.order_by("-pk").values_list("pk", flat=True).first() or 0) + 1
    text = make_password(PASSWORD).replace("'", "''")
    insert(
        User,
        count,
        id=f"{first} + i",
        username="'user-' || i",
        password=f"'{text}'",
        email="'user-' || i || '@example.com'",
        first_name="'Given' || (i % 977)",
        last_name="'Family' || (i % 9973)",
        is_active="i % 50 <> 49",
        date_joined=f"AGO(i % 700 * {DAY})",
    )
    return first


def roles(count: int) -> list[int]:
    """Create roles `team-N` with one scope each; returns their ids."""
    scopes = Scope.objects.bulk_create([Scope(name=f"team.{i}") for i in range(count)])
    teams = Role.objects.bulk_create([Role(name=f"team-{i}") for i in range(count)])
    through = Role.scopes.through
    through.objects.bulk_create(
        [
            through(role_id=role.pk, scope_id=scope.pk)
            for role, scope in zip(teams, scopes, strict=True)
        ]
    )
    return [role.pk for role in teams]


def assignments(first_user: int, count: int, teams: list[int]) -> None:
    """Grant all users the role User, and a third a team, some with an end date."""
    user_role = Role.objects.get(name="User").pk
    who = {"granted_at": f"AGO(i % 300 * {DAY})", "reason": "'filled'"}
    user = f"{first_user} + i"
    insert(RoleAssignment, count, user=user, role=str(user_role), **who)
    if teams:
        team = f"{teams[0]} + i % {len(teams)}"
        third = f"{first_user} + i * 3"
        ends = f"AGO((i % 60 - 40) * {DAY})"
        who["expires_at"] = f"CASE WHEN i % 2 = 0 THEN {ends} END"
        insert(RoleAssignment, count // 3, user=third, role=team, **who)


def tokens(count: int, first_user: int, holders: int, revoked: int) -> None:
    """Insert tokens of the first `holders` users; the first `revoked` are revoked."""
    insert(
        IssuedToken,
        count,
        jti="HEX(i)",
        kind="CASE i % 10 WHEN 0 THEN 'personal' "
        "WHEN 1 THEN 'refresh' WHEN 2 THEN 'refresh' ELSE 'access' END",
        issued_via="CASE i % 10 WHEN 0 THEN 'personal' "
        "WHEN 3 THEN 'authorization_code' "
        "WHEN 4 THEN 'device' ELSE 'password' END",
        user=f"{first_user} + i % {holders}",
        username=f"'user-' || (i % {holders})",
        client_id="CASE WHEN i % 5 = 0 THEN 'client-' || (i % 400) ELSE 'portico' END",
        scope="'mcp'",
        family="UUID(i / 3)",
        issued_at="AGO(i * 3)",
        issued_to="'10.0.' || (i % 250) || '.7'",
        expires_at=f"AGO((i % 40 - 20) * {DAY})",
        last_used_at="CASE WHEN i % 3 > 0 THEN AGO(i * 2) END",
    )
    insert(
        RevokedToken,
        revoked,
        jti="HEX(i)",
        until=f"AGO((i % 40 - 20) * {DAY})",
        revoked_at="AGO(i * 2)",
        revoked_by="'user-' || (i % 11)",
        reason="'filled'",
    )


def audit(count: int, holders: int) -> None:
    """Insert events of the last 90 days; most are calls."""
    insert(
        AuditEvent,
        count,
        at=f"AGO(({count} - i) * {90 * DAY} / {max(count, 1)})",
        action="CASE WHEN i % 20 < 15 THEN 'tool.called' WHEN i % 20 = 15 THEN "
        "'tool.denied' WHEN i % 20 = 16 THEN 'token.issued' WHEN i % 20 = 17 THEN "
        "'token.refreshed' WHEN i % 20 = 18 THEN 'message.allowed' "
        "ELSE 'request.refused' END",
        actor=f"'user-' || (i * 7919 % {holders})",
        actor_id=f"1 + i * 7919 % {holders}",
        client_id="CASE WHEN i % 5 = 0 THEN 'client-' || (i % 400) ELSE 'portico' END",
        token_id="HEX(i % 1000000)",
        address="'10.0.' || (i % 250) || '.7'",
        object="'tool greet_' || (i % 50)",
        decision="CASE WHEN i % 20 IN (15, 19) THEN 'denied' WHEN i % 20 IN (16, 17) "
        "THEN '' ELSE 'allowed' END",
        reason="CASE i % 20 WHEN 15 THEN 'no_role' WHEN 19 THEN 'expired' "
        "ELSE 'allowed' END",
        via="'role User'",
        outcome="CASE WHEN i % 20 < 15 THEN 'ok' ELSE '' END",
        duration_ms="i % 97 / 7.0",
        request_id="HEX(i)",
    )


def callers(count: int, first_user: int, refresh: int = 0) -> list[str]:
    """Valid access tokens of the first users, or `refresh` refresh tokens."""
    SigningKey.objects.ensure_active()
    kind = TokenKind.REFRESH if refresh else TokenKind.ACCESS
    active = User.objects.filter(pk__gte=first_user, is_active=True).order_by("pk")
    people = list(active[: refresh or count])
    rows, raws = [], []
    for number, user in enumerate(people):
        row, raw = signed(user, kind, number)
        rows.append(row)
        raws.append(raw)
    IssuedToken.objects.bulk_create(rows, batch_size=1000)
    return raws


def special_callers(first_user: int) -> None:
    """Let the second caller use one tool in a hundred; put the third in all teams."""
    reader = Role.objects.create(name="Reader")
    reader.scopes.add(Scope.objects.get(name="User.Read"))
    RoleAssignment.objects.filter(user_id=first_user + 1).delete()
    RoleAssignment.objects.create(user_id=first_user + 1, role=reader)
    RoleAssignment.objects.filter(user_id=first_user + 2).delete()
    every = Role.objects.filter(name__startswith="team-") | Role.objects.filter(
        name="User"
    )
    RoleAssignment.objects.bulk_create(
        [RoleAssignment(user_id=first_user + 2, role=role) for role in every]
    )


def signed(user: User, kind: TokenKind, number: int) -> tuple[IssuedToken, str]:
    """The unsaved row of a token that expires in a day, and the token."""
    from accounts.tokens.issue import claims_of

    now = timezone.now().replace(microsecond=0)
    row = IssuedToken(
        jti=f"{0xB:08x}{number:023x}{'r' if kind == TokenKind.REFRESH else 'a'}",
        kind=kind,
        issued_via="password",
        user=user,
        username=user.username,
        client_id="portico",
        scope="mcp",
        family=UUID(int=(0xB << 96) + number),
        issued_at=now,
        expires_at=now + timedelta(days=1),
    )
    raw, row.kid = jwts.sign(claims_of(row, user))
    return row, raw


def fill(options: Any) -> int:
    """Insert all rows; returns the id of the first user."""
    with bare_tables(User, IssuedToken, RevokedToken, RoleAssignment, AuditEvent):
        first = users(options.users)
        teams = roles(options.roles)
        assignments(first, options.users, teams)
        tokens(options.tokens, first, options.users, options.revoked)
        audit(options.audit, options.users)
    reset_ids(User, IssuedToken, RoleAssignment, AuditEvent)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    return first


def main() -> None:
    """Fill the database and write the tokens."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.populate", description=__doc__
    )
    for name, default in (
        ("users", 100_000),
        ("tokens", 1_000_000),
        ("revoked", 200_000),
        ("audit", 5_000_000),
        ("roles", 100),
        ("callers", 0),
        ("refresh", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tokens-to", type=Path, help="File for the callers' tokens.")
    options = parser.parse_args()
    start = time.monotonic()
    first = fill(options)
    if options.tokens_to:
        special_callers(first)
        raws = callers(options.callers, first)
        options.tokens_to.write_text("\n".join(raws))
        raws = callers(0, first, options.refresh) if options.refresh else []
        options.tokens_to.with_suffix(".refresh").write_text("\n".join(raws))
    print(f"Filled in {time.monotonic() - start:.0f} s.", file=sys.stderr)


if __name__ == "__main__":
    main()
