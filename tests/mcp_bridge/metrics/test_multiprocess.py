"""The folder in which workers share their metrics."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_bridge.metrics import multiprocess, prometheus
from mcp_bridge.metrics.multiprocess import FOLDER

pytestmark = pytest.mark.once
LIVE, DEAD = 101, 102


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process DEAD has ended; every other one runs."""
    monkeypatch.setattr(multiprocess, "alive", lambda pid: pid != DEAD)


def test_the_variable_is_the_one_that_the_library_reads() -> None:
    assert FOLDER == "PROMETHEUS_MULTIPROC_DIR"


@pytest.mark.parametrize(
    ("token", "workers", "shared"), [("t", 2, True), ("t", 1, False), ("", 2, False)]
)
def test_only_several_measured_workers_share_a_folder(
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    workers: int,
    shared: bool,
) -> None:
    monkeypatch.setitem(os.environ, FOLDER, "")
    del os.environ[FOLDER]
    settings.METRICS_TOKEN, settings.WORKERS = token, workers
    settings.DATA_DIR = tmp_path
    multiprocess.prepare_folder()
    mine = tmp_path / "metrics" / str(os.getppid())
    assert os.environ.get(FOLDER) == (str(mine) if shared else None)
    assert mine.exists() is shared


def test_a_folder_that_is_set_is_kept(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, "/elsewhere")
    settings.METRICS_TOKEN, settings.WORKERS = "t", 2
    settings.DATA_DIR = tmp_path
    multiprocess.prepare_folder()
    assert os.environ[FOLDER] == "/elsewhere"


def test_a_read_only_data_folder_is_replaced(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that failed here would be restarted for ever."""
    monkeypatch.setitem(os.environ, FOLDER, "")
    del os.environ[FOLDER]
    settings.METRICS_TOKEN, settings.WORKERS = "t", 2
    settings.DATA_DIR = tmp_path / "file" / "data"
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    multiprocess.prepare_folder()
    mine = tmp_path / f"portico-metrics-{os.geteuid()}" / str(os.getppid())
    assert os.environ[FOLDER] == str(mine) and mine.is_dir()
    assert mine.parent.stat().st_mode & 0o077 == 0


def test_workers_without_any_folder_still_start(
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another account's folder counts as none: it could be read and replaced."""
    monkeypatch.setitem(os.environ, FOLDER, "")
    del os.environ[FOLDER]
    settings.METRICS_TOKEN, settings.WORKERS = "t", 2
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    multiprocess.prepare_folder()
    assert FOLDER not in os.environ
    assert caplog.text.count("another account owns it") == 2


def test_a_worker_removes_the_folders_of_ended_servers_only(tmp_path: Path) -> None:
    for name in (str(LIVE), str(DEAD), "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "counter_1.db").touch()
    mine = multiprocess.shared_folder(tmp_path)
    assert mine == tmp_path / str(os.getppid())
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {str(LIVE), "notes", mine.name}


def test_a_worker_reserves_its_files_once(tmp_path: Path) -> None:
    """A full disk shows at the start, as an error that Python can raise."""
    assert multiprocess.FILE_SIZE == 256 * 1024
    own = os.getpid()
    multiprocess.reserve(tmp_path)
    kinds = ["counter", "histogram"]
    kinds += ["gauge_livesum", "gauge_livemax", "gauge_livemin"]
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == {f"{kind}_{own}.db": 256 * 1024 for kind in kinds}
    for path in tmp_path.iterdir():
        path.write_bytes(b"used")
    multiprocess.reserve(tmp_path)
    assert all(path.read_bytes() == b"used" for path in tmp_path.iterdir())


def test_a_worker_of_the_same_server_starts_without_its_old_gauges(
    tmp_path: Path,
) -> None:
    """The number of this process may have been that of an ended worker."""
    mine = tmp_path / str(os.getppid())
    mine.mkdir()
    gauge = mine / f"gauge_livesum_{os.getpid()}.db"
    counter = mine / f"counter_{os.getpid()}.db"
    for path in (gauge, counter):
        path.write_bytes(b"old")
    multiprocess.shared_folder(tmp_path)
    assert gauge.stat().st_size == multiprocess.FILE_SIZE
    assert counter.read_bytes() == b"old", "a counter only grows"


def test_gauges_of_ended_workers_are_forgotten(tmp_path: Path) -> None:
    names = [
        f"{kind}_{pid}.db"
        for kind in ("gauge_livesum", "gauge_liveall", "gauge_sum", "counter")
        for pid in (LIVE, DEAD)
    ]
    for name in names:
        (tmp_path / name).touch()
    multiprocess.forget_dead(tmp_path)
    gone = {f"gauge_livesum_{DEAD}.db", f"gauge_liveall_{DEAD}.db"}
    assert {path.name for path in tmp_path.iterdir()} == {*names} - gone
    multiprocess.forget_dead(tmp_path, LIVE)
    left = {path.name for path in tmp_path.iterdir()}
    assert f"gauge_livesum_{LIVE}.db" not in left and f"counter_{LIVE}.db" in left


def raising(error: type[OSError] | None) -> Callable[[int, int], None]:
    def kill(pid: int, number: int) -> None:
        assert number == 0, "nothing is sent to the process"
        if error is not None:
            raise error

    return kill


@pytest.mark.parametrize(
    ("error", "runs"),
    [(None, True), (PermissionError, True), (ProcessLookupError, False)],
)
def test_a_process_of_another_account_is_alive(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None, runs: bool
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(os, "kill", raising(error))
    assert multiprocess.alive(1) is runs


def test_a_worker_shows_the_metrics_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = tmp_path / f"gauge_livesum_{DEAD}.db"
    multiprocess.reserve(tmp_path)
    dead.touch()
    monkeypatch.delenv(FOLDER, raising=False)
    assert b"portico_http_requests_total" in prometheus.exposition()
    assert dead.exists()
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert prometheus.exposition() == b"" and not dead.exists()
