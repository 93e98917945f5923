"""Breadcrumbs of every page of the admin, with the names of the navigation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.contrib.admin.utils import quote
from django.db.models import Model
from django.urls import reverse
from django.utils.text import Truncator
from django.utils.translation import gettext

from accounts.admin_site.navigation.groups import page_at, url_of

Crumb = tuple[str, str]
"""(text, URL); without URL it is text only."""

LONGEST_CRUMB = 80


def breadcrumbs(context: Mapping[str, Any], path: str, section: str) -> list[Crumb]:
    """Home, group, list, row and title of the page at `path`; the last is no link.

    `context` is the page's template context. `section` names the group of a page that
    is not in the navigation.
    """
    parent = [
        (str(label), str(url)) for url, label in filter(None, [context.get("parent")])
    ]
    above = urlsplit(parent[0][1]).path if parent else path
    found = page_at(context.get("available_apps") or (), above)
    entry = [(str(found[1]["name"]), url_of(found[1]))] if found else []
    steps = [
        (gettext("Home"), reverse("admin:index")),
        (str(found[0]["name"]) if found else section, ""),
        *entry,
        *parent,
        *row_crumb(context),
        *title_crumb(context, path),
    ]
    *others, (last, _url) = without_repeats(steps)
    return [*others, (last, "")]


def row_crumb(context: Mapping[str, Any]) -> list[Crumb]:
    """The row that the page shows, changes or deletes."""
    row = context.get("original") or context.get("object")
    if not isinstance(row, Model) or "opts" not in context:
        return []
    options = context["opts"]
    name = f"admin:{options.app_label}_{options.model_name}_change"
    return [(str(row), reverse(name, args=(quote(row.pk),)))]


def title_crumb(context: Mapping[str, Any], path: str) -> list[Crumb]:
    """The page's title, unless a list or a row is the page."""
    row = row_crumb(context)
    itself = "cl" in context or bool(row) and row[0][1] == path
    return [] if itself or not context.get("title") else [(str(context["title"]), "")]


def without_repeats(steps: Iterable[Crumb]) -> list[Crumb]:
    """Leave out empty names and repeated ones; the last link of a name stays."""
    kept: list[Crumb] = []
    for text, url in steps:
        name = Truncator(text).chars(LONGEST_CRUMB)
        if kept and kept[-1][0].casefold() == name.casefold():
            kept[-1] = (kept[-1][0], url or kept[-1][1])
        elif name:
            kept.append((name, url))
    return kept
