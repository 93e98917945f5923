"""Lists with very many rows: bounded counts, searches and filters."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest
from django.contrib import admin
from django.contrib.admin import ShowFacets
from django.core.paginator import EmptyPage
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from accounts.admin_site import large_changelists
from accounts.admin_site.declared_lookups import DeclaredLookups
from accounts.admin_site.large_changelists import (
    BoundedPaginator,
    LargeChangeList,
    LargeChangelistMixin,
    UnsortedChoices,
    distinct,
)
from accounts.models import Role, User
from accounts.models.lookups import WithoutIndex
from tests.support.static_files import UNCOLLECTED
from tests.support.users import browser_of

pytestmark = pytest.mark.django_db
NAMES = [f"role {n}" for n in range(7)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven roles; lists count at most four, searches find two."""
    assert large_changelists.COUNT_LIMIT == 10_000
    assert large_changelists.SEARCH_LIMIT == 1_000
    monkeypatch.setattr(large_changelists, "COUNT_LIMIT", 4)
    monkeypatch.setattr(large_changelists, "SEARCH_LIMIT", 2)
    Role.objects.exclude(name="Admin").delete()
    for name in NAMES:
        Role.objects.create(name=name, description=f"about {name}")


def others() -> Any:
    return Role.objects.exclude(name="Admin")


def rows(most: int = 7) -> Any:
    return Role.objects.filter(name__in=NAMES[:most]).order_by("-name")


@pytest.mark.parametrize(("most", "count", "more"), [(3, 3, 0), (4, 4, 0), (5, 4, 4)])
def test_a_list_counts_up_to_its_limit(most: int, count: int, more: int) -> None:
    paginator = BoundedPaginator(rows(most), 3)
    assert (paginator.count, paginator.more) == (count, more)


def test_a_page_has_its_rows_and_no_row_beyond_the_limit() -> None:
    paginator = BoundedPaginator(rows(), 3)
    assert paginator.num_pages == 2
    pages = [sorted(role.name for role in paginator.page(n)) for n in (1, 2)]
    assert pages == [["role 4", "role 5", "role 6"], ["role 3"]]
    with pytest.raises(EmptyPage):
        paginator.page(3)


def test_keys_are_read_once() -> None:
    paginator = BoundedPaginator(rows(), 3)
    with CaptureQueriesContext(connection) as queries:
        assert paginator.count and paginator.more and len(paginator.keys_of(1)) == 3
    assert len(queries) == 1 and "LIMIT 5" in queries[0]["sql"]


class Many(LargeChangelistMixin, DeclaredLookups, admin.ModelAdmin):  # type: ignore[type-arg]
    search_lookups: ClassVar[tuple[str, ...]] = ("name", "description__startswith")
    search_fields = ("name",)
    newest_first: ClassVar[tuple[str, ...]] = ("-pk",)
    list_per_page = 3
    list_max_show_all = 5
    ordering = ("-name",)

    def get_queryset(self, request: Any) -> Any:
        return Role.objects.filter(description__startswith="about").order_by("pk")


def listed(carol: User, **query: str) -> Any:
    request: Any = RequestFactory().get("/admin/", query)
    request.user = carol
    return Many(Role, admin.site).get_changelist_instance(request)


def test_a_list_shows_one_page_in_its_order(carol: User) -> None:
    found = listed(carol)
    assert isinstance(found, LargeChangeList)
    assert [role.name for role in found.result_list] == NAMES[:3:-1]
    assert [role.name for role in listed(carol, p="2").result_list] == ["role 3"]
    assert found.result_count == 4


def test_all_rows_are_shown_only_if_they_are_few(carol: User) -> None:
    Role.objects.filter(name__in=NAMES[4:]).delete()
    assert len(listed(carol, all="").result_list) == 4
    assert len(listed(carol).result_list) == 3


def test_a_list_never_counts_all_rows() -> None:
    page = Many(Role, admin.site)
    assert page.paginator is BoundedPaginator and page.show_full_result_count is False
    assert page.show_facets is ShowFacets.NEVER


def search(term: str) -> list[str]:
    found, distinct_needed = Many(Role, admin.site).get_search_results(
        None, others(), term
    )
    assert distinct_needed is False
    return sorted(role.name for role in found)


def test_a_search_returns_the_newest_matches_of_each_lookup() -> None:
    assert search(" role 3 ") == ["role 3"]
    assert search("about") == ["role 5", "role 6"]
    Role.objects.create(name="about")
    assert search("about") == ["about", "role 5", "role 6"]
    assert search("nothing") == [] and len(search(" ")) == 8


def test_newer_rows_outside_the_filter_take_no_place() -> None:
    """The limit counts matches among the rows that the filters leave."""
    found, _repeats = Many(Role, admin.site).get_search_results(None, rows(2), "about")
    assert {row.name for row in found} == {"role 0", "role 1"}


def test_an_export_takes_every_match() -> None:
    page = Many(Role, admin.site)
    assert page.search_all(others(), " about ").count() == 7
    assert page.search_all(others(), "role 3").count() == 1
    assert page.search_all(others(), "x").count() == 0
    assert page.search_all(others(), " ").count() == 7


def test_sqlite_does_not_use_the_index() -> None:
    sql = str(Role.objects.alias(x=WithoutIndex("name")).filter(x="y").query)
    plain = '"accounts_role"."name"'
    assert (f"+{plain}" in sql) is (connection.vendor == "sqlite") and plain in sql


@pytest.mark.parametrize(
    ("choice", "names"),
    [(None, 7), ([], 7), ("role 1", 1), (["role 1"], 1), (["role 1", "role 2"], 1)],
)
def test_the_last_choice_filters(choice: Any, names: int) -> None:
    one: Any = UnsortedChoices.__new__(UnsortedChoices)
    one.lookup_val, one.field_path = choice, "name"
    found = one.queryset(None, others())
    assert found.count() == names
    if isinstance(choice, list) and len(choice) == 2:
        assert [role.name for role in found] == ["role 2"]


def test_distinct_values_are_sorted_and_bounded() -> None:
    Role.objects.filter(name__in=NAMES[:3]).update(description="same")
    about = Role.objects.get(name="Admin").description
    assert distinct(Role, "description") == sorted(
        {about, "same", *(f"about {name}" for name in NAMES[3:])}
    )
    for number in range(200):
        Role.objects.create(name=f"x{number}")
    assert len(distinct(Role, "name")) == 200


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "Nobody has been invited yet."),
        ("q=nobody", "Nothing matches."),
        ("state=expired", "Nothing matches."),
    ],
)
def test_an_empty_list_says_why(
    query: str, text: str, settings: Any, carol: User
) -> None:
    settings.STORAGES = UNCOLLECTED
    page = browser_of(carol).get(f"/admin/accounts/invitation/?{query}")
    (note,) = re.findall(r'<p class="empty-note">(.*?)</p>', page.content.decode())
    assert note.startswith(text)
    assert ('<a href="?">Show all</a>' in note) == bool(query)
