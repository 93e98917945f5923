"""Text from outside, bounded and on one line."""

from __future__ import annotations


def one_line(text: str, limit: int = 255) -> str:
    """Text from outside, bounded and without control characters."""
    text = text[:limit]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)
