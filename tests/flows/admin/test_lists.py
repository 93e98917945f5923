"""The token list and the audit: filters, confirmation, exports."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.admin_site import large_changelists
from accounts.audit.record import record
from accounts.models import AuditEvent, AuditSeal, IssuedToken, SavedView, User
from tests.support.database_prompt import raw_events
from tests.support.html_browser import Browser
from tests.support.mcp_client import mcp_client
from tests.support.server import Portico
from tests.support.users import make_user, public_client

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("default_users")]
TOKENS, AUDIT = "/admin/accounts/issuedtoken/", "/admin/accounts/auditevent/"


@pytest.fixture
def carol(server: Portico, default_users: None) -> Iterator[Browser]:
    """carol, signed in to the admin."""
    with server.in_process() as browser:
        yield browser.sign_in("carol")


@pytest.fixture
def audrey(server: Portico, default_users: None) -> Iterator[Browser]:
    audrey = make_user("audrey")
    audrey.is_staff = True
    audrey.save()
    audrey.groups.set(Group.objects.filter(name="Auditors"))
    SavedView.objects.all().delete()
    with server.in_process() as browser:
        yield browser.sign_in("audrey")


@contextmanager
def served(browser: Browser, server: Portico) -> Iterator[Browser]:
    """The same session over HTTP: what streams is not answered in this process."""
    with Browser(server.url) as other:
        other.http.cookies = browser.http.cookies
        yield other


@pytest.fixture
def exporter(audrey: Browser, server: Portico) -> Iterator[Browser]:
    with served(audrey, server) as browser:
        yield browser


def test_revoking_all_matches_states_counts_and_effect(
    carol: Browser, server: Portico
) -> None:
    """The page states the tokens and people; nothing is revoked before confirmation."""
    for name in ("theo", "tina"):
        make_user(name, "User")
    clients = [
        mcp_client(server, name, client_id=public_client("the-very-client"))
        for name in ("theo", "theo", "tina")
    ]
    found = IssuedToken.objects.filter(client_id="the-very-client").live()
    one, count = found.first(), found.count()
    assert one is not None
    path = f"{TOKENS}?client_id=the-very-client&state=active"
    carol.act(path, "revoke", one.pk, everything=True, confirm=False)
    summary = f"{count} active tokens for 2 people (1 client)"
    assert summary in carol.page.text and all(c.allowed("look") for c in clients)
    carol.act(path, "revoke", one.pk, everything=True)
    assert f"{count} tokens revoked" in carol.page.text
    assert [c.call("look").status_code for c in clients] == [401] * 3
    carol.act(TOKENS, "revoke", one.pk, confirm=False)
    assert "so none is revoked" in carol.page.text


def test_tokens_are_found_by_their_filters(carol: Browser, server: Portico) -> None:
    """By person, client, grant, kind, state, expiry, unused, never used."""
    make_user("uma", "User")
    fresh = server.issued("uma", client_id=public_client("uma-client"))
    old = server.issued("uma", client_id=public_client("uma-client"))
    long_ago = timezone.now() - timedelta(days=50)
    IssuedToken.objects.filter(pk=old.row.pk).update(
        issued_at=long_ago, last_used_at=long_ago
    )

    def shown(query: str) -> set[str]:
        page = carol.open(f"{TOKENS}?username=uma&kind__exact=access&{query}").page
        assert page.status_code == 200, query
        rows = {"fresh": fresh.row, "old": old.row}
        return {name for name, row in rows.items() if row.jti[:8] in page.text}

    both = {"fresh", "old"}
    assert shown("") == both and shown("client_id=uma-client") == both
    assert shown("client_id=another") == set()
    assert shown("use=30") == {"old"} and shown("use=90") == set()
    assert shown("use=never") == {"fresh"} and shown("use=odd") == both
    assert shown("expiry=hour") == both and shown("expiry=later") == set()
    assert shown("expiry=day") == both and shown("expiry=odd") == both
    assert shown(f"q={old.row.jti[:8]}") == {"old"} and shown("q=uma") == both
    assert shown("q=%25") == set() and shown("q=UMA") == set()
    today = f"{timezone.now():%Y-%m-%d}"
    assert shown(f"issued_at__gte={today}") == {"fresh"}
    assert shown(f"issued_at__lte={today}") == both
    unreadable = carol.open(f"{TOKENS}?issued_at__gte=soon").page.text
    assert "“soon” is not a date or time." in unreadable


def test_a_sign_in_is_shown_as_a_tree_of_tokens(
    carol: Browser, server: Portico
) -> None:
    """Refresh families are a tree; the page can revoke one."""
    from accounts.tokens.refresh import rotate_refresh_token

    make_user("vera", "User")
    pair = server.issued("vera")
    assert pair.refresh is not None
    with server.settings():
        second = rotate_refresh_token(pair.refresh)
    client = mcp_client(server, "vera")
    path = f"{TOKENS}{second.row.pk}/change/"
    page = carol.open(path).page
    for row in (pair.row, pair.refresh_row, second.row, second.refresh_row):
        assert row is not None and row.jti[:8] in page.text
    form = next(f for f in carol.forms if "action" in [b[0] for b in f.buttons])
    carol.submit(form, action="revoke_families")
    assert "active tokens for 1 person" in carol.page.text
    carol.submit(carol.form("confirmed"))
    assert IssuedToken.objects.filter(family=pair.row.family).live().count() == 0
    assert client.allowed("look")
    personal = server.issued("vera", refresh=False)
    assert (
        "no refresh token" in carol.open(f"{TOKENS}{personal.row.pk}/change/").page.text
    )


@pytest.mark.once
def test_long_lists_count_only_what_they_show(carol: Browser, monkeypatch: Any) -> None:
    """A list never runs COUNT(*) on the whole table."""
    rows = IssuedToken.objects.all()
    paginator = large_changelists.BoundedPaginator(rows, 10)
    monkeypatch.setattr(large_changelists, "COUNT_LIMIT", 1)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert (paginator.count, paginator.more) == (1, 1)
        assert len(paginator.page(1).object_list) <= 1
    assert len(queries) == 2 and "LIMIT 2" in queries[0]["sql"]


def test_events_are_found_by_their_filters(carol: Browser) -> None:
    """Covers search, filters and the links of the dashboard."""
    record("test.looked", actor="wanda", object="a very odd thing", client_id="odd-one")
    record("test.looked", actor="wanda", object="another", denied="because")

    both = {"odd thing", "another"}

    def shown(query: str) -> set[str]:
        page = carol.open(f"{AUDIT}?action=test.looked&{query}").page
        assert page.status_code == 200, query
        return {
            word for word in ("odd thing", "another") if f"{word}</td>" in page.text
        }

    both = {"odd thing", "another"}
    assert shown("") == both and shown("actor=wanda") == both
    assert shown("q=wanda") == both and shown("q=a+very") == {"odd thing"}
    assert shown("client_id=odd-one") == {"odd thing"} == shown("q=odd-one")
    assert shown("object=another") == {"another"} == shown("reason=because")
    assert shown("decision__exact=denied") == {"another"}
    tomorrow = f"{timezone.now() + timedelta(days=1):%Y-%m-%d}"
    assert shown(f"at__lt={tomorrow}") == both and shown(f"at__gte={tomorrow}") == set()
    assert (
        "is not a date or time" in carol.open(f"{AUDIT}?at__gte=2026-99-99").page.text
    )


@pytest.mark.once
def test_a_change_is_shown_with_old_and_new_value(carol: Browser) -> None:
    """The detail page has old and new value in a table."""
    changes = {"enabled": [True, False], "scopes": [["a", "b"], []], "note": "x"}
    event = record("test.changed", actor="carol", token_id="f" * 32, changes=changes)
    page = carol.open(f"{AUDIT}{event.pk}/change/").page
    cells = '<th scope="row">enabled</th><td>True</td><td>False</td>'
    assert cells in page.text and "<td>a, b</td><td>-</td>" in page.text
    assert f"?q={'f' * 32}" in page.text
    plain = record("test.changed", actor="carol")
    assert (
        '<th scope="row">enabled'
        not in carol.open(f"{AUDIT}{plain.pk}/change/").page.text
    )


@pytest.mark.once
def test_views_are_saved_for_one_user_or_shared(
    carol: Browser, audrey: Browser
) -> None:
    """A saved view belongs to one staff member or is shared."""
    for browser, name in ((audrey, "Mine"), (carol, "Ours")):
        browser.open(f"{AUDIT}?decision__exact=denied&p=1")
        browser.submit(browser.form("name"), name=name, shared="on")
        assert f"View saved as {name}." in browser.page.text
        assert "decision__exact=denied" in str(browser.page.url)
    mine, ours = (SavedView.objects.get(name=n) for n in ("Mine", "Ours"))
    assert (mine.shared, ours.shared) == (False, True), "sharing takes a permission"
    assert mine.query == "decision__exact=denied"
    text = audrey.open(AUDIT).page.text
    assert "Mine" in text and "Ours (shared)" in text
    assert "Mine" not in carol.open(AUDIT).page.text
    audrey.submit(audrey.form("name"), name="")
    audrey.submit(audrey.form("name"), name="Mine")
    assert SavedView.objects.filter(owner__username="audrey").count() == 1
    audrey.open(AUDIT)
    audrey.submit(audrey.form("name"), drop=str(ours.pk))
    assert SavedView.objects.filter(pk=ours.pk).exists()
    audrey.open(AUDIT)
    audrey.submit(audrey.form("name"), drop=str(mine.pk))
    assert not SavedView.objects.filter(pk=mine.pk).exists()


@pytest.mark.once
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_audit_export_is_audited(exporter: Browser, form: str) -> None:
    """Streams the rows of the filter, checks permission, and audits the export."""
    AuditEvent.objects.bulk_create(
        AuditEvent(action=f"test.mass_{form}", actor="=cmd", object=f"n{number}")
        for number in range(1200)
    )
    query = f"?action=test.mass_{form}"
    page = exporter.open(f"{AUDIT}export/{form}/{query}").page
    assert (
        page.status_code == 200 and "attachment" in page.headers["content-disposition"]
    )
    if form == "csv":
        found = [row["object"] for row in csv.DictReader(io.StringIO(page.text))]
        assert "'=cmd" in page.text
    else:
        found = [json.loads(line)["object"] for line in page.text.splitlines()]
    assert sorted(found) == sorted(f"n{number}" for number in range(1200))
    narrow = exporter.open(f"{AUDIT}export/{form}/{query}&q=n1199").page.text
    assert "n1199" in narrow and "n1198" not in narrow
    event = AuditEvent.objects.filter(action="audit.exported").first()
    assert event is not None and event.actor == "audrey"
    assert "q=n1199" in event.changes["filter"][1]
    assert exporter.open(f"{AUDIT}export/xml/").page.status_code == 404
    assert exporter.open(f"{AUDIT}export/csv/?at__gte=x").page.status_code == 400


def test_the_button_verifies_and_names_a_mismatch(audrey: Browser) -> None:
    event = record("test.sealed", object="as it was")
    for _again in range(50):
        if not AuditSeal.objects.all().seal(most=20):
            break
    page = audrey.open("/admin/accounts/auditseal/").page
    assert page.status_code == 200
    form = next(f for f in audrey.forms if f.action.endswith("/verify/"))
    assert "audit matches" in audrey.submit(form).page.text
    rows = raw_events(pk=event.pk)
    rows.update(object="as somebody wants it")
    text = audrey.submit(form).page.text
    assert f"event {event.pk} of seal" in text and "was changed" in text
    rows.update(object="as it was")
    assert "audit matches" in audrey.submit(form).page.text
    newest = AuditSeal.objects.filter(pk=AuditSeal.objects.latest("number").pk)
    seal = newest.get()
    newest.update(purged_at=timezone.now())
    assert "says it was purged" in audrey.submit(form).page.text
    newest.update(purged_at=None)
    newest.delete()
    text = audrey.submit(form).page.text
    assert f"seal {seal.number}" in text and "audit matches" not in text
    seal.save(force_insert=True)
    assert "audit matches" in audrey.submit(form).page.text
    some = AuditSeal.objects.first()
    assert some is not None
    assert (
        audrey.open(f"/admin/accounts/auditseal/{some.pk}/change/").page.status_code
        == 200
    )


@pytest.mark.once
def test_the_audit_needs_its_permission(server: Portico) -> None:
    rosa = make_user("rosa", "User")
    rosa.is_staff = True
    rosa.save()
    rosa.groups.set(Group.objects.filter(name="Role managers"))
    with server.in_process() as browser:
        browser.sign_in("rosa")
        token = browser.http.cookies.get("csrftoken") or ""
        headers = {"referer": f"{server.url}/admin/", "x-csrftoken": token}
        for path in ("", "export/csv/"):
            assert browser.open(f"{AUDIT}{path}").page.status_code == 403
        for path in ("views/", "verify/"):
            answer = browser.http.post(f"{AUDIT}{path}", headers=headers)
            assert answer.status_code == 403
    assert User.objects.filter(username="rosa").exists()


@pytest.mark.once
def test_a_users_page_shows_sessions_and_tokens(
    carol: Browser, server: Portico
) -> None:
    """The page shows sessions and tokens with counts and links."""
    xaver = make_user("xaver", "Guest")
    IssuedToken.objects.filter(username="xaver").revoke(actor="test", reason="reset")
    mcp_client(server, "xaver").call("rule")
    page = carol.open(f"/admin/accounts/user/{xaver.pk}/change/").page.text
    assert "<strong>2</strong> active tokens" in page
    assert "username=xaver&amp;state=active" in page
    assert "</strong> denied" in page and "last sign-in" in page
    for path in ("auditevent/?actor=xaver&decision__exact=denied",):
        assert carol.open(f"/admin/accounts/{path}").page.status_code == 200
