"""New SQLite files are private."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.sqlite.private_connection import PrivateConnection

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def generous_umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


def written(name: str) -> None:
    line = sqlite3.connect(name, factory=PrivateConnection)
    line.execute("CREATE TABLE IF NOT EXISTS t (x)")
    line.close()


def test_a_new_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite3"
    written(str(path))
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    written(str(path))
    size = path.stat().st_size
    path.chmod(0o640)
    written(str(path))
    assert path.stat().st_size == size > 0 and path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["", ":memory:", "file:x?mode=memory"])
def test_databases_in_memory_have_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    line = PrivateConnection(name, uri=name.startswith("file:"))
    line.close()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_sqlites_own_error(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        written(str(tmp_path / "missing" / "x.sqlite3"))
