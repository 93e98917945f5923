"""Untrusted text on one line, and counts in English."""

from __future__ import annotations

from django.utils.translation import gettext as _


def one_line(text: str, limit: int = 255) -> str:
    """Cut `text` at `limit` and replace unprintable characters by spaces."""
    text = text[:limit]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 token`, `2 tokens`: for programs, commands and stored rows.

    Pages use ngettext.
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


BROWSERS = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "CriOS/": "Chrome",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}
SYSTEMS = {
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}
"""Part of a User-Agent header -> name. The first match wins: Edge also says Chrome."""


def browser_in_words(agent: str) -> str:
    """Browser and system of a User-Agent header; an unknown header is cut at 80."""
    found = [
        next((name for part, name in table.items() if part in agent), "")
        for table in (BROWSERS, SYSTEMS)
    ]
    if not all(found):
        return one_line(agent, 80) or _("unknown browser")
    return _("%(browser)s on %(system)s") % dict(
        zip(("browser", "system"), found, strict=True)
    )
