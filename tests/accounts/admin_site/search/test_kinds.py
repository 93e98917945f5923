"""Kinds of results: permissions, limits, order; the pages of the navigation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import RequestFactory

from accounts.admin_site.search import kinds
from accounts.admin_site.search.bounded_lookups import (
    beginning_with,
    containing,
    each_once,
)
from accounts.admin_site.search.kinds import (
    PER_KIND,
    FoundKind,
    Result,
    RowKind,
    SearchKind,
    detail_line,
)
from accounts.admin_site.search.pages import Pages
from accounts.models import Role, User

pytestmark = pytest.mark.django_db


def request_by(user: User) -> Any:
    request: Any = RequestFactory().get("/admin/search/")
    request.user = user
    return request


def staff(*codenames: str) -> User:
    judy: User = User.objects.create(username="judy", is_staff=True)
    judy.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return judy


class Roles(RowKind):
    model, label, rank = Role, "Roles", 2
    asked = 0

    def rows(self, word: str) -> Iterable[Role]:
        self.asked += 1
        return Role.objects.filter(name__startswith=word)


def test_a_kind_has_a_limit(carol: User) -> None:
    Role.objects.bulk_create(Role(name=f"x{n}") for n in range(PER_KIND + 1))
    assert len(Roles().results(request_by(carol), "x")) == PER_KIND


def test_rows_of_a_list_that_the_user_may_not_view_are_not_queried() -> None:
    kind = Roles()
    assert kind.results(request_by(staff("view_user")), "User") == []
    assert kind.asked == 0
    User.objects.all().delete()
    assert kind.results(request_by(staff("view_role")), "User")[0].title == "User"


def test_a_row_that_the_user_may_not_view_is_left_out(
    carol: User, monkeypatch: Any
) -> None:
    page = admin.site._registry[Role]

    def only_admin(request: Any, row: Any = None) -> bool:
        return row is None or row.name == "Admin"

    monkeypatch.setattr(page, "has_view_permission", only_admin)
    assert Roles().results(request_by(carol), "User") == []
    assert len(Roles().results(request_by(carol), "Admin")) == 1


def test_a_model_without_a_list_has_no_results(carol: User, monkeypatch: Any) -> None:
    monkeypatch.setattr(Roles, "model", Permission)
    assert Roles().results(request_by(carol), "User") == []


class Other(SearchKind):
    label, rank = "Other", 1

    def results(self, request: Any, word: str) -> list[Result]:
        return [Result(f"about {word}", "/")] if word != "none" else []


def test_kinds_are_ordered_and_empty_ones_left_out(
    carol: User, monkeypatch: Any
) -> None:
    monkeypatch.setattr(kinds, "_kinds", [])
    assert kinds.search_kind(Roles) is Roles and kinds.search_kind(Other) is Other
    request = request_by(carol)
    assert [one.label for one in kinds.find(request, "Us")] == ["Other", "Roles"]
    assert [one.label for one in kinds.find(request, "nobody")] == ["Other"]
    assert kinds.find(request, "none") == []


def test_the_kind_with_exactly_this_name_is_first(
    carol: User, monkeypatch: Any
) -> None:
    monkeypatch.setattr(kinds, "_kinds", [Roles(), Other()])
    found = kinds.find(request_by(carol), "User")
    assert [one.label for one in found] == ["Roles", "Other"]
    assert FoundKind("x", [Result("Üser", "/")]).names("üsER")


def test_parts_of_a_detail_are_joined() -> None:
    assert detail_line("a", "", None, "b") == "a · b"


# Queries


def names(rows: Any) -> list[str]:
    return [row.name for row in rows]


def roles(*wanted: str) -> None:
    Role.objects.all().delete()
    for name in wanted:
        Role.objects.create(name=name, description=f"the {name.lower()} team")


def test_the_exact_name_is_first_then_its_beginnings() -> None:
    roles("Shop", "Webshop", "Shop keepers", "Workshop")
    found = names(containing(Role.objects.all(), "shop", "name"))
    assert found == ["Shop", "Shop keepers", "Webshop", "Workshop"]


def test_all_parts_are_contained_in_any_column() -> None:
    roles("Shop north", "Shop south", "Bank north")
    rows = Role.objects.all()
    assert names(containing(rows, "north shop", "name")) == ["Shop north"]
    assert names(containing(rows, "bank team", "name", "description")) == ["Bank north"]


@pytest.mark.parametrize("word", ["%", "_", "\\", "a%b", "'", '"', "%%"])
def test_wildcards_are_text(word: str) -> None:
    roles("Shop", f"has {word} inside", f"{word} first")
    found = names(containing(Role.objects.all(), word, "name"))
    assert found == [f"{word} first", f"has {word} inside"]
    assert names(beginning_with(Role.objects.all(), word, "name")) == [f"{word} first"]


def test_a_beginning_has_the_usual_spellings() -> None:
    roles("dana", "Dana K", "DANA L", "dAna")
    found = names(beginning_with(Role.objects.all(), "dana", "name"))
    assert sorted(found) == ["DANA L", "Dana K", "dana"]


def test_only_the_newest_rows_are_scanned(monkeypatch: Any) -> None:
    from accounts.admin_site.search import bounded_lookups

    assert bounded_lookups.SCANNED == 50_000
    monkeypatch.setattr(bounded_lookups, "SCANNED", 2)
    roles("shop 1", "shop 2", "shop 3")
    found = names(containing(Role.objects.all(), "shop", "name"))
    assert found == ["shop 2", "shop 3"]
    roles()
    assert names(containing(Role.objects.all(), "shop", "name")) == []


def test_rows_of_two_queries_appear_once() -> None:
    roles("a", "b")
    rows = Role.objects.order_by("name")
    assert names(each_once(rows[:1], rows)) == ["a", "b"]


def test_later_queries_are_sent_only_when_needed(
    django_assert_num_queries: Any,
) -> None:
    roles("a", "b")
    rows = Role.objects.order_by("name")
    with django_assert_num_queries(1):
        next(each_once(rows.all(), rows.all()))


# Pages


def page_titles(user: User, word: str) -> list[str]:
    return [page.title for page in Pages().results(request_by(user), word)]


def test_pages_are_found_by_name_and_group(carol: User) -> None:
    assert page_titles(carol, "audit")[:2] == ["Audit events", "Audit seals"]
    assert page_titles(carol, "matrix access") == ["Access matrix"]
    assert "Signing keys" in page_titles(carol, "settings")
    assert page_titles(carol, "TOKENS")[0] == "Tokens"
    assert page_titles(carol, "%") == []


def test_pages_that_the_user_may_not_open_are_not_found() -> None:
    judy = staff("view_auditevent")
    assert page_titles(judy, "a") == ["Audit events"]
    assert page_titles(judy, "users") == []


def test_a_page_leads_to_its_url(carol: User) -> None:
    (page,) = Pages().results(request_by(carol), "policy file")
    assert (page.url, page.detail) == ("/admin/policy/", "Access")
