"""Untrusted text, bounded and on one line."""

from __future__ import annotations


def one_line(text: str, limit: int = 255) -> str:
    """Cut `text` at `limit` and replace unprintable characters by spaces."""
    text = text[:limit]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)
