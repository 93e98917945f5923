"""The strings marked for translation, read from the source as by `make messages`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from django.utils.translation.template import templatize

from tests.support.translations import ROOT, Key

TRANSLATION = "django.utils.translation"
CALLS = {
    "gettext": ("msgid",),
    "gettext_lazy": ("msgid",),
    "gettext_noop": ("msgid",),
    "ngettext": ("msgid", "plural"),
    "ngettext_lazy": ("msgid", "plural"),
    "pgettext": ("context", "msgid"),
    "pgettext_lazy": ("context", "msgid"),
    "npgettext": ("context", "msgid", "plural"),
    "npgettext_lazy": ("context", "msgid", "plural"),
}
"""Function -> the meaning of its first arguments."""

TEXT = r"""u?(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
CALL = re.compile(rf"\b(_|n?p?gettext)\(\s*({TEXT}(?:\s*,\s*{TEXT}){{0,2}})", re.DOTALL)
"""A call in the Python that Django makes of a template."""


def key(function: str, texts: list[str]) -> Key:
    """The key of the message in a catalogue."""
    arguments = dict(zip(CALLS[function], texts, strict=False))
    return arguments.get("context", ""), arguments["msgid"], arguments.get("plural", "")


def python_strings(text: str) -> Iterator[Key]:
    """Marked strings of a module, with the names it imports gettext as."""
    tree = ast.parse(text)
    known = {
        name.asname or name.name: name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == TRANSLATION
        for name in node.names
        if name.name in CALLS
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in known:
                function = known[node.func.id]
                nodes = node.args[: len(CALLS[function])]
                found = [a.value for a in nodes if isinstance(a, ast.Constant)]
                if len(found) == len(nodes):
                    yield key(function, [str(text) for text in found])


def template_strings(text: str, path: Path) -> Iterator[Key]:
    for call in CALL.finditer(templatize(text, origin=str(path))):
        function = "gettext" if call[1] == "_" else call[1]
        texts = [ast.literal_eval(found) for found in re.findall(TEXT, call[2])]
        yield key(function, texts[: len(CALLS[function])])


def marks(app: str) -> dict[Key, str]:
    """Message -> a file of the app that has it."""
    found: dict[Key, str] = {}
    for path in sorted((ROOT / app).rglob("*")):
        here = str(path.relative_to(ROOT))
        if path.suffix == ".py":
            found |= dict.fromkeys(
                python_strings(path.read_text(encoding="utf-8")), here
            )
        elif path.suffix in (".html", ".txt") and "templates" in path.parts:
            text = path.read_text(encoding="utf-8")
            found |= dict.fromkeys(template_strings(text, path), here)
    return found
