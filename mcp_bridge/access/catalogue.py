"""Catalogue: the access rules of every primitive, read from the rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mcp_bridge.models import Primitive


def read_catalogue() -> Catalogue:
    """Read all rules in two queries; equal scope sets share memory."""
    required: dict[int, set[str]] = defaultdict(set)
    links = Primitive.required_scopes.through.objects
    for row, scope in links.values_list("primitive_id", "scope__name"):
        required[row].add(scope)
    shared: dict[frozenset[str], frozenset[str]] = {}
    rules = []
    columns = ("pk", "kind", "name", "enabled", "sensitive")
    rows = Primitive.objects.order_by("pk").values_list(*columns)
    for pk, kind, name, enabled, sensitive in rows:
        scopes = frozenset(required[pk])
        scopes = shared.setdefault(scopes, scopes)
        rules.append(Rule(kind, name, enabled, sensitive, scopes))
    return Catalogue(rules)


Key = tuple[str, str]
"""(kind, name) of a primitive."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The access columns of a Primitive row."""

    kind: str
    name: str
    enabled: bool
    sensitive: bool
    required: frozenset[str]

    @property
    def key(self) -> Key:
        return self.kind, self.name


class Catalogue(Mapping[Key, Rule]):
    """All rules by (kind, name), as of one read."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = {rule.key: rule for rule in rules}
        self._by_scope: dict[tuple[str, str], list[tuple[int, Rule]]] = {}
        for place, rule in enumerate(self._rules.values()):
            for scope in rule.required:
                self._by_scope.setdefault((rule.kind, scope), []).append((place, rule))

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
