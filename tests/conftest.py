"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import setup_databases, teardown_databases

from accounts.models import User
from accounts.rate_limits.window import PROCESS_WINDOWS
from tests.apps.wait_guard.waits import plant
from tests.support import migrated_database, quick_hashing
from tests.support.users import make_user
from tests.tools.run import BOTH_DATABASES

plant()
quick_hashing.plant()
# Imports and collected tests are no garbage: until then, it is not worth searching.
gc.disable()


OBJECTS_PER_SEARCH = 20_000
"""New objects between two searches for garbage; a page of the admin makes thousands."""


if "MUTANT_UNDER_TEST" in os.environ:
    # Read the sources once for all mutants, before their processes are forked.
    migrated_database.fingerprint()

# As `make serve` runs: the database of the tests is read by `doctor` too.
os.umask(0o077)


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None, django_db_blocker: Any
) -> Iterator[None]:
    """The run's database, also for runs of flow tests only."""
    with django_db_blocker.unblock():
        databases = migrated_databases()
    yield
    with django_db_blocker.unblock():
        teardown_databases(databases, verbosity=0)


def migrated_databases() -> Any:
    """What `teardown_databases` needs; on SQLite from the stored copy, if it fits."""
    if connection.vendor != "sqlite":
        return setup_databases(verbosity=0, interactive=False)
    database = connection.settings_dict
    path = Path(database["TEST"]["NAME"]).with_name(f"test-{os.getpid()}.sqlite3")
    database["TEST"]["NAME"] = path
    with migrated_database.one_at_a_time():
        if not migrated_database.restore(path):
            databases = setup_databases(verbosity=0, interactive=False)
            migrated_database.store(path)
            return databases
    if {"MUTANT_UNDER_TEST", "CI"} & set(os.environ):
        # Made by this code. A mutant costs a second; migrating again takes two.
        name, database["NAME"] = database["NAME"], str(path)
        migrated_database.sign_audit_head()
        return [(connection, name, True)]
    databases = setup_databases(verbosity=0, interactive=False, keepdb=True)
    migrated_database.sign_audit_head()
    return databases


@pytest.fixture(scope="module")
def module_transaction(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Keeps the rows of a module's fixtures of this scope for all of its tests.

    Each test returns to these rows. Its objects must be its own: return keys, not
    objects that a test may change. Not for modules with transactional tests.
    """
    block: Any = transaction.atomic()
    block._from_testcase = True
    with django_db_blocker.unblock(), block:
        yield
        transaction.set_rollback(True)


@pytest.fixture(autouse=True)
def uncounted() -> None:
    """Resets the rate limits of earlier tests."""
    PROCESS_WINDOWS.counts.clear()


@pytest.fixture
def alice(db: None) -> User:
    """May call: role User."""
    return make_user("alice", "User")


@pytest.fixture
def bob(db: None) -> User:
    """May not call: role Guest."""
    return make_user("bob", "Guest")


@pytest.fixture
def carol(db: None) -> User:
    """Runs the admin: superuser with role Admin."""
    return make_user("carol", "Admin", admin=True)


def pytest_collection_finish() -> None:
    """Modules and tests live until the end: collecting garbage need not visit them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_PER_SEARCH)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Flow tests leave rows behind and run last."""
    items.sort(key=lambda item: item.nodeid.startswith("tests/flows/"))
    for item in items:
        if not item.nodeid.startswith(BOTH_DATABASES):
            item.add_marker("once")
