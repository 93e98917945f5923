"""Policy files: compared, applied, refused with line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError

from accounts.authorization.delegation import NotAllowed
from accounts.imports.problems import StalePreview
from accounts.models import AuditEvent, Role, Scope, User
from mcp_bridge.access import policy_file
from mcp_bridge.access.policy_file import (
    FORMAT,
    PolicyChange,
    apply_policy,
    export,
    export_text,
    policy_diff,
)
from mcp_bridge.models import ArgumentRule, Offer, Primitive

pytestmark = pytest.mark.django_db


@pytest.fixture
def tool(db: None) -> Primitive:
    Primitive.objects.all().delete()
    offer = Offer("tool", "paint", "", "", ("User.Write",), False, "0" * 64)
    Primitive.objects.all().sync([offer])
    return Primitive.objects.get(name="paint")


def raw(**sections: Any) -> bytes:
    return json.dumps({"format": FORMAT, **sections}, indent=1).encode()


def ruled(*rules: Any, kind: str = "tool", name: str = "paint") -> bytes:
    """A file with argument rules of one primitive."""
    item = {"kind": kind, "name": name, "argument_rules": list(rules)}
    return raw(primitives=[item])


LIMIT = {"role": "Guest", "pointer": "/n", "operator": "at_most", "value": 5}


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (ruled(1), "line 4, primitives.argument_rules: must be a list of objects"),
        (ruled(*[LIMIT] * 51), "line 4, primitives.argument_rules: must be a list of"),
        (ruled(LIMIT | {"rule": 1}), "line 8, argument_rules.rule: unknown field"),
        (ruled(LIMIT | {"role": "No"}), "line 8, argument_rules.role: unknown role"),
        (ruled(LIMIT | {"role": [1]}), "line 8, argument_rules.role: unknown role"),
        (ruled(LIMIT | {"pointer": "n"}), "line 8, argument_rules.pointer: Write"),
        (ruled(LIMIT | {"pointer": 5}), "line 8, argument_rules.pointer: Write"),
        (ruled(LIMIT | {"pointer": "/\0"}), "line 8, argument_rules.pointer: Write"),
        (ruled(LIMIT | {"pointer": "/" * 201}), "line 8, argument_rules.pointer: Wr"),
        (ruled(LIMIT | {"value": "5"}), "line 8, argument_rules.value: Give a number"),
        (ruled(LIMIT | {"operator": "is"}), "line 8, argument_rules.value: Unknown"),
        (ruled({}), "line 8, argument_rules.pointer: Write"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_problem_of_an_argument_rule_names_it(
    tool: Primitive, file: bytes, problem: str
) -> None:
    assert problems_of(file).startswith(problem), problems_of(file)


def test_argument_rules_are_compared_and_replaced(tool: Primitive) -> None:
    absent = {"pointer": "/m", "operator": "absent"}
    file = ruled(LIMIT, absent, LIMIT)
    found = policy_diff(file)
    (change,) = found.changes
    assert change.fields == (("argument_rules", [], [absent, LIMIT]),)
    apply_policy(file, found.mark, "test")
    rules = ArgumentRule.objects.order_by("pointer")
    assert [(r.role and r.role.name, r.pointer, r.value) for r in rules] == [
        (None, "/m", None),
        ("Guest", "/n", 5),
    ]
    assert (
        policy_diff(file).changes == policy_diff(export_text().encode()).changes == []
    )
    event = AuditEvent.objects.get(action="primitive.changed")
    assert event.changes == {"argument_rules": [[], [absent, LIMIT]]}
    fewer = ruled(LIMIT | {"value": 6})
    apply_policy(fewer, policy_diff(fewer).mark, "test")
    assert [(r.pointer, r.value) for r in ArgumentRule.objects.all()] == [("/n", 6)]


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("tool", "all", "must be one of off, names, masked, full"),
        ("tool", "", "must be one of off"),
        ("tool", True, "must be a text"),
        ("resource", "full", "Only tools and prompts have arguments."),
        ("resource_template", "names", "Only tools and prompts have arguments."),
        ("prompt", "all", "must be one of off, names, masked, full"),
        ("prompt", "full", ""),
    ],
)
def test_what_is_recorded_of_arguments_is_checked(
    tool: Primitive, kind: str, value: Any, problem: str
) -> None:
    for other in ("prompt", "resource", "resource_template"):
        Primitive.objects.create(kind=other, name="paint")
    item = {"kind": kind, "name": "paint", "recorded_arguments": value}
    found = problems_of(raw(primitives=[item]))
    place = "line 4, primitives.recorded_arguments: " if problem else ""
    assert found.startswith(f"{place}{problem}") and bool(found) is bool(problem), found
    off = {"kind": kind, "name": "paint", "recorded_arguments": "off"}
    assert problems_of(raw(primitives=[off])) == ""


def test_a_policy_file_sets_what_is_recorded_of_arguments(tool: Primitive) -> None:
    item = {"kind": "tool", "name": "paint", "recorded_arguments": "masked"}
    file = raw(primitives=[item])
    apply_policy(file, policy_diff(file).mark, "test")
    tool.refresh_from_db()
    assert tool.recorded_arguments == "masked" and policy_diff(file).changes == []
    event = AuditEvent.objects.get(action="primitive.changed")
    assert event.changes == {"recorded_arguments": ["off", "masked"]}
    assert '"recorded_arguments": "masked"' in export_text()


def test_a_role_of_the_same_file_can_have_rules(tool: Primitive) -> None:
    rule = LIMIT | {"role": "New"}
    item = {"kind": "tool", "name": "paint", "argument_rules": [rule]}
    file = raw(roles=[{"name": "New"}], primitives=[item])
    apply_policy(file, policy_diff(file).mark, "test")
    role = ArgumentRule.objects.get().role
    assert role is not None and role.name == "New"


def problems_of(file: bytes) -> str:
    problems = policy_diff(file).problems
    return str(problems[0]) if problems else ""


def test_importing_an_export_changes_nothing(tool: Primitive) -> None:
    found = export()
    assert policy_diff(export_text().encode()).changes == []
    assert {"kind": "tool", "name": "paint", "enabled": True, "sensitive": False} == {
        k: v
        for k, v in found["primitives"][0].items()
        if k not in ("required_scopes", "argument_rules", "recorded_arguments")
    }
    assert found["primitives"][0]["argument_rules"] == []
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
    assert "sensitive: False -> True" in out and "1 item would change" in out
    call_command("import_policy", file)
    assert Primitive.objects.get(name="paint").sensitive
    file.write_text("{}")
    with pytest.raises(CommandError, match="Nothing was changed"):
        call_command("import_policy", file)
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_policy", tmp_path / "none.json")
    assert Scope.objects.filter(name="tool:paint").exists()


def found_in(file: bytes) -> list[str]:
    return [str(problem) for problem in policy_diff(file).problems]


def test_every_column_of_a_policy_is_exported(tool: Primitive) -> None:
    Role.objects.all().delete()
    Scope.objects.exclude(name__in=("tool:paint", "User.Write")).delete()
    Scope.objects.filter(name="User.Write").update(description="Wörte.")
    role = Role.objects.create(name="Zed", description="Last.")
    role.scopes.set(Scope.objects.all())
    Role.objects.create(name="Ann")
    prompt = Primitive.objects.create(
        kind="prompt", name="paint", enabled=False, sensitive=True
    )
    prompt.required_scopes.set(Scope.objects.filter(name="tool:paint"))
    assert export() == {
        "format": "portico-policy-1",
        "scopes": [
            {"name": "User.Write", "description": "Wörte."},
            {"name": "tool:paint", "description": ""},
        ],
        "roles": [
            {"name": "Ann", "description": "", "scopes": []},
            {
                "name": "Zed",
                "description": "Last.",
                "scopes": ["User.Write", "tool:paint"],
            },
        ],
        "primitives": [
            {
                "kind": "prompt",
                "name": "paint",
                "enabled": False,
                "sensitive": True,
                "recorded_arguments": "off",
                "required_scopes": ["tool:paint"],
                "argument_rules": [],
            },
            {
                "kind": "tool",
                "name": "paint",
                "enabled": True,
                "sensitive": False,
                "recorded_arguments": "off",
                "required_scopes": ["User.Write", "tool:paint"],
                "argument_rules": [],
            },
        ],
    }
    text = export_text()
    assert '"description": "Wörte."' in text and text.endswith("}\n")
    assert text.startswith('{\n  "format"')


TOO_LONG = [
    ("roles", "name", 100),
    ("roles", "description", 255),
    ("scopes", "name", 100),
    ("scopes", "description", 255),
]


@pytest.mark.parametrize(("section", "name", "longest"), TOO_LONG)
def test_a_text_is_as_long_as_its_column(
    tool: Primitive, section: str, name: str, longest: int
) -> None:
    item = {"name": "N"}
    assert found_in(raw(**{section: [item | {name: "x" * longest}]})) == []
    assert found_in(raw(**{section: [item | {name: "x" * (longest + 1)}]})) == [
        f"line 4, {section}.{name}: is longer than {longest} characters"
    ]


@pytest.mark.parametrize("odd", "\x00\x08\x0b\x0c\x0d\x1f\x7f\ud800\udfff")
def test_a_text_without_control_characters(tool: Primitive, odd: str) -> None:
    """Tab and line feed are text."""
    roles = [{"name": "R", "description": f"a{odd}b"}]
    (problem,) = found_in(raw(roles=roles))
    assert problem.startswith("line 4, roles.description: must be a text without")


@pytest.mark.parametrize("plain", "\t\n ~\x80é\ue000")
def test_other_characters_are_text(tool: Primitive, plain: str) -> None:
    assert found_in(raw(roles=[{"name": "R", "description": f"a{plain}b"}])) == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"enabled": "yes"}, "enabled: must be true or false"),
        ({"sensitive": None}, "sensitive: must be true or false"),
        ({"sensitive": 0}, "sensitive: must be true or false"),
        ({"required_scopes": [1]}, "required_scopes: must be a list of scope names"),
        ({"required_scopes": {}}, "required_scopes: must be a list of scope names"),
        ({"required_scopes": ["No"]}, "required_scopes: unknown scope No; add it"),
        ({"description": "x"}, "description: unknown field; known fields: kind, name"),
        ({"kind": 1}, "kind: must be a text"),
        ({"kind": "prompt"}, "name: no app provides prompt paint"),
    ],
    ids=str,
)
def test_every_field_of_a_primitive_is_checked(
    tool: Primitive, fields: dict[str, Any], problem: str
) -> None:
    item = {"kind": "tool", "name": "paint"} | fields
    (found,) = found_in(raw(primitives=[item]))
    assert found.startswith(f"line 4, primitives.{problem}")


@pytest.mark.parametrize("missing", ["kind", "name"])
def test_a_primitive_needs_its_kind_and_name(tool: Primitive, missing: str) -> None:
    item = {"kind": "tool", "name": "paint"}
    del item[missing]
    assert found_in(raw(primitives=[item])) == [
        f"line 4, primitives.{missing}: is missing"
    ]


def test_all_problems_of_a_file_are_listed(tool: Primitive) -> None:
    """One upload shows every error."""
    file = raw(
        users=[],
        scopes=[{"name": "a b"}],
        roles=[1, {"name": "R", "x": 1, "scopes": ["No"]}, {"scopes": ["No"]}],
        primitives=[
            {"kind": "tool", "name": "paint"},
            {"kind": "tool", "name": "paint"},
            {"kind": "tool", "name": "fly", "required_scopes": ["No", "Nor"]},
        ],
    )
    places = sorted(problem.field for problem in policy_diff(file).problems)
    assert places == [
        "primitives",
        "primitives.name",
        "primitives.required_scopes",
        "primitives.required_scopes",
        "roles",
        "roles.name",
        "roles.x",
        "scopes.name",
        "users",
    ]
    assert policy_diff(file).changes == []


def test_one_name_of_two_kinds_is_no_repetition(tool: Primitive) -> None:
    Primitive.objects.create(kind="prompt", name="paint")
    items = [{"kind": kind, "name": "paint"} for kind in ("tool", "prompt")]
    assert found_in(raw(primitives=items)) == []


def test_a_role_may_use_a_scope_that_the_file_adds(tool: Primitive) -> None:
    file = raw(scopes=[{"name": "New.A"}], roles=[{"name": "R", "scopes": ["New.A"]}])
    assert found_in(file) == []


def test_windows_line_ends_and_a_byte_order_mark_are_read(tool: Primitive) -> None:
    text = raw(roles=[{}]).replace(b"\n", b"\r\n")
    assert found_in(b"\xef\xbb\xbf" + text) == ["line 4, roles.name: is missing"]


@pytest.mark.parametrize(("kind", "other"), [("prompt", "tool"), ("tool", "prompt")])
def test_fields_that_a_file_does_not_name_stay(
    tool: Primitive, kind: str, other: str
) -> None:
    role = Role.objects.create(name="Painter", description="Paints.")
    role.scopes.set(Scope.objects.filter(name="tool:paint"))
    Primitive.objects.create(kind="prompt", name="paint")
    file = raw(
        roles=[{"name": "Painter"}],
        primitives=[{"kind": kind, "name": "paint", "enabled": False}],
    )
    diff, off = policy_diff(file), (("enabled", True, False),)
    assert diff.changes == [PolicyChange("primitives", (kind, "paint"), False, off)]
    assert apply_policy(file, diff.mark, "test") == 1
    states = dict(Primitive.objects.values_list("kind", "enabled"))
    assert states == {other: True, kind: False}
    role.refresh_from_db()
    assert role.description == "Paints." and role.scopes.count() == 1


def test_lists_are_compared_as_sets(tool: Primitive) -> None:
    item = {"kind": "tool", "name": "paint"}
    names = ["tool:paint", "User.Write", "tool:paint"]
    assert (
        policy_diff(raw(primitives=[item | {"required_scopes": names}])).changes == []
    )
    (fewer,) = policy_diff(raw(primitives=[item | {"required_scopes": []}])).changes
    before = ["User.Write", "tool:paint"]
    assert fewer.fields == (("required_scopes", before, []),)
    assert str(fewer) == "primitives: tool paint"


def test_a_new_item_without_fields_is_a_change(tool: Primitive) -> None:
    file = raw(roles=[{"name": "Bare"}])
    assert policy_diff(file).changes == [PolicyChange("roles", ("Bare",), True, ())]


def test_equal_changes_have_equal_marks(tool: Primitive) -> None:
    """The mark ties what is applied to what was shown."""
    first, second = (raw(roles=[{"name": name}]) for name in ("A", "B"))
    assert policy_diff(first).mark == policy_diff(b"\n" + first).mark
    assert policy_diff(first).mark != policy_diff(second).mark


FILE = raw(
    scopes=[{"name": "Paint.All", "description": "Paint."}],
    roles=[{"name": "Painter", "scopes": ["Paint.All"]}],
)


def test_only_superusers_apply_a_policy(tool: Primitive, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    before, events = export(), AuditEvent.objects.count()
    with pytest.raises(NotAllowed, match="Only superusers"):
        apply_policy(FILE, policy_diff(FILE).mark, alice)
    assert export() == before and AuditEvent.objects.count() == events


def test_a_policy_is_applied_as_it_was_shown_or_not_at_all(
    tool: Primitive, carol: User
) -> None:
    """A preview of another file, or of another state of the rows, does not count."""
    shown = policy_diff(FILE).mark
    other = raw(scopes=[{"name": "Other.All"}])
    before = AuditEvent.objects.count()
    with pytest.raises(StalePreview):
        apply_policy(other, shown, carol)
    Scope.objects.create(name="Paint.All", description="Paint.")
    with pytest.raises(StalePreview):
        apply_policy(FILE, shown, carol)
    broken = b"{"
    with pytest.raises(StalePreview):
        apply_policy(broken, policy_diff(broken).mark, carol)
    assert not Role.objects.filter(name="Painter").exists()
    assert not Scope.objects.filter(name="Other.All").exists()
    assert AuditEvent.objects.count() == before


def test_a_change_that_fails_undoes_the_others(
    tool: Primitive, carol: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, before = policy_diff(FILE).mark, AuditEvent.objects.count()
    apply_one = policy_file.apply_policy_change

    def failing(change: PolicyChange) -> Any:
        if change.section == "roles":
            raise DatabaseError("full")
        return apply_one(change)

    monkeypatch.setattr(policy_file, "apply_policy_change", failing)
    with pytest.raises(DatabaseError):
        apply_policy(FILE, mark, carol)
    assert not Scope.objects.filter(name="Paint.All").exists()
    assert AuditEvent.objects.count() == before


def test_every_change_is_recorded_with_its_actor(tool: Primitive, carol: User) -> None:
    long = "N" * 250
    Primitive.objects.create(kind="prompt", name=long)
    file = raw(
        scopes=[{"name": "User.Write", "description": "New."}, {"name": "Bare"}],
        primitives=[{"kind": "prompt", "name": long, "sensitive": True}],
    )
    assert apply_policy(file, policy_diff(file).mark, carol) == 3
    events = AuditEvent.objects.filter(actor="carol", actor_id=carol.pk).order_by("pk")
    old = next(s for s in events[0].changes["description"])
    assert [(e.action, e.object, e.changes, e.reason) for e in events] == [
        (
            "scope.changed",
            "User.Write",
            {"description": [old, "New."]},
            "policy imported",
        ),
        ("scope.added", "Bare", {}, "policy imported"),
        (
            "primitive.changed",
            f"prompt {long}"[:255],
            {"sensitive": [False, True]},
            "policy imported",
        ),
        ("policy.imported", "3 items", {}, ""),
    ]
    kinds = [event.subject.partition(":")[0] for event in events]
    assert kinds == ["scope", "scope", "primitive", ""]
    assert Scope.objects.get(name="User.Write").description == "New."


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_change_concerns_the_named_primitive_only(carol: User, name: str) -> None:
    for kind in ("prompt", "resource"):
        for each in ("first", "second"):
            Primitive.objects.create(kind=kind, name=each)
    item = {"kind": "prompt", "name": name, "sensitive": True}
    file = raw(primitives=[item])
    apply_policy(file, policy_diff(file).mark, carol)
    changed = Primitive.objects.filter(sensitive=True).values_list("kind", "name")
    assert list(changed) == [("prompt", name)]


def test_a_policy_removes_scopes_from_a_role(tool: Primitive, carol: User) -> None:
    file = raw(roles=[{"name": "User", "scopes": ["User.Write"]}])
    apply_policy(file, policy_diff(file).mark, carol)
    role = Role.objects.get(name="User")
    assert [scope.name for scope in role.scopes.all()] == ["User.Write"]
    assert Role.objects.get(name="Admin").scopes.exists()
