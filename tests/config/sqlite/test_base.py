"""Threads that write to one SQLite file wait for each other without looking."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db.backends.sqlite3.base import DatabaseWrapper as DjangosWrapper
from django.db.utils import OperationalError, load_backend

from config.sqlite import base

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def own_files(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


def wrapper(path: Path, timeout: float = 20) -> Any:
    """A connection that any thread may use."""
    entry = {
        "ENGINE": "config.sqlite",
        "NAME": str(path),
        "AUTOCOMMIT": True,
        "ATOMIC_REQUESTS": False,
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": False,
        "TIME_ZONE": None,
        "USER": "",
        "PASSWORD": "",
        "HOST": "",
        "PORT": "",
        "OPTIONS": {"timeout": timeout, "transaction_mode": "IMMEDIATE"},
    }
    made = load_backend("config.sqlite").DatabaseWrapper(entry, "default")
    made.inc_thread_sharing()
    return made


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """Two connections to one file; the second waits 0.05 s."""
    path = tmp_path / "x.sqlite3"
    made = wrapper(path), wrapper(path, 0.05)
    with made[0].cursor() as cursor:
        cursor.execute("CREATE TABLE t (x UNIQUE)")
    yield made
    for one in made:
        one.close()


def begin(line: Any) -> None:
    line.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)


def is_free(line: Any) -> bool:
    """Whether this connection can begin a transaction."""
    try:
        begin(line)
    except OperationalError as error:
        assert str(error) == "database is locked"
        return False
    line.rollback()
    line.set_autocommit(True)
    return True


ENDS: dict[str, Callable[[Any], None]] = {
    "commit": lambda line: line.commit(),
    "rollback": lambda line: line.rollback(),
    "close": lambda line: line.close(),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_transaction_keeps_others_waiting_until_it_ends(
    pair: tuple[Any, Any], end: str
) -> None:
    first, second = pair
    begin(first)
    assert first.held is not None and not is_free(second)
    ENDS[end](first)
    assert first.held is None and is_free(second)


def test_a_transaction_that_cannot_begin_leaves(pair: tuple[Any, Any]) -> None:
    """Another process writes: SQLite itself refuses."""
    first, second = pair
    other = sqlite3.connect(second.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert not is_free(second) and second.held is None
    other.execute("ROLLBACK")
    other.close()
    assert is_free(second) and is_free(first)


def test_a_commit_that_fails_keeps_its_turn_until_the_rollback(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has not ended the transaction then."""
    first, second = pair
    begin(first)

    def fails(self: Any) -> None:
        raise OperationalError("disk is full")

    monkeypatch.setattr(DjangosWrapper, "_commit", fails)
    with pytest.raises(OperationalError, match="disk"):
        first.commit()
    assert not is_free(second)
    first.rollback()
    assert is_free(second)


@pytest.mark.parametrize("verb", ["_rollback", "_close"])
def test_an_end_that_fails_leaves(
    pair: tuple[Any, Any], verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django gives the connection up then."""
    first = pair[0]
    begin(first)
    theirs = getattr(DjangosWrapper, verb)

    def fails(self: Any) -> None:
        theirs(self)
        raise OperationalError("lost")

    monkeypatch.setattr(DjangosWrapper, verb, fails)
    with pytest.raises(OperationalError, match="lost"):
        getattr(first, verb)()
    monkeypatch.undo()
    assert first.held is None and is_free(pair[1])


def test_each_file_has_a_queue(pair: tuple[Any, Any], tmp_path: Path) -> None:
    elsewhere = wrapper(tmp_path / "other.sqlite3", 0.05)
    begin(pair[0])
    assert is_free(elsewhere) and not is_free(pair[1])
    elsewhere.close()


def test_threads_write_all_rows(tmp_path: Path) -> None:
    """Each waits for all others; none is refused or writes twice."""
    path = tmp_path / "x.sqlite3"
    lines = [wrapper(path) for _ in range(4)]
    with lines[0].cursor() as cursor:
        cursor.execute("CREATE TABLE t (x UNIQUE)")

    def work(number: int) -> None:
        for n in range(25):
            begin(lines[number])
            with lines[number].cursor() as cursor:
                cursor.execute("INSERT INTO t VALUES (%s)", [number * 100 + n])
            lines[number].commit()
            lines[number].set_autocommit(True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with lines[0].cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM t").fetchone() == (100,)
    for line in lines:
        line.close()


def test_a_fork_does_not_wait_for_threads_that_it_has_not(
    pair: tuple[Any, Any],
) -> None:
    """The thread that wrote when the process was copied exists in the parent only."""
    first, second = pair
    begin(first)
    child = os.fork()
    if child == 0:
        queue = base.queue_of(second)
        os._exit(0 if queue is not first.held and queue.enter(0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert base.queue_of(second) is first.held
