"""The audit in the admin: columns, filters, search, export, verification."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.http import HttpRequest, QueryDict
from django.test import RequestFactory
from django.utils import timezone

from accounts.admin.audit import events as module
from accounts.admin.audit import seals, window
from accounts.admin.audit.events import (
    ActionFilter,
    seal_ranges,
)
from accounts.admin_site.large_changelists import COUNT_LIMIT
from accounts.models import AuditEvent, AuditSeal, OAuthClient, User
from accounts.models.audit.digests import EventUnreadable
from accounts.models.audit.events import before_and_after_text, value_text
from tests.support.admin_browser import (
    AdminBrowser,
    events_by,
    list_url,
    row_url,
    staff_member,
)

pytestmark = pytest.mark.django_db
PAGE: Any = admin.site.get_model_admin(AuditEvent)
LIST = "/admin/accounts/auditevent/"
EXPORT, VERIFY, VIEWS = f"{LIST}export/csv/", f"{LIST}verify/", f"{LIST}views/"
NOW = timezone.now()


@pytest.fixture
def same_thread(monkeypatch: Any) -> None:
    """The stream of an export sees the rows of this test's transaction."""
    monkeypatch.setattr(
        "accounts.admin.audit.export.stream_from_thread", lambda make: make()
    )


def event(action: str = "tool.called", **columns: Any) -> AuditEvent:
    row: AuditEvent = AuditEvent.objects.create(action=action, **columns)
    return row


def listed(query: str) -> list[str]:
    """The objects of the events that the list shows."""
    request: Any = RequestFactory().get(f"{LIST}?{query}")
    request.user = User(username="root", is_superuser=True, is_staff=True)
    found = PAGE.get_changelist_instance(request)
    return [row.object for row in found.result_list]


def test_a_time_is_shown_in_seconds_and_kept_in_full() -> None:
    local = timezone.localtime(NOW)
    shown = PAGE.moment(AuditEvent(at=NOW))
    assert f">{local:%Y-%m-%d %H:%M:%S}<" in shown
    assert f'datetime="{local.isoformat()}"' in shown


@pytest.mark.parametrize(
    ("decision", "shown"),
    [
        ("allowed", '<span class="badge good">allowed</span>'),
        ("denied", '<span class="badge bad">denied</span>'),
        ("", "-"),
    ],
)
def test_a_decision_has_its_colour(decision: str, shown: str) -> None:
    assert PAGE.verdict(AuditEvent(decision=decision)) == shown


def test_a_token_is_linked_to_its_list() -> None:
    link = '<a href="/admin/accounts/issuedtoken/?q=abc">abc</a>'
    assert PAGE.token(AuditEvent(token_id="abc")) == link
    assert PAGE.token(AuditEvent()) == "-"
    assert "<b>" not in PAGE.token(AuditEvent(token_id="<b>"))


def test_changes_are_a_table_of_escaped_text() -> None:
    changes = {"name": ["<i>old</i>", "new"], "scopes": [[], ["a", "b"]]}
    table = PAGE.before_and_after(AuditEvent(changes=changes))
    assert "<td>&lt;i&gt;old&lt;/i&gt;</td><td>new</td>" in table
    assert "<td>-</td><td>a, b</td>" in table and "<i>" not in table
    assert [word in table for word in ("Field", "Before", "After")] == [True] * 3
    assert PAGE.before_and_after(AuditEvent()) == "-"


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (["a", "b"], ("a", "b")),
        ([None, ""], ("-", "-")),
        ([0, False], ("0", "False")),
        ([["x", "y"], []], ("x, y", "-")),
        (3, ("", "3")),
        (["a", "b", "c"], ("", "a, b, c")),
        (None, ("", "-")),
    ],
)
def test_values_are_shown_as_text(value: Any, texts: tuple[str, str]) -> None:
    assert before_and_after_text(value) == texts
    assert value_text(value) is not None


def test_a_reason_links_to_the_access_check(root: AdminBrowser) -> None:
    """Users who may open it see the link; an event without a reason shows "-"."""
    denied = event("tool.denied", decision="denied", token_id="t", reason="<b>no</b>")
    event("test.plain", object="plain")
    request: Any = RequestFactory().get(LIST)
    request.user = root.user
    reason = PAGE.get_list_display(request)[-2]
    shown = reason(denied)
    assert "&lt;b&gt;no&lt;/b&gt;" in shown and f"?event={denied.pk}" in shown
    assert reason(AuditEvent(action="test.plain")).startswith("-")
    columns = [
        c if isinstance(c, str) else "reason" for c in PAGE.get_list_display(request)
    ]
    assert columns == list(PAGE.list_display)
    assert root.open(LIST).page.status_code == 200
    request.user = staff_member("vera", "view_auditevent")
    assert "?event=" not in PAGE.get_list_display(request)[-2](denied)


@pytest.fixture
def rows() -> None:
    OAuthClient.objects.create(client_id="app", name="My Editor", client_type="public")
    OAuthClient.objects.create(client_id="b", name="Editor", client_type="public")
    one = {"token_id": "t1", "object": "tool one", "outcome": "error"}
    event("a.one", actor="ana", client_id="app", **one)
    two = {"request_id": "r2", "object": "tool two", "reason": "odd"}
    event("a.two", actor="ben", subject="role:7", **two)
    no = {"decision": "denied", "reason": "odd", "object": "denied"}
    event("a.two", actor="ana", address="192.0.2.8", **no)
    old = {"at": NOW - timedelta(days=3), "object": "old"}
    event("a.old", actor="old", **old)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("actor=ana", "denied, tool one"),
        ("actor=an", ""),
        ("client_id=app", "tool one"),
        ("object=tool one", "tool one"),
        ("reason=odd", "denied"),
        ("action=a.two", "denied, tool two"),
        ("action=", "denied, tool two, tool one, old"),
        ("decision__exact=denied", "denied"),
        ("outcome=error", "tool one"),
        ("outcome=nonsense", "denied, tool two, tool one, old"),
        ("client_id=My Editor", "tool one"),
        ("client_id=my editor", "tool one"),
        ("client_id=Editor", ""),
        ("subject=role:7", "tool two"),
        ("request_id=r2", "tool two"),
        ("token_id=t1", "tool one"),
        (f"at__lt={(NOW - timedelta(days=1)):%Y-%m-%d}", "old"),
        (f"at__gte={(NOW - timedelta(days=1)):%Y-%m-%d}", "denied, tool two, tool one"),
        ("q=ben", "tool two"),
        ("q=a.one", "tool one"),
        ("q=app", "tool one"),
        ("q=t1", "tool one"),
        ("q=r2", "tool two"),
        ("q=tool", "tool two, tool one"),
        ("q=one", "tool one"),
        ("q=tw", "tool two"),
        ("q=ne", ""),
        ("q=Editor", "tool one"),
        ("q=edit", "tool one"),
        ("q=192.0.2.8", "denied"),
        ("q=192.0.2", ""),
        ("q=::ffff:192.0.2.8", "denied"),
        ("q=", "denied, tool two, tool one, old"),
    ],
)
def test_events_are_filtered_and_searched(
    rows: None, query: str, expected: str
) -> None:
    assert ", ".join(listed(query)) == expected


@pytest.mark.parametrize(
    ("show", "expected"),
    [
        ("calls", "called, refused"),
        ("denied", "other, refused"),
        ("failed", "called"),
        ("sign-ins", "in"),
        ("changes", "changed"),
        ("odd", "called, changed, in, issued, listed, other, refused"),
    ],
)
def test_each_preset_shows_its_events(show: str, expected: str) -> None:
    event("tool.called", object="called", decision="allowed", outcome="timed_out")
    event("tool.denied", object="refused", decision="denied")
    event("message.allowed", object="listed", decision="allowed", outcome="ok")
    event("request.refused", object="other", decision="denied")
    event("user.signed_in", object="in", subject="user:7")
    event("token.issued", object="issued", subject="user:7")
    event("role.changed", object="changed", subject="role:7")
    mine = {"called", "changed", "in", "issued", "listed", "other", "refused"}
    assert ", ".join(sorted(mine & set(listed(f"show={show}")))) == expected
    assert window.lacks_index(QueryDict(f"show={show}"))


def test_who_follows_gets_new_rows_of_the_same_list(root: AdminBrowser) -> None:
    old = event(object="tool old", actor="ana")
    new = event(object="tool new", actor="ana", address="192.0.2.9")
    event(object="tool bens", actor="ben")
    path = f"{LIST}follow/?actor=ana"
    text = root.open(f"{path}&after={old.pk}").page.text
    assert "tool new" in text and f"auditevent/{new.pk}/" in text
    assert "tool old" not in text and "tool bens" not in text
    assert "tool old" in root.open(f"{path}&after=0").page.text
    assert "tool new" in root.open(f"{LIST}follow/?q=192.0.2.9&after=x").page.text
    assert "tool" not in root.open(f"{path}&after={new.pk}").page.text
    assert root.open(f"{LIST}follow/?at__gte=zzz").page.status_code in (200, 400)


@pytest.mark.parametrize(
    ("query", "offered"),
    [("", True), ("actor=ana", True), ("p=2", False), ("at__lt=2026-01-01", False)],
)
def test_only_the_newest_events_can_be_followed(
    root: AdminBrowser, query: str, offered: bool
) -> None:
    text = root.open(f"{LIST}?{query}").page.text
    assert ('id="follow"' in text) is offered
    assert not offered or f'data-url="{LIST}follow/"' in text


def test_the_filter_offers_the_actions_that_occur(rows: None) -> None:
    narrow = ActionFilter(HttpRequest(), {}, AuditEvent, PAGE)
    assert narrow.lookups(None, PAGE) == [
        ("a.old", "a.old"),
        ("a.one", "a.one"),
        ("a.two", "a.two"),
    ]


def test_opening_the_list_seals_one_range(root: AdminBrowser, monkeypatch: Any) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "seal_ranges", asked.append)
    root.open(LIST)
    assert asked == [1]


def test_an_unreadable_event_is_logged_and_the_list_opens(
    root: AdminBrowser, monkeypatch: Any, caplog: Any
) -> None:
    def broken(self: Any, most: int) -> None:
        raise EventUnreadable(7)

    monkeypatch.setattr(type(AuditSeal.objects.all()), "seal", broken)
    seal_ranges(1)
    assert "events from there on cannot be sealed" in caplog.text
    assert root.open(LIST).page.status_code == 200


@pytest.mark.parametrize("path", [EXPORT, VERIFY, VIEWS, f"{LIST}follow/"])
def test_the_pages_of_the_audit_need_its_permission(path: str) -> None:
    nobody = AdminBrowser(staff_member("nobody"))
    before = AuditEvent.objects.count() + 1
    post = path in (VERIFY, VIEWS)
    page = nobody.post(path) if post else nobody.open(path).page
    assert page.status_code == 403
    assert "You do not have permission to view the audit." in page.text
    assert AuditEvent.objects.count() <= before
    assert events_by(nobody.user) == []


@pytest.mark.parametrize("path", [VERIFY, VIEWS])
def test_the_buttons_of_the_audit_post(root: AdminBrowser, path: str) -> None:
    assert root.open(path).page.status_code == 405


@pytest.mark.usefixtures("same_thread", "rows")
def test_an_export_has_every_match_and_is_recorded(
    root: AdminBrowser, monkeypatch: Any
) -> None:
    """Neither the window nor the limit of searches applies."""
    monkeypatch.setattr(window, "WINDOW_SIZE", 1)
    monkeypatch.setattr("accounts.admin_site.large_changelists.SEARCH_LIMIT", 1)
    text = root.open(f"{EXPORT}?actor=ana&action=a.one").page.text
    assert "tool one" in text and "tool two" not in text
    text = root.open(f"{EXPORT}?q=tool").page.text
    assert "tool one" in text and "tool two" in text and "denied" not in text
    found = AuditEvent.objects.filter(action="audit.exported").order_by("id")
    assert [(e.actor, e.object, e.changes) for e in found] == [
        ("root", "csv", {"filter": ["", "actor=ana&action=a.one"]}),
        ("root", "csv", {"filter": ["", "q=tool"]}),
    ]


@pytest.mark.usefixtures("same_thread", "rows")
def test_a_wrong_filter_is_400_and_not_recorded(root: AdminBrowser) -> None:
    page = root.open(f"{EXPORT}?at__gte=zzz").page
    assert page.status_code == 400 and events_by(root.user) == []
    answer = root.http.client.get(f"{EXPORT}?at__gte=<b>")  # type: ignore[attr-defined]
    assert answer["Content-Type"] == "text/plain"


def test_the_seals_are_verified_and_recorded(
    root: AdminBrowser, monkeypatch: Any
) -> None:
    for number in range(3):
        event(object=f"e{number}")
    page = root.post(VERIFY)
    assert page.status_code == 200 and "The audit matches its seals" in page.text
    assert AuditSeal.objects.exists()
    head = AuditSeal.objects.all().head()
    assert head is not None and head.digest in page.text
    assert events_by(root.user) == [("audit.verified", "", "")]
    assert "Only the newest" not in page.text
    sealed = sum(seal.events for seal in AuditSeal.objects.all())
    assert f"Events covered: {sealed}." in page.text


def test_only_the_newest_seals_are_verified(
    root: AdminBrowser, monkeypatch: Any
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "VERIFIED_AT_ONCE", 1)
    monkeypatch.setattr(module, "seal_ranges", asked.append)
    for number in range(2):
        event(object=f"e{number}")
        AuditSeal.objects.all().seal(most=1)
    count = AuditSeal.objects.count()
    page = root.post(VERIFY)
    assert count == 2 and asked == [1]
    assert "1 seal matches." in page.text
    assert f"Only the newest 1 of {count} seals was checked." in page.text
    assert seals.VERIFIED_AT_ONCE == 100


def test_a_problem_is_named_and_recorded(root: AdminBrowser) -> None:
    event(object="original")
    AuditSeal.objects.all().seal(most=5)
    AuditSeal.objects.update(content="0" * 64)
    page = root.post(VERIFY)
    assert "The audit does not match its seals" in page.text
    ((action, problem, _reason),) = events_by(root.user)
    assert action == "audit.verified" and problem


def test_without_seals_there_is_nothing_to_verify(
    root: AdminBrowser, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "seal_ranges", lambda most: None)
    page = root.post(VERIFY)
    assert "0 seals match. Events covered: 0." in page.text
    assert "Newest digest" not in page.text


def test_the_list_of_seals_counts_what_is_not_sealed(root: AdminBrowser) -> None:
    event()
    AuditSeal.objects.all().seal(most=5)
    seal = AuditSeal.objects.get()
    event()
    assert root.open(list_url(AuditSeal)).page.status_code == 200
    request: Any = RequestFactory().get("/")
    request.user = root.user
    page: Any = admin.site.get_model_admin(AuditSeal)
    context = page.changelist_view(request).context_data
    count, since = AuditSeal.objects.all().unsealed(10)
    assert (context["unsealed"], context["unsealed_since"]) == (count, since)
    assert count == 1 and context["counted"] == COUNT_LIMIT
    assert page.short(seal) == seal.digest[:16]
    assert root.open(row_url(AuditSeal, seal)).page.status_code == 200
    assert seal.digest in root.page.text


def test_an_event_is_shown_with_every_field(root: AdminBrowser) -> None:
    row = event(actor="ana", address="192.0.2.7", via="rule 9", request_id="r9")
    text = root.open(row_url(AuditEvent, row)).page.text
    assert all(word in text for word in ("ana", "192.0.2.7", "rule 9", "r9"))
    assert root.post(row_url(AuditEvent, row), actor="x").status_code == 403
    assert root.delete(AuditEvent, row).status_code == 403


SENT = json.dumps({"policy": "full", "arguments": {"id": 7, "to": "<b>ana</b>"}})


def test_recorded_arguments_need_their_permission(same_thread: None) -> None:
    """On the page of the event, and in exports."""
    row = event(arguments=SENT)
    reader = staff_member("vera", "view_auditevent", "view_arguments")
    text = AdminBrowser(reader).open(row_url(AuditEvent, row)).page.text
    assert "&lt;b&gt;ana&lt;/b&gt;" in text and "as they were sent" in text
    other = AdminBrowser(staff_member("olga", "view_auditevent"))
    text = other.open(row_url(AuditEvent, row)).page.text
    assert "ana" not in text and "ecorded arguments" not in text
    for form in ("csv", "jsonl"):
        path = f"{LIST}export/{form}/"
        assert "ana" in AdminBrowser(reader).open(path).page.text
        assert "ana" not in other.open(path).page.text
        recorded = AuditEvent.objects.filter(action="audit.exported", object=form)
        vias = recorded.order_by("pk").values_list("via", flat=True)
        assert list(vias) == ["accounts.view_arguments", ""]


@pytest.mark.parametrize("query", ["q=ana", "q=%3Cb%3Eana", "arguments=x"])
def test_nobody_searches_or_filters_by_recorded_arguments(query: str) -> None:
    event(object="tool mail", arguments=SENT)
    reader = staff_member("vera", "view_auditevent", "view_arguments")
    page = AdminBrowser(reader).open(f"{LIST}?{query}").page
    assert page.status_code != 200 or "tool mail" not in page.text


@pytest.mark.parametrize(
    ("recorded", "rows"),
    [
        ({"a": 1, "b": None, "c": "x"}, [("a", "1"), ("b", "null"), ("c", "x")]),
        ({"a": {"b": ["\u00e9"]}}, [("a", '{"b": ["\u00e9"]}')]),
        (["a", 5], [("a", ""), ("5", "")]),
        ("string of 3 characters", [("", "string of 3 characters")]),
        (None, [("", "null")]),
    ],
)
def test_recorded_arguments_are_rows(recorded: Any, rows: Any) -> None:
    assert module.argument_rows(recorded) == rows


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", "[" * 100_000])
def test_what_is_no_record_of_arguments_is_none(text: str) -> None:
    assert AuditEvent(arguments=text).recorded == {}
    assert PAGE.arguments_recorded(AuditEvent(arguments=text)) == "-"


def test_cut_arguments_say_so() -> None:
    text = PAGE.arguments_recorded(AuditEvent(arguments='{"policy":"x","cut":true}'))
    assert "they are cut" in text


def test_the_list_links_the_views_of_its_user(root: AdminBrowser) -> None:
    root.post(VIEWS, name="Denials", query="decision__exact=denied")
    text = root.open(LIST).page.text
    assert 'href="?decision__exact=denied"' in text and 'name="shared"' in text
    viewer = AdminBrowser(staff_member("vera", "view_auditevent"))
    text = viewer.open(LIST).page.text
    assert "Denials" not in text and 'name="shared"' not in text


@pytest.mark.parametrize("kind", ["tool", "resource", "resource_template", "prompt"])
def test_a_name_without_its_kind_is_found(kind: str) -> None:
    event(object=f"{kind} look"), event(object=f"{kind} other")
    assert listed("q=look") == [f"{kind} look"]


def test_a_search_compares_indexed_columns_only() -> None:
    """Millions of events stay searchable: no pattern and no column without index."""
    indexed = {name for i in AuditEvent._meta.indexes for name in i.fields}
    for lookup, _value in PAGE.search_conditions("x"):
        column, _sep, operator = lookup.partition("__")
        assert column in indexed and operator in ("", "prefix"), lookup
    assert "address" in dict(PAGE.search_conditions("192.0.2.1"))


@pytest.mark.parametrize(
    "query",
    [
        "q=192.0.2.1",
        "outcome=ok",
        "outcome=cancelled",
        "client_id=Twice",
        "actor=a&q=b",
    ],
)
def test_a_filter_without_index_has_a_window(query: str) -> None:
    for client_id in ("one", "two"):
        OAuthClient.objects.create(
            client_id=client_id, name="Twice", client_type="public"
        )
    assert window.lacks_index(QueryDict(query)) or query.count("=") > 1
    for other in ("q=alice", "outcome=error", "client_id=one", "client_id=gone", ""):
        assert not window.lacks_index(QueryDict(other)), other


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        ("ok", "succeeded"),
        ("error", '<span class="badge bad">failed</span>'),
        ("withheld", '<span class="badge warn">withheld</span>'),
        ("", "-"),
    ],
)
def test_an_outcome_is_shown(outcome: str, shown: str) -> None:
    assert PAGE.result(AuditEvent(outcome=outcome)) == shown


def test_the_values_of_an_event_link_to_their_events(root: AdminBrowser) -> None:
    OAuthClient.objects.create(client_id="c1", name="<Editor>", client_type="public")
    row = event(actor="ana", client_id="c1", address="192.0.2.7", request_id="r9")
    text = root.open(row_url(AuditEvent, row)).page.text
    for query in ("actor=ana", "client_id=c1", "q=192.0.2.7", "request_id=r9"):
        assert f'href="{LIST}?{query}"' in text
        assert row.object in listed(query) or row.object == ""
    assert "&lt;Editor&gt; (c1)" in text
    assert "&lt;Editor&gt;" in root.open(LIST).page.text
