"""Every change that a decision depends on is numbered with the users it concerns."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection, models
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import (
    IssuedToken,
    OAuthClient,
    RevokedToken,
    Role,
    RoleAssignment,
    Scope,
    SigningKey,
    User,
)
from accounts.tokens.issue import issue_personal_token, issue_tokens
from accounts.tokens.principal import authenticate
from mcp_bridge import checks
from mcp_bridge.access.catalogue import read_catalogue
from mcp_bridge.cache.triggers.install import (
    dialect,
    install_triggers,
    missing_triggers,
    state,
    suspend_tracking,
)
from mcp_bridge.cache.watched_tables import LOG_LENGTH, watched_tables
from mcp_bridge.models import ChangeCounter, LoggedChange, Primitive, PrimitiveKind

Concerned = set[tuple[str, str]]


def sql(statement: str, *values: Any) -> None:
    """Run SQL as another program would."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def concerned_users(work: Callable[[], Any]) -> Concerned:
    """The users that the changes of `work` concern, as a commit numbers them."""
    run_deferred_triggers()
    before = ChangeCounter.objects.get().number
    work()
    run_deferred_triggers()
    after = ChangeCounter.objects.get().number
    rows = LoggedChange.objects.filter(number__gt=before)
    assert rows.count() == after - before, "numbers have no gap"
    return set(rows.values_list("kind", "key"))


def run_deferred_triggers() -> None:
    """Run PostgreSQL's deferred triggers."""
    if connection.vendor == "postgresql":
        sql("SET CONSTRAINTS ALL IMMEDIATE")
        sql("SET CONSTRAINTS ALL DEFERRED")


@pytest.fixture
def token(alice: User) -> IssuedToken:
    return issue_tokens(alice, issued_via="password", scope="mcp").row


@pytest.fixture
def tool(db: None) -> Primitive:
    """A tool with its own scope."""
    primitive = Primitive.objects.create(kind=PrimitiveKind.TOOL, name="saw")
    primitive.required_scopes.add(Scope.objects.create(name="tool:saw"))
    return primitive


@pytest.mark.spec("every change that a decision depends on is numbered")
def test_changes_to_users_and_their_roles_concern_one_user(alice: User) -> None:
    """Other users keep their cache."""
    own = {("user", str(alice.pk))}
    users = User.objects.filter(pk=alice.pk)
    assert concerned_users(lambda: users.update(is_active=False)) == own
    assert concerned_users(lambda: users.update(is_active=False)) == set()
    turn_on = "UPDATE accounts_user SET is_active = %s WHERE id = %s"
    assert concerned_users(lambda: sql(turn_on, True, alice.pk)) == own
    assignment = RoleAssignment.objects.get(user=alice)
    assert concerned_users(lambda: assignment.withdraw(actor=None)) >= own
    admin = Role.objects.get(name="Admin")
    assert concerned_users(lambda: RoleAssignment.objects.grant(alice, admin)) == own
    later = timezone.now() + timedelta(days=1)
    ending = RoleAssignment.objects.filter(user=alice)
    assert concerned_users(lambda: ending.update(expires_at=later)) == own
    assert concerned_users(alice.delete) >= own


def test_irrelevant_changes_are_not_numbered(alice: User, token: IssuedToken) -> None:
    """Sign-ins and uses must not empty the cache of other users."""
    now = timezone.now()
    mine = IssuedToken.objects.filter(pk=token.pk)
    assert (
        concerned_users(lambda: mine.update(last_used_at=now, last_used_from="::1"))
        == set()
    )
    assert (
        concerned_users(lambda: User.objects.update(last_login=now, email="a@b.ex"))
        == set()
    )
    assert (
        concerned_users(lambda: issue_tokens(alice, issued_via="password", scope="mcp"))
        == set()
    )
    mine.update(expires_at=now - timedelta(seconds=5))
    assert concerned_users(lambda: IssuedToken.objects.all().purge()) == set()


def test_changes_to_tokens_concern_that_token(token: IssuedToken) -> None:
    own = {("token", token.jti)}
    mine = IssuedToken.objects.filter(pk=token.pk)
    revoked = concerned_users(lambda: mine.revoke(actor=None, reason="test"))
    assert revoked == own
    assert concerned_users(lambda: RevokedToken.objects.all().delete()) == set()
    assert concerned_users(lambda: mine.update(scope="User.Read")) == own
    renamed = concerned_users(lambda: mine.update(jti="another"))
    assert renamed == own | {("token", "another")}
    assert concerned_users(mine.delete) == {("token", "another")}


def test_a_blocked_client_concerns_its_tokens(db: None) -> None:
    client = OAuthClient.objects.create(client_id="c1", client_type="public")
    assert concerned_users(lambda: OAuthClient.objects.update(blocked=True)) == {
        ("client", "c1")
    }
    assert concerned_users(client.update_last_used) == set()
    assert concerned_users(client.delete) == {("client", "c1")}


def test_changes_to_roles_and_scopes_concern_every_user(tool: Primitive) -> None:
    role = Role.objects.get(name="User")
    scope = Scope.objects.get(name="tool:saw")
    assert concerned_users(lambda: role.scopes.add(scope)) == {("people", "")}
    assert concerned_users(lambda: role.scopes.clear()) == {("people", "")}
    roles = Role.objects.filter(pk=role.pk)
    assert concerned_users(lambda: roles.update(description="words")) == set()
    assert concerned_users(lambda: roles.update(name="Renamed")) == {("people", "")}
    scopes = Scope.objects.filter(pk=scope.pk)
    assert concerned_users(lambda: scopes.update(name="tool:axe")) == {("all", "")}
    SigningKey.objects.rotate(actor=None)
    assert concerned_users(lambda: SigningKey.objects.rotate(actor=None)) == {
        ("all", "")
    }


def test_changes_to_primitives_concern_the_catalogue(tool: Primitive) -> None:
    catalogue = {("catalogue", "")}
    mine = Primitive.objects.filter(pk=tool.pk)
    assert concerned_users(lambda: mine.update(last_seen_at=timezone.now())) == set()
    assert concerned_users(lambda: mine.update(sensitive=True)) == catalogue
    assert concerned_users(tool.required_scopes.clear) == catalogue
    assert (
        concerned_users(lambda: Primitive.objects.create(kind="tool", name="x"))
        == catalogue
    )


def test_a_row_replaced_by_sql_is_numbered(alice: User) -> None:
    """SQLite's REPLACE deletes without firing delete triggers."""
    if connection.vendor != "sqlite":
        return
    assignment = RoleAssignment.objects.get(user=alice)
    other = User.objects.create_user("dave")
    replace = (
        "INSERT OR REPLACE INTO accounts_roleassignment "
        "(id, user_id, role_id, reason, granted_at) VALUES (%s, %s, %s, '', '2026')"
    )
    found = concerned_users(
        lambda: sql(replace, assignment.pk, other.pk, assignment.role_id)
    )
    assert ("all", "") in found


def test_emptying_a_table_concerns_every_user(alice: User) -> None:
    """TRUNCATE fires no row trigger; SQLite has no TRUNCATE."""
    if connection.vendor == "sqlite":
        found = concerned_users(lambda: sql("DELETE FROM accounts_roleassignment"))
        assert ("user", str(alice.pk)) in found
    else:
        found = concerned_users(lambda: sql("TRUNCATE accounts_roleassignment"))
        assert found == {("all", "")}


def test_a_change_of_many_rows_is_one_entry(db: None) -> None:
    """The log is bounded, however many rows change."""
    crowd = [User(username=f"u{n}") for n in range(1200)]
    User.objects.bulk_create(crowd)
    found = concerned_users(lambda: User.objects.update(is_active=False))
    if connection.vendor == "postgresql":
        assert found == {("all", "")}
    else:
        assert len(found) >= 1200


def test_many_statements_of_one_transaction_are_one_entry(alice: User) -> None:
    """Each statement concerns a few users; together one entry concerns all."""
    if connection.vendor == "sqlite":
        return
    run_deferred_triggers()
    before = ChangeCounter.objects.get().number
    rows = [revocation(number) for number in range(1200)]
    for start in range(0, 1200, 300):
        RevokedToken.objects.bulk_create(rows[start : start + 300])
    User.objects.filter(pk=alice.pk).update(is_active=False)
    run_deferred_triggers()
    assert ChangeCounter.objects.get().number == before + 1
    assert LoggedChange.objects.get(number=before + 1).kind == "all"


def revocation(number: int) -> RevokedToken:
    """A revocation of an unknown token (unsaved)."""
    return RevokedToken(jti=f"many-{number}", until=timezone.now())


def test_the_change_log_is_pruned(alice: User) -> None:
    run_deferred_triggers()
    start = ChangeCounter.objects.get().number
    rows = [
        LoggedChange(number=start + n, kind="user", key="0")
        for n in range(1, LOG_LENGTH + 50)
    ]
    LoggedChange.objects.bulk_create(rows)
    ChangeCounter.objects.update(number=start + LOG_LENGTH + 49)
    run_deferred_triggers()
    User.objects.filter(pk=alice.pk).update(is_active=False)
    run_deferred_triggers()
    assert LoggedChange.objects.count() <= LOG_LENGTH


def test_a_missing_trigger_is_an_error_with_a_fix(db: None) -> None:
    """SQLite's migrations rebuild tables and drop their triggers."""
    assert missing_triggers() == []
    name = "portico_accounts_user_update"
    on = "" if connection.vendor == "sqlite" else " ON accounts_user"
    sql(f"DROP TRIGGER {name}{on}")
    assert missing_triggers() == [name]
    (found,) = checks.changes_are_numbered(databases=["default"])
    assert found.id == "portico.E103" and name in found.msg and "migrate" in found.hint
    epoch = ChangeCounter.objects.get().epoch
    call_command("migrate", verbosity=0)
    assert missing_triggers() == []
    assert checks.changes_are_numbered(databases=["default"]) == []
    assert ChangeCounter.objects.get().epoch not in ("", epoch)


def test_changes_are_not_numbered_during_migrate(db: None) -> None:
    """An empty epoch means that changes are not numbered."""
    suspend_tracking()
    assert ChangeCounter.objects.get().epoch == ""
    assert missing_triggers()
    (found,) = checks.changes_are_numbered(databases=["default"])
    assert "migrate" in found.hint
    install_triggers()


def test_without_the_tables_no_triggers_are_installed(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is the state before the app's first migrate."""
    monkeypatch.setattr(ChangeCounter._meta, "db_table", f"no_{uuid4().hex}")
    suspend_tracking()
    install_triggers()


def test_every_table_and_column_a_decision_reads_is_watched(
    alice: User, tool: Primitive
) -> None:
    """A decision that reads more columns fails here."""
    pair = issue_tokens(alice, issued_via="password", scope="mcp")
    personal = issue_personal_token(
        alice, name="p", scope="mcp", lifetime=timedelta(days=1)
    )[1]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        authenticate(pair.access)
        authenticate(personal)
        read_catalogue()
    read = "\n".join(query["sql"] for query in queries)
    known = {table.table: table for table in watched_tables()}
    for table in set(re.findall(r'(?:FROM|JOIN) "(\w+)"', read)):
        assert table in known, f"{table} is read by a decision and not watched"
        for column in set(re.findall(rf'"{table}"\."(\w+)"', read)):
            counted = column in known[table].columns or not is_needed(table, column)
            assert counted, f"{table}.{column} is read by a decision and ignored"


def is_needed(table: str, column: str) -> bool:
    """Whether a decision uses it: rows read whole (keys, personal tokens) do not."""
    whole: dict[str, type[models.Model]] = {"accounts_issuedtoken": IssuedToken}
    unused = {"last_used_at", "last_used_from", "redeemed_at", "name"}
    unused |= {"successor_id", "successor_sealed"}
    return not (table in whole and column in unused)


def test_triggers_changed_and_restored_are_noticed(db: None) -> None:
    """A change made in between has no number."""
    before = state().marks
    assert state().marks == before
    if connection.vendor == "sqlite":
        triggers = dialect().expected_triggers()["portico_accounts_user_update"]
        sql('DROP TRIGGER "portico_accounts_user_update"')
        sql(triggers)
    else:
        alter = "ALTER TABLE accounts_user {} TRIGGER portico_accounts_user_update"
        sql(alter.format("DISABLE"))
        assert missing_triggers() == ["portico_accounts_user_update"]
        sql(alter.format("ENABLE"))
        assert missing_triggers() == ["portico_accounts_user_update"]
        sql(alter.format("ENABLE ALWAYS"))
    found = state()
    assert found.missing == [] and found.marks != before


def test_irrelevant_schema_changes_are_ignored(alice: User) -> None:
    """Otherwise a worker would empty its cache for no reason."""
    before = state().marks
    User.objects.update(last_login=timezone.now(), is_active=False)
    alice.delete()
    if connection.vendor == "postgresql":
        sql("ANALYZE accounts_user")
    assert state().marks == before


INHERITANCE = {
    "accounts_revokedtoken": ["CREATE TABLE child () INHERITS (accounts_revokedtoken)"],
    "accounts_role_scopes": ["CREATE TABLE child () INHERITS (accounts_role_scopes)"],
    "accounts_issuedtoken": [
        "CREATE TABLE parent (jti varchar(64))",
        "ALTER TABLE accounts_issuedtoken INHERIT parent",
    ],
}


@pytest.mark.parametrize("table", INHERITANCE)
def test_inheritance_of_a_watched_table_is_refused(db: None, table: str) -> None:
    """A statement fires only the triggers of the table it names."""
    if connection.vendor == "sqlite":
        return
    assert state().outside == []
    for statement in INHERITANCE[table]:
        sql(statement)
    assert state().outside == [(table, "inheritance")]
    (found,) = checks.changes_are_numbered(databases=["default"])
    assert found.id == "portico.E104" and table in found.msg


def test_inheritance_of_other_tables_is_allowed(db: None) -> None:
    if connection.vendor == "postgresql":
        sql("CREATE TABLE child () INHERITS (accounts_auditevent)")
    assert state().outside == []


@pytest.mark.parametrize("table", ["accounts_user", "mcp_bridge_changecounter"])
def test_a_subscription_to_a_watched_table_is_refused(db: None, table: str) -> None:
    """Statement triggers do not fire in apply workers."""
    if connection.vendor == "sqlite":
        return
    # The row that CREATE SUBSCRIPTION writes; the command itself needs another server.
    sql(
        "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) "
        "VALUES (1, %s::regclass, 'r')",
        table,
    )
    assert state().outside == [(table, "subscription")]
    (found,) = checks.changes_are_numbered(databases=["default"])
    assert found.id == "portico.E104" and table in found.msg


def test_a_trigger_on_a_renamed_table_does_not_count(db: None) -> None:
    """The table that now has the name has no trigger."""
    if connection.vendor == "sqlite":
        return
    sql("ALTER TABLE accounts_role_scopes RENAME TO before")
    sql("CREATE TABLE accounts_role_scopes (LIKE before)")
    assert "portico_accounts_role_scopes_insert" in missing_triggers()
