"""Tools, resources and prompts in the admin: staff narrow access, superusers widen."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import Client, RequestFactory
from django.utils import timezone

from accounts.models import AuditEvent, Scope, User
from mcp_bridge.admin.primitives import PrimitiveAdmin
from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
LIST = "/admin/mcp_bridge/primitive/"
CODENAMES = ("view_primitive", "change_primitive", "delete_primitive", "add_primitive")


@pytest.fixture(autouse=True)
def static_files(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    Primitive.objects.all().delete()


def staff(name: str = "rita", *codenames: str) -> User:
    user = account(name, is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=codenames or CODENAMES)
    )
    return user


def superuser() -> User:
    return account("carol", is_staff=True, is_superuser=True)


def tool(name: str, *scopes: str, **columns: Any) -> Primitive:
    row = Primitive.objects.create(kind="tool", name=name, **columns)
    row.required_scopes.set(
        [Scope.objects.get_or_create(name=scope)[0] for scope in scopes]
    )
    return row


def act(user: User, action: str, *rows: Primitive) -> Any:
    keys = [row.pk for row in rows]
    data = {"action": action, "_selected_action": keys}
    return browser_of(user).post(LIST, data, follow=True)


def events() -> list[tuple[str, str, str, Any]]:
    rows = AuditEvent.objects.filter(action__startswith="primitive.").order_by("pk")
    return list(rows.values_list("action", "actor", "object", "changes"))


def enabled() -> dict[str, bool]:
    return dict(Primitive.objects.values_list("name", "enabled"))


# ----------------------------------------------------------------------- actions


def test_a_superuser_enables_what_code_still_offers() -> None:
    off, gone = tool("off", enabled=False), tool("gone", enabled=False)
    other, on = tool("other", enabled=False), tool("on")
    Primitive.objects.filter(pk=gone.pk).update(vanished_at=timezone.now())
    page = act(superuser(), "enable", off, gone, on)
    assert "1 item changed." in page.content.decode()
    assert enabled() == {"off": True, "gone": False, "other": False, "on": True}
    assert events() == [
        ("primitive.changed", "carol", "tool off", {"enabled": [False, True]})
    ]
    assert other.pk


def test_staff_enable_nothing() -> None:
    off = tool("off", enabled=False)
    act(staff(), "enable", off)
    assert enabled() == {"off": False} and events() == []
    assert (
        'value="enable"'
        not in browser_of(User.objects.get(username="rita")).get(LIST).content.decode()
    )


def test_staff_disable_the_selected_items() -> None:
    rows = [tool("one"), tool("two"), tool("off", enabled=False)]
    tool("other")
    page = act(staff(), "disable", *rows)
    assert "2 items changed." in page.content.decode()
    assert enabled() == {"one": False, "two": False, "off": False, "other": True}
    assert events() == [
        ("primitive.changed", "rita", "tool one", {"enabled": [True, False]}),
        ("primitive.changed", "rita", "tool two", {"enabled": [True, False]}),
    ]


def test_staff_accept_changed_definitions() -> None:
    when = timezone.now()
    rows = [tool("changed", changed_at=when, state="changed"), tool("same")]
    other = tool("other", changed_at=when, state="changed")
    act(staff(), "accept", *rows)
    waiting = Primitive.objects.exclude(changed_at=None)
    assert list(waiting) == [other]
    assert [e[:3] for e in events()] == [("primitive.accepted", "rita", "tool changed")]


def test_a_refusal_to_accept_is_an_error() -> None:
    server = UpstreamServer.objects.create(name="shop", url="https://a.example/")
    row = tool("sell", changed_at=timezone.now(), state="changed", upstream=server)
    page = act(staff(), "accept", row).content.decode()
    (text,) = re.findall(r'<li class="error">([^<]*)</li>', page)
    assert "superuser" in text and events() == []


@pytest.mark.parametrize("action", ["disable", "accept", "enable"])
def test_who_only_views_changes_nothing(action: str) -> None:
    row = tool("one", changed_at=timezone.now(), state="changed")
    act(staff("viewer", "view_primitive"), action, row)
    row.refresh_from_db()
    assert row.enabled and row.changed_at is not None and events() == []


def test_each_action_has_its_permission() -> None:
    page: Any = admin.site.get_model_admin(Primitive)
    found = {name: getattr(page, name).allowed_permissions for name in page.actions}
    assert found == {"enable": ["widen"], "disable": ["change"], "accept": ["change"]}


# -------------------------------------------------------------------------- form


def save(user: User, row: Primitive, **changed: Any) -> Any:
    data = {
        "enabled": "on" if row.enabled else "",
        "sensitive": "on" if row.sensitive else "",
        "required_scopes": [scope.pk for scope in row.required_scopes.all()],
        "argument_rules-TOTAL_FORMS": "0",
        "argument_rules-INITIAL_FORMS": "0",
    } | changed
    return browser_of(user).post(f"{LIST}{row.pk}/change/", data)


def scope_ids(*names: str) -> list[int]:
    return list(Scope.objects.filter(name__in=names).values_list("pk", flat=True))


WIDER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"enabled": False}, {"enabled": "on"}),
    ({"sensitive": True}, {"sensitive": ""}),
    ({}, {"required_scopes": ("A", "B", "C")}),
    ({}, {"required_scopes": ("C",)}),
]
NARROWER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"enabled": ""}),
    ({}, {"sensitive": "on"}),
    ({}, {"required_scopes": ("A",)}),
    ({}, {"required_scopes": ()}),
]


def with_ids(changed: dict[str, Any]) -> dict[str, Any]:
    if "required_scopes" not in changed:
        return changed
    return {"required_scopes": scope_ids(*changed["required_scopes"])}


def columns_of(row: Primitive) -> Any:
    row.refresh_from_db()
    scopes = sorted(scope.name for scope in row.required_scopes.all())
    return row.enabled, row.sensitive, scopes


@pytest.mark.parametrize(("columns", "changed"), WIDER)
def test_only_superusers_widen_access(
    columns: dict[str, Any], changed: dict[str, Any]
) -> None:
    row = tool("one", "A", "B", **columns)
    Scope.objects.get_or_create(name="C")
    before = columns_of(row)
    page = save(staff(), row, **with_ids(changed))
    assert page.status_code == 200
    assert "Only superusers can give more people access" in page.content.decode()
    assert columns_of(row) == before and events() == []
    assert save(superuser(), row, **with_ids(changed)).status_code == 302
    assert columns_of(row) != before
    assert [(e[0], e[1]) for e in events()] == [("primitive.changed", "carol")]


@pytest.mark.parametrize(("columns", "changed"), NARROWER)
def test_staff_narrow_access(columns: dict[str, Any], changed: dict[str, Any]) -> None:
    row = tool("one", "A", "B", **columns)
    before = columns_of(row)
    assert save(staff(), row, **with_ids(changed)).status_code == 302
    assert columns_of(row) != before
    (event,) = events()
    assert event[:3] == ("primitive.changed", "rita", "tool one")
    assert set(event[3]) == set(changed)


@pytest.mark.parametrize("value", ["names", "masked", "full"])
def test_who_may_change_a_tool_sets_what_is_recorded_of_arguments(value: str) -> None:
    row = tool("one", "A")
    assert save(staff(), row, recorded_arguments=value).status_code == 302
    row.refresh_from_db()
    assert row.recorded_arguments == value
    changes = {"recorded_arguments": ["off", value]}
    assert events() == [("primitive.changed", "rita", "tool one", changes)]
    assert save(staff("vic", "view_primitive"), row).status_code == 403
    carol = superuser()
    assert save(carol, row, sensitive="on").status_code == 302
    row.refresh_from_db()
    assert row.recorded_arguments == value, "a form without the field keeps it"
    assert events()[1][3] == {"sensitive": [False, True]}
    assert save(carol, row, recorded_arguments="all").status_code == 200


def test_a_resource_has_no_arguments_to_record() -> None:
    row = Primitive.objects.create(kind="resource", name="a://b")
    carol = superuser()
    page = browser_of(carol).get(f"{LIST}{row.pk}/change/").content.decode()
    assert "recorded_arguments" not in page
    save(carol, row, recorded_arguments="full")
    row.refresh_from_db()
    assert row.recorded_arguments == "off"


def test_what_code_says_cannot_be_edited() -> None:
    row = tool("one", title="Title", description="Text")
    save(superuser(), row, name="x", title="x", description="x", kind="prompt")
    row.refresh_from_db()
    assert (row.name, row.title, row.description, row.kind) == (
        "one",
        "Title",
        "Text",
        "tool",
    )


# ------------------------------------------------------------------- permissions


@pytest.mark.parametrize("user", [staff, superuser])
def test_nobody_adds_a_primitive(user: Any) -> None:
    assert browser_of(user()).get(f"{LIST}add/").status_code == 403


def test_only_superusers_delete_and_only_what_code_no_longer_offers() -> None:
    here, gone = tool("here"), tool("gone", vanished_at=timezone.now())

    def delete(browser: Client, row: Primitive) -> int:
        answer = browser.post(f"{LIST}{row.pk}/delete/", {"post": "yes"})
        return answer.status_code

    rita, carol = browser_of(staff()), browser_of(superuser())
    assert [delete(rita, row) for row in (here, gone)] == [403, 403]
    assert [delete(carol, row) for row in (here, gone)] == [403, 302]
    assert list(Primitive.objects.all()) == [here]
    assert [event[:3] for event in events()] == [
        ("primitive.deleted", "carol", "tool gone")
    ]


# -------------------------------------------------------------------------- list


def shop(**columns: Any) -> UpstreamServer:
    return UpstreamServer.objects.create(
        name="shop", url="https://a.example/mcp", **columns
    )


def test_the_list_says_why_a_row_needs_review() -> None:
    """Each state has a link to the review; a row that cannot be called says why."""
    page: Any = admin.site.get_model_admin(Primitive)
    off = shop(enabled=False)
    rows: dict[str, dict[str, Any]] = {
        "fine": {},
        "off": {"enabled": False},
        "held": {"state": "held", "upstream": off},
        "changed": {"state": "changed"},
        "refused": {"state": "changed", "calls_refused": True},
        "gone": {"state": "gone"},
        "elsewhere": {"upstream": off},
    }
    found = {name: str(page.review(tool(name, **rows[name]))) for name in rows}
    links = {name: f"?primitive={tool_id(name)}" in found[name] for name in found}
    assert [name for name in found if links[name]] == [
        "held",
        "changed",
        "refused",
        "gone",
    ]
    assert found["fine"] == "" and "disabled for everyone" in found["off"]
    assert "calls are refused" in found["refused"]
    assert "calls are refused" not in found["changed"]
    assert "its upstream server is disabled" in found["elsewhere"]
    assert [page.scopes(tool("a", "X", "Y")), page.scopes(tool("b"))] == ["X, Y", "-"]


def tool_id(name: str) -> int:
    return Primitive.objects.get(name=name).pk


def test_the_list_is_filtered_by_server_and_by_state() -> None:
    server = shop()
    tool("own")
    tool("sell", upstream=server)
    tool("buy", upstream=server, state="held")
    browser = browser_of(superuser())

    def names(**query: Any) -> set[str]:
        return {row.name for row in browser.get(LIST, query).context["cl"].result_list}

    assert names(upstream__id__exact=server.pk) == {"sell", "buy"}
    assert names(state__exact="held") == {"buy"}
    assert names(upstream__isnull="True") == {"own"}


def test_pages_link_to_calls_and_denied_calls() -> None:
    """Without a prefix, the names of a server's tools say whose they are."""
    bare, browser = shop(prefix=""), browser_of(superuser())
    row = tool("sell", upstream=bare)
    tool("buy", upstream=bare)
    page = browser.get(f"{LIST}{row.pk}/change/").content.decode()
    events = "/admin/accounts/auditevent/"
    assert f"{events}?object=tool+sell&amp;decision__exact=denied" in page
    assert "/admin/access/check/?primitive=" in page
    server_page = f"/admin/mcp_bridge/upstreamserver/{bare.pk}/change/"
    page = browser.get(server_page).content.decode()
    query = "object__in=tool+buy%2Ctool+sell"
    assert f"{events}?{query}" in page
    for name in ("sell", "buy", "other"):
        AuditEvent(action="tool.called", object=f"tool {name}").save()
    found = browser.get(f"{events}?{query}").context["cl"].result_list
    assert {event.object for event in found} == {"tool sell", "tool buy"}


def test_descriptions_are_shown_as_text() -> None:
    tool("<b>bold</b>", description="<script>")
    user = superuser()
    listed = browser_of(user).get(LIST).content.decode()
    assert "&lt;b&gt;bold" in listed and "<b>bold" not in listed
    row = Primitive.objects.get()
    page = browser_of(user).get(f"{LIST}{row.pk}/change/").content.decode()
    assert "&lt;script&gt;" in page


def test_scopes_of_the_list_are_read_in_one_query(
    django_assert_max_num_queries: Any,
) -> None:
    for number in range(5):
        tool(f"tool-{number}", "A", "B")
    page: Any = admin.site.get_model_admin(Primitive)
    assert isinstance(page, PrimitiveAdmin)
    request = RequestFactory().get(LIST)
    with django_assert_max_num_queries(2):
        assert {page.scopes(row) for row in page.get_queryset(request)} == {"A, B"}


@pytest.mark.parametrize("policy", ["full", "off", "no-such-policy"])
def test_tools_are_listed_by_what_is_recorded_of_their_arguments(policy: str) -> None:
    tool("every", recorded_arguments="full")
    tool("nothing", recorded_arguments="off")
    answer = browser_of(staff()).get(LIST, {"records": policy})
    listed = {row.name for row in answer.context["cl"].result_list}
    expected = {"full": {"every"}, "off": {"nothing"}}
    assert listed == expected.get(policy, {"every", "nothing"})


@pytest.mark.parametrize(
    ("kind", "limited"), [("tool", True), ("prompt", True), ("resource", False)]
)
def test_only_what_has_arguments_can_be_limited_by_them(
    kind: str, limited: bool
) -> None:
    row = Primitive.objects.create(kind=kind, name="x")
    page = browser_of(superuser()).get(f"{LIST}{row.pk}/change/").content.decode()
    assert ("argument_rules-TOTAL_FORMS" in page) is limited
