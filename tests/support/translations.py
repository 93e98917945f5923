"""Translation catalogues for tests: .po as text, .mo as gettext reads it."""

from __future__ import annotations

import ast
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
APPS = ("accounts", "mcp_bridge", "examples/products")
FILE = "locale/ko/LC_MESSAGES/django"

Key = tuple[str, str, str]
"""(context, msgid, plural); a missing part is the empty string."""


@dataclass
class Entry:
    """One message with its translations, one per plural form."""

    context: str = ""
    msgid: str = ""
    plural: str = ""
    texts: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)

    @property
    def key(self) -> Key:
        """The key of the message in a catalogue."""
        return self.context, self.msgid, self.plural

    def add(self, keyword: str, text: str) -> None:
        """Add a line of the entry, or its continuation."""
        if keyword.startswith("msgstr"):
            self.texts[-1] += text
        else:
            name = {"msgctxt": "context", "msgid": "msgid"}.get(keyword, "plural")
            setattr(self, name, getattr(self, name) + text)


def entries(path: Path) -> list[Entry]:
    """Every message of a .po file except its header."""
    blocks = re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))
    found = [entry(block) for block in blocks]
    return [one for one in found if one is not None and one.msgid]


def entry(block: str) -> Entry | None:
    """One paragraph of a .po file; None without a message."""
    item, keyword = Entry(), ""
    for line in block.splitlines():
        if line.startswith("#,"):
            item.flags |= {flag.strip() for flag in line[2:].split(",")}
        if line.startswith("#") or not line.strip():
            continue
        first, _space, rest = line.partition(" ")
        if not line.startswith('"'):
            keyword = first
            item.texts += [""] if keyword.startswith("msgstr") else []
        item.add(keyword, ast.literal_eval(line if line.startswith('"') else rest))
    return item if keyword else None


def compiled(path: Path) -> dict[str, str]:
    """The contents of a .mo file, key to translation."""
    data = path.read_bytes()
    magic, _revision, count, keys, texts = struct.unpack("<5I", data[:20])
    assert magic == 0x950412DE, f"{path} is not a little-endian .mo file"

    def text(table: int, row: int) -> str:
        length, start = struct.unpack_from("<2I", data, table + 8 * row)
        return data[start : start + length].decode()

    return {text(keys, row): text(texts, row) for row in range(count)}
