"""What a page shows, as lines of text: its texts, links, forms, fields and buttons."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

SILENT = ("script", "style", "head", "svg")
"""Elements whose content nobody reads here."""
VOID = ("area", "br", "hr", "img", "input", "link", "meta", "wbr")
FRAME = ("header", "nav-sidebar", "toggle-nav-sidebar")
"""Ids of what every page has."""
STATES = ("bad", "good", "warn", "urgent", "error", "errornote", "required")
"""CSS classes that say something."""
FIELDS = ("input", "select", "textarea", "option")
SHOWN = (
    "checked disabled max maxlength min multiple pattern readonly required selected"
    " autocomplete placeholder aria-label"
).split()
CHANGING = [
    (r"(?<=/key/)[\w-]{12,}", "KEY"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?([+-]\d\d:\d\d)?( UTC)?", "TIME"),
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r"\b\d{1,2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b( \d{4})?", "DATE"),
    (r"\b\d\d:\d\d(:\d\d)?\b", "CLOCK"),
    (r"(\d+ (second|minute)s? ago|just now)", "NOW"),
    (r"whsec_\S+|(?<=/invitation/)[\w-]{43}", "KEY"),
    (r"-----BEGIN .*?-----END [A-Z ]*-----", "PEM"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b", "UUID"),
    (r"(?<![\w+/-])(?=\S*[A-Z])(?=\S*\d)[A-Za-z0-9+/]{32,}[\w-]*={0,2}", "KEY"),
    (r"\b[A-Z2-7]{32}\b|\b[0-9a-f]{12,}\b", "KEY"),
    # One key in a thousand has no digit; words have few changes from a to A.
    (
        r"(?<![\w-])(?<!/schemas/)"
        r"(?=[\w-]*\d|([\w-]*?[a-z][A-Z]){2})[\w-]{24,}",
        "KEY",
    ),
    (r"(?<=access )[0-9a-f]{8}\b|^[0-9a-f]{8}$|(?<=, )[0-9a-f]{6}$", "KEY"),
    (r"(?<=token )[0-9a-f]{8}\b|\b\d{8}( \d{8})+\b", "KEY"),
    (r"Channel \d+", "Channel N"),
    (r"(?<![\d.])\d+\.\d+\.\d+(?!\.?\d)([a-z]\w*)?", "VERSION"),
]
"""Patterns that differ in each run -> what stands for them."""


def steady(text: str) -> str:
    """The text on one line, without what differs in each run."""
    line = " ".join(text.split())
    for pattern, word in CHANGING:
        line = re.sub(pattern, word, line)
    return line


class PageOutline(HTMLParser):
    """Reads one page into `lines`."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.open: list[tuple[str, str]] = []
        """(tag, what is written before its text)."""
        self.hidden = 0
        """How many open elements are not read, outermost first."""
        self.rows: list[int] = []
        """Where the lines of each open row of a table begin."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        unread = tag in SILENT or found.get("id", "") in FRAME
        if tag == "tr":
            self.rows.append(len(self.lines))
        if tag not in VOID:
            self.open.append((tag, label(tag, found)))
            self.hidden += bool(self.hidden or unread)
        if tag == "script" and "src" in found:
            self.lines.append(f"script {found['src']}")
        if not self.hidden and tag in ("form", "img", *FIELDS):
            self.lines.append(described(tag, found))
        if tag == "details" and "open" in found:
            self.lines.append("details open")

    def handle_endtag(self, tag: str) -> None:
        while tag not in VOID and any(one == tag for one, _label in self.open):
            closed, _label = self.open.pop()
            self.hidden -= bool(self.hidden)
            if closed == tag:
                self.end_row(tag)
                return

    def handle_data(self, data: str) -> None:
        text = steady(data)
        if not text or self.hidden:
            return
        tag, before = self.open[-1] if self.open else ("", "")
        if tag == "option":
            self.lines[-1] += f": {text}"
        elif tag == "li" and text in ("DATE", "CLOCK"):
            return  # A mark of a chart's axis.
        else:
            self.lines.append(f"{before}: {text}" if before else text)

    def end_row(self, tag: str) -> None:
        """Join the cells of a row of a table; hours of a chart are left out."""
        if tag == "tr" and self.rows:
            cells = self.lines[self.rows[-1] :]
            del self.lines[self.rows.pop() :]
            row = " | ".join(cells)
            if not re.match(r"t[dh]: (DATE )?CLOCK \|", row):
                self.lines.append(f"row {row}")


def label(tag: str, found: dict[str, str]) -> str:
    """The tag with its state, target or button value."""
    states = [one for one in found.get("class", "").split() if one in STATES]
    if "href" in found:
        states.append(address(found["href"]))
    if "aria-current" in found:
        states.append("current")
    if found.get("title"):
        states.append(f"({steady(found['title'])})")
    if tag == "button":
        states.append(f"{found.get('name', '')}={steady(found.get('value', ''))}")
    return " ".join([tag, *states])


def described(tag: str, found: dict[str, str]) -> str:
    """A form, a field or a picture on one line."""
    if tag == "form":
        kind = " with files" if "enctype" in found else ""
        target = address(found.get("action", ""))
        return f"form{kind} {found.get('method', 'get')} {target}"
    if tag == "img":
        return f"img {steady(found.get('alt', ''))}"
    if found.get("name") == "csrfmiddlewaretoken":
        return "input csrf"
    value = re.sub(r"^\d+$", "N", steady(found.get("value", "")))
    shown = [f"{name}={steady(found[name])}" for name in SHOWN if name in found]
    words = [tag, found.get("type", ""), found.get("name", ""), value, *shown]
    return " ".join(filter(None, words))


def address(target: str) -> str:
    """A link without the ids of rows."""
    return steady(re.sub(r"(?<=[/=])\d+(?=[/&]|$)", "N", unquote(target)))


def outline(page: str) -> str:
    """The lines of an HTML page. Feed it a whole page."""
    reader: Any = PageOutline()
    reader.feed(page)
    return "\n".join(reader.lines) + "\n"


def content(page: str) -> str:
    """The indented lines from the heading on, without the foot of every page."""
    lines = outline(page).splitlines()
    heads = [n for n, line in enumerate(lines) if line.startswith("h1")]
    lines = lines[heads[0] if heads else 0 :]
    ends = [n for n, line in enumerate(lines) if line.startswith("p: Times are in")]
    return "".join(f"  {line}\n" for line in lines[: ends[0] if ends else None])
