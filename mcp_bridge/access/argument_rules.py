"""Argument rules: which values of a call the caller's roles allow. Pure: no I/O.

A rule without a role applies to every caller. Of the rules with a role, those of any
one role that grants the primitive are enough. An argument that is missing, or of
another type than the rule compares, is refused: the server that gets the call may
choose a default or convert it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_bridge.access.catalogue import Condition
from mcp_bridge.models import ArgumentOperator, text_matches
from mcp_bridge.models.argument_rules import WORDS, shown_value

EVERY_ROLE = "every role"
LONGEST_VALUE = 80
"""Characters of a rule's value in a sentence."""


ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class Missing:
    """Where a pointer ends: nothing is there."""


class Opaque:
    """Where a pointer ends: inside a text or number, which a server may parse."""


MISSING, OPAQUE = Missing(), Opaque()


@dataclass(frozen=True, slots=True)
class ArgumentVerdict:
    """Whether the arguments are allowed; `by` is the role, or EVERY_ROLE."""

    allowed: bool
    by: str = ""
    limits: str = ""
    """The limits that they exceed, in words."""


def judge_arguments(
    conditions: Iterable[Condition], roles: Iterable[str], arguments: Any
) -> ArgumentVerdict:
    """Check `arguments` by the rules of a primitive that these roles grant."""
    by_role = conditions_by_role(conditions)
    failed = unmet(by_role.pop("", []), arguments)
    if failed:
        return ArgumentVerdict(False, limits="; ".join(map(condition_in_words, failed)))
    if not by_role:
        return ArgumentVerdict(True, EVERY_ROLE)
    limits = []
    for role in sorted(roles):
        failed = unmet(by_role.get(role, []), arguments)
        if not failed:
            return ArgumentVerdict(True, role)
        limits.append("; ".join(map(with_role, failed)))
    return ArgumentVerdict(False, limits="; or ".join(limits))


def conditions_by_role(conditions: Iterable[Condition]) -> dict[str, list[Condition]]:
    """Role -> its conditions; the empty name has those of every role."""
    found: dict[str, list[Condition]] = {}
    for condition in conditions:
        found.setdefault(condition.role, []).append(condition)
    return found


def unmet(conditions: Iterable[Condition], arguments: Any) -> list[Condition]:
    """The conditions that the arguments do not meet."""
    return [one for one in conditions if not is_met(one, arguments)]


def is_met(condition: Condition, arguments: Any) -> bool:
    """Whether the arguments meet one condition."""
    found = lookup(arguments, condition.pointer)
    if condition.operator == ArgumentOperator.ABSENT:
        return found is MISSING
    if found is MISSING or found is OPAQUE:
        return False
    compare = COMPARISONS.get(condition.operator)
    return compare is not None and compare(found, condition.value)


def members(pointer: str) -> Iterator[str]:
    """The reference tokens of a JSON pointer (RFC 6901 4)."""
    for part in pointer.split("/")[1:]:
        yield part.replace("~1", "/").replace("~0", "~")


def lookup(arguments: Any, pointer: str) -> Any:
    """The value at a JSON pointer, or MISSING or OPAQUE."""
    value = arguments
    for name in members(pointer):
        value = _member(value, name)
        if value is MISSING or value is OPAQUE:
            return value
    return value


def _member(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name, MISSING)
    if isinstance(value, list):
        if not ARRAY_INDEX.fullmatch(name):
            return OPAQUE
        return value[int(name)] if int(name) < len(value) else MISSING
    return MISSING if value is None else OPAQUE


def is_number(value: Any) -> bool:
    """Whether it is a JSON number; in Python, true is a number too."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_one_of(value: Any, allowed: Any) -> bool:
    """Whether a scalar equals one of a list: 1 equals 1.0, but not true or "1"."""
    return isinstance(allowed, list) and any(same(value, one) for one in allowed)


def same(value: Any, other: Any) -> bool:
    """Whether two JSON scalars are equal."""
    if is_number(value) and is_number(other):
        return bool(value == other)
    scalar = value is None or isinstance(value, str | bool)
    return scalar and type(value) is type(other) and value == other


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ArgumentOperator.ONE_OF: is_one_of,
    ArgumentOperator.MATCHES: lambda value, pattern: (
        isinstance(value, str)
        and isinstance(pattern, str)
        and text_matches(pattern, value)
    ),
    ArgumentOperator.AT_MOST: lambda value, limit: (
        is_number(value) and is_number(limit) and value <= limit
    ),
    ArgumentOperator.AT_LEAST: lambda value, limit: (
        is_number(value) and is_number(limit) and value >= limit
    ),
    ArgumentOperator.STARTS_WITH: lambda value, start: (
        isinstance(value, str) and isinstance(start, str) and value.startswith(start)
    ),
}
"""Operator -> comparison of the argument with the rule's value."""


def condition_in_words(condition: Condition) -> str:
    """What the argument must be, such as `/amount must be a number of at most 5`."""
    words = WORDS.get(condition.operator, "{pointer} has an unknown rule")
    shown = shown_value(condition.value)
    if len(shown) > LONGEST_VALUE:
        shown = f"{shown[: LONGEST_VALUE - 3]}..."
    return words.format(pointer=condition.pointer, value=shown)


def with_role(condition: Condition) -> str:
    """The same, with the role whose rule it is."""
    words = condition_in_words(condition)
    return f"{words} (role {condition.role})" if condition.role else words
