"""Personal tokens: made with fewer rights, shown once, revoked by their owner."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.utils import timezone

from accounts.authentication.pages import Page
from accounts.errors import InvalidScope
from accounts.models import AuditEvent, IssuedToken, Scope, User
from accounts.models.roles import ADMIN_API
from accounts.portal import personal_tokens
from accounts.tokens.issue import issue_personal_token, issue_tokens
from tests.support.model_rows import past
from tests.support.page_tables import words_on
from tests.support.users import browser_of

PAGE = "/portal/tokens/"
FORM: dict[str, Any] = {"name": "laptop", "days": "30", "scopes": ["mcp"]}


def make(user: User, name: str = "x", days: int = 1) -> IssuedToken:
    lifetime = timedelta(days=days)
    return issue_personal_token(user, name=name, scope="mcp", lifetime=lifetime)[0]


def rows_of(page: Any) -> list[IssuedToken]:
    """The tokens in the list; each has its scopes in words beside it."""
    return [row for row, _words in page.context["rows"]]


def test_a_token_is_shown_once_and_stored_as_asked(
    browser: Client, alice: User
) -> None:
    answer = browser.post(PAGE, {**FORM, "networks": "192.0.2.0/24"})
    raw = answer.context["raw"]
    assert answer.status_code == 200 and raw.startswith("portico_pat_")
    assert raw in answer.content.decode() and "no-store" in answer["Cache-Control"]
    row = IssuedToken.objects.get(user=alice)
    assert (row.kind, row.name, row.scope) == ("personal", "laptop", "mcp")
    assert (row.networks, row.issued_to) == ("192.0.2.0/24", "127.0.0.1")
    assert row.expires_at - row.issued_at == timedelta(days=30)
    page = browser.get(PAGE)
    assert raw not in page.content.decode() and "no-store" in page["Cache-Control"]
    assert answer.context["form"].data == {} and rows_of(answer) == [row]
    assert answer.context["rows"][0][1] == ["Use the tools that your roles allow."]
    assert AuditEvent.objects.get(action="token.issued").token_id == row.jti


def test_the_scopes_chosen_are_the_tokens_scopes(browser: Client, alice: User) -> None:
    browser.post(PAGE, {**FORM, "scopes": ["mcp", "User.Read"]})
    assert IssuedToken.objects.get(user=alice).scope == "mcp User.Read"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 101},
        {"name": "a\x00b"},
        {"days": ""},
        {"days": "0"},
        {"days": "366"},
        {"scopes": []},
        {"scopes": ["Admin.Write"]},
        {"networks": "nowhere"},
        {"networks": "192.0.2.1 " * 60},
    ],
    ids=str,
)
def test_a_form_out_of_bounds_makes_no_token(
    browser: Client, alice: User, wrong: dict[str, Any]
) -> None:
    answer = browser.post(PAGE, {**FORM, **wrong})
    assert answer.status_code == 400 and answer.context["raw"] == ""
    assert set(answer.context["form"].errors) == set(wrong)
    assert not IssuedToken.objects.filter(user=alice).exists()


@pytest.mark.parametrize(
    "good",
    [
        {"days": "1"},
        {"days": "365"},
        {"name": "x" * 100},
        {"networks": " ".join(["192.0.2.1"] * 50) + " "},
        {"networks": ""},
    ],
    ids=str,
)
def test_a_form_at_its_bounds_makes_a_token(
    browser: Client, good: dict[str, str]
) -> None:
    assert browser.post(PAGE, {**FORM, **good}).context["raw"]


def test_a_right_lost_after_the_form_was_checked_is_refused(
    browser: Client, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*args: Any, **kwargs: Any) -> Any:
        raise InvalidScope("Your roles do not give: mcp.")

    monkeypatch.setattr(personal_tokens, "issue_personal_token", lost)
    answer = browser.post(PAGE, FORM)
    assert answer.status_code == 400
    assert answer.context["form"].non_field_errors() == ["Your roles do not give: mcp."]


def test_the_form_offers_the_users_own_scopes(browser: Client) -> None:
    """With their descriptions."""
    Scope.objects.filter(name="User.Read").update(description="read shelves")
    field = browser.get(PAGE).context["form"].fields["scopes"]
    names = [name for name, _label in field.choices]
    assert names[0] == "mcp" and "Admin.Write" not in names
    assert ("User.Read", "read shelves (User.Read)") in field.choices
    assert names[1:] == sorted(names[1:]) and field.initial == ["mcp"]
    assert personal_tokens.scope_label("a", "a") == "a"


@pytest.mark.parametrize("staff", [False, True])
def test_staff_may_choose_the_administration_api_alone(
    browser: Client, alice: User, staff: bool, settings: Any
) -> None:
    settings.STAFF_SECOND_FACTOR = False
    User.objects.filter(pk=alice.pk).update(is_staff=staff)
    field = browser.get(PAGE).context["form"].fields["scopes"]
    assert (ADMIN_API in dict(field.choices)) is staff
    both = browser.post(PAGE, {**FORM, "scopes": ["mcp", ADMIN_API]})
    assert both.status_code == 400 and set(both.context["form"].errors) == {"scopes"}
    assert not IssuedToken.objects.filter(user=alice).exists()
    alone = browser.post(PAGE, {**FORM, "scopes": [ADMIN_API]})
    assert alone.status_code == (200 if staff else 400)
    assert bool(alone.context["raw"]) is staff
    scopes = [row.scope for row in IssuedToken.objects.filter(user=alice)]
    assert scopes == ([ADMIN_API] if staff else [])


def test_staff_without_the_second_factor_cannot_administer_by_token(
    browser: Client, alice: User, settings: Any
) -> None:
    settings.STAFF_SECOND_FACTOR = True
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    form = personal_tokens.TokenForm(User.objects.get(pk=alice.pk))
    field: Any = form.fields["scopes"]
    assert ADMIN_API not in dict(field.choices)


def test_the_form_starts_with_ninety_days(browser: Client) -> None:
    assert browser.get(PAGE).context["form"]["days"].initial == 90


@pytest.mark.parametrize("kind", ["personal", "access", "refresh"])
def test_nobody_revokes_anothers_token(browser: Client, bob: User, kind: str) -> None:
    """The row of every kind of token is live afterwards."""
    make(bob)
    issue_tokens(bob, issued_via="password")
    row = IssuedToken.objects.get(user=bob, kind=kind)
    answer = browser.post(PAGE, {"revoke": row.jti})
    assert answer.status_code == 302 and answer["Location"] == PAGE
    assert IssuedToken.objects.filter(pk=row.pk).live().exists()
    assert not AuditEvent.objects.filter(action="token.revoked").exists()
    assert "Token revoked." not in browser.get(PAGE).content.decode()


def test_a_user_revokes_one_token(browser: Client, alice: User) -> None:
    row, other = make(alice), make(alice)
    assert browser.post(PAGE, {"revoke": row.jti}).status_code == 302
    assert [*IssuedToken.objects.live()] == [other]
    event = AuditEvent.objects.get(action="token.revoked")
    assert (event.actor, event.token_id) == ("alice", row.jti)
    assert event.reason == "revoked in the portal"
    states = {r.jti: r.state for r in rows_of(browser.get(PAGE))}
    assert states == {row.jti: "revoked", other.jti: "active"}


def test_the_list_has_the_users_personal_tokens_only(
    browser: Client, alice: User, bob: User
) -> None:
    issue_tokens(alice, issued_via="password")
    make(bob)
    mine = make(alice)
    assert rows_of(browser.get(PAGE)) == [mine]


def test_the_list_has_the_newest_hundred(browser: Client, alice: User) -> None:
    now = timezone.now()
    IssuedToken.objects.bulk_create(
        IssuedToken(
            jti=f"j{n}",
            family=uuid4(),
            kind="personal",
            issued_via="personal",
            user=alice,
            username="alice",
            issued_at=now + timedelta(seconds=n),
            expires_at=now + timedelta(days=1),
        )
        for n in range(102)
    )
    rows = rows_of(browser.get(PAGE))
    assert len(rows) == 100 and rows[0].jti == "j101"


def test_every_page_requires_sign_in_and_is_not_stored(alice: User) -> None:
    """`me` is the signed-in user."""

    class Mine(Page):
        def get(self, request: Any) -> Any:
            return HttpResponse(self.me.username)

    answer = Client().get(PAGE)
    assert answer.status_code == 302
    assert answer["Location"] == f"/accounts/login/?next={PAGE}"
    request = RequestFactory().get("/")
    request.user = alice
    page: Any = Mine.as_view()(request)
    assert page.content == b"alice" and "no-store" in page["Cache-Control"]
    assert browser_of(alice).get(PAGE).status_code == 200


def test_only_active_tokens_have_a_button(browser: Client, alice: User) -> None:
    active, ended, old = make(alice, "a"), make(alice, "e"), make(alice, "o")
    IssuedToken.objects.filter(pk=ended.pk).revoke(actor=alice, reason="x")
    IssuedToken.objects.filter(pk=old.pk).update(expires_at=past())
    text = browser.get(PAGE).content.decode()
    assert re.findall(r'name="revoke" value="(\w+)"', text) == [active.jti]


def test_a_token_is_shown_with_its_use(browser: Client, alice: User) -> None:
    row = make(alice, "<laptop>")
    used = {"last_used_at": past(), "last_used_from": "192.0.2.9"}
    text = browser.get(PAGE).content.decode()
    assert "&lt;laptop&gt;" in text and "not used yet" in text
    assert "allowed IP addresses" not in text
    IssuedToken.objects.filter(pk=row.pk).update(**used, networks="192.0.2.0/24")
    text = words_on(browser.get(PAGE).content.decode())
    assert "last used 1 hour ago 192.0.2.9" in text
    assert "allowed IP addresses 192.0.2.0/24" in text and "expires in" in text
