"""Policy as a file: roles, scopes and who may use what, compared and applied.

What the file does not name stays as it is; nothing is deleted.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from json.decoder import JSONObject  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
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
from mcp_bridge.models import Primitive

FORMAT = "portico-policy-1"
LINE = "\0line"
"""Under this key each object of a file has its line."""

SECTIONS: dict[str, dict[str, type]] = {
    "scopes": {"name": str, "description": str},
    "roles": {"name": str, "description": str, "scopes": list},
    "primitives": {
        "kind": str,
        "name": str,
        "enabled": bool,
        "sensitive": bool,
        "required_scopes": list,
    },
}
"""Section -> the fields of its items."""

NAMING = ("kind", "name")

Item = dict[str, Any]


def export() -> dict[str, Any]:
    """The policy as it is now."""
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
                "required_scopes": sorted(s.name for s in row.required_scopes.all()),
            }
            for row in Primitive.objects.prefetch_related("required_scopes")
        ],
    }


def export_text() -> str:
    """The same, to keep in a repository: one field a line, in a fixed order."""
    return json.dumps(export(), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One item that the file adds or changes; field -> (before, after)."""

    section: str
    name: tuple[str, ...]
    new: bool
    fields: tuple[tuple[str, Any, Any], ...]

    def __str__(self) -> str:
        return f"{self.section}: {' '.join(self.name)}"


@dataclass(slots=True)
class Diff:
    """What a file would change, or what is wrong with it."""

    changes: list[PolicyChange] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """Equal for equal differences."""
        return fingerprint(self.changes)


class Located(json.JSONDecoder):
    """A decoder that notes the line of every object (errors name it)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.breaks = [match.start() for match in re.finditer("\n", text)]
        self.parse_object = self.located
        self.scan_once = py_make_scanner(self)

    def located(self, place: tuple[str, int], *rest: Any) -> tuple[Item, int]:
        """json's own parser of objects, and where the object began."""
        found, end = JSONObject(place, *rest)
        found[LINE] = bisect_left(self.breaks, place[1]) + 1
        return found, end


def policy_diff(raw: bytes) -> Diff:
    """The dry run: every problem at once, or every change."""
    return compared(*understood(raw))


def understood(raw: bytes) -> tuple[Any, list[ImportProblem]]:
    """The document in a file, or what is wrong: long work, for no transaction."""
    text, problems = decode_upload(raw)
    if problems:
        return None, problems
    try:
        return Located(text).decode(text), []
    except json.JSONDecodeError as error:
        return None, [ImportProblem(error.lineno, "", error.msg)]
    except RecursionError:
        return None, [ImportProblem(0, "", _("it is nested too deeply"))]


def compared(document: Any, problems: list[ImportProblem]) -> Diff:
    """What a document changes, as things are now."""
    found = problems or PolicyParser(document).problems
    return Diff(problems=found) if found else Diff(changes=list(changes(document)))


class PolicyParser:
    """Checks a document; `problems` says what is wrong with it."""

    def __init__(self, document: Any) -> None:
        self.problems: list[ImportProblem] = []
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            told = _("this is no policy: it has to begin with %s")
            self.wrong(1, "format", told % f'"format": "{FORMAT}"')
            return
        for name in document.keys() - {"format", LINE} - SECTIONS.keys():
            known = ", ".join(SECTIONS)
            self.wrong(1, name, _("no such section; there are: %s") % known)
        self.scopes = set(Scope.objects.values_list("name", flat=True))
        self.known = set(Primitive.objects.values_list("kind", "name"))
        for section in SECTIONS:
            self.section(section, document.get(section, []))

    def wrong(self, line: int, place: str, text: str) -> None:
        """Note one."""
        self.problems.append(ImportProblem(line, place, text))

    def section(self, section: str, items: Any) -> None:
        """A list of objects, each named once."""
        if not isinstance(items, list):
            self.wrong(0, section, _("has to be a list"))
            return
        seen: set[tuple[str, ...]] = set()
        for item in items:
            if not isinstance(item, dict):
                self.wrong(0, section, _("has to be a list of objects"))
                continue
            if self.shape(section, item):
                name = naming(item)
                if name in seen:
                    told = _("%s stands there twice") % " ".join(name)
                    self.wrong(item[LINE], section, told)
                seen.add(name)
                self.meaning(section, item)

    def shape(self, section: str, item: Item) -> bool:
        """Fields that there are, of the right type, and a name."""
        before, fields = len(self.problems), SECTIONS[section]
        for name in item.keys() - {LINE}:
            if name not in fields:
                told = _("no such field; there are: %s") % ", ".join(fields)
                self.wrong(item[LINE], f"{section}.{name}", told)
            elif not fits(item[name], fields[name]):
                told = _("has to be %s") % KINDS[fields[name]]
                self.wrong(item[LINE], f"{section}.{name}", told)
        for name in NAMING:
            if name in fields and name not in item:
                self.wrong(item[LINE], f"{section}.{name}", _("is missing"))
        return len(self.problems) == before

    def meaning(self, section: str, item: Item) -> None:
        """Names that are known, and of the right form."""
        if section == "scopes":
            try:
                scope_name_validator(item["name"])
            except ValidationError as error:
                self.wrong(item[LINE], "scopes.name", " ".join(error.messages))
            self.scopes.add(item["name"])
        if section == "primitives" and naming(item) not in self.known:
            told = _("the code offers no %s") % " ".join(naming(item))
            self.wrong(item[LINE], "primitives.name", told)
        for name in ("scopes", "required_scopes"):
            for scope in set(item.get(name, [])) - self.scopes:
                told = _("there is no scope %s; name it under scopes") % scope
                self.wrong(item[LINE], f"{section}.{name}", told)
        for name, longest in (("name", 100), ("description", 255)):
            if section != "primitives" and len(item.get(name, "")) > longest:
                told = _("is longer than %d characters") % longest
                self.wrong(item[LINE], f"{section}.{name}", told)


UNSTORABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""Control characters, and lone surrogates, which UTF-8 cannot hold: PostgreSQL refuses
NUL, and no page can show the others."""
KINDS: dict[type, str] = {
    str: "a text without control characters",
    bool: "true or false",
    list: "a list of scope names",
}


def fits(value: Any, kind: type) -> bool:
    """Whether a value is of a field's type."""
    if kind is list:
        return isinstance(value, list) and all(fits(v, str) for v in value)
    if kind is str:
        return isinstance(value, str) and not UNSTORABLE.search(value)
    return isinstance(value, kind)


def naming(item: Item) -> tuple[str, ...]:
    """What an item is called in its section."""
    return tuple(item[name] for name in NAMING if name in item)


def changes(document: Item) -> Iterator[PolicyChange]:
    """The difference between a document and what is."""
    now = export()
    for section, fields in SECTIONS.items():
        known = {naming(item): item for item in now[section]}
        for item in document.get(section, []):
            before = known.get(naming(item))
            differing = tuple(
                (name, (before or {}).get(name), sorted_unique(item[name]))
                for name in fields
                if name in item
                and name not in NAMING
                and (before or {}).get(name) != sorted_unique(item[name])
            )
            if before is None or differing:
                yield PolicyChange(section, naming(item), before is None, differing)


def sorted_unique(value: Any) -> Any:
    """Lists in one order, each name once."""
    return sorted(set(value)) if isinstance(value, list) else value


def apply_policy(raw: bytes, mark: str, actor: Any) -> int:
    """Do what `diff` showed, in one transaction; how many items.

    Raises Stale or NotAllowed before any change.
    """
    document, problems = understood(raw)
    with transaction.atomic():
        told = objection_to_importing(actor)
        if told:
            raise NotAllowed(told)
        found = compared(document, problems)
        if found.problems or found.mark != mark:
            raise StalePreview
        for change in found.changes:
            put(change)
            before_and_after = {n: [b, a] for n, b, a in change.fields}
            noun = change.section.rstrip("s")
            verb = "added" if change.new else "changed"
            event = AuditEvent(
                action=f"{noun}.{verb}",
                object=" ".join(change.name)[:255],
                changes=before_and_after,
                reason="policy imported",
            )
            event.acted_by(actor).save()
        told = f"{len(found.changes)} items"
        AuditEvent(action="policy.imported", object=told).acted_by(actor).save()
    return len(found.changes)


def put(change: PolicyChange) -> None:
    """Make one row as the file says."""
    row: Any
    if change.section == "primitives":
        kind, name = change.name
        row = Primitive.objects.get(kind=kind, name=name)
    else:
        model: Any = Scope if change.section == "scopes" else Role
        row, _new = model.objects.get_or_create(name=change.name[0])
    for name, _before, after in change.fields:
        if isinstance(after, list):
            getattr(row, name).set(Scope.objects.filter(name__in=after))
        else:
            setattr(row, name, after)
    row.save()
