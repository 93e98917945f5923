"""Which files hold secrets, and whether other accounts of the host may use them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from accounts.crypto import private_files
from accounts.crypto.private_files import (
    chmod_command,
    database_files,
    exposed_paths,
    key_files,
    permissions,
    replaceable_folders,
)

pytestmark = pytest.mark.once


def use_database(monkeypatch: pytest.MonkeyPatch, vendor: str, name: str) -> None:
    database = SimpleNamespace(vendor=vendor, settings_dict={"NAME": name})
    monkeypatch.setattr(private_files, "connection", database)


def test_the_key_files_lie_in_the_data_folder(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    assert key_files() == [tmp_path / "secret_key", tmp_path / "key_encryption_key"]


@pytest.mark.parametrize("name", ["/d/p.sqlite3", "file:/d/p.sqlite3?cache=shared"])
def test_a_sqlite_database_has_four_files(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    use_database(monkeypatch, "sqlite", name)
    names = ("p.sqlite3", "p.sqlite3-wal", "p.sqlite3-shm", "p.sqlite3-journal")
    assert database_files() == [Path("/d") / name for name in names]


@pytest.mark.parametrize(
    ("vendor", "name"),
    [
        ("postgresql", "portico"),
        ("sqlite", ":memory:"),
        ("sqlite", "file:x?mode=memory&cache=shared"),
    ],
)
def test_other_databases_have_no_files(
    monkeypatch: pytest.MonkeyPatch, vendor: str, name: str
) -> None:
    use_database(monkeypatch, vendor, name)
    assert database_files() == []


@pytest.mark.parametrize("bit", [0o1, 0o2, 0o4, 0o10, 0o20, 0o40])
def test_a_file_is_exposed_by_each_right_of_others(tmp_path: Path, bit: int) -> None:
    own, shared, none = (tmp_path / name for name in ("own", "shared", "none"))
    for path, mode in ((own, 0o700), (shared, 0o600 | bit)):
        path.touch()
        path.chmod(mode)
    assert exposed_paths([own, shared, none]) == [shared]
    assert permissions(shared) == 0o600 | bit and permissions(none) == 0


@pytest.mark.parametrize(
    ("mode", "replaceable"),
    [
        (0o700, False),
        (0o755, False),
        (0o720, True),
        (0o702, True),
        (0o777, True),
        (0o1777, False),
    ],
)
def test_a_folder_is_replaceable_if_others_write_and_it_is_not_sticky(
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    tmp_path: Path,
    mode: int,
    replaceable: bool,
) -> None:
    data, base = tmp_path / "data", tmp_path / "base"
    for folder in (data, base):
        folder.mkdir(0o700)
    settings.DATA_DIR = data
    use_database(monkeypatch, "sqlite", str(base / "p.sqlite3"))
    assert list(replaceable_folders()) == []
    base.chmod(mode)
    assert list(replaceable_folders()) == ([base] if replaceable else [])
    data.chmod(mode)
    assert list(replaceable_folders()) == ([base, data] if replaceable else [])


def test_the_command_quotes_its_paths() -> None:
    paths = [Path("/a b/c"), Path("/d;e")]
    assert chmod_command("600", paths) == "chmod 600 '/a b/c' '/d;e'"
