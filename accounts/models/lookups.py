"""How a condition uses indexes: the lookup `prefix`, and columns without their index.

`prefix` is a case-sensitive `startswith` that uses an index. Django's `startswith` is
LIKE with ESCAPE, for which SQLite reads the whole table.
"""

from __future__ import annotations

from typing import Any

from django.db.models import CharField, Func, Lookup

LAST = chr(0x10FFFF)
"""Sorts after every other character."""


@CharField.register_lookup
class Prefix(Lookup):
    """`field__prefix="abc"`, case-sensitive."""

    lookup_name = "prefix"

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Use LIKE, which PostgreSQL's pattern indexes support."""
        left, params = self.process_lhs(compiler, connection)
        pattern = connection.ops.prep_for_like_query(self.rhs) + "%"
        return f"{left} LIKE %s", (*params, pattern)

    def as_sqlite(self, compiler: Any, connection: Any) -> Any:
        """Use a range, because SQLite compares text byte by byte."""
        left, params = self.process_lhs(compiler, connection)
        both = (*params, str(self.rhs), *params, str(self.rhs) + LAST)
        return f"({left} >= %s AND {left} < %s)", both


class WithoutIndex(Func):
    """A column whose index SQLite must not use.

    With the index SQLite sorts all matches. Without it SQLite walks the list's order
    and stops at the limit.
    """

    template = "%(expressions)s"

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Add a unary plus, which disables the index in SQLite."""
        return self.as_sql(compiler, connection, template="+%(expressions)s")
