"""The list of tokens: filters, families and the four ways to revoke."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from accounts.admin.tokens import issued_tokens as module
from accounts.admin.tokens.issued_tokens import (
    ConditionFilter,
    ExpiryFilter,
    StateFilter,
    UseFilter,
    generations,
)
from accounts.models import IssuedToken, OAuthClient, OAuthGrant, User
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    events_by,
    is_live,
    list_url,
    row_url,
    signed_in,
    staff_member,
)
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
PAGE: Any = admin.site.get_model_admin(IssuedToken)
NOW = timezone.now()
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def frozen(monkeypatch: Any) -> datetime:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    return NOW


@pytest.fixture
def henry() -> AdminBrowser:
    """The helpdesk: may revoke tokens."""
    needed = ("view_issuedtoken", "change_issuedtoken")
    return AdminBrowser(staff_member("henry", *needed))


def pending_code(user: User, client: OAuthClient) -> OAuthGrant:
    row: OAuthGrant = OAuthGrant.objects.create(
        user=user, application=client, code=uuid4().hex, expires=NOW + DAY
    )
    return row


def client_named(client_id: str) -> OAuthClient:
    row: OAuthClient = OAuthClient.objects.create(
        client_id=client_id, client_type="public"
    )
    return row


@pytest.fixture
def tokens() -> dict[str, IssuedToken]:
    """alice has two of one family, one of her client, bob one of each client."""
    alice, bob, family = account("alice"), account("bob"), uuid4()
    return {
        "hers": add_token(alice, family=family),
        "pair": add_token(alice, family=family, kind="refresh"),
        "app": add_token(alice, client_id="app"),
        "his": add_token(bob),
        "his-app": add_token(bob, client_id="app"),
    }


@pytest.mark.parametrize(
    ("action", "revoked"),
    [
        ("revoke", "hers"),
        ("revoke_families", "hers pair"),
        ("revoke_clients", "hers his pair"),
        ("revoke_users", "app hers pair"),
    ],
)
def test_each_action_revokes_its_tokens_and_no_others(
    root: AdminBrowser, tokens: dict[str, IssuedToken], action: str, revoked: str
) -> None:
    names, count = revoked.split(), len(revoked.split())
    page = root.run(IssuedToken, action, tokens["hers"], confirmed="no")
    assert f"This revokes {count} active token" in page
    assert all(is_live(row) for row in tokens.values())
    noun = "token" if count == 1 else "tokens"
    page = root.run(IssuedToken, action, tokens["hers"])
    assert f"{count} {noun} revoked." in page
    assert sorted(n for n, row in tokens.items() if not is_live(row)) == names
    events = [e for e in events_by(root.user) if e[0] == "token.revoked"]
    assert len(events) == count
    assert {event[2] for event in events} == {"revoked in the admin"}


def test_revoking_a_client_deletes_its_pending_codes(
    root: AdminBrowser, tokens: dict[str, IssuedToken]
) -> None:
    alice = User.objects.get(username="alice")
    app, other = client_named("app"), client_named("other")
    pending_code(alice, app)
    kept = pending_code(alice, other)
    root.run(IssuedToken, "revoke", tokens["app"])
    assert OAuthGrant.objects.count() == 2
    root.run(IssuedToken, "revoke_clients", tokens["his-app"])
    assert list(OAuthGrant.objects.all()) == [kept]
    assert ("code.revoked", "authorization code of alice", "revoked in the admin") in (
        events_by(root.user)
    )


def test_revoking_a_user_signs_out_but_not_the_actor(root: AdminBrowser) -> None:
    alice = account("alice")
    browser = browser_of(alice)
    own, hers = add_token(root.user), add_token(alice)
    page = root.run(IssuedToken, "revoke_users", own, hers)
    assert "2 tokens revoked." in page
    assert not signed_in(browser)
    assert root.still_signed_in()


@pytest.mark.parametrize("action", list(PAGE.actions))
def test_tokens_of_users_above_stay(henry: AdminBrowser, action: str) -> None:
    """The others of the selection are revoked, and the rest is counted."""
    carol = account("carol", is_staff=True, is_superuser=True)
    app, family = client_named("app"), uuid4()
    above = [add_token(carol, client_id="app", family=family) for _ in range(2)]
    below = add_token(account("alice", "User"), client_id="app", family=family)
    pending_code(carol, app)
    page = henry.run(IssuedToken, action, *above, below)
    assert "2 tokens belong to users with more permissions than you" in page
    assert "1 token revoked." in page
    assert all(is_live(row) for row in above) and not is_live(below)
    page = henry.run(IssuedToken, action, above[0], confirmed="no")
    assert "so none is revoked" in page
    assert {event[1] for event in events_by(henry.user)} <= {
        "access token of alice",
        "authorization code of carol",
    }


ENDS = {
    "past": -SECOND,
    "now": timedelta(0),
    "minute": SECOND,
    "hour": HOUR,
    "hours": HOUR + SECOND,
    "day": DAY,
    "days": DAY + SECOND,
    "week": 7 * DAY,
    "weeks": 7 * DAY + SECOND,
}


def filtered(kind: type[ConditionFilter], choice: str) -> list[str]:
    """The names of the tokens that a choice shows."""
    name = str(kind.parameter_name)
    narrow = kind(HttpRequest(), {name: [choice]} if choice else {}, IssuedToken, PAGE)
    rows = narrow.queryset(None, IssuedToken.objects.with_revoked())
    return sorted(rows.values_list("name", flat=True))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("hour", "hour minute"),
        ("day", "day hour hours minute"),
        ("week", "day days hour hours minute week"),
        ("later", "weeks"),
        ("odd", " ".join(sorted(ENDS))),
        ("", " ".join(sorted(ENDS))),
    ],
)
def test_tokens_are_filtered_by_their_expiry(
    frozen: datetime, choice: str, expected: str
) -> None:
    alice = account("alice")
    for name, end in ENDS.items():
        add_token(alice, name=name, expires_at=frozen + end)
    assert filtered(ExpiryFilter, choice) == expected.split()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("active", "live"),
        ("expired", "ended old"),
        ("revoked", "revoked revoked-old"),
        ("", "ended live old revoked revoked-old"),
        ("odd", "ended live old revoked revoked-old"),
    ],
)
def test_tokens_are_filtered_by_their_state(
    frozen: datetime, choice: str, expected: str
) -> None:
    """A revoked token stays revoked after it expires."""
    alice = account("alice")
    for name, end in {
        "live": frozen + SECOND,
        "ended": frozen,
        "old": frozen - DAY,
        "revoked": frozen + DAY,
        "revoked-old": frozen + DAY,
    }.items():
        row = add_token(alice, name=name, expires_at=end)
        if name.startswith("revoked"):
            IssuedToken.objects.filter(pk=row.pk).revoke(actor="x", reason="y")
    IssuedToken.objects.filter(name="revoked-old").update(expires_at=frozen - DAY)
    assert filtered(StateFilter, choice) == expected.split()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("never", "never-30 never-90 never-new"),
        ("30", "idle-30 idle-90 never-30 never-90"),
        ("90", "idle-90 never-90"),
        ("31", "at-30 idle-30 idle-90 never-30 never-90 never-new used"),
        ("", "at-30 idle-30 idle-90 never-30 never-90 never-new used"),
    ],
)
def test_tokens_are_filtered_by_their_use(
    frozen: datetime, choice: str, expected: str
) -> None:
    """Issued before the period and not used in it."""
    alice = account("alice")
    old = frozen - 90 * DAY - SECOND
    for name, issued, used in (
        ("never-new", frozen - 30 * DAY, None),
        ("never-30", frozen - 30 * DAY - SECOND, None),
        ("never-90", old, None),
        ("used", old, frozen),
        ("at-30", old, frozen - 30 * DAY),
        ("idle-30", old, frozen - 30 * DAY - SECOND),
        ("idle-90", old, old),
    ):
        add_token(alice, name=name, issued_at=issued, last_used_at=used)
    assert filtered(UseFilter, choice) == expected.split()


def test_the_base_of_the_filters_has_no_condition() -> None:
    class Bare(ConditionFilter):
        title, parameter_name = "x", "x"
        choice_labels = (("a", "A"),)

    with pytest.raises(NotImplementedError):
        Bare(HttpRequest(), {}, IssuedToken, PAGE).condition("a", NOW)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("q=alice", "hers"),
        ("q=app", "his"),
        ("username=alice", "hers"),
        ("client_id=app", "his"),
        ("client_id=ap", ""),
        ("q=ali", ""),
        ("kind__exact=refresh", "his"),
        ("issued_via__exact=password", "hers his"),
        ("issued_via__exact=device", ""),
    ],
)
def test_tokens_are_searched(root: AdminBrowser, query: str, expected: str) -> None:
    hers = add_token(account("alice"), jti="a" * 32)
    his = add_token(account("bob"), client_id="app", kind="refresh", jti="b" * 32)
    text = root.open(f"{list_url(IssuedToken)}?{query}").page.text
    shown = {"hers": f"{hers.pk}/change" in text, "his": f"{his.pk}/change" in text}
    assert [name for name, there in shown.items() if there] == expected.split()
    assert f"{hers.pk}/change" in root.open(f"{list_url(IssuedToken)}?q=aaaa").page.text


def test_tokens_are_listed_with_the_newest_first(root: AdminBrowser) -> None:
    alice = account("alice")
    rows = [add_token(alice, issued_at=NOW - n * HOUR) for n in (2, 1, 3)]
    same = add_token(alice, issued_at=NOW - HOUR)
    listed = list(PAGE.get_queryset(None))
    assert listed == [same, rows[1], rows[0], rows[2]]
    assert root.open(list_url(IssuedToken)).page.status_code == 200


def test_the_list_shows_kind_and_state(frozen: datetime) -> None:
    row = add_token(account("alice"), jti="0123456789" * 3 + "ab", kind="refresh")
    assert PAGE.token(row) == "refresh 01234567"
    assert 'class="badge good">active' in PAGE.state_shown(row)
    row.expires_at = frozen
    assert 'class="badge ">expired' in PAGE.state_shown(row)
    IssuedToken.objects.filter(pk=row.pk).revoke(actor="x", reason="y")
    assert 'class="badge bad">revoked' in PAGE.state_shown(row)


def test_the_page_of_a_token_offers_to_revoke_it() -> None:
    row = add_token(account("alice"))
    viewer = AdminBrowser(staff_member("vera", "view_issuedtoken"))
    helper = AdminBrowser(
        staff_member("henry", "view_issuedtoken", "change_issuedtoken")
    )
    path = row_url(IssuedToken, row)
    for browser, may in ((viewer, False), (helper, True)):
        assert browser.open(path).page.status_code == 200
        assert ('value="revoke_users"' in browser.page.text) == may
    forms = [f for f in helper.open(path).forms if "_selected_action" in f.fields]
    assert {form.action for form in forms} == {list_url(IssuedToken)}
    missing = f"{list_url(IssuedToken)}999999/change/"
    assert helper.open(missing).page.status_code == 200


def test_a_family_is_grouped_by_its_refresh_tokens() -> None:
    """An access token belongs to the pair it was issued with, give or take a second."""
    alice, family = account("alice"), uuid4()

    def add(kind: str, seconds: float) -> IssuedToken:
        issued = NOW + timedelta(seconds=seconds)
        return add_token(alice, family=family, kind=kind, issued_at=issued)

    first, second = add("refresh", 0), add("refresh", 60)
    a0, a1, a2, a3 = (add("access", n) for n in (-1, 0.5, 58.9, 59))
    early = add("access", -5)
    add_token(alice)
    assert generations(family) == [(first, [early, a0, a1, a2]), (second, [a3])]


def test_a_family_without_refresh_tokens_is_one_group() -> None:
    alice, family = account("alice"), uuid4()
    rows = [add_token(alice, family=family) for _ in range(2)]
    IssuedToken.objects.filter(pk=rows[0].pk).revoke(actor="x", reason="y")
    ((refresh, found),) = generations(family)
    assert refresh is None and found == rows
    assert [row.state for row in found] == ["revoked", "active"]
    assert generations(uuid4()) == [(None, [])]


def test_only_so_many_rows_of_a_family_are_read(monkeypatch: Any) -> None:
    alice, family = account("alice"), uuid4()
    monkeypatch.setattr(module, "MAX_FAMILY_ROWS", 2)
    for _ in range(3):
        add_token(alice, family=family)
    assert len(generations(family)[0][1]) == 2


def buttons_of(browser: AdminBrowser, row: IssuedToken) -> list[str]:
    page = browser.open(row_url(IssuedToken, row)).page.text
    return re.findall(r'name="action" value="(\w+)"', page)


def test_only_a_token_that_works_has_a_button_to_revoke_it(
    henry: AdminBrowser,
) -> None:
    row, rest = add_token(account("alice")), ["revoke_families", "revoke_users"]
    assert buttons_of(henry, row) == ["revoke", *rest]
    reader = AdminBrowser(staff_member("reader", "view_issuedtoken"))
    assert buttons_of(reader, row) == []
    IssuedToken.objects.filter(pk=row.pk).revoke(actor="x", reason="y")
    assert buttons_of(henry, row) == rest
    old = add_token(account("bob"), expires_at=NOW - HOUR)
    assert buttons_of(henry, old) == rest
