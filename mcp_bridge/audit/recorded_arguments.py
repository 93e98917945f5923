"""What the audit records of the arguments of a call, by the policy of its primitive.

JSON such as `{"policy":"masked","arguments":{"to":"string of 12 characters"}}`, of at
most MAX_LENGTH ASCII characters; `"cut":true` marks what was longer. Only the body's
`arguments` are read: tokens and headers never get here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from accounts.parsing.text import counted
from mcp_bridge.access.context import Call
from mcp_bridge.access.messages import ARGUMENT_METHODS
from mcp_bridge.models import RecordedArguments
from mcp_bridge.models.argument_rules import UNSTORABLE

MAX_LENGTH = 4_096
RESERVE = 200
"""Characters for the policy, the marks and the brackets."""
MAX_TEXT = 1_000
MAX_DEPTH = 8
MAX_MEMBERS = 1_000
"""More arguments than fit, so the rest need not be looked at."""


def arguments_of(call: Call) -> str:
    """What the audit records of this call; empty if the policy is off."""
    message = call.message
    rule = call.catalogue.get(message.target) if message.target else None
    if rule is None or rule.recorded == RecordedArguments.OFF:
        return ""
    if message.method not in ARGUMENT_METHODS:
        return ""
    return recorded_arguments(rule.recorded, message.arguments)


def recorded_arguments(policy: str, arguments: Any) -> str:
    """These arguments in the form of the policy; nothing for an unknown policy."""
    form = FORMS.get(policy)
    if form is None:
        return ""
    clipper = Clipper(MAX_LENGTH - RESERVE)
    found = {"policy": policy, "arguments": clipper.copy(form(arguments))}
    if clipper.cut:
        found["cut"] = True
    return json.dumps(found, separators=(",", ":"))


def argument_names(arguments: Any) -> list[str]:
    names = arguments if isinstance(arguments, Mapping) else ()
    return list(islice(names, MAX_MEMBERS))


def masked(arguments: Any) -> Any:
    """Each value as its type and length.

    Not as a hash: whoever may call the tool could compare it with guesses. The names
    inside an object may be data, so they are masked too.
    """
    if not isinstance(arguments, Mapping):
        return mask(arguments)
    members = islice(arguments.items(), MAX_MEMBERS)
    return {name: mask(value) for name, value in members}


def mask(value: Any) -> str:
    """The JSON type of a value, and its length."""
    if isinstance(value, str):
        return f"string of {counted(len(value), 'character')}"
    if isinstance(value, list):
        return f"array of {counted(len(value), 'item')}"
    if isinstance(value, Mapping):
        return f"object of {counted(len(value), 'member')}"
    if isinstance(value, bool):
        return "boolean"
    return "null" if value is None else "number"


FORMS: dict[str, Callable[[Any], Any]] = {
    RecordedArguments.NAMES.value: argument_names,
    RecordedArguments.MASKED.value: masked,
    RecordedArguments.FULL.value: lambda arguments: arguments,
}
"""Policy -> what it keeps."""


class Clipper:
    """Copies a JSON value until `left` characters of JSON are spent.

    A large argument costs no more than the limit: this runs in the event loop.
    """

    def __init__(self, left: int) -> None:
        self.left, self.cut = left, False

    def copy(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping | list):
            if depth == MAX_DEPTH:
                return self.text(mask(value), cut=True)
            self.left -= 3
            if isinstance(value, list):
                return self.items(value, depth + 1)
            return self.members(value, depth + 1)
        shown = json.dumps(value)
        if len(shown) > self.left or shown in ("NaN", "Infinity", "-Infinity"):
            return self.text(shown)
        self.left -= len(shown) + 1
        return value

    def text(self, value: str, *, cut: bool = False) -> str:
        """The text, or its beginning and `...`."""
        part = value[:MAX_TEXT]
        while part and len(json.dumps(part)) > self.left:
            part = part[: len(part) // 2]
        if cut or part != value:
            self.cut = True
            part += "" if cut and part else "..."
        # PostgreSQL and UTF-8 lack some characters that JSON has.
        part = UNSTORABLE.sub("\ufffd", part)
        self.left -= len(json.dumps(part)) + 1
        return part

    def items(self, value: list[Any], depth: int) -> list[Any]:
        copied: list[Any] = []
        for item in value:
            if self.is_spent():
                break
            copied.append(self.copy(item, depth))
        return copied

    def members(self, value: Mapping[str, Any], depth: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for name, item in value.items():
            if self.is_spent():
                break
            copied[self.text(name)] = self.copy(item, depth)
        return copied

    def is_spent(self) -> bool:
        """Whether nothing more fits, which cuts what is left."""
        spent = self.left <= 0
        self.cut = self.cut or spent
        return spent
