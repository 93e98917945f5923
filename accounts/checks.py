"""System checks with ids: each names a problem and its fix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.admin.sites import all_sites
from django.core import checks
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.admin_site.declared_lookups import missing_guards, revealing_columns
from accounts.crypto import private_files
from accounts.crypto.encryption import KeyUnreadable
from accounts.crypto.signing_keys import load_private_key
from accounts.http.client_address import too_wide
from accounts.models import (
    AuditFeed,
    AuditSeal,
    Delivery,
    RoleAssignment,
    SigningKey,
    User,
)
from accounts.models.audit.verification import Verification
from accounts.models.signing_keys import KeyState
from accounts.rate_limits import store

Messages = list[checks.CheckMessage]


@checks.register("portico")
def settings_are_consistent(**kwargs: Any) -> Messages:
    """Settings that are valid one by one but unsafe together."""
    messages: Messages = []
    sqlite = "sqlite" in settings.DATABASES["default"]["ENGINE"]
    if sqlite and settings.ENVIRONMENT == "production":
        messages.append(
            checks.Warning(
                _("SQLite in production supports one host only."),
                hint=_("Set DATABASE_URL to a PostgreSQL database."),
                id="portico.W001",
            )
        )
    if settings.HTTPS and not settings.TRUSTED_PROXIES:
        messages.append(
            checks.Warning(
                _(
                    "TRUSTED_PROXIES is empty. Portico ignores the proxy's "
                    "https header, so every page redirects to https again."
                ),
                hint=_(
                    "Set TRUSTED_PROXIES to the proxy's address. If uvicorn "
                    "terminates TLS itself, silence this check."
                ),
                id="portico.W004",
            )
        )
    if wide := [net for net in settings.TRUSTED_PROXIES if too_wide(net)]:
        messages.append(
            checks.Warning(
                _("TRUSTED_PROXIES contains addresses that clients may have: %s.")
                % ", ".join(wide),
                hint=_(
                    "List only the addresses of your proxies. A client with a "
                    "listed address can forge its client address."
                ),
                id="portico.W008",
            )
        )
    if settings.WORKERS > 1 and not settings.VALKEY_URL:
        messages.append(
            checks.Warning(
                _(
                    "%d workers count rate limits separately, so the effective "
                    "limits are that many times higher."
                )
                % settings.WORKERS,
                hint=_(
                    "Set VALKEY_URL to a Valkey or Redis server that all workers share."
                ),
                id="portico.W005",
            )
        )
    return messages


def database_check(check: Callable[[], Iterable[checks.CheckMessage]]) -> Any:
    """Register a database check; a database error becomes portico.E001."""

    def run(databases: Any = None, **kwargs: Any) -> Messages:
        if not databases:
            return []
        try:
            return list(check())
        except DatabaseError as error:
            text = " ".join(str(error).split())
            hint = _(
                "Start the database, check DATABASE_URL and run manage.py migrate."
            )
            template = _("The database did not respond to %(check)s: %(text)s")
            problem = template % {"check": check.__name__, "text": text}
            return [checks.Error(problem, hint=hint, id="portico.E001")]

    return checks.register(run, checks.Tags.database)


@database_check
def migrations_applied() -> Iterable[checks.CheckMessage]:
    """The schema matches the code."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        names = ", ".join(str(migration) for migration, _back in plan[:5])
        yield checks.Error(
            ngettext(
                "%(count)d migration is not applied (%(names)s).",
                "%(count)d migrations are not applied (%(names)s).",
                len(plan),
            )
            % {"count": len(plan), "names": names},
            hint=_("Run: %s") % "manage.py migrate",
            id="portico.E002",
        )


@database_check
def keys_can_sign() -> Iterable[checks.CheckMessage]:
    """A signing key is active, and KEY_ENCRYPTION_KEY decrypts it."""
    key = SigningKey.objects.filter(state=KeyState.ACTIVE).first()
    if key is None:
        yield checks.Error(
            _("No signing key is active, so no token can be issued."),
            hint=_("Run: %s") % "manage.py rotate_signing_key",
            id="portico.E003",
        )
        return
    try:
        load_private_key(key.kid, bytes(key.private_encrypted))
    except KeyUnreadable as error:
        yield checks.Error(
            str(error),
            hint=_(
                "Restore the old KEY_ENCRYPTION_KEY, or run manage.py "
                "rotate_signing_key."
            ),
            id="portico.E004",
        )


@database_check
def administrator_and_role_exist() -> Iterable[checks.CheckMessage]:
    """An active superuser exists, and at least one user has a role."""
    if not User.objects.filter(is_superuser=True, is_active=True).exists():
        yield checks.Error(
            _("There is no active superuser, so no one can administer Portico."),
            hint=_("Run: %s") % "manage.py add_user NAME --superuser --password-stdin",
            id="portico.E005",
        )
    if not RoleAssignment.objects.unexpired().exists():
        yield checks.Warning(
            _("No user has a role, so no one can use any tool."),
            hint=_("Run: %s") % "manage.py grant_role NAME User",
            id="portico.W003",
        )


@database_check
def audit_is_sealed() -> Iterable[checks.CheckMessage]:
    """No audit event waits longer than a day for its seal."""
    _count, since = AuditSeal.objects.all().unsealed(1)
    if since is not None and since < timezone.now() - timedelta(days=1):
        yield checks.Warning(
            _(
                "Audit events since %s are not sealed. Changes to them "
                "would not be detected."
            )
            % f"{since:%Y-%m-%d %H:%M %Z}",
            hint=_("Run manage.py seal_audit from a timer, about once a minute."),
            id="portico.W006",
        )


@database_check
def audit_end_is_sealed() -> Iterable[checks.CheckMessage]:
    """No seal was removed at the end; `verify_audit` checks all of them."""
    seals = AuditSeal.objects.all()
    problem = Verification(seals).end_problem(seals.head())
    if problem:
        yield checks.Error(
            _("The audit was tampered with: %s.") % problem,
            hint=_("Run: %s") % "manage.py verify_audit",
            id="portico.E007",
        )


def pooled() -> bool:
    """Whether servers send no options, because a pooler refuses them."""
    return bool(getattr(settings, "DATABASE_POOLER", False))


def statement_timeout() -> str:
    """What PostgreSQL says on a connection that is opened as a server opens it.

    A command's own connection has no timeouts, and a server's may be a pool.
    """
    serving = connection.copy()
    sent = {} if pooled() else {"options": settings.SERVING_OPTIONS}
    options = {**sent, **serving.settings_dict["OPTIONS"]}
    options.pop("pool", None)
    serving.settings_dict["OPTIONS"] = options
    try:
        with serving.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            return str(cursor.fetchone()[0])
    finally:
        serving.close()


@database_check
def statements_are_bounded() -> Iterable[checks.CheckMessage]:
    """The timeouts of servers reach PostgreSQL: a connection pool may drop them."""
    if connection.vendor == "postgresql" and statement_timeout() == "0":
        yield checks.Warning(
            _("Statements of servers have no time limit in PostgreSQL."),
            hint=_(
                "A connection pool drops the options that Portico sends: set "
                "statement_timeout and the others with ALTER ROLE (docs/production.md)."
            ),
            id="portico.W009",
        )


@database_check
def shared_store_answers() -> Iterable[checks.CheckMessage]:
    """The store of the rate limits answers; `doctor` alone waits for it."""
    if not store.answers(settings.VALKEY_URL):
        yield checks.Warning(
            _(
                "The store of the rate limits (VALKEY_URL) does not answer. Each "
                "process counts calls alone, and sign-ins are refused."
            ),
            hint=_("Start Valkey or Redis, or correct VALKEY_URL."),
            id="portico.W010",
        )


@database_check
def notifications_arrive() -> Iterable[checks.CheckMessage]:
    """The last attempt of each enabled channel succeeded."""
    tried = Delivery.objects.all().last_attempts()
    failing = [row for row in tried if row.result and row.delivered_at is None]
    for row in (*failing, *AuditFeed.objects.all().failing()):
        words = {"channel": row.channel, "result": _(row.result)}
        yield checks.Warning(
            _("The channel %(channel)s does not deliver: %(result)s") % words,
            hint=_("Correct it in the admin, then use Send a test."),
            id="portico.W011",
        )


@checks.register("portico")
def keys_are_private(**kwargs: Any) -> Messages:
    """Only their owner can read the generated keys; every command checks this."""
    return readable_error("portico.E006", private_files.key_files())


@database_check
def files_are_private() -> Iterable[checks.CheckMessage]:
    """Only their owner can read the database and `.env`.

    `doctor` alone checks this, because scheduled commands must go on.
    """
    paths = [*private_files.database_files(), *settings.ENVIRONMENT_FILES]
    yield from readable_error("portico.E008", paths)
    folders = list(private_files.replaceable_folders())
    for folder in folders:
        yield checks.Error(
            _("Other accounts can replace files in %s.") % folder,
            hint=_("Run: %s") % private_files.chmod_command("go-w", [folder]),
            id="portico.E009",
        )
    for folder in private_files.exposed_paths([settings.DATA_DIR]):
        if folder not in folders:
            yield checks.Warning(
                _("Other accounts on this host can list %s.") % folder,
                hint=_("Run: %s") % private_files.chmod_command("700", [folder]),
                id="portico.W007",
            )


def readable_error(check: str, paths: list[Path]) -> Messages:
    """One error for all paths that others can read."""
    exposed = private_files.exposed_paths(paths)
    if not exposed:
        return []
    return [
        checks.Error(
            _("Other accounts can read %s.") % ", ".join(map(str, exposed)),
            hint=_("Run: %s") % private_files.chmod_command("600", exposed),
            id=check,
        )
    ]


@checks.register("portico")
def lists_take_declared_lookups(**kwargs: Any) -> Messages:
    """No list of any admin site compares columns that it does not show."""
    pages = [page for site in all_sites for page in site._registry.values()]
    messages: Messages = []
    for page in pages:
        if missing_guards(page):
            messages.append(
                checks.Error(
                    _("%(list)s accepts lookups that it does not declare (%(names)s).")
                    % {"list": page, "names": ", ".join(missing_guards(page))},
                    hint=_(
                        "Make accounts.admin_site.declared_lookups.DeclaredLookups "
                        "the first base class and list the lookups in "
                        "linked_lookups."
                    ),
                    obj=type(page),
                    id="portico.E020",
                )
            )
            continue
        names = ", ".join(dict.fromkeys(revealing_columns(page)))
        if names:
            messages.append(
                checks.Error(
                    _(
                        "%(list)s filters, searches or sorts by secret columns: "
                        "%(names)s."
                    )
                    % {"list": page, "names": names},
                    hint=_("Remove these columns. The admin ignores them."),
                    obj=type(page),
                    id="portico.E021",
                )
            )
    return messages
