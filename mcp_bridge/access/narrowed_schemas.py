"""Input schemas narrowed by argument rules, so that models see the caller's limits.

A narrowed schema never forbids what the rules allow. What JSON Schema cannot say, or
what the roles of the caller say differently, stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from accounts.tokens.principal import Principal
from mcp_bridge.access.argument_rules import conditions_by_role, members, same
from mcp_bridge.access.catalogue import Condition, Rule
from mcp_bridge.access.decision import granting_roles
from mcp_bridge.models import ArgumentOperator, rule_problem

Schema = Mapping[str, Any]
PORTABLE = re.compile(
    r"(?:[^()\[\]\\]|\\[dwsDWS.*+?()\[\]{}|^$/-]|\[[^\[\]\\&~]+\]|\(\?:|\((?!\?)|\))*"
)
"""Patterns that ECMA-262, which JSON Schema uses, reads as Rust does."""
SPECIAL = re.compile(r"[.*+?^${}()|\[\]\\/]")


def narrowed_schema(schema: Schema, principal: Principal, rule: Rule) -> Schema:
    """The schema with the limits of this caller; the same one if there are none."""
    if not rule.conditions:
        return schema
    valid = [
        one
        for one in rule.conditions
        if not rule_problem(rule.kind, one.operator, one.value)
    ]
    for condition in common_conditions(valid, granting_roles(principal, rule)):
        schema = narrow(schema, schema, list(members(condition.pointer)), condition)
    return schema


def common_conditions(
    conditions: Iterable[Condition], roles: Iterable[str]
) -> list[Condition]:
    """Conditions that every allowed call meets, whichever role allows it.

    If several roles limit one argument in the same way, the widest of their limits.
    """
    by_role = conditions_by_role(conditions)
    found = by_role.pop("", [])
    limits = [by_role.get(role, []) for role in sorted(roles)]
    for first in limits[0] if limits else []:
        alike = [[one for one in rest if is_alike(one, first)] for rest in limits]
        if all(alike):
            widest = widened([one for rest in alike for one in rest])
            found.extend(widest)
    return found


def is_alike(one: Condition, other: Condition) -> bool:
    """Whether two conditions compare one argument in the same way."""
    return (one.pointer, one.operator) == (other.pointer, other.operator)


def widened(alike: list[Condition]) -> list[Condition]:
    """One condition that is met wherever one of these is met; empty if unknown."""
    first = alike[0]
    values = [one.value for one in alike]
    if all(value == first.value for value in values):
        return [first]
    combine = WIDEST.get(first.operator)
    if combine is None:
        return []
    return [Condition("", first.pointer, first.operator, combine(values))]


def _all_values(lists: list[list[Any]]) -> list[Any]:
    found: list[Any] = []
    for value in (one for values in lists for one in values):
        if not any(same(value, other) for other in found):
            found.append(value)
    return found


WIDEST: dict[str, Callable[[list[Any]], Any]] = {
    ArgumentOperator.AT_MOST: max,
    ArgumentOperator.AT_LEAST: min,
    ArgumentOperator.ONE_OF: _all_values,
}
"""Operator -> the widest of several values."""


def narrow(root: Schema, node: Any, path: list[str], condition: Condition) -> Any:
    """`node` with the condition at `path`; unchanged if it declares no such member."""
    resolved = referenced(root, node)
    properties = resolved.get("properties")
    if not isinstance(properties, Mapping) or path[0] not in properties:
        return node
    name, rest = path[0], path[1:]
    if not rest and condition.operator == ArgumentOperator.ABSENT:
        return without(resolved, name)
    member = properties[name]
    if rest:
        narrowed = narrow(root, member, rest, condition)
    else:
        narrowed = limited(referenced(root, member), condition)
    changed = {**resolved, "properties": {**properties, name: narrowed}}
    if condition.operator != ArgumentOperator.ABSENT:
        required = resolved.get("required")
        names = required if isinstance(required, list) else []
        changed["required"] = [*names, *({name} - set(names))]
    return changed


def referenced(root: Schema, node: Any) -> Schema:
    """The node, or what its local `$ref` names, once; empty if it is no object."""
    if not isinstance(node, Mapping):
        return {}
    ref = node.get("$ref")
    if not isinstance(ref, str) or not ref.startswith("#/"):
        return node
    found: Any = root
    for name in members(ref[1:]):
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return node
    return {**found, **{key: node[key] for key in node if key != "$ref"}}


def without(node: Schema, name: str) -> Schema:
    """The object's schema without a property."""
    properties = {
        key: value for key, value in node["properties"].items() if key != name
    }
    changed = {**node, "properties": properties}
    if isinstance(node.get("required"), list):
        changed["required"] = [one for one in node["required"] if one != name]
    return changed


def limited(node: Schema, condition: Condition) -> Schema:
    """The argument's schema with the keywords of the condition."""
    keywords = KEYWORDS.get(condition.operator)
    return {**node, **keywords(node, condition.value)} if keywords else node


def _one_of(node: Schema, values: Any) -> dict[str, Any]:
    listed = node.get("enum")
    if isinstance(listed, list):
        values = [one for one in values if any(same(one, other) for other in listed)]
    return {"enum": values} if values else {}


def _at_most(node: Schema, limit: Any) -> dict[str, Any]:
    return {"maximum": min([limit, *_numbers(node, "maximum")])}


def _at_least(node: Schema, limit: Any) -> dict[str, Any]:
    return {"minimum": max([limit, *_numbers(node, "minimum")])}


def _numbers(node: Schema, key: str) -> list[Any]:
    value = node.get(key)
    return [value] if isinstance(value, int | float) else []


def _matches(node: Schema, pattern: Any) -> dict[str, Any]:
    if "pattern" in node or not PORTABLE.fullmatch(pattern):
        return {}
    return {"pattern": f"^(?:{pattern})$"}


def _starts_with(node: Schema, start: Any) -> dict[str, Any]:
    if "pattern" in node:
        return {}
    return {"pattern": "^" + SPECIAL.sub(r"\\\g<0>", start)}


KEYWORDS: dict[str, Callable[[Schema, Any], dict[str, Any]]] = {
    ArgumentOperator.ONE_OF: _one_of,
    ArgumentOperator.AT_MOST: _at_most,
    ArgumentOperator.AT_LEAST: _at_least,
    ArgumentOperator.MATCHES: _matches,
    ArgumentOperator.STARTS_WITH: _starts_with,
}
"""Operator -> the keywords of JSON Schema that say the same."""
