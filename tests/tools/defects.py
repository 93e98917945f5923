"""`make mutants DROPPED=1`: mutmut with other changes, parts that are left out.

A statement, a guard, one side of `and` or `or`, a filter, a keyword argument, an item
of a dict or list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import libcst as cst
from mutmut.__main__ import cli
from mutmut.mutation import mutators

T = TypeVar("T")
STEPS = (
    "casefold",
    "distinct",
    "exclude",
    "filter",
    "live",
    "lower",
    "order_by",
    "select_for_update",
    "strip",
    "unexpired",
)
"""Methods whose call is left out of a chain."""
MOST_ITEMS = 10
"""A longer table is data; the outlines compare it."""


def statements(node: cst.SimpleStatementLine) -> Iterator[cst.CSTNode]:
    """Without a call for its effect, a raise, a del, or a stored attribute."""
    (first, *others) = node.body
    dropped = isinstance(first, cst.Raise | cst.Del)
    if isinstance(first, cst.Expr):
        value = first.value
        value = value.expression if isinstance(value, cst.Await) else value
        dropped = isinstance(value, cst.Call)
    if isinstance(first, cst.Assign):
        dropped = isinstance(first.targets[0].target, cst.Attribute | cst.Subscript)
    if dropped and not others:
        yield node.with_changes(body=[cst.Pass()])


def guards(node: cst.If) -> Iterator[cst.CSTNode]:
    """`if` that only returns, raises or continues, without effect."""
    lines = node.body.body
    only = lines[0] if len(lines) == 1 else None
    if node.orelse is None and isinstance(only, cst.SimpleStatementLine):
        if isinstance(only.body[0], cst.Return | cst.Raise | cst.Continue):
            yield node.with_changes(test=cst.Name("False"))


def sides(node: cst.BooleanOperation) -> Iterator[cst.CSTNode]:
    """Each side of `and` and `or` alone."""
    yield in_brackets(node.left)
    yield in_brackets(node.right)


def choices(node: cst.IfExp) -> Iterator[cst.CSTNode]:
    """Each value of a conditional expression, always."""
    yield in_brackets(node.body)
    yield in_brackets(node.orelse)


def in_brackets(node: cst.BaseExpression) -> cst.CSTNode:
    """So that what was on several lines can be."""
    brackets = {"lpar": [cst.LeftParen()], "rpar": [cst.RightParen()]}
    return node if node.lpar else node.with_changes(**brackets)


def conditions(node: cst.CompFor) -> Iterator[cst.CSTNode]:
    """A comprehension without one of its conditions."""
    for ifs in one_less(node.ifs):
        yield node.with_changes(ifs=ifs)


def steps(node: cst.Call) -> Iterator[cst.CSTNode]:
    """A chain of calls without one of STEPS."""
    if isinstance(node.func, cst.Attribute) and node.func.attr.value in STEPS:
        yield node.func.value


def keywords(node: cst.Call) -> Iterator[cst.CSTNode]:
    """A call without one of its keyword arguments."""
    for place, argument in enumerate(node.args):
        if argument.keyword is not None and len(node.args) > 1:
            args = [*node.args[:place], *node.args[place + 1 :]]
            yield node.with_changes(args=args)


def items(node: cst.Dict | cst.List | cst.Set) -> Iterator[cst.CSTNode]:
    """A display without one of its items."""
    if 1 < len(node.elements) <= MOST_ITEMS:
        for elements in one_less(node.elements):
            yield node.with_changes(elements=elements)


def one_less(parts: Sequence[T]) -> Iterator[list[T]]:
    """The parts without each of them."""
    for place in range(len(parts)):
        yield [*parts[:place], *parts[place + 1 :]]


OPERATORS = [
    (cst.SimpleStatementLine, statements),
    (cst.If, guards),
    (cst.BooleanOperation, sides),
    (cst.IfExp, choices),
    (cst.CompFor, conditions),
    (cst.Call, steps),
    (cst.Call, keywords),
    (cst.Dict, items),
    (cst.List, items),
    (cst.Set, items),
    (cst.CSTNode, mutators.operator_swap_op),
]
"""What is replaced, and by what; mutmut's own swap of comparisons stays."""


if __name__ == "__main__":
    mutators.mutation_operators[:] = OPERATORS  # type: ignore[index]
    cli()
