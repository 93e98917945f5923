"""Lists with millions of rows: no full count and no full scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from django.contrib.admin import ChoicesFieldListFilter, ShowFacets
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Page, Paginator
from django.db import connection
from django.db.models import F, Q
from django.http import HttpRequest
from django.utils.functional import cached_property

from accounts.admin_site.filters.clients import named_like
from accounts.models.lookups import WithoutIndex

COUNT_LIMIT = 10_000
"""Rows that a list counts at most; above that it says "more than"."""
SEARCH_LIMIT = 1_000
"""Newest rows that a search returns at most for each column."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Queries the keys of at most COUNT_LIMIT rows once, for the count and the page."""

    @cached_property
    def keys(self) -> list[Any]:
        """Keys of the first COUNT_LIMIT + 1 rows, in the list's order."""
        rows: Any = self.object_list
        return list(rows.values_list("pk", flat=True)[: COUNT_LIMIT + 1])

    @property
    def more(self) -> int:
        """COUNT_LIMIT if there are more rows than that, else 0."""
        return COUNT_LIMIT if len(self.keys) > COUNT_LIMIT else 0

    @property
    def count(self) -> int:
        """At most COUNT_LIMIT."""
        return min(len(self.keys), COUNT_LIMIT)

    def page(self, number: Any) -> Page[Any]:
        """The rows of one page by their keys."""
        valid = self.validate_number(number)
        rows: Any = self.object_list
        return Page(rows.filter(pk__in=self.keys_of(valid)), valid, self)

    def keys_of(self, number: int) -> list[Any]:
        first = (number - 1) * self.per_page
        return self.keys[first : min(first + self.per_page, self.count)]


class LargeChangeList(ChangeList):
    """Fetch the rows by the paginator's keys only.

    Django would query a short list twice. With the filters beside the keys, SQLite
    would walk the filter's index.
    """

    def get_results(self, request: HttpRequest) -> None:
        """Fetch the current page, or all rows if "show all" fits."""
        super().get_results(request)
        counted: Any = self.paginator
        whole = self.show_all and self.can_show_all
        keys = counted.keys if whole else counted.keys_of(self.page_num)
        found = self.model_admin.get_queryset(request).filter(pk__in=keys)
        rows = list(found.order_by(*self.queryset.query.order_by))
        owner: Any = self.model_admin
        owner.prepare_rows(rows)
        self.result_list = rows


class LargeChangelistMixin:
    """Mixin of a ModelAdmin: a bounded count, and a search that uses indexes only."""

    paginator: Any = BoundedPaginator
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    search_lookups: ClassVar[tuple[str, ...]] = ()
    """Indexed lookups that a search tries, such as `actor` or `jti__prefix`."""
    newest_first: ClassVar[tuple[str, ...]] = ()

    def get_changelist(self, request: Any, **kwargs: Any) -> Any:
        return LargeChangeList

    def get_search_results(self, request: Any, queryset: Any, term: str) -> Any:
        """The newest matches of each lookup in `search_lookups`.

        One query for each: for OR with ORDER BY both planners choose a bad plan.
        """
        word = term.strip()
        if not word:
            return queryset, False
        keys: set[int] = set()
        for found in self.search_keys(request, queryset, word):
            keys.update(found)
        return queryset.filter(pk__in=keys), False

    def search_conditions(self, word: str) -> Iterator[tuple[str, str]]:
        """The (lookup, value) pairs that a search for `word` tries."""
        for lookup in self.search_lookups:
            yield lookup, word
        if "client_id" in self.search_lookups:
            for client_id in named_like(word):
                yield "client_id", client_id

    def search_keys(
        self, request: Any, queryset: Any, word: str
    ) -> Iterator[list[int]]:
        """The keys of the newest matches of each condition."""
        for lookup, value in self.search_conditions(word):
            yield self.newest_keys(queryset.filter(**{lookup: value}))

    def newest_keys(self, rows: Any) -> list[int]:
        """The keys of the newest SEARCH_LIMIT rows."""
        newest = rows.order_by(*self.newest_first).values_list("pk", flat=True)
        return list(newest[:SEARCH_LIMIT])

    def search_all(self, queryset: Any, term: str) -> Any:
        """Every match of a search, for exports."""
        word, condition = term.strip(), Q()
        for lookup, value in self.search_conditions(word) if word else ():
            condition |= Q(**{lookup: value})
        return queryset.filter(condition)

    def prepare_rows(self, rows: list[Any]) -> None:
        """Look up what the columns of one page show, such as the names of clients."""


class UnsortedChoices(ChoicesFieldListFilter):
    """Choices that each match very many rows: walk the list's order, do not sort."""

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Filter by the choice without the column's index."""
        choice = self.lookup_val
        if not choice:
            return queryset
        value: Any = choice[-1] if isinstance(choice, list) else choice
        column = WithoutIndex(F(str(self.field_path)))
        return queryset.alias(unindexed=column).filter(unindexed=value)


def distinct(model: Any, column: str) -> list[str]:
    """Distinct values of an indexed column by a loose index scan; at most 200."""
    table, name = model._meta.db_table, model._meta.get_field(column).column
    quoted = connection.ops.quote_name
    t, c = quoted(table), quoted(name)
    query = (
        f"WITH RECURSIVE step(v) AS (SELECT MIN({c}) FROM {t} UNION ALL "  # noqa: S608
        f"SELECT (SELECT MIN({c}) FROM {t} WHERE {c} > v) FROM step "
        f"WHERE v IS NOT NULL) SELECT v FROM step WHERE v IS NOT NULL LIMIT 200"
    )
    with connection.cursor() as cursor:
        cursor.execute(query)
        return [row[0] for row in cursor.fetchall()]
