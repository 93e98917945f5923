"""Row ids that a form or a query string sends."""

from __future__ import annotations

LARGEST = 2**63 - 1
"""The largest id that both databases can compare; SQLite raises for a larger one."""


def row_id(text: object) -> int:
    """Return the id in `text`, or 0, which no row has.

    `str.isdigit` is not enough: it accepts "²", which `int` refuses, and `int` itself
    refuses more than 4,300 digits.
    """
    digits = str(text)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return 0
    return number if (number := int(digits)) <= LARGEST else 0
