"""Template tags of the admin."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from django import template
from django.contrib import admin
from django.urls import reverse
from django.utils.safestring import SafeString

from accounts.admin_site.navigation import breadcrumbs, groups
from accounts.admin_site.navigation.guides import guide_at
from accounts.admin_site.site import PorticoSite, links_of
from accounts.http.relative_times import time_element

register = template.Library()


@register.simple_tag
def labelled(field: Any) -> SafeString:
    """An admin form's field with an aria-label from its column.

    Django's tabular inlines leave inputs without a label (WCAG 2 4.1.2).
    """
    bound = field.field
    widget = bound.field.widget
    if widget.is_hidden:
        return SafeString(bound)
    name = str(bound.label or bound.name).capitalize()
    for part in getattr(widget, "widgets", []):
        part.attrs.setdefault("aria-label", name)
    return SafeString(bound.as_widget(attrs={"aria-label": name}))


@register.filter
def shown(field: Any) -> Any:
    """The value of a field that cannot be changed; times are relative."""
    name = field.field["field"]
    value = getattr(field.form.instance, name, None) if isinstance(name, str) else None
    return time_element(value) if isinstance(value, datetime) else field.contents()


@register.simple_tag(takes_context=True)
def links_of_row(context: Any, row: Any) -> list[tuple[Any, str]]:
    """Buttons that other modules registered for this row's page."""
    return links_of(context["request"], row) if row is not None else []


@register.simple_tag(takes_context=True)
def navigation(context: Any) -> list[groups.MenuGroup]:
    """The groups of the navigation for this user, on this page."""
    path = context["request"].path
    section = cast(PorticoSite, admin.site).section_at(path)
    return groups.menu(context.get("available_apps") or [], path, section or "")


@register.simple_tag(takes_context=True)
def breadcrumb_trail(context: Any) -> list[breadcrumbs.Crumb]:
    """(text, URL) of the pages above this one, and of this one without URL."""
    path = context["request"].path
    section = cast(PorticoSite, admin.site).section_at(path)
    label = str(section.label) if section else ""
    return breadcrumbs.breadcrumbs(context.flatten(), path, label)


@register.simple_tag(takes_context=True)
def guide_here(context: Any) -> str:
    """The URL of the documentation of this page; empty if it is not installed."""
    path: str = context["request"].path
    return guide_at(path.removeprefix(reverse("admin:index")))
