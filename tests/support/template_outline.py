"""What a template shows, with made values and each of its conditions both ways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any
from unittest.mock import patch

from allauth.templatetags.allauth import SlotNode
from django.contrib.admin.templatetags.base import InclusionAdminNode
from django.template import Context, Variable
from django.template.base import FilterExpression, Node, NodeList
from django.template.defaulttags import ForNode, IfNode, URLNode
from django.template.library import InclusionNode, SimpleNode
from django.template.loader_tags import BlockNode, ExtendsNode, IncludeNode
from django.templatetags.i18n import BlockTranslateNode

from tests.support.outlines import difference

RESOLVE: Any = FilterExpression.resolve
DEFAULTS = ("default", "default_if_none")
"""Filters that show something else for an empty value."""


class World:
    """Every value is true, except those that are `off`."""

    def __init__(self, kinds: dict[int, str], off: frozenset[str]) -> None:
        self.kinds, self.off = kinds, off
        self.asked: dict[tuple[str, Node | None], None] = {}
        """What the template asked about, and the tag that did, in this order."""
        self.tag: Node | None = None

    def holds(self, fact: str) -> bool:
        self.asked[fact, self.tag] = None
        return fact not in self.off


class Made:
    """A value that shows its name; every attribute is another one."""

    def __init__(self, name: str, world: World, number: str = "") -> None:
        self.name, self.world, self.number = name, world, number

    def named(self, name: str) -> Made:
        return Made(name, self.world, self.number)

    def __getitem__(self, key: Any) -> Made:
        return self.named(f"{self.name}.{key}")

    def __str__(self) -> str:
        return f"[{self.name}{self.number}]"

    def __bool__(self) -> bool:
        return self.world.holds(self.name)

    def __eq__(self, other: object) -> bool:
        return self.world.holds(f"{self.name} == {other}")

    def __gt__(self, other: object) -> bool:
        return self.world.holds(f"{self.name} > {other}")

    def __lt__(self, other: object) -> bool:
        return self.world.holds(f"{self.name} < {other}")

    def __contains__(self, other: object) -> bool:
        return self.world.holds(f"{other} in {self.name}")

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[Any]:
        """Two items; each is as many values as the loop has variables.

        Both are named alike, so that what the template asks about holds for both.
        """
        names = getattr(self.world.tag, "loopvars", [""])
        for number in ("", " 2") if self else ():
            values = [Made(name, self.world, number) for name in names]
            yield values if len(values) > 1 else values[0]


class Anything(dict[str, Any]):
    """The context: each name has a value."""

    def __init__(self, world: World) -> None:
        super().__init__(csrf_token="x")
        self.world = world

    def __contains__(self, name: object) -> bool:
        return name not in ("True", "False", "None")

    def __getitem__(self, name: str) -> Any:
        return self.get(name) or Made(name, self.world)


def descendants(nodes: NodeList) -> Iterator[Node]:
    for node in nodes:
        yield node
        for name in node.child_nodelists:
            yield from descendants(getattr(node, name, None) or NodeList())


def filtered(expression: Any, made: Made, context: Context) -> Any:
    """The value with the names of its filters."""
    for function, args in expression.filters:
        words = [str(arg.resolve(context) if var else arg) for var, arg in args]
        name = function.__name__
        if name in DEFAULTS and not made:
            return words[0]
        made = made.named("|".join([made.name, ":".join([name, *words])]))
    return made


def slot(node: Any, _context: Context) -> str:
    return f"[slot {node.name}]"


def called(node: Any, context: Context) -> str:
    """A tag that calls a function, with its arguments."""
    args = [str(arg.resolve(context)) for arg in node.args]
    kwargs = [f"{key}={arg.resolve(context)}" for key, arg in node.kwargs.items()]
    words = " ".join([getattr(node, "func", called).__name__, *args, *kwargs])
    if not getattr(node, "target_var", None):
        return f"[{words}]"
    context[node.target_var] = context[words]
    return ""


def address(node: Any, context: Context) -> str:
    args = [*node.args, *node.kwargs.values()]
    words = [str(arg.resolve(context)) for arg in (node.view_name, *args)]
    shown = f"[{' '.join(words)}]"
    if node.asvar:
        context[node.asvar] = shown
    return "" if node.asvar else shown


def included(node: Any, context: Context) -> str:
    """Templates that are included have outlines themselves."""
    more = [f"{key}={arg.resolve(context)}" for key, arg in node.extra_context.items()]
    return f"[{' '.join(['include', str(node.template), *more])}]"


def shown(self: Any, context: Context, ignore_failures: bool = False) -> Any:
    """A made value, or what the expression really is; a number for plural forms."""
    value = self.var.resolve(context) if isinstance(self.var, Variable) else None
    if not isinstance(value, Made):
        return RESOLVE(self, context, ignore_failures)
    kind = value.world.kinds.get(id(self))
    if kind == "number":
        return 2 if value else 1
    if kind == "optional" and not value.world.holds(f"{value.name} (not None)"):
        return None
    return filtered(self, value, context)


def asking(render: Any) -> Any:
    """The render method of a tag, which its world then knows."""

    def rendered(self: Any, context: Context) -> Any:
        world_of(context).tag = self
        return render(self, context)

    return rendered


def world_of(context: Context) -> World:
    return next(one.world for one in context.dicts if isinstance(one, Anything))


@contextmanager
def made_values() -> Iterator[None]:
    """Filters, functions and addresses show their names."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(FilterExpression, "resolve", shown))
        for tag, render in {
            IfNode: asking(IfNode.render),
            ForNode: asking(ForNode.render),
            SimpleNode: called,
            InclusionNode: called,
            InclusionAdminNode: called,
            URLNode: address,
            IncludeNode: included,
            SlotNode: slot,
        }.items():
            stack.enter_context(patch.object(tag, "render", render))
        yield


def kinds_of(node: Any) -> Iterator[tuple[int, str]]:
    """(id, kind) of its expressions that are numbers, or compared with None."""
    if isinstance(node, BlockTranslateNode) and node.counter:
        yield id(node.counter), "number"
    for condition, _nodes in getattr(node, "conditions_nodelists", ()):
        if getattr(condition, "id", "") in ("is", "is not"):
            yield id(condition.first.value), "optional"


def parts_of(template: Any) -> list[tuple[str, NodeList]]:
    """(name, nodes) of the whole template, or of each block that it changes."""
    found = [node for node in template.nodelist if isinstance(node, ExtendsNode)]
    if not found:
        return [("", template.nodelist)]
    blocks = [node for node in found[0].nodelist if isinstance(node, BlockNode)]
    parts = [(f"# {block.name}\n", block.nodelist) for block in blocks]
    return [(f"extends {found[0].parent_name}\n", NodeList()), *parts]


def lines_of(html: str) -> str:
    """Each element on a line."""
    parts = re.split(r"(?=<[^/])", html)
    texts = [" ".join(part.split()) for part in parts]
    return "".join(f"{text}\n" for text in texts if text)


def changes(before: str, after: str) -> str:
    """The lines that are added, the first that is missing, and how many more are."""
    found = ""
    lines = difference(before, after).splitlines()
    for gone, group in groupby(lines, lambda line: line[0] == "-"):
        first, *others = group
        if gone and others:
            others = [f"- and {len(others)} more"]
        found += "".join(f"{line}\n" for line in (first, *others))
    return found


def shown_in(template: Any, world: World) -> str:
    pages = ""
    for name, nodes in parts_of(template):
        context = Context(Anything(world))
        with (
            context.render_context.push_state(template),
            context.bind_template(template),
        ):
            pages += name + lines_of(nodes.render(context))
    return pages


def template_outline(template: Any) -> str:
    """With every value, then what changes without one, and without more of them."""
    nodes = descendants(template.nodelist)
    kinds = {key: kind for node in nodes for key, kind in kinds_of(node)}
    found, done = list[str](), set[frozenset[str]]()
    waiting: list[tuple[World, str, dict[Any, None]]] = [
        (World(kinds, frozenset()), "", {})
    ]
    for world, before, known in waiting:  # Grows meanwhile.
        if world.off in done:
            continue
        done.add(world.off)
        page = shown_in(template, world)
        changed = f"# without {', '.join(sorted(world.off))}\n{changes(before, page)}"
        found.append(changed if world.off else page)
        asked = {**known, **world.asked}
        for fact, tag in world.asked:
            if (fact, tag) not in known:
                waiting.append((World(kinds, world.off | {fact}), page, asked))
    return "\n".join(found)
