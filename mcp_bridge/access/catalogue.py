"""Catalogue: the access rules of every primitive, read from the rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mcp.shared.uri_template import UriTemplate

from mcp_bridge.models import (
    SERVED_STATES,
    ArgumentRule,
    Primitive,
    PrimitiveKind,
    UpstreamCredential,
    UpstreamServer,
)


def read_catalogue() -> Catalogue:
    """Read all rules in five queries; equal scope sets share memory."""
    required: dict[int, set[str]] = defaultdict(set)
    links = Primitive.required_scopes.through.objects
    for row, scope in links.values_list("primitive_id", "scope__name"):
        required[row].add(scope)
    shared: dict[frozenset[str], frozenset[str]] = {}
    servers = read_upstreams()
    conditions = read_conditions()
    rows = list(Primitive.objects.order_by("pk").values_list(*COLUMNS))
    definitions = read_definitions((row[0], row[8]) for row in rows if row[6])
    rules = []
    for (
        pk,
        kind,
        name,
        enabled,
        sensitive,
        state,
        server,
        own_name,
        accepted,
        refused,
        updates,
        recorded,
    ) in rows:
        scopes = frozenset(required[pk])
        scopes = shared.setdefault(scopes, scopes)
        upstream = servers.get(server)
        blocked = "" if state in SERVED_STATES else state
        if not blocked and upstream is not None and not upstream.enabled:
            blocked = "upstream"
        rules.append(
            Rule(
                kind,
                name,
                enabled,
                sensitive,
                scopes,
                blocked=blocked,
                calls_refused=refused,
                conditions=conditions.get(pk, ()),
                upstream=upstream,
                upstream_name=own_name,
                accepted_hash=accepted,
                definition=definitions.get(pk),
                updates=updates,
                recorded=recorded,
            )
        )
    return Catalogue(rules)


COLUMNS = (
    "pk",
    "kind",
    "name",
    "enabled",
    "sensitive",
    "state",
    "upstream_id",
    "upstream_name",
    "accepted_hash",
    "calls_refused",
    "updates",
    "recorded_arguments",
)
_parsed: dict[int, tuple[str, Mapping[str, Any]]] = {}
"""Row -> hash and accepted definition, so that a read parses only what changed."""


def read_definitions(
    wanted: Iterable[tuple[int, str]],
) -> dict[int, Mapping[str, Any]]:
    """The accepted definitions of upstream primitives by row."""
    hashes = dict(wanted)
    missing = [pk for pk, text in hashes.items() if _parsed.get(pk, ("",))[0] != text]
    for start in range(0, len(missing), 500):
        part = missing[start : start + 500]
        rows = Primitive.objects.filter(pk__in=part)
        for pk, text, shown in rows.values_list("pk", "accepted_hash", "accepted"):
            _parsed[pk] = text, shown or {}
    for pk in _parsed.keys() - hashes.keys():
        _parsed.pop(pk, None)
    return {pk: _parsed[pk][1] for pk in hashes if pk in _parsed}


def read_upstreams() -> dict[int, Upstream]:
    """Every upstream server with its shared credential."""
    shared = {
        row.upstream_id: row
        for row in UpstreamCredential.objects.filter(user=None).defer("state")
    }
    return {
        row.pk: Upstream(row.pk, row.name, row.enabled, row, shared.get(row.pk))
        for row in UpstreamServer.objects.all()
    }


def read_conditions() -> dict[int, tuple[Condition, ...]]:
    """The argument rules by primitive."""
    found: dict[int, list[Condition]] = defaultdict(list)
    columns = ("primitive_id", "role__name", "pointer", "operator", "value")
    for pk, role, *rest in ArgumentRule.objects.values_list(*columns).order_by("pk"):
        found[pk].append(Condition(role or "", *rest))
    return {pk: tuple(conditions) for pk, conditions in found.items()}


@lru_cache(maxsize=4096)
def parsed_template(text: str) -> UriTemplate | None:
    """The parsed template (RFC 6570); None if it is not one."""
    try:
        return UriTemplate.parse(text)
    except ValueError:
        return None


Key = tuple[str, str]
"""(kind, name) of a primitive."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """An upstream server and its shared credential, as of one read."""

    pk: int
    name: str
    enabled: bool
    row: UpstreamServer = field(compare=False, repr=False)
    credential: UpstreamCredential | None = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Condition:
    """An ArgumentRule row; `role` is empty if it applies to every role."""

    role: str
    pointer: str
    operator: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Rule:
    """The access columns of a Primitive row."""

    kind: str
    name: str
    enabled: bool
    sensitive: bool
    required: frozenset[str]
    blocked: str = ""
    """The state for which nobody can use it, or `upstream` if that is disabled."""
    calls_refused: bool = False
    """Its definition changed in a way that matters to calls."""
    conditions: tuple[Condition, ...] = ()
    upstream: Upstream | None = None
    upstream_name: str = ""
    accepted_hash: str = field(default="", compare=False, repr=False)
    definition: Mapping[str, Any] | None = field(
        default=None, compare=False, repr=False
    )
    """The accepted definition of an upstream primitive; None for code."""
    updates: int = field(default=0, compare=False, repr=False)
    """How often the content of an upstream resource was reported to have changed."""
    recorded: str = field(default="off", compare=False)
    """What the audit records of the arguments of calls: a RecordedArguments."""

    @property
    def key(self) -> Key:
        return self.kind, self.name


class Catalogue(Mapping[Key, Rule]):
    """All rules by (kind, name), as of one read."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = {rule.key: rule for rule in rules}
        self._templates = [
            rule
            for rule in self._rules.values()
            if rule.kind == PrimitiveKind.RESOURCE_TEMPLATE
            and rule.upstream is not None
            and not rule.blocked
        ]
        self._by_scope: dict[tuple[str, str], list[tuple[int, Rule]]] = {}
        for place, rule in enumerate(self._rules.values()):
            for scope in rule.required:
                self._by_scope.setdefault((rule.kind, scope), []).append((place, rule))

    def serving(self, uri: str) -> Rule | None:
        """What serves a URI at an upstream server: a resource, else a template.

        Of several matching templates the oldest row serves it, so that a server that
        is added later cannot take over what another one serves.
        """
        rule = self._rules.get((str(PrimitiveKind.RESOURCE), uri))
        if rule is not None:
            return rule
        for rule in self._templates:
            template = parsed_template(rule.name)
            if template is not None and template.match(uri) is not None:
                return rule
        return None

    def requiring(self, kind: str, scopes: Iterable[str]) -> list[Rule]:
        """Rules of a kind that require one of `scopes`, in the catalogue's order."""
        matching: dict[int, Rule] = {}
        for scope in scopes:
            matching.update(self._by_scope.get((kind, scope), ()))
        return [matching[place] for place in sorted(matching)]

    def __getitem__(self, key: Key) -> Rule:
        return self._rules[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)
