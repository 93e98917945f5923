"""The pages of the navigation as results of the search."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.navigation.groups import url_of
from accounts.admin_site.search.kinds import (
    PER_KIND,
    Result,
    SearchKind,
    search_kind,
)


@search_kind
class Pages(SearchKind):
    """Pages by their name or their group; no query."""

    label, rank = _("Pages"), 90

    def results(self, request: HttpRequest, word: str) -> list[Result]:
        """Those with all parts of the word; first those whose name begins with it."""
        start = word.casefold()
        found = sorted(
            self.matches(request, start.split()),
            key=lambda page: not page.title.casefold().startswith(start),
        )
        return found[:PER_KIND]

    def matches(self, request: HttpRequest, parts: list[str]) -> Iterator[Result]:
        for group in admin.site.get_app_list(request):
            for entry in group["models"]:
                name, group_name = str(entry["name"]), str(group["name"])
                text = f"{name} {group_name}".casefold()
                if all(part in text for part in parts):
                    yield Result(name, url_of(entry), group_name)
