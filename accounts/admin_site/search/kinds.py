"""What the search finds; any app registers kinds.

@search_kind
class Roles(RowKind):
    model, label, rank = Role, _("Roles"), 30
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse

from accounts.admin_site.site import cells_of

PER_KIND = 6
"""Results of one kind."""


@dataclass(frozen=True, slots=True)
class Result:
    """A link with a line about it, and links for what one does next."""

    title: str
    url: str
    detail: str = ""
    links: tuple[tuple[str, str], ...] = ()
    """(text, URL) of each."""


@dataclass(frozen=True, slots=True)
class FoundKind:
    """The results of one kind."""

    label: str
    results: list[Result]

    def names(self, word: str) -> bool:
        """Whether a result has the whole word as its title."""
        return any(one.title.casefold() == word.casefold() for one in self.results)


class SearchKind:
    """A kind of result; `@search_kind` registers it."""

    label: Any = ""
    rank = 50
    """Order among the kinds, low first."""

    def results(self, request: HttpRequest, word: str) -> list[Result]:
        """At most PER_KIND results that this user may view; no query for others."""
        raise NotImplementedError


class RowKind(SearchKind):
    """Rows of a model that has a list in the admin."""

    model: ClassVar[type[Model]]

    def rows(self, word: str) -> Iterable[Any]:
        """The matching rows, by a bounded query; the best ones first."""
        raise NotImplementedError

    def title(self, row: Any) -> str:
        return str(row)

    def detail(self, row: Any) -> str:
        """What tells the row from others of the same name."""
        return ""

    def results(self, request: HttpRequest, word: str) -> list[Result]:
        """Rows that the user may view in the model's list."""
        page = admin.site._registry.get(self.model)
        if page is None or not page.has_view_permission(request):
            return []
        rows = islice(self.rows(word), PER_KIND)
        visible = (row for row in rows if page.has_view_permission(request, row))
        return [self.result(request, row) for row in visible]

    def result(self, request: HttpRequest, row: Any) -> Result:
        cells = tuple((str(text), url) for text, url in cells_of(request, row))
        return Result(self.title(row), row_address(row), self.detail(row), cells)


def detail_line(*parts: Any) -> str:
    """The parts that are not empty, as one line."""
    return " · ".join(str(part) for part in parts if part)


def row_address(row: Model) -> str:
    """The URL of the row's page in the admin."""
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
    return reverse(name, args=(quote(row.pk),))


_kinds: list[SearchKind] = []


def search_kind(kind: type[SearchKind]) -> type[SearchKind]:
    """Class decorator: search this kind, too."""
    _kinds.append(kind())
    return kind


def find(request: HttpRequest, word: str) -> list[FoundKind]:
    """The kinds with results; one with a result of exactly this name comes first."""
    found = [
        FoundKind(str(kind.label), kind.results(request, word))
        for kind in sorted(_kinds, key=lambda kind: kind.rank)
    ]
    return sorted(
        (one for one in found if one.results), key=lambda one: not one.names(word)
    )
