"""`manage.py copy_database`: the target, the comparison and what it says."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from mcp_bridge.management.commands import copy_database
from mcp_bridge.transfer import comparison, copying
from mcp_bridge.transfer.databases import CopyRefused
from tests.support.commands import new_events

pytestmark = pytest.mark.django_db
TARGET = SimpleNamespace(name="target")


class Copying:
    """Takes the place of mcp_bridge.transfer, and keeps what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[Any] = []
        self.newer, self.audit = 0, ""
        self.tables: list[str] = []
        self.decisions: list[str] = []
        digests = {object(): SimpleNamespace(rows=3), object(): SimpleNamespace(rows=4)}

        def step(name: str, result: Any = None) -> Any:
            def take(*about: Any) -> Any:
                self.steps.append(name)
                return result

            return take

        for module, name, made in (
            (copy_database, "opened_target", self.opened),
            (copy_database, "snapshot", self.snapshot),
            (copy_database, "database_label", lambda one: getattr(one, "name", "here")),
            (copying, "prepare", step("prepare")),
            (copying, "copy_tables", self.copied(digests)),
            (copying, "newer_events", lambda source: self.newer),
            (comparison, "source_digests", step("digests", digests)),
            (comparison, "different_tables", lambda found: iter(self.tables)),
            (comparison, "audit_problem", lambda target: (self.audit, 5)),
            (comparison, "different_decisions", lambda target: iter(self.decisions)),
        ):
            monkeypatch.setattr(module, name, made)

    def copied(self, digests: Any) -> Any:
        def copy(source: Any, target: Any, report: Any) -> Any:
            assert target is TARGET
            self.steps.append("copy")
            report("accounts_user", 3000)
            return digests

        return copy

    @contextmanager
    def opened(self, url: str) -> Iterator[Any]:
        self.steps.append(url)
        if url == "wrong":
            raise CopyRefused("The URL of the target is wrong.")
        yield TARGET

    @contextmanager
    def snapshot(self, source: Any) -> Iterator[None]:
        self.steps.append("snapshot")
        yield


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Copying:
    return Copying(monkeypatch)


def run(*arguments: str) -> tuple[list[str], str]:
    """Lines of the output, and the errors."""
    out, errors = io.StringIO(), io.StringIO()
    call_command("copy_database", *arguments, stdout=out, stderr=errors)
    return out.getvalue().splitlines(), errors.getvalue()


EQUAL = (
    "Equal: 7 rows of 2 tables, 5 seals of the audit, and the access decisions of a "
    "sample."
)


def test_a_copy_is_recorded_before_the_snapshot_and_compared(
    copies: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that both databases have the event. A URL has a password: not an argument."""
    told: list[Any] = []
    monkeypatch.setattr("sys.stdin", io.StringIO(" postgres://u:p@h/n \nmore\n"))
    events = new_events(lambda: told.append(run("-")))
    assert copies.steps == ["postgres://u:p@h/n", "prepare", "snapshot", "copy"]
    ((lines, errors),) = told
    label = events[0][2].removeprefix("from ")
    assert lines == [
        f"Copying from {label} ...",
        "  accounts_user: 3,000",
        EQUAL,
        "Now set DATABASE_URL to the target and start the servers.",
    ]
    assert errors == "" and label.endswith(" to target")
    assert [event[:2] for event in events] == [("command line", "database.copied")]


def test_only_comparing_copies_and_records_nothing(copies: Copying) -> None:
    told: list[Any] = []
    assert new_events(lambda: told.append(run("url", "--verify"))) == []
    assert copies.steps == ["url", "snapshot", "digests"] and told == [([EQUAL], "")]


@pytest.mark.parametrize("events", [1, 2])
def test_events_that_came_meanwhile_are_a_warning(copies: Copying, events: int) -> None:
    copies.newer = events
    _lines, errors = run("url")
    count = "1 audit event came" if events == 1 else "2 audit events came"
    assert errors.startswith(count) and "copy to another empty database" in errors


def test_every_difference_is_named(copies: Copying) -> None:
    copies.tables, copies.decisions = ["a has 1 row here and 2 there"], ["b differs"]
    copies.audit = "seal 3 does not match"
    with pytest.raises(CommandError) as refused:
        run("url", "--verify")
    assert str(refused.value).splitlines() == [
        "The target differs; do not use it:",
        "  a has 1 row here and 2 there",
        "  verify_audit: seal 3 does not match",
        "  b differs",
    ]
    for name in ("tables", "decisions"):
        setattr(copies, name, [])
    with pytest.raises(CommandError, match="verify_audit: seal 3"):
        run("url")


def test_a_target_that_cannot_be_opened_is_an_error(copies: Copying) -> None:
    with pytest.raises(CommandError, match="The URL of the target is wrong"):
        run("wrong")


def test_the_progress_is_seen_at_once(copies: Copying) -> None:
    """A copy takes minutes, and its output may be a pipe."""
    out = io.StringIO()
    flushed: list[str] = []
    out.flush = lambda: flushed.append(out.getvalue())  # type: ignore[method-assign]
    copy_database.Command(stdout=out).report("accounts_user", 3000)
    assert flushed and flushed[-1] == "  accounts_user: 3,000\n"
