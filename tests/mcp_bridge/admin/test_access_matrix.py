"""The access matrix: tick, review, save, and everything that stops it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.http import QueryDict

from accounts.models import AuditEvent, Role, RoleAssignment, Scope, User
from mcp_bridge.access.matrix.cells import Cell, CellState, Matrix
from mcp_bridge.admin import access_matrix
from mcp_bridge.admin.access_matrix import (
    MAX_CELLS,
    MAX_PAGE_ROWS,
    Filters,
    MatrixView,
    cell_html,
    cells,
    parse_view,
    requested_ticks,
)
from mcp_bridge.models import Primitive
from tests.support.page_tables import tables_on
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
MATRIX = "/admin/access/matrix/"


@pytest.fixture(autouse=True)
def catalogue(settings: Any) -> None:
    """Five tools with their own scopes, two roles without scopes."""
    settings.STORAGES = UNCOLLECTED
    Primitive.objects.all().delete()
    Role.objects.all().delete()
    for name in ("a", "b", "c", "d", "e"):
        row = Primitive.objects.create(kind="tool", name=name)
        row.required_scopes.add(Scope.objects.create(name=f"tool:{name}"))
    for name in ("First", "Second"):
        Role.objects.create(name=name)


@pytest.fixture
def carol() -> User:
    return account("carol", is_staff=True, is_superuser=True)


def staff(*codenames: str) -> User:
    user = account("rita", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def cell(role: str, tool: str) -> str:
    pair = Role.objects.get(name=role), Primitive.objects.get(name=tool)
    return f"{pair[0].pk}-{pair[1].pk}"


def matrix() -> Matrix:
    view = parse_view(QueryDict(""))
    return Matrix(view.primitives, view.roles)


def granted() -> dict[str, set[str]]:
    return {
        role.name: {scope.name for scope in role.scopes.all()}
        for role in Role.objects.all()
    }


NOTHING: dict[str, set[str]] = {"First": set(), "Second": set()}


def events() -> list[tuple[str, str, str, Any]]:
    rows = AuditEvent.objects.filter(action__startswith="role.scope").order_by("pk")
    return list(rows.values_list("action", "actor", "object", "changes"))


# ------------------------------------------------------------------------- views


def view_of(query: str) -> MatrixView:
    return parse_view(QueryDict(query))


def names(query: str) -> str:
    return "".join(row.name for row in view_of(query).primitives)


def test_the_filter_of_sensitive_tools_names_its_values() -> None:
    field: Any = Filters.base_fields["sensitive"]
    words = {value: str(text) for value, text in field.choices}
    assert words == {"": "all", "1": "yes", "0": "no"}


def test_filters_select_primitives_and_roles() -> None:
    Primitive.objects.filter(name="b").update(sensitive=True)
    Primitive.objects.filter(name="c").update(kind="prompt")
    second = Role.objects.get(name="Second")
    assert names("") == "cabde", "by kind, then by name"
    assert (names("q=B"), names("q=x")) == ("b", "")
    assert (names("kind=prompt"), names("kind=tool")) == ("c", "abde")
    assert (names("sensitive=1"), names("sensitive=0")) == ("b", "cade")
    assert names("q=b&kind=prompt") == ""
    assert view_of(f"role={second.pk}").roles == [second]
    assert len(view_of("").roles) == 2


@pytest.mark.parametrize("query", ["kind=x", "sensitive=2", "role=x", "q=" + "x" * 201])
def test_an_invalid_filter_selects_everything(query: str) -> None:
    assert names(query) == "abcde" and len(view_of(query).roles) == 2


@pytest.mark.parametrize(
    ("page", "number"),
    [
        ("", 1),
        ("2", 2),
        ("0", 1),
        ("-1", 1),
        ("x", 1),
        ("99999", 99999),
        ("100000", 1),
        ("²", 1),
    ],
)
def test_only_a_number_of_five_digits_is_a_page(page: str, number: int) -> None:
    assert view_of(f"p={page}").page == number


def test_pages_hold_fewer_rows_with_many_roles() -> None:
    """The form stays within Django's limit of fields."""
    found = {
        roles: MatrixView(Filters(), [], [Role()] * roles, 1).per_page
        for roles in (0, 1, 40, 41, 4000, 5000)
    }
    assert found == {0: 100, 1: 100, 40: 100, 41: 97, 4000: 1, 5000: 1}
    assert (MAX_PAGE_ROWS, MAX_CELLS) == (100, 4000)


def test_a_page_shows_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_matrix, "MAX_PAGE_ROWS", 2)
    shown = {n: "".join(p.name for p in view_of(f"p={n}").shown) for n in (1, 2, 3, 4)}
    assert shown == {1: "ab", 2: "cd", 3: "e", 4: ""}
    view = view_of("q=&kind=tool&p=2&x=y")
    assert view.pages == [(n, f"{MATRIX}?kind=tool&p={n}") for n in (1, 2, 3)]
    assert view_of("q=a").pages == []
    monkeypatch.setattr(access_matrix, "MAX_PAGE_ROWS", 5)
    assert view_of("").pages == []


def test_every_filter_stays_in_the_addresses_of_pages() -> None:
    first, second = Role.objects.order_by("pk")
    query = f"q=a&kind=tool&sensitive=0&role={first.pk}&role={second.pk}"
    assert view_of(query).url(3) == f"{MATRIX}?{query}&p=3"


# ------------------------------------------------------------------------- ticks


def ticks(post: str, page: int = 1, per_page: int = 2) -> set[str]:
    """Requested ticks as names, such as `First a`, with two rows a page."""
    found = matrix()
    view = MatrixView(Filters(), found.primitives, found.roles, page)
    data = QueryDict(post)
    view_ticked = set(data.getlist("on"))
    keys = requested_ticks(found, view, view_ticked, data)
    every = [(r, t) for r in ("First", "Second") for t in "abcde"]
    return {f"{role} {tool}" for role, tool in every if cell(role, tool) in keys}


def test_ticks_of_this_page_count_and_others_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_matrix, "MAX_PAGE_ROWS", 2)
    first = Role.objects.get(name="First")
    first.scopes.set(Scope.objects.filter(name__in=["tool:a", "tool:c"]))
    assert ticks("") == {"First c"}
    assert ticks(f"on={cell('Second', 'b')}") == {"First c", "Second b"}
    forged = f"on={cell('Second', 'e')}"
    assert ticks(forged) == {"First c"}, "not on this page"


def test_a_column_covers_all_pages_and_a_row_overrides_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_matrix, "MAX_PAGE_ROWS", 2)
    first = Role.objects.get(name="First")
    b = Primitive.objects.get(name="b")
    column = f"column-{first.pk}"
    assert ticks(f"{column}=on") == {f"First {tool}" for tool in "abcde"}
    assert ticks(f"{column}=on&row-{b.pk}=off") == {f"First {tool}" for tool in "acde"}
    assert ticks(f"row-{b.pk}=on") == {"First b", "Second b"}
    first.scopes.set(Scope.objects.filter(name__startswith="tool:"))
    assert ticks(f"{column}=off&on={cell('First', 'a')}") == set()
    assert ticks(f"{column}=x") == {"First c", "First d", "First e"}


# ------------------------------------------------------------------------- cells


def html(state: CellState, on: bool = True, may: bool = True, *shared: str) -> str:
    return cell_html(Cell(1, 2, state, shared), '"<name>', on, may)


def test_a_cell_is_a_checkbox_or_a_reason() -> None:
    box = html(CellState.OWN)
    assert 'name="on" value="1-2" aria-label="&quot;&lt;name&gt;" checked>' in box
    assert "disabled" not in box and "<small>" not in box
    assert " checked" not in html(CellState.NONE, on=False)
    assert " checked disabled>" in html(CellState.OWN, True, False)
    both = html(CellState.BOTH, True, True, "A", "<B>")
    assert "<small>also through A, &lt;B&gt;</small>" in both
    shared = html(CellState.SHARED, True, True, "A", "<B>")
    assert " checked>" in shared and "<small>through A, &lt;B&gt;</small>" in shared
    assert html(CellState.CLOSED) == (
        '<td class="closed">no: it does not require its own scope</td>'
    )


def test_unsaved_ticks_are_shown_where_a_tick_is_possible() -> None:
    first, second = Role.objects.order_by("name")
    shared = Scope.objects.create(name="Shared")
    second.scopes.add(shared)
    row = Primitive.objects.get(name="a")
    row.required_scopes.add(shared)
    found = Matrix([row], [first, second])

    def checked(ticked: set[str] | None) -> list[bool]:
        made = cells(found, row, [first, second], ticked, True, True)
        return [" checked" in text for text in made]

    assert checked(None) == [False, True]
    assert checked({cell("First", "a"), cell("Second", "a")}) == [True, True]
    assert checked({cell("First", "a")}) == [True, False]
    locked = [
        " disabled" in t for t in cells(found, row, [first, second], None, True, False)
    ]
    assert locked == [False, True], "shared access only for those who may change tools"
    first.scopes.add(Scope.objects.get(name="tool:a"))
    found = Matrix([row], [first, second])
    assert (checked(None), checked(set())) == ([True, True], [False, False])


# ------------------------------------------------------------- review and save


def post(user: User, query: str = "", **fields: Any) -> Any:
    return browser_of(user).post(f"{MATRIX}{query}", fields)


def test_a_review_changes_nothing(carol: User) -> None:
    Primitive.objects.filter(name="b").update(enabled=False)
    on = [cell("First", "a"), cell("Second", "b")]
    answer = post(carol, "?kind=tool&p=1", version=matrix().version, on=on)
    context: Any = answer.context
    assert answer.status_code == 200 and granted() == NOTHING and events() == []
    assert [(r.name, len(c)) for r, c in context["by_role"]] == [
        ("First", 1),
        ("Second", 1),
    ]
    assert context["count"] == 2
    assert context["codes"].split() == [f"+{key}" for key in on]
    assert context["back"] == f"{MATRIX}?kind=tool&p=1"
    page = answer.content.decode()
    assert "no one can use it yet: disabled for everyone" in page and "gains" in page


def test_a_saved_change_is_applied_and_recorded(carol: User) -> None:
    Role.objects.get(name="Second").scopes.add(Scope.objects.get(name="tool:b"))
    codes = f"+{cell('First', 'a')} -{cell('Second', 'b')}"
    answer = post(carol, "?q=&p=2", version=matrix().version, changes=codes)
    assert (answer.status_code, answer["Location"]) == (302, f"{MATRIX}?p=2")
    assert granted() == {"First": {"tool:a"}, "Second": set()}
    assert events() == [
        ("role.scope_given", "carol", "First", {"tool:a": [False, True]}),
        ("role.scope_taken", "carol", "Second", {"tool:b": [True, False]}),
    ]
    assert set(
        AuditEvent.objects.filter(via="access matrix").values_list("address")
    ) == {("127.0.0.1",)}
    page = answer.wsgi_request
    assert "2 changes saved. Changes apply immediately." in str(list(page._messages))


def test_shared_access_of_one_role_is_taken_away_in_place(carol: User) -> None:
    """The review says who gains or loses, and what other roles get instead."""
    shared = Scope.objects.create(name="Shared")
    Primitive.objects.get(name="a").required_scopes.add(shared)
    for name, people in (("First", 3), ("Second", 2)):
        role = Role.objects.get(name=name)
        role.scopes.add(shared)
        for number in range(people):
            RoleAssignment.objects.grant(account(f"{name}{number}"), role)
    on = [cell("Second", "a"), cell("First", "b")]
    answer = post(carol, version=matrix().version, on=on)
    page = " ".join(answer.content.decode().split())
    assert "3 users lose access" in page and "3 users gain access" in page
    assert "It no longer requires Shared." in page
    assert "These roles keep it and get tool:a: Second." in page
    codes = answer.context["codes"]
    assert post(carol, version=matrix().version, changes=codes).status_code == 302
    assert granted() == {"First": {"Shared", "tool:b"}, "Second": {"Shared", "tool:a"}}
    row = Primitive.objects.get(name="a")
    assert [scope.name for scope in row.required_scopes.all()] == ["tool:a"]
    event = AuditEvent.objects.get(action="primitive.changed")
    assert (event.object, event.via) == ("tool a", "access matrix")
    assert event.changes == {"required_scopes": [["Shared", "tool:a"], ["tool:a"]]}


def test_without_a_change_nothing_is_reviewed(carol: User) -> None:
    answer = post(carol, version=matrix().version)
    assert (answer.status_code, answer["Location"]) == (302, f"{MATRIX}?p=1")
    assert "Nothing was changed." in str(list(answer.wsgi_request._messages))


@pytest.mark.parametrize("step", ["review", "save"])
@pytest.mark.parametrize("version", ["", "0" * 32, None])
def test_a_stale_page_is_409_and_saves_nothing(
    carol: User, step: str, version: str | None
) -> None:
    """The version is of the page that was opened."""
    old = matrix().version if version is None else version
    if version is None:
        Role.objects.get(name="Second").scopes.add(Scope.objects.get(name="tool:b"))
    before = granted()
    on, code = [cell("First", "a")], f"+{cell('First', 'a')}"
    sent = {"on": on} if step == "review" else {"changes": code}
    answer = post(carol, version=old, **sent)
    assert answer.status_code == 409 and granted() == before and events() == []
    page = answer.content.decode()
    assert "Nothing was saved. Someone changed roles or tools" in page
    box = f'value="{on[0]}" aria-label="a, First"'
    assert (f"{box} checked" in page) is (step == "review"), "unsaved ticks are kept"


def test_the_rules_of_delegation_apply(carol: User) -> None:
    """All or nothing."""
    user = staff("view_role", "change_role", "view_primitive")
    third = Role.objects.create(name="Third")
    third.scopes.add(Scope.objects.get(name="tool:a"))
    account_role(user, third)
    codes = f"+{cell('First', 'a')} +{cell('First', 'b')}"
    answer = post(user, version=matrix().version, changes=codes)
    assert answer.status_code == 403
    assert "Nothing was saved. First, b: You do not have tool:b" in (
        answer.content.decode()
    )
    assert granted()["First"] == set() and events() == []
    code = f"+{cell('First', 'a')}"
    assert post(user, version=matrix().version, changes=code).status_code == 302
    assert granted()["First"] == {"tool:a"}


def account_role(user: User, role: Role) -> None:
    RoleAssignment.objects.grant(user, role)


def test_who_may_only_view_changes_nothing() -> None:
    user = staff("view_role", "view_primitive")
    page = browser_of(user).get(MATRIX)
    assert page.status_code == 200
    text = page.content.decode()
    assert "Review changes" not in text and 'name="column-' not in text
    assert text.count(" disabled>") == 10
    for sent in ({"on": cell("First", "a")}, {"changes": f"+{cell('First', 'a')}"}):
        version = matrix().version
        assert post(user, version=version, **sent).status_code == 403
    assert granted() == NOTHING


@pytest.mark.parametrize("missing", ["view_role", "view_primitive"])
def test_the_page_needs_each_permission(missing: str) -> None:
    codenames = {"view_role", "view_primitive", "change_role"} - {missing}
    user = staff(*codenames)
    assert browser_of(user).get(MATRIX).status_code == 403
    sent = {"version": matrix().version, "changes": f"+{cell('First', 'a')}"}
    assert post(user, **sent).status_code == 403 and granted() == NOTHING


def test_a_form_of_another_site_is_refused(carol: User) -> None:
    browser = browser_of(carol, enforce_csrf_checks=True)
    sent = {"version": matrix().version, "changes": f"+{cell('First', 'a')}"}
    assert browser.post(MATRIX, sent).status_code == 403 and granted() == NOTHING


def test_the_page_shows_the_rows_that_match(carol: User) -> None:
    context: Any = browser_of(carol).get(f"{MATRIX}?q=a").context
    assert context["total"] == 1 and [row[0].name for row in context["rows"]] == ["a"]
    assert (
        context["version"]
        == Matrix(Primitive.objects.filter(name="a"), Role.objects.all()).version
    )
    page = browser_of(carol).get(f"{MATRIX}?q=none").content.decode()
    assert "Nothing matches." in page


def test_all_forged_codes_are_ignored(carol: User) -> None:
    codes = "+1-x ++ -  x 0-0 +999999-999999"
    answer = post(carol, version=matrix().version, changes=codes)
    assert answer.status_code == 302 and granted() == NOTHING and events() == []


def test_each_row_says_what_it_is(carol: User) -> None:
    Primitive.objects.filter(name="a").update(sensitive=True)
    Primitive.objects.filter(name="b").update(state="held")
    Primitive.objects.filter(name="c").update(enabled=False)
    (table,) = tables_on(browser_of(carol).get(MATRIX).content.decode())
    assert not table.misfits
    assert table.heads[0] == [
        "Tool, resource or prompt",
        "Set row",
        "First",
        "Second",
    ]
    assert table.heads[1][0] == "Set column (5 rows)"
    heads = [line[0] for line in table.rows]
    assert heads[0] == "a tool sensitive" and "held" in heads[1]
    assert "disabled" in heads[2] and heads[3] == "d tool"


def test_the_review_names_gains_and_losses(carol: User) -> None:
    own = Scope.objects.get(name="tool:b")
    Role.objects.get(name="First").scopes.add(own)
    on = [cell("First", "a"), cell("Second", "b")]
    page = post(carol, version=matrix().version, on=on).content.decode()
    first, second = re.findall(
        r"<h2>(?:First|Second)</h2>\s*<ul[^>]*>(.*?)</ul>", page, re.DOTALL
    )
    gains = '<span class="badge good">gains</span> '
    loses = '<span class="badge bad">loses</span> '
    assert f"{gains}a <" in first and f"{loses}b <" in first
    assert f"{gains}b <" in second and "loses" not in second
    assert "3 changes. Nothing is saved yet." in page
