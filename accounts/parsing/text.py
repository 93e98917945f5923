"""Untrusted text on one line, and counts in English."""

from __future__ import annotations


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
