"""Lists with millions of rows: no full count, no full scan, typed filters."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar

from django.contrib.admin import ChoicesFieldListFilter, ListFilter, ShowFacets
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Page, Paginator
from django.db import connection
from django.db.models import F, Func, Q
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from accounts.parsing.moments import day_or_moment

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


class WithoutIndex(Func):
    """A column whose index SQLite must not use.

    With the index SQLite sorts all matches. Without it SQLite walks the list's order
    and stops at the limit.
    """

    template = "%(expressions)s"

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Add a unary plus, which disables the index in SQLite."""
        return self.as_sql(compiler, connection, template="+%(expressions)s")


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
        rows = self.model_admin.get_queryset(request).filter(pk__in=keys)
        self.result_list = rows.order_by(*self.queryset.query.order_by)


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
        for lookup in self.search_lookups:
            rows = self.lookup_matches(lookup, queryset, word)
            rows = rows.order_by(*self.newest_first)
            keys.update(rows.values_list("pk", flat=True)[:SEARCH_LIMIT])
        return queryset.filter(pk__in=keys), False

    def lookup_matches(self, lookup: str, queryset: Any, word: str) -> Any:
        """Matches of one lookup."""
        return queryset.filter(**{lookup: word})

    def search_all(self, queryset: Any, term: str) -> Any:
        """Every match of a search, for exports."""
        condition = Q()
        for lookup in self.search_lookups:
            condition |= Q(**{lookup: term.strip()})
        return queryset.filter(condition) if term.strip() else queryset


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


class TypedFilter(ListFilter):
    """A filter with text inputs: `inputs` has (name, type, label) of each."""

    template = "admin/typed_filter.html"
    inputs: ClassVar[tuple[tuple[str, str, Any], ...]] = ()

    def __init__(self, request: Any, params: Any, model: Any, page: Any) -> None:
        super().__init__(request, params, model, page)
        for name in self.expected_parameters():
            if name in params:
                self.used_parameters[name] = str(params.pop(name)[-1]).strip()

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[Any]:
        return [name for name, _kind, _label in self.inputs]

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """The inputs with their values, and the query string's other parameters."""
        ignored = {*self.expected_parameters(), "p", "e"}
        yield {
            "boxes": [
                (name, kind, label, self.used_parameters.get(name, ""))
                for name, kind, label in self.inputs
            ],
            "kept": [(k, v) for k, v in changelist.params.items() if k not in ignored],
        }

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        for name, value in self.used_parameters.items():
            if value:
                queryset = queryset.filter(**self.condition(name, str(value)))
        return queryset

    def condition(self, name: str, value: str) -> dict[str, Any]:
        """The lookup of one input; by default its name."""
        return {name: value}


class PeriodFilter(TypedFilter):
    """Filter from one date or time to another."""

    title = _("time")

    def condition(self, name: str, value: str) -> dict[str, Any]:
        """Parse a time; a date as an end includes the whole day."""
        return {name: moment_in_query(value, end=name.endswith(("lt", "lte")))}


def moment_in_query(text: str, *, end: bool) -> datetime:
    """A date or a time. Raises IncorrectLookupParameters, which the list reports."""
    try:
        when = day_or_moment(text, end=end)
    except ValueError as error:
        raise IncorrectLookupParameters(str(error)) from error
    if when is None:
        raise IncorrectLookupParameters(f"{text} is no day and no moment")
    return when


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
