"""Every change that a decision depends on is numbered with the users it concerns."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
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
from mcp_bridge.models import (
    ArgumentRule,
    ChangeCounter,
    ClientSession,
    LoggedChange,
    Primitive,
    PrimitiveKind,
    UpstreamCredential,
    UpstreamServer,
)

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


def transaction_time() -> Any:
    """The time of triggers: on PostgreSQL, when the outermost transaction began."""
    if connection.vendor == "sqlite":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        return cursor.fetchone()[0]


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
    now = transaction_time()
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


def test_the_end_of_a_session_concerns_that_session(alice: User) -> None:
    """Its start and its use concern nobody; neither does the end of an expired one."""
    mine = ClientSession.objects.filter(user=alice)
    live = transaction_time() + timedelta(minutes=1)
    opened = partial(ClientSession.objects.create, key="k", user=alice, expires_at=live)
    for until, own in ((live, {("session", "k")}), (live - timedelta(hours=1), set())):
        assert concerned_users(opened) == set()
        assert concerned_users(partial(mine.update, expires_at=until)) == set()
        assert concerned_users(mine.delete) == own


def test_a_blocked_client_concerns_its_tokens(db: None) -> None:
    client = OAuthClient.objects.create(client_id="c1", client_type="public")
    mine = OAuthClient.objects.filter(pk=client.pk)
    assert concerned_users(lambda: mine.update(blocked=True)) == {("client", "c1")}
    assert concerned_users(client.update_last_used) == set()
    assert concerned_users(client.delete) == {("client", "c1")}


def test_changes_to_roles_and_scopes_concern_every_user(tool: Primitive) -> None:
    role = Role.objects.get(name="User")
    scope = Scope.objects.get(name="tool:saw")
    assert concerned_users(lambda: role.scopes.add(scope)) == {("people", "")}
    assert concerned_users(lambda: role.scopes.clear()) == {("people", "")}
    roles = Role.objects.filter(pk=role.pk)
    assert concerned_users(lambda: roles.update(description="words")) == set()
    assert concerned_users(lambda: roles.update(name="Renamed")) == {("all", "")}
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
    known = {table.table: table for table in watched_tables()}
    read = {c for query in queries for c in columns_read(query["sql"])}
    assert ("accounts_oauthclient", "max_idle") in read, "behind an alias"
    for table, column in read:
        assert table in known, f"{table} is read by a decision and not watched"
        counted = column in known[table].columns or not is_needed(table, column)
        assert counted, f"{table}.{column} is read by a decision and ignored"


SOURCE = re.compile(r'(?:FROM|JOIN) "(\w+)"(?: "?([A-Z]\d+)"?)?')
COLUMN = re.compile(r'"?(\w+)"?\."(\w+)"')


def columns_read(statement: str) -> set[tuple[str, str]]:
    """(table, column) of a query.

    Subqueries name their tables U0, U1, V0. Several may use one name, so a column
    counts for each of their tables that has it.
    """
    tables: dict[str, set[str]] = {}
    for table, alias in SOURCE.findall(statement):
        tables.setdefault(table, set()).add(table)
        tables.setdefault(alias or table, set()).add(table)
    columns = COLUMN.findall(statement)
    read = {(table, column) for name, column in columns for table in tables[name]}
    return {(table, column) for table, column in read if column in COLUMNS_OF[table]}


COLUMNS_OF = {
    model._meta.db_table: {str(f.column) for f in model._meta.local_concrete_fields}
    for model in apps.get_models(include_auto_created=True)
}


def is_needed(table: str, column: str) -> bool:
    """Whether a decision uses it.

    Rows of keys and personal tokens are read whole. A use only moves the idle end
    later.
    """
    whole: dict[str, type[models.Model]] = {"accounts_issuedtoken": IssuedToken}
    unused = {"last_used_at", "last_used_from", "redeemed_at", "name"}
    unused |= {"successor_id", "successor_sealed"}
    return not (table in whole and column in unused)


IGNORED: dict[str, set[str]] = {
    "accounts_user": {
        *("first_name", "last_name", "date_joined", "email", "email_set_by_admin"),
        *("password", "session_epoch", "last_login"),
    },
    "accounts_roleassignment": {"reason"},
    "accounts_issuedtoken": {
        *("last_used_at", "last_used_from", "name", "redeemed_at"),
        *("successor_id", "successor_sealed"),
    },
    "accounts_revokedtoken": set(),
    "accounts_oauthclient": {"last_used_at", "updated"},
    "accounts_signingkey": set(),
    "accounts_role": {"description"},
    "accounts_role_scopes": set(),
    "accounts_scope": {"description"},
    "mcp_bridge_primitive": {
        *("title", "description", "definition", "first_seen_at", "last_seen_at"),
        *("changed_at", "vanished_at", "offered", "problem", "accepted"),
    },
    "mcp_bridge_primitive_required_scopes": set(),
    "mcp_bridge_upstreamserver": set(),
    "mcp_bridge_upstreamcredential": {"state"},
    "mcp_bridge_argumentrule": set(),
    "mcp_bridge_clientsession": {"expires_at"},
}
"""Table -> columns that no decision depends on; every other column is watched."""
KEYS = {
    "accounts_user": ("user", "id"),
    "accounts_roleassignment": ("user", "user_id"),
    "accounts_issuedtoken": ("token", "jti"),
    "accounts_revokedtoken": ("token", "jti"),
    "accounts_oauthclient": ("client", "client_id"),
    "accounts_signingkey": ("all", ""),
    "accounts_role": ("all", ""),
    "accounts_role_scopes": ("people", ""),
    "accounts_scope": ("all", ""),
    "mcp_bridge_primitive": ("catalogue", ""),
    "mcp_bridge_primitive_required_scopes": ("catalogue", ""),
    "mcp_bridge_upstreamserver": ("catalogue", ""),
    "mcp_bridge_upstreamcredential": ("catalogue", ""),
    "mcp_bridge_argumentrule": ("catalogue", ""),
    "mcp_bridge_clientsession": ("session", "key"),
}
"""Table -> what a change concerns, and the column that names it."""
NO_INSERT = {
    *("accounts_user", "accounts_issuedtoken", "accounts_signingkey"),
    *("accounts_role", "accounts_scope", "mcp_bridge_clientsession"),
}
"""A new row of these changes nothing that a worker knows."""
NO_DELETE = {"accounts_revokedtoken"}
TABLES = {table.table: table for table in watched_tables()}


def test_every_watched_table_is_listed_with_its_key() -> None:
    assert {n: (str(t.kind), t.key) for n, t in TABLES.items()} == KEYS
    assert {n for n, t in TABLES.items() if not t.insert} == NO_INSERT
    assert {n for n, t in TABLES.items() if not t.delete} == NO_DELETE
    while_live = {"accounts_issuedtoken", "mcp_bridge_clientsession"}
    assert {n for n, t in TABLES.items() if t.while_live} == while_live
    assert LOG_LENGTH == 10_000


@pytest.mark.parametrize("table", TABLES)
def test_a_column_is_watched_unless_it_is_listed(table: str) -> None:
    model = TABLES[table].model
    columns = [str(f.column) for f in model._meta.local_concrete_fields]
    assert TABLES[table].columns == [c for c in columns if c not in IGNORED[table]]
    assert set(columns) >= IGNORED[table]


def test_the_unique_columns_of_a_table() -> None:
    """SQLite's REPLACE deletes the rows that have one of these values."""
    assert TABLES["accounts_user"].unique == ["id", "username"]
    assert set(TABLES["accounts_issuedtoken"].unique) >= {"id", "jti"}
    assert TABLES["accounts_role_scopes"].unique == ["id"]


@pytest.fixture(scope="module")
def sample_keys(module_transaction: None) -> dict[str, Any]:
    """Table -> the key of a row without dependants; each has another row beside it."""
    users = [User.objects.create(username=f"sample-{n}") for n in range(3)]
    roles = [Role.objects.create(name=f"r{n}") for n in range(3)]
    scopes = [Scope.objects.create(name=f"s{n}") for n in range(3)]
    until = timezone.now() + timedelta(days=1)
    for n in range(2):
        IssuedToken.objects.create(
            jti=f"jti-{n}",
            kind="access",
            user=users[n],
            family=uuid4(),
            issued_at=until,
            expires_at=until,
        )
        RevokedToken.objects.create(jti=f"jti-{n}", until=until)
        ClientSession.objects.create(key=f"key-{n}", user=users[n], expires_at=until)
        OAuthClient.objects.create(client_id=f"sample-{n}", client_type="public")
        SigningKey.objects.create(kid=f"k{n}", state="retired")
        RoleAssignment.objects.create(user=users[n], role=roles[n])
        roles[n].scopes.add(scopes[n])
        primitive = Primitive.objects.create(kind="tool", name=f"p{n}")
        primitive.required_scopes.add(scopes[n])
        url = f"https://{n}.example/mcp"
        server = UpstreamServer.objects.create(name=f"up{n}", url=url)
        UpstreamCredential.objects.create(upstream=server)
        ArgumentRule.objects.create(
            primitive=primitive, role=roles[n], pointer="/a", operator="absent"
        )
    last: dict[str, models.Model] = {
        "accounts_user": users[2],
        "accounts_role": roles[2],
        "accounts_scope": scopes[2],
    }
    last["mcp_bridge_upstreamserver"] = UpstreamServer.objects.create(name="up2")
    last["mcp_bridge_primitive"] = Primitive.objects.create(kind="tool", name="alone")
    run_deferred_triggers()
    return {
        name: (last.get(name) or table.model._default_manager.order_by("-pk")[0]).pk
        for name, table in TABLES.items()
    }


@pytest.fixture
def sample(sample_keys: dict[str, Any], db: None) -> Callable[[str], models.Model]:
    """Table -> its row of `sample_keys`."""
    return lambda name: TABLES[name].model._default_manager.get(pk=sample_keys[name])


def another_value(row: models.Model, field: Any) -> Any:
    """A value of this column that the row does not have."""
    if field.is_relation:
        rows = field.related_model._default_manager
        return rows.exclude(pk=getattr(row, field.attname)).order_by("-pk")[0].pk
    now = getattr(row, field.attname)
    kind = field.get_internal_type()
    if kind == "BooleanField":
        return not now
    if "Integer" in kind or "Auto" in kind:
        return (now or 0) + 1000
    if kind == "DateTimeField":
        return timezone.now() + timedelta(days=9)
    if kind == "JSONField":
        return {"other": 1}
    if kind == "BinaryField":
        return b"other"
    if kind == "UUIDField":
        return uuid4()
    return "other" if field.max_length is None else "other"[: field.max_length]


def named(table: str, *rows: models.Model) -> Concerned:
    """What a change of these rows concerns."""
    kind, key = KEYS[table]
    if not key:
        return {(kind, "")}
    return {(kind, str(getattr(row, key))) for row in rows}


COLUMNS = [
    (name, str(field.attname))
    for name, table in TABLES.items()
    for field in table.model._meta.local_concrete_fields
]


@pytest.mark.spec("every change that a decision depends on is numbered")
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_change_of_each_column_is_numbered_if_decisions_read_it(
    sample: Callable[[str], models.Model], table: str, column: str
) -> None:
    row, model = sample(table), TABLES[table].model
    value = another_value(row, model._meta.get_field(column))
    mine = model._default_manager.filter(pk=row.pk)
    found = concerned_users(lambda: mine.update(**{column: value}))
    if column in IGNORED[table]:
        assert found == set()
    else:
        key = value if column == row._meta.pk.attname else row.pk
        after = model._default_manager.get(pk=key)
        assert found == named(table, row, after)


@pytest.mark.parametrize("table", TABLES)
def test_a_new_row_is_numbered_if_it_can_change_a_decision(
    sample: Callable[[str], models.Model], table: str
) -> None:
    row = sample(table)
    old = type(row)._default_manager.get(pk=row.pk)
    concerned_users(lambda: type(row)._default_manager.filter(pk=row.pk).delete())
    found = concerned_users(lambda: old.save_base(force_insert=True, raw=True))
    assert found == (set() if table in NO_INSERT else named(table, old))


@pytest.mark.parametrize("table", TABLES)
def test_a_deleted_row_is_numbered_if_it_can_change_a_decision(
    sample: Callable[[str], models.Model], table: str
) -> None:
    row = sample(table)
    statement = f"DELETE FROM {table} WHERE {row._meta.pk.column} = %s"  # noqa: S608
    found = concerned_users(lambda: sql(statement, row.pk))
    assert found == (set() if table in NO_DELETE else named(table, row))


@pytest.mark.parametrize(("seconds", "numbered"), [(-1, False), (30, True)])
def test_only_the_deletion_of_a_living_token_is_numbered(
    token: IssuedToken, seconds: int, numbered: bool
) -> None:
    ends = transaction_time() + timedelta(seconds=seconds)
    mine = IssuedToken.objects.filter(pk=token.pk)
    mine.update(expires_at=ends)
    found = concerned_users(
        lambda: sql("DELETE FROM accounts_issuedtoken WHERE id = %s", token.pk)
    )
    assert found == ({("token", token.jti)} if numbered else set())


@pytest.mark.parametrize("name", sorted(dialect().expected_triggers()))
def test_each_trigger_is_missed(db: None, name: str) -> None:
    table = name.removeprefix("portico_").rpartition("_")[0]
    table = table or "mcp_bridge_loggedchange"
    on = "" if connection.vendor == "sqlite" else f" ON {table}"
    sql(f"DROP TRIGGER {name}{on}")
    assert missing_triggers() == [name]
    assert checks.changes_are_numbered(databases=["default"]) != []


def test_a_trigger_with_another_body_is_missing(db: None) -> None:
    name = "portico_accounts_user_update"
    if connection.vendor == "sqlite":
        text = dialect().expected_triggers()[name]
        sql(f"DROP TRIGGER {name}")
        sql(text.replace('"is_active" IS NOT', '"is_active" IS').replace("%", "%%"))
    else:
        sql(
            f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql "
            "AS $body$BEGIN RETURN NULL; END$body$"
        )
    assert missing_triggers() == [name]


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
