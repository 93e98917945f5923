"""Policy files: compared, applied, refused with line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.imports.problems import StalePreview
from accounts.models import AuditEvent, Role, Scope
from mcp_bridge.access.policy_file import (
    FORMAT,
    apply_policy,
    export,
    export_text,
    policy_diff,
)
from mcp_bridge.models import Offer, Primitive

pytestmark = pytest.mark.django_db


@pytest.fixture
def tool(db: None) -> Primitive:
    Primitive.objects.all().delete()
    offer = Offer("tool", "paint", "", "", ("User.Write",), False, "0" * 64)
    Primitive.objects.all().sync([offer])
    return Primitive.objects.get(name="paint")


def raw(**sections: Any) -> bytes:
    return json.dumps({"format": FORMAT, **sections}, indent=1).encode()


def problems_of(file: bytes) -> str:
    problems = policy_diff(file).problems
    return str(problems[0]) if problems else ""


def test_importing_an_export_changes_nothing(tool: Primitive) -> None:
    found = export()
    assert policy_diff(export_text().encode()).changes == []
    assert {"kind": "tool", "name": "paint", "enabled": True, "sensitive": False} == {
        k: v for k, v in found["primitives"][0].items() if k != "required_scopes"
    }
    assert found["primitives"][0]["required_scopes"] == ["User.Write", "tool:paint"]


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (b"{", "line 1: Expecting property name"),
        (b'{"format":\n 1,,}', "line 2: "),
        (b"[" * 5000, "the file: is nested too deeply"),
        (b"\xff", "line 1: the file is not UTF-8"),
        (b"[]", "line 1, format: this is not a policy file"),
        (raw(format="other"), "line 1, format: this is not a policy file"),
        (raw(users=[]), "line 1, users: unknown section"),
        (raw(roles={}), "the file, roles: must be a list"),
        (raw(roles=[1]), "the file, roles: must be a list of objects"),
        (raw(roles=[{}]), "line 4, roles.name: is missing"),
        (raw(roles=[{"name": 1}]), "line 4, roles.name: must be a text"),
        (raw(roles=[{"name": "\x00"}]), "line 4, roles.name: must be a text without"),
        (raw(roles=[{"name": "\ud800"}]), "line 4, roles.name: must be a text with"),
        (raw(roles=[{"name": "a", "scopes": ["\x07"]}]), "line 4, roles.scopes: must"),
        (raw(roles=[{"name": "R", "x": 1}]), "line 4, roles.x: unknown field"),
        (raw(roles=[{"name": "R"}, {"name": "R"}]), "line 7, roles: R appears twice"),
        (raw(roles=[{"name": "R" * 101}]), "line 4, roles.name: is longer than 100"),
        (raw(roles=[{"name": "R", "scopes": "x"}]), "line 4, roles.scopes: must be"),
        (
            raw(roles=[{"name": "R", "scopes": ["No"]}]),
            "line 4, roles.scopes: unknown scope",
        ),
        (raw(scopes=[{"name": "a b"}]), "line 4, scopes.name: A scope must be"),
        (
            raw(primitives=[{"kind": "tool", "name": "fly"}]),
            "line 4, primitives.name: no app provides tool fly",
        ),
        (
            raw(primitives=[{"kind": "tool", "name": "paint", "enabled": 1}]),
            "line 4, primitives.enabled: must be true or false",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_problem_names_line_and_field(
    tool: Primitive, file: bytes, problem: str
) -> None:
    """The error changes nothing."""
    before = export()
    assert problems_of(file).startswith(problem), problems_of(file)
    assert export() == before


def test_a_file_is_compared_applied_and_audited(tool: Primitive) -> None:
    """The diff is shown before it is applied."""
    file = raw(
        scopes=[{"name": "Paint.All", "description": "Paint."}, {"name": "Bare"}],
        roles=[
            {"name": "Painter", "description": "Paints.", "scopes": ["Paint.All"]},
            {"name": "Guest", "scopes": ["Guest.Read"]},
        ],
        primitives=[
            {
                "kind": "tool",
                "name": "paint",
                "sensitive": True,
                "required_scopes": ["tool:paint", "Paint.All"],
            }
        ],
    )
    found = policy_diff(file)
    assert [str(change) for change in found.changes] == [
        "scopes: Paint.All",
        "scopes: Bare",
        "roles: Painter",
        "primitives: tool paint",
    ]
    last = {name: (b, a) for name, b, a in found.changes[3].fields}
    assert last["sensitive"] == (False, True)
    assert last["required_scopes"][1] == ["Paint.All", "tool:paint"]
    assert apply_policy(file, found.mark, "test") == 4
    painter = Role.objects.get(name="Painter")
    assert [s.name for s in painter.scopes.all()] == ["Paint.All"]
    tool.refresh_from_db()
    assert tool.sensitive and tool.enabled
    assert {s.name for s in tool.required_scopes.all()} == {"Paint.All", "tool:paint"}
    actions = AuditEvent.objects.filter(actor="test").order_by("id")
    assert [event.action for event in actions] == [
        "scope.added",
        "scope.added",
        "role.added",
        "primitive.changed",
        "policy.imported",
    ]
    assert policy_diff(file).changes == []
    with pytest.raises(StalePreview):
        apply_policy(file, found.mark, "test")


def test_the_commands_export_and_import(
    tool: Primitive, tmp_path: Path, capsys: Any
) -> None:
    call_command("export_policy")
    text = capsys.readouterr().out
    assert json.loads(text) == export()
    file = tmp_path / "policy.json"
    file.write_text(text.replace('"sensitive": false', '"sensitive": true'))
    call_command("import_policy", file, "--dry-run")
    out = capsys.readouterr().out
    assert "sensitive: False -> True" in out and "1 items would change" in out
    call_command("import_policy", file)
    assert Primitive.objects.get(name="paint").sensitive
    file.write_text("{}")
    with pytest.raises(CommandError, match="Nothing was changed"):
        call_command("import_policy", file)
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_policy", tmp_path / "none.json")
    assert Scope.objects.filter(name="tool:paint").exists()
