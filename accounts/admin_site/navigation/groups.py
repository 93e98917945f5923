"""The seven groups of the navigation. Every page of the admin is in one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Section(TextChoices):
    """Groups of the navigation, in their order."""

    OVERVIEW = "overview", _("Overview")
    PEOPLE = "people", _("People")
    ACCESS = "access", _("Access")
    TOOLS = "tools", _("Tools")
    CLIENTS = "clients", _("Clients and tokens")
    ACTIVITY = "activity", _("Activity")
    SETTINGS = "settings", _("Settings")


Place = tuple[Section, int]
"""Group in the navigation, and the rank in it (low first)."""

DEFAULT_PLACE: Place = (Section.SETTINGS, 90)
"""Default for models without a place, such as those of other apps."""

Entry = dict[str, Any]
"""A page in the shape of Django's model entries (`AdminSite.get_app_list`)."""
Group = dict[str, Any]
"""A group in the shape of Django's apps: its pages are in `models`."""


def grouped(placed: Iterable[tuple[Place, Entry]]) -> list[Group]:
    """The groups with pages, in the order of Section."""
    pages: dict[Section, list[tuple[int, Entry]]] = {one: [] for one in Section}
    for (section, rank), entry in placed:
        pages[section].append((rank, entry))
    return [group_of(section, pages[section]) for section in Section if pages[section]]


def group_of(section: Section, ranked: list[tuple[int, Entry]]) -> Group:
    """One group; its pages are ordered by rank, then by name."""
    ordered = sorted(ranked, key=lambda entry: (entry[0], str(entry[1]["name"])))
    return {
        "name": section.label,
        "app_label": section.value,
        "app_url": "",
        "has_module_perms": True,
        "models": [entry for _rank, entry in ordered],
    }


def url_of(entry: Entry) -> str:
    """The page's URL; the form, if the user may only add rows."""
    return str(entry["admin_url"] or entry["add_url"] or "")


def page_at(groups: Iterable[Group], path: str) -> tuple[Group, Entry] | None:
    """The page at or above this path, with its group."""
    found = [
        (group, entry)
        for group in groups
        for entry in group["models"]
        if is_at_or_above(entry, path)
    ]
    return max(found, key=lambda pair: len(url_of(pair[1])), default=None)


def is_at_or_above(entry: Entry, path: str) -> bool:
    """Whether the path is this page or below it. Below the overview are all pages."""
    url = url_of(entry)
    above = entry["object_name"] != Section.OVERVIEW
    return path == url or bool(url) and above and path.startswith(url)


@dataclass(frozen=True, slots=True)
class MenuItem:
    """A link of the navigation."""

    name: str
    url: str
    current: str = ""
    """Value of `aria-current`: `page`, or `true` on a page below this one."""


@dataclass(frozen=True, slots=True)
class MenuGroup:
    """A group as the navigation shows it."""

    key: str
    name: str
    items: list[MenuItem]
    open: bool = False

    @property
    def alone(self) -> bool:
        """Whether the group itself is the link to its only page."""
        return self.key == Section.OVERVIEW and len(self.items) == 1


def menu(groups: list[Group], path: str, section: str = "") -> list[MenuGroup]:
    """The navigation on the page at `path`; its group is open.

    `section` is the group of a page that is not in the navigation.
    """
    here = page_at(groups, path)
    opened = here[0]["app_label"] if here else section
    return [
        MenuGroup(
            group["app_label"],
            group["name"],
            [item(entry, path, here) for entry in group["models"]],
            group["app_label"] == opened,
        )
        for group in groups
    ]


def item(entry: Entry, path: str, here: tuple[Group, Entry] | None) -> MenuItem:
    url, current = url_of(entry), ""
    if here is not None and here[1] is entry:
        current = "page" if path == url else "true"
    return MenuItem(str(entry["name"]), url, current)
