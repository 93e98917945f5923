"""Flow tests run over real HTTP, on the database of this run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from tests.support import chromium as windows
from tests.support import mcp_client
from tests.support.server import Portico, running_server
from tests.support.users import make_user


@pytest.fixture(scope="session")
def rows(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The run's database without a transaction: flow tests share it with the server."""
    with django_db_blocker.unblock(), mcp_client.HTTP:
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: Any) -> Path:
    """A DATA_DIR with collected static files."""
    path: Path = tmp_path_factory.mktemp("data")
    from django.test import override_settings

    with override_settings(STATIC_ROOT=path / "static"):
        call_command("collectstatic", verbosity=0, interactive=False)
    return path


@pytest.fixture(scope="session")
def server(rows: None, folder: Path) -> Iterator[Portico]:
    with running_server(folder) as running:
        yield running


@pytest.fixture(scope="session")
def workers(rows: None, folder: Path) -> Iterator[Portico]:
    with running_server(folder, WORKERS="2") as running:
        yield running


@pytest.fixture
def default_users(rows: None) -> None:
    """alice with User, bob with Guest, carol with Admin; all tools as in code."""
    make_user("alice", "User")
    make_user("bob", "Guest")
    make_user("carol", "Admin", admin=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with windows.launched() as browser:
        yield browser
