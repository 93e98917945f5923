"""The checks of the catalogue: what each finds, and what it does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.core import checks as django_checks
from django.utils import timezone

from accounts.crypto import private_files
from accounts.management.errors import BrokenApp
from accounts.models import Role, Scope
from mcp_bridge import checks
from mcp_bridge.cache.triggers.install import TriggerState
from mcp_bridge.models import ChangeCounter, Primitive

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def catalogue() -> None:
    """Two tools: one that a role grants, one that none does."""
    Primitive.objects.all().delete()
    granted, alone = (Scope.objects.get_or_create(name=n)[0] for n in ("Yes", "No"))
    Role.objects.get(name="User").scopes.add(granted)
    Role.objects.get(name="Guest").scopes.add(granted)
    for name, scope in (("reached", granted), ("alone", alone)):
        row = Primitive.objects.create(kind="tool", name=name)
        row.required_scopes.set([scope])


def found(check: Any) -> list[tuple[str, type, str, str]]:
    """(id, level, text, hint) of what a check says with a database."""
    return [
        (str(m.id), type(m), str(m.msg), str(m.hint))
        for m in check(databases=["default"])
    ]


@pytest.mark.parametrize(
    "check",
    [
        checks.definitions_are_accepted,
        checks.everything_is_reachable,
        checks.changes_are_numbered,
        checks.no_process_serves_a_replaced_file,
    ],
)
def test_each_check_is_registered_and_needs_a_database(check: Any) -> None:
    registered = django_checks.registry.registry.get_checks(
        include_deployment_checks=True
    )
    assert check in registered and check() == []


def test_a_changed_definition_needs_a_review() -> None:
    assert found(checks.definitions_are_accepted) == []
    Primitive.objects.filter(name="alone").update(changed_at=timezone.now())
    assert checks.changed_names() == ["alone"]
    assert found(checks.definitions_are_accepted) == [
        (
            "portico.W101",
            django_checks.Warning,
            "Changed definitions need review: alone.",
            "Review them in the admin under Tools, resources and prompts.",
        )
    ]


def test_a_tool_that_no_role_grants_is_named() -> None:
    assert found(checks.everything_is_reachable) == [
        (
            "portico.W102",
            django_checks.Warning,
            "No role gives access to: alone.",
            "Add one of their scopes to a role in the admin.",
        )
    ]


def test_a_tool_without_scopes_is_unreachable_and_a_disabled_one_is_not_named() -> None:
    Primitive.objects.create(kind="tool", name="bare")
    Primitive.objects.filter(name="alone").update(enabled=False)
    assert checks.unreachable_names() == ["bare"]
    Primitive.objects.filter(name="bare").update(state="held")
    assert found(checks.everything_is_reachable) == []


def test_one_granted_scope_of_several_is_enough() -> None:
    row = Primitive.objects.get(name="alone")
    row.required_scopes.add(Scope.objects.get(name="Yes"))
    assert checks.unreachable_names() == []


class State:
    """Replaces the look at the triggers."""

    def __init__(self, missing: list[str], outside: list[Any]) -> None:
        self.state = TriggerState(missing, outside, ())

    def __call__(self) -> TriggerState:
        return self.state


@pytest.fixture
def epoch() -> None:
    """Changes are tracked."""
    ChangeCounter.objects.update_or_create(pk=1, defaults={"epoch": "e" * 32})


def texts(monkeypatch: pytest.MonkeyPatch, missing: Any, outside: Any) -> list[Any]:
    monkeypatch.setattr(checks, "state", State(missing, outside))
    return found(checks.changes_are_numbered)


@pytest.mark.usefixtures("epoch")
def test_with_all_triggers_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert texts(monkeypatch, [], []) == []


@pytest.mark.usefixtures("epoch")
def test_missing_triggers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = texts(monkeypatch, ["first", "second"], [])
    assert one[:2] == ("portico.E103", django_checks.Error)
    assert "(missing: first, second)" in one[2]
    assert one[3] == "Run: manage.py migrate"


@pytest.mark.parametrize("rows", [0, 1])
def test_without_an_epoch_a_migration_did_not_finish(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    ChangeCounter.objects.all().delete()
    if rows:
        ChangeCounter.objects.create(epoch="")
    (one,) = texts(monkeypatch, [], [])
    assert one[0] == "portico.E103" and "(a migration did not finish)" in one[2]


@pytest.mark.usefixtures("epoch")
def test_changes_past_the_triggers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = texts(monkeypatch, [], ["table a", "table b"])
    assert one[:2] == ("portico.E104", django_checks.Error)
    assert "(table a, table b)" in one[2] and "Remove the subscription" in one[3]
    both = texts(monkeypatch, ["first"], ["table a"])
    assert [found_id for found_id, *_rest in both] == ["portico.E103", "portico.E104"]


def test_processes_on_a_replaced_file_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Linux shows in /proc that an open file was deleted."""
    database = tmp_path / "portico.sqlite3"
    monkeypatch.setattr(private_files, "database_files", lambda: [database])
    database.write_bytes(b"old")
    with database.open("rb"):
        assert found(checks.no_process_serves_a_replaced_file) == []
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").rename(database)
        if not Path("/proc/self/fd").exists():
            pytest.skip("needs /proc")
        ((name, _level, text, hint),) = found(checks.no_process_serves_a_replaced_file)
    assert name == "portico.E105" and f" {os.getpid()}." in text
    assert "Restart the server" in hint
    assert found(checks.no_process_serves_a_replaced_file) == []


@pytest.mark.parametrize(
    ("similar", "hint"),
    [
        ("", "Add mcp_tools.py to it."),
        ("mcp_tool.py", "Rename mcp_tool.py to mcp_tools.py."),
        ("mcp_tools.py", "Register something in its mcp_tools.py"),
    ],
)
def test_an_app_without_offers_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, similar: str, hint: str
) -> None:
    monkeypatch.setattr(checks, "silent_apps", lambda: [("acme", similar)])
    ((key, kind, text, fix),) = found(checks.apps_offer_something)
    assert (key, kind) == ("portico.W106", django_checks.Warning)
    assert text.startswith("acme is in EXTRA_APPS") and fix.startswith(hint)


def test_an_app_that_cannot_be_imported_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> None:
        raise BrokenApp("a.py, line 1: x\nNameError: x\nFix: Correct it.")

    monkeypatch.setattr(checks, "silent_apps", broken)
    told = [
        (
            "portico.E106",
            django_checks.Error,
            "a.py, line 1: x NameError: x",
            "Correct it.",
        )
    ]
    assert found(checks.apps_offer_something) == told
