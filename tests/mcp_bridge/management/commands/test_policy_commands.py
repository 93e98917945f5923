"""`manage.py export_policy` and `import_policy`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import AuditEvent, Role, Scope
from mcp_bridge.access.policy_file import export_text

pytestmark = pytest.mark.django_db


def output(*arguments: str) -> str:
    written = io.StringIO()
    call_command(*arguments, stdout=written)
    return written.getvalue()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A file that adds a scope and changes a role."""
    document: dict[str, Any] = {
        "format": "portico-policy-1",
        "scopes": [{"name": "New.Read", "description": "new"}],
        "roles": [{"name": "Guest", "scopes": ["New.Read"]}],
    }
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document))
    return path


def test_the_export_is_the_policy_and_nothing_else() -> None:
    assert output("export_policy") == export_text()


def state() -> tuple[bool, list[str], int]:
    guest = Role.objects.get(name="Guest").scopes.order_by("name")
    names = list(guest.values_list("name", flat=True))
    return (
        Scope.objects.filter(name="New.Read").exists(),
        names,
        AuditEvent.objects.count(),
    )


def test_a_dry_run_lists_the_changes_and_makes_none(policy: Path) -> None:
    before = state()
    assert output("import_policy", str(policy), "--dry-run").splitlines() == [
        "add scopes: New.Read",
        "  description: None -> new",
        "change roles: Guest",
        f"  scopes: {before[1]} -> ['New.Read']",
        "2 items would change.",
    ]
    assert state() == before


def test_an_import_makes_the_changes_and_records_them(policy: Path) -> None:
    assert output("import_policy", str(policy)).splitlines()[-1] == "2 items changed."
    assert state()[:2] == (True, ["New.Read"])
    events = AuditEvent.objects.order_by("-pk")[:3]
    assert [(e.action, e.actor) for e in reversed(events)] == [
        ("scope.added", "command line"),
        ("role.changed", "command line"),
        ("policy.imported", "command line"),
    ]


def test_an_import_of_the_own_policy_is_recorded(policy: Path) -> None:
    policy.write_text(export_text())
    last = AuditEvent.objects.count()
    assert output("import_policy", str(policy)) == "0 items changed.\n"
    (event,) = AuditEvent.objects.order_by("pk")[last:]
    assert (event.action, event.object) == ("policy.imported", "0 items")


def test_a_file_with_problems_changes_nothing(policy: Path) -> None:
    before = state()
    policy.write_text('{"format": "portico-policy-1", "roles": [{"name": 1}], "x": []}')
    with pytest.raises(CommandError) as error:
        output("import_policy", str(policy))
    first, *problems = str(error.value).splitlines()
    assert first == "Nothing was changed." and len(problems) == 2
    assert state() == before


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="none.json: No such file"):
        output("import_policy", str(tmp_path / "none.json"))
