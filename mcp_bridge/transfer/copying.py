"""Copy every table into an empty database, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from accounts.models import AuditEvent, IssuedToken, SigningKey, User
from mcp_bridge.cache.triggers.install import install_triggers, suspend_tracking
from mcp_bridge.models import ChangeCounter
from mcp_bridge.transfer.databases import TARGET, CopyRefused, as_default
from mcp_bridge.transfer.rows import (
    Digest,
    Model,
    copied_models,
    first_line,
    insert,
    pages,
)
from mcp_bridge.transfer.sequences import give_ids_after, last_given_id

EVIDENCE: tuple[Model, ...] = (User, AuditEvent, IssuedToken, SigningKey, Session)
"""Tables that migrations leave empty: a row in one means that somebody uses it."""

Report = Callable[[str, int], object]
"""Called with a table and the number of its rows that were copied."""
REPORT_ROWS = 100_000


def prepare(source: BaseDatabaseWrapper, target: BaseDatabaseWrapper) -> None:
    """Migrate the target if it has no tables. Raises CopyRefused if it is unfit."""
    executor = MigrationExecutor(source)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CopyRefused("Migrate this database first: run manage.py migrate.")
    refuse_same(source, target)
    if not target.introspection.table_names():
        with as_default(target):
            call_command("migrate", verbosity=0, interactive=False)
    if migrations_of(source) != migrations_of(target):
        raise CopyRefused(
            "The target has other migrations than this database: give an empty "
            "database without tables, and copy_database migrates it."
        )
    refuse_used()


def migrations_of(database: BaseDatabaseWrapper) -> set[tuple[str, str]]:
    """(app, name) of the applied ones, without those of apps that have none now."""
    recorded = MigrationRecorder(database).applied_migrations()
    apps = MigrationLoader(None).migrated_apps
    return {(app, name) for app, name in recorded if app in apps}


def refuse_same(source: BaseDatabaseWrapper, target: BaseDatabaseWrapper) -> None:
    """The epoch of the change log is random, and made by migrate."""
    table = ChangeCounter._meta.db_table
    if table in target.introspection.table_names():
        epochs = ChangeCounter.objects.values_list("epoch", flat=True)
        here, there = epochs.using(source.alias).first(), epochs.using(TARGET).first()
        if here and here == there:
            raise CopyRefused("The target is the current database: give another URL.")


def refuse_used() -> None:
    """Raises CopyRefused if the target has rows that its migrations did not make."""
    extra = [m for m in copied_models() if of_extra_app(m)]
    used = [
        model._meta.db_table
        for model in (*EVIDENCE, *extra)
        if models.QuerySet(model, using=TARGET).exists()
    ]
    if used:
        raise CopyRefused(
            f"The target is not empty ({', '.join(used)}): nothing was changed there. "
            "Give an empty database."
        )


def of_extra_app(model: Model) -> bool:
    config = apps.get_app_config(model._meta.app_label)
    names = (config.name, f"{type(config).__module__}.{type(config).__qualname__}")
    return any(name in settings.EXTRA_APPS for name in names)


@contextmanager
def tracking_suspended(target: BaseDatabaseWrapper) -> Iterator[None]:
    """No trigger counts the copied rows; afterwards the target has a new epoch.

    A server that runs on the target caches nothing meanwhile, and forgets all it knew.
    """
    with as_default(target):
        suspend_tracking()
    try:
        yield
    finally:
        with as_default(target):
            install_triggers()


def copy_tables(
    source: BaseDatabaseWrapper, target: BaseDatabaseWrapper, report: Report
) -> dict[Model, Digest]:
    """Replace all rows of the target; return the digests of the rows that were read.

    One transaction: a copy that fails leaves the target without copied rows. Raises
    CopyRefused.
    """
    digests: dict[Model, Digest] = {}
    try:
        with tracking_suspended(target), transaction.atomic(TARGET):
            clear(target)
            for model in copied_models():
                digests[model] = copy_table(model, report)
                give_ids_after(target, model, last_given_id(source, model))
    except DatabaseError as error:
        raise CopyRefused(
            f"The target refused the copy: {first_line(error)}"
        ) from error
    analyze(target)
    return digests


def analyze(target: BaseDatabaseWrapper) -> None:
    """Collect the statistics that the planner of queries needs."""
    with target.cursor() as cursor:
        if target.vendor == "sqlite":
            cursor.execute("PRAGMA analysis_limit=1000")
        cursor.execute("ANALYZE")


def clear(target: BaseDatabaseWrapper) -> None:
    """Delete the rows that migrations made; the source has its own."""
    with target.cursor() as cursor:
        for model in copied_models():
            table = target.ops.quote_name(model._meta.db_table)
            cursor.execute(f"DELETE FROM {table}")  # noqa: S608


def copy_table(model: Model, report: Report) -> Digest:
    digest, reported = Digest(), 0
    for page in pages(model, DEFAULT_DB_ALIAS, digest):
        insert(model, page)
        if digest.rows - reported >= REPORT_ROWS:
            reported = digest.rows
            report(model._meta.db_table, reported)
    if digest.rows > reported:
        report(model._meta.db_table, digest.rows)
    return digest


def newer_events(source: BaseDatabaseWrapper) -> int:
    """The number of audit events that are in the source only: they came later."""
    copied: Any = models.QuerySet(AuditEvent, using=TARGET)
    last = copied.aggregate(last=models.Max("pk"))["last"] or 0
    return models.QuerySet(AuditEvent, using=source.alias).filter(pk__gt=last).count()
