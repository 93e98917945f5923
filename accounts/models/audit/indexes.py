"""Indexes of the audit that stay small on PostgreSQL.

With the time in it, every key of an index is unique. PostgreSQL stores equal keys once,
with six bytes for each further row: the index of the actor takes 10 bytes of an event
instead of 58 (docs/sizing.md).
"""

from __future__ import annotations

from typing import Any

from django.db import models


class ByValueIndex(models.Index):
    """(value, time) on SQLite; the value alone on PostgreSQL.

    SQLite stores each key anyway, and needs the time: it would sort all matches.
    PostgreSQL sorts the few rows of a rare value, and for a frequent one it walks the
    index of the time.
    """

    def create_sql(self, model: Any, schema_editor: Any, **options: Any) -> Any:  # type: ignore[override]
        if schema_editor.connection.vendor != "postgresql":
            return super().create_sql(model, schema_editor, **options)
        alone = models.Index(
            fields=self.fields[:1], name=self.name, opclasses=self.opclasses[:1]
        )
        return alone.create_sql(model, schema_editor, **options)
