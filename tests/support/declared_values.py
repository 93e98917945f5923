"""The values that modules declare: constants, attributes of classes, defaults.

Their meaning is in the value only: the length of a limit, the words of a choice, the
order of columns, the class in a table. Functions and classes appear by their name.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path, PurePath
from textwrap import indent
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from django.utils.functional import Promise

PLAIN = (str, bytes, int, float, bool, type(None), date, timedelta)
NETWORKS = (IPv4Network, IPv6Network)
NAMED = (type, FunctionType, MethodType, BuiltinFunctionType)
CHANGING = (dict, list, set)
DEEPEST = 6
LINE = 100
ROOT = Path(__file__).resolve().parent.parent.parent


class Unknown(Exception):
    """The value is no plain one."""


def described(value: Any, depth: int = 0) -> str:
    """A value as text that is equal in every process. Raises Unknown."""
    if depth > DEEPEST:
        raise Unknown
    if isinstance(value, enum.Enum):
        return (
            f"{type(value).__name__}.{value.name}" if depth else described_member(value)
        )
    if isinstance(value, Promise):
        return repr(str(value))
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, NAMED):
        return str(value.__qualname__)
    return described_whole(value, depth + 1)


def described_member(member: enum.Enum) -> str:
    """Its value, and the label of a choice. Raises Unknown."""
    label = getattr(member, "label", None)
    value = described(member.value, 1)
    return value if label is None else f"{value}, {str(label)!r}"


def joined(parts: Iterable[str], begin: str, end: str) -> str:
    """On one line if it is short."""
    given = [*parts]
    line = f"{begin}{', '.join(given)}{end}"
    if len(line) <= LINE:
        return line
    inner = indent(",\n".join(given), "  ")
    return f"{begin}\n{inner}\n{end}"


def described_whole(value: Any, depth: int) -> str:
    """What has parts. Raises Unknown."""
    if isinstance(value, Mapping):
        pairs = (f"{part(k, depth)}: {part(v, depth)}" for k, v in value.items())
        return joined(pairs, "{", "}")
    if isinstance(value, set | frozenset):
        return joined(sorted(part(one, depth) for one in value), "{", "}")
    if isinstance(value, list | tuple):
        return joined((part(one, depth) for one in value), "(", ")")
    if dataclasses.is_dataclass(value):
        fields = (f.name for f in dataclasses.fields(value))
        pairs = (f"{name}={part(getattr(value, name), depth)}" for name in fields)
        return joined(pairs, f"{type(value).__name__}(", ")")
    return described_by_library(value, depth)


def described_by_library(value: Any, depth: int) -> str:
    """Values of the standard library. Raises Unknown."""
    if isinstance(value, re.Pattern):
        return f"re {value.pattern!r} {value.flags:#x}"
    if isinstance(value, partial):
        given = [part(one, depth) for one in value.args]
        given += [f"{k}={part(v, depth)}" for k, v in value.keywords.items()]
        return joined([*given, "..."], f"{part(value.func, depth)}(", ")")
    if isinstance(value, PurePath) and ROOT in value.parents:
        return f"path {value.relative_to(ROOT).as_posix()}"
    if isinstance(value, NETWORKS):
        return str(value)
    raise Unknown


def part(value: Any, depth: int) -> str:
    """A part of a value; an unknown object by the name of its class."""
    try:
        return described(value, depth)
    except Unknown:
        return f"<{type(value).__name__}>"


def declared(module: ModuleType) -> Iterator[str]:
    """A line for each value that the module declares."""
    source = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    yield from values_in(source.body, vars(module), "")


def values_in(
    body: list[ast.stmt], found: Mapping[str, Any], prefix: str
) -> Iterator[str]:
    """The lines of one scope, whose live values are `found`."""
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name in found:
            made = found[node.name]
            inner = {**vars(made), **defaults_of_fields(made)}
            yield from values_in(node.body, inner, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from defaults_of(node, found.get(node.name), prefix)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield from assigned(node, found, prefix)


def defaults_of_fields(made: type) -> dict[str, Any]:
    """Of a dataclass or a NamedTuple; with slots, its attributes do not show them."""
    if not dataclasses.is_dataclass(made):
        return getattr(made, "_field_defaults", {})
    return {
        one.name: getattr(one.default_factory, "__name__", one.default)
        for one in dataclasses.fields(made)
    }


def assigned(
    node: ast.Assign | ast.AnnAssign, found: Mapping[str, Any], prefix: str
) -> Iterator[str]:
    """The values of names; of a field of a dataclass, its place and type."""
    if isinstance(node, ast.AnnAssign) and node.value is None:
        yield f"{prefix}{ast.unparse(node.target)}: {ast.unparse(node.annotation)}"
        return
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for name in (n for target in targets for n in ast.walk(target)):
        if not isinstance(name, ast.Name) or name.id not in found:
            continue
        value = found[name.id]
        if not prefix and not name.id.isupper() and isinstance(value, CHANGING):
            continue  # It is filled while the server runs.
        with suppress(Unknown):
            yield f"{prefix}{name.id} = {described(value)}"


def defaults_of(
    node: ast.FunctionDef | ast.AsyncFunctionDef, made: Any, prefix: str
) -> Iterator[str]:
    """The parameters of a function that have defaults."""
    made = inspect.unwrap(getattr(made, "__func__", made)) if made else made
    if not isinstance(made, FunctionType):
        return
    parameters = inspect.signature(made).parameters.values()
    given = [p for p in parameters if p.default is not p.empty]
    if given:
        pairs = (f"{p.name}={part(p.default, 0)}" for p in given)
        yield joined(pairs, f"{prefix}{node.name}(", ")")
