"""The policy file: export, compare and apply roles, scopes and primitives.

Items and fields that the file does not name stay unchanged; nothing is deleted.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from json.decoder import JSONObject  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Model
from django.utils.translation import gettext as _

from accounts.authorization.delegation import NotAllowed, objection_to_importing
from accounts.imports.problems import (
    ImportProblem,
    StalePreview,
    decode_upload,
    fingerprint,
)
from accounts.models import AuditEvent, Role, Scope
from accounts.models.roles import scope_name_validator
from accounts.parsing.text import counted
from mcp_bridge.models import (
    WITH_ARGUMENTS,
    ArgumentRule,
    Primitive,
    RecordedArguments,
    rule_problem,
)
from mcp_bridge.models.argument_rules import MAX_POINTER, MAX_RULES, pointer_validator

FORMAT = "portico-policy-1"
LINE = "\0line"
"""The decoder stores an object's line in it under this key."""

SECTIONS: dict[str, dict[str, type]] = {
    "scopes": {"name": str, "description": str},
    "roles": {"name": str, "description": str, "scopes": list},
    "primitives": {
        "kind": str,
        "name": str,
        "enabled": bool,
        "sensitive": bool,
        "recorded_arguments": str,
        "required_scopes": list,
        "argument_rules": dict,
    },
}
"""Section -> the fields of its items, with their types."""

RULE_FIELDS = ("role", "pointer", "operator", "value")
"""The members of an argument rule; without `role`, it applies to every role."""
KEY_FIELDS = ("kind", "name")

Item = dict[str, Any]


def export() -> dict[str, Any]:
    """The current policy."""
    return {
        "format": FORMAT,
        "scopes": [
            {"name": s.name, "description": s.description} for s in Scope.objects.all()
        ],
        "roles": [
            {
                "name": role.name,
                "description": role.description,
                "scopes": sorted(scope.name for scope in role.scopes.all()),
            }
            for role in Role.objects.prefetch_related("scopes")
        ],
        "primitives": [
            {
                "kind": row.kind,
                "name": row.name,
                "enabled": row.enabled,
                "sensitive": row.sensitive,
                "recorded_arguments": row.recorded_arguments,
                "required_scopes": sorted(s.name for s in row.required_scopes.all()),
                "argument_rules": rules_of(row.argument_rules.all()),
            }
            for row in Primitive.objects.prefetch_related(
                "required_scopes", "argument_rules__role"
            )
        ],
    }


def rules_of(rules: Iterable[ArgumentRule]) -> list[Item]:
    """Argument rules as the file and the audit have them."""
    return canonical_rules(
        {
            "role": rule.role.name if rule.role else None,
            "pointer": rule.pointer,
            "operator": rule.operator,
            "value": rule.value,
        }
        for rule in rules
    )


def canonical_rules(rules: Iterable[Item]) -> list[Item]:
    """The rules in a fixed order, once each, without members that say nothing."""
    found = {}
    for rule in rules:
        said = {name: rule.get(name) for name in RULE_FIELDS}
        short = {name: value for name, value in said.items() if value is not None}
        found[json.dumps(short)] = short
    return [found[text] for text in sorted(found)]


def export_text() -> str:
    """The policy as JSON with one field a line, in a fixed order, for a repository."""
    return json.dumps(export(), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One item that the file adds or changes; `fields` are (name, before, after)."""

    section: str
    name: tuple[str, ...]
    new: bool
    fields: tuple[tuple[str, Any, Any], ...]

    def __str__(self) -> str:
        return f"{self.section}: {' '.join(self.name)}"


@dataclass(slots=True)
class Diff:
    """The changes that a file makes, or its problems."""

    changes: list[PolicyChange] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """A fingerprint: equal for equal changes."""
        return fingerprint(self.changes)


class LineDecoder(json.JSONDecoder):
    """A JSON decoder that stores the line of every object, for error messages."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.line_ends = [match.start() for match in re.finditer("\n", text)]
        self.parse_object = self.parse_with_line
        self.scan_once = py_make_scanner(self)

    def parse_with_line(self, place: tuple[str, int], *rest: Any) -> tuple[Item, int]:
        """Parse an object as json does, and store the line of its start."""
        item, end = JSONObject(place, *rest)
        item[LINE] = bisect_left(self.line_ends, place[1]) + 1
        return item, end


def policy_diff(raw: bytes) -> Diff:
    """The dry run: every problem, or every change."""
    return compare_document(*parse_document(raw))


def parse_document(raw: bytes) -> tuple[Any, list[ImportProblem]]:
    """The parsed document, or its problems; slow, so call it outside a transaction."""
    text, problems = decode_upload(raw)
    if problems:
        return None, problems
    try:
        return LineDecoder(text).decode(text), []
    except json.JSONDecodeError as error:
        return None, [ImportProblem(error.lineno, "", error.msg)]
    except RecursionError:
        return None, [ImportProblem(0, "", _("is nested too deeply"))]


def compare_document(document: Any, problems: list[ImportProblem]) -> Diff:
    """The changes that a document makes to the current rows."""
    problems = problems or PolicyParser(document).problems
    if problems:
        return Diff(problems=problems)
    return Diff(changes=list(changes(document)))


class PolicyParser:
    """Validates a document; `problems` lists what is wrong."""

    def __init__(self, document: Any) -> None:
        self.problems: list[ImportProblem] = []
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            text = _("this is not a policy file; it must start with %s")
            self.add_problem(1, "format", text % f'"format": "{FORMAT}"')
            return
        for name in document.keys() - {"format", LINE} - SECTIONS.keys():
            known = ", ".join(SECTIONS)
            self.add_problem(1, name, _("unknown section; known sections: %s") % known)
        self.scopes = set(Scope.objects.values_list("name", flat=True))
        self.roles = set(Role.objects.values_list("name", flat=True))
        self.known = set(Primitive.objects.values_list("kind", "name"))
        for section in SECTIONS:
            self.section(section, document.get(section, []))

    def add_problem(self, line: int, place: str, text: str) -> None:
        self.problems.append(ImportProblem(line, place, text))

    def section(self, section: str, items: Any) -> None:
        """Validate a list of objects with unique names."""
        if not isinstance(items, list):
            self.add_problem(0, section, _("must be a list"))
            return
        names: set[tuple[str, ...]] = set()
        for item in items:
            if not isinstance(item, dict):
                self.add_problem(0, section, _("must be a list of objects"))
                continue
            if self.has_valid_fields(section, item):
                name = item_key(item)
                if name in names:
                    text = _("%s appears twice") % " ".join(name)
                    self.add_problem(item[LINE], section, text)
                names.add(name)
                self.check_references(section, item)

    def has_valid_fields(self, section: str, item: Item) -> bool:
        """Whether all fields exist, have the right type, and include a name."""
        before, fields = len(self.problems), SECTIONS[section]
        for name in item.keys() - {LINE}:
            if name not in fields:
                text = _("unknown field; known fields: %s") % ", ".join(fields)
                self.add_problem(item[LINE], f"{section}.{name}", text)
            elif not has_type(item[name], fields[name]):
                text = _("must be %s") % KINDS[fields[name]]
                self.add_problem(item[LINE], f"{section}.{name}", text)
        for name in KEY_FIELDS:
            if name in fields and name not in item:
                self.add_problem(item[LINE], f"{section}.{name}", _("is missing"))
        return len(self.problems) == before

    def check_references(self, section: str, item: Item) -> None:
        """Check that names are valid and that references exist."""
        if section == "scopes":
            try:
                scope_name_validator(item["name"])
            except ValidationError as error:
                self.add_problem(item[LINE], "scopes.name", " ".join(error.messages))
            self.scopes.add(item["name"])
        if section == "roles":
            self.roles.add(item["name"])
        for rule in item.get("argument_rules", []):
            self.check_rule(item, rule)
        if section == "primitives":
            self.check_primitive(item)
        for name in ("scopes", "required_scopes"):
            for scope in set(item.get(name, [])) - self.scopes:
                text = _("unknown scope %s; add it under scopes") % scope
                self.add_problem(item[LINE], f"{section}.{name}", text)
        for name, longest in (("name", 100), ("description", 255)):
            if section != "primitives" and len(item.get(name, "")) > longest:
                text = _("is longer than %d characters") % longest
                self.add_problem(item[LINE], f"{section}.{name}", text)

    def check_primitive(self, item: Item) -> None:
        """Check that it exists, and what is recorded of its arguments."""
        if item_key(item) not in self.known:
            text = _("no app provides %s") % " ".join(item_key(item))
            self.add_problem(item[LINE], "primitives.name", text)
        recorded = item.get("recorded_arguments", RecordedArguments.OFF)
        place = "primitives.recorded_arguments"
        if recorded not in RecordedArguments.values:
            known = ", ".join(RecordedArguments.values)
            self.add_problem(item[LINE], place, _("must be one of %s") % known)
        elif recorded != RecordedArguments.OFF and item["kind"] not in WITH_ARGUMENTS:
            text = _("Only tools and prompts have arguments.")
            self.add_problem(item[LINE], place, text)

    def check_rule(self, item: Item, rule: Any) -> None:
        """Check one argument rule of a primitive."""
        if not isinstance(rule, dict):
            text = _("must be a list of objects")
            self.add_problem(item[LINE], "primitives.argument_rules", text)
            return
        unknown = rule.keys() - {LINE, *RULE_FIELDS}
        for name in unknown:
            text = _("unknown field; known fields: %s") % ", ".join(RULE_FIELDS)
            self.add_problem(rule[LINE], f"argument_rules.{name}", text)
        for name, problem in rule_problems(item["kind"], rule, self.roles):
            self.add_problem(rule[LINE], f"argument_rules.{name}", problem)


def rule_problems(kind: str, rule: Item, roles: set[str]) -> Iterator[tuple[str, str]]:
    """(field, problem) of an argument rule of the file."""
    role, pointer = rule.get("role"), rule.get("pointer")
    if role is not None and (not has_type(role, str) or role not in roles):
        yield "role", _("unknown role %s; add it under roles") % role
    if not has_type(pointer, str) or len(str(pointer)) > MAX_POINTER:
        pointer = ""
    try:
        pointer_validator(pointer)
    except ValidationError as error:
        yield "pointer", " ".join(error.messages)
    problem = rule_problem(kind, str(rule.get("operator")), rule.get("value"))
    if problem:
        yield "value", problem


UNSTORABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""Control characters and lone surrogates.

PostgreSQL refuses NUL, UTF-8 cannot encode surrogates, and no page can show the rest.
"""
KINDS: dict[type, str] = {
    str: "a text without control characters",
    bool: "true or false",
    list: "a list of scope names",
    dict: "a list of argument rules",
}


def has_type(value: Any, kind: type) -> bool:
    """Whether a value has the type of its field."""
    if kind is list:
        return isinstance(value, list) and all(has_type(v, str) for v in value)
    if kind is dict:
        return isinstance(value, list) and len(value) <= MAX_RULES
    if kind is str:
        return isinstance(value, str) and not UNSTORABLE.search(value)
    return isinstance(value, kind)


def item_key(item: Item) -> tuple[str, ...]:
    """The values of KEY_FIELDS by which an item is identified in its section."""
    return tuple(item[name] for name in KEY_FIELDS if name in item)


def changes(document: Item) -> Iterator[PolicyChange]:
    """The differences between a document and the current policy."""
    now = export()
    for section, fields in SECTIONS.items():
        known = {item_key(item): item for item in now[section]}
        for item in document.get(section, []):
            before = known.get(item_key(item))
            values = {
                name: canonical(name, item[name])
                for name in fields
                if name in item and name not in KEY_FIELDS
            }
            differing = tuple(
                (name, (before or {}).get(name), value)
                for name, value in values.items()
                if (before or {}).get(name) != value
            )
            if before is None or differing:
                yield PolicyChange(section, item_key(item), before is None, differing)


def canonical(name: str, value: Any) -> Any:
    """A list in a fixed order and without duplicates; any other value unchanged."""
    if name == "argument_rules":
        return canonical_rules(value)
    return sorted(set(value)) if isinstance(value, list) else value


def apply_policy(raw: bytes, mark: str, actor: Any) -> int:
    """Apply the previewed changes in one transaction. Returns their number.

    `mark` is that of the previewed Diff. Raises StalePreview or NotAllowed before any
    change.
    """
    document, problems = parse_document(raw)
    with transaction.atomic():
        message = objection_to_importing(actor)
        if message:
            raise NotAllowed(message)
        diff = compare_document(document, problems)
        if diff.problems or diff.mark != mark:
            raise StalePreview
        for change in diff.changes:
            row = apply_policy_change(change)
            before_and_after = {n: [b, a] for n, b, a in change.fields}
            noun = change.section.rstrip("s")
            verb = "added" if change.new else "changed"
            event = AuditEvent(
                action=f"{noun}.{verb}",
                object=" ".join(change.name)[:255],
                changes=before_and_after,
                reason="policy imported",
            )
            event.about(row).acted_by(actor).save()
        items = counted(len(diff.changes), "item")
        AuditEvent(action="policy.imported", object=items).acted_by(actor).save()
    return len(diff.changes)


def apply_policy_change(change: PolicyChange) -> Model:
    """Write one change to its row, which is returned."""
    row: Any
    if change.section == "primitives":
        kind, name = change.name
        row = Primitive.objects.get(kind=kind, name=name)
    else:
        model: Any = Scope if change.section == "scopes" else Role
        row, _new = model.objects.get_or_create(name=change.name[0])
    for name, _before, after in change.fields:
        if name == "argument_rules":
            replace_rules(row, after)
        elif isinstance(after, list):
            getattr(row, name).set(Scope.objects.filter(name__in=after))
        else:
            setattr(row, name, after)
    row.save()
    changed: Model = row
    return changed


def replace_rules(primitive: Primitive, rules: list[Item]) -> None:
    """Give the primitive these argument rules instead of its present ones."""
    roles = {role.name: role for role in Role.objects.all()}
    primitive.argument_rules.all().delete()
    ArgumentRule.objects.bulk_create(
        ArgumentRule(
            primitive=primitive,
            role=roles.get(rule.get("role", "")),
            pointer=rule["pointer"],
            operator=rule["operator"],
            value=rule.get("value"),
        )
        for rule in rules
    )
