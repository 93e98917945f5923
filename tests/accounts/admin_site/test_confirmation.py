"""Confirmation pages: what they keep, and the numbers they promise."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.contrib import admin, messages
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.test import RequestFactory
from django.utils import timezone

from accounts.admin_site.confirmation import (
    confirmation_page,
    own_session,
    revocable_tokens,
    revocation_effect,
    signout_effect,
)
from accounts.http.session_store import stored_key
from accounts.models import IssuedToken, User
from accounts.tokens.issue import issue_tokens
from tests.accounts.admin_site.test_base import Told
from tests.support.html_browser import FormReader
from tests.support.page_tables import admin_page
from tests.support.static_files import UNCOLLECTED
from tests.support.users import public_client

pytestmark = pytest.mark.django_db
NONE = "No token is active, so none is revoked."


def request_of(user: User, **data: Any) -> Any:
    request: Any = RequestFactory().post("/admin/accounts/user/?q=x", data)
    request.user = user
    return request


def users_page() -> Any:
    return admin.site.get_model_admin(User)


def test_the_page_keeps_the_selection(carol: User) -> None:
    request = request_of(
        carol, action="revoke", _selected_action=["1", "2"], select_across="1"
    )
    rows = [f"row {number}" for number in range(12)]
    response = confirmation_page(users_page(), request, "Sure?", "Much.", rows)
    assert response is not None and response.template_name == "admin/confirm.html"
    context: Any = response.context_data
    kept = {name: context[name] for name in ("title", "effect", "action", "chosen")}
    assert kept == {
        "title": "Sure?",
        "effect": "Much.",
        "action": "revoke",
        "chosen": ["1", "2"],
    }
    assert context["select_across"] == "1" and "available_apps" in context
    assert context["here"] == "/admin/accounts/user/?q=x"
    assert context["parent"] == (context["here"], "users")
    assert (context["about"], context["more"]) == (rows[:10], 2)
    few = confirmation_page(users_page(), request, "", "", rows[:9])
    assert few is not None and few.context_data
    assert (few.context_data["about"], few.context_data["more"]) == (rows[:9], 0)


def test_only_yes_confirms(carol: User) -> None:
    page = users_page()
    assert confirmation_page(page, request_of(carol, confirmed="yes"), "", "") is None
    for other in ("", "no", "YES"):
        request = request_of(carol, confirmed=other)
        shown = confirmation_page(page, request, "", "")
        assert shown is not None and shown.context_data
        assert shown.context_data["select_across"] == "0"


def tokens_of(*users: User) -> Any:
    return IssuedToken.objects.filter(user__in=users)


def test_an_effect_counts_tokens_people_and_clients(alice: User, bob: User) -> None:
    issue_tokens(alice, issued_via="command")
    assert revocation_effect(tokens_of(alice)) == (
        "This revokes 2 active tokens for 1 person (1 client). "
        "They stop working immediately."
    )
    client = public_client("c")
    issue_tokens(bob, issued_via="command", client_id=client)
    assert revocation_effect(tokens_of(alice, bob)) == (
        "This revokes 4 active tokens for 2 people (2 clients). "
        "They stop working immediately."
    )
    one = tokens_of(bob).filter(kind="access")
    assert revocation_effect(one).startswith("This revokes 1 active token for 1 person")


def test_an_effect_counts_active_tokens_only(alice: User) -> None:
    issue_tokens(alice, issued_via="command")
    tokens_of(alice).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert revocation_effect(tokens_of(alice)) == NONE


def browser_of(user: User, key: str) -> None:
    later = timezone.now() + timedelta(days=1)
    Session.objects.create(pk=key, session_data="", expire_date=later)
    fields = {"session_key": key, "ip": "192.0.2.1", "user_agent": "x"}
    UserSession.objects.create(user=user, **fields)


def test_signing_out_counts_browsers_except_ones_own(alice: User, bob: User) -> None:
    for user, key in ((alice, "a"), (alice, "b"), (bob, "c")):
        browser_of(user, key)
    assert signout_effect([alice.pk], "") == f"{NONE} This signs out 2 browsers."
    assert signout_effect([alice.pk], "a") == f"{NONE} This signs out 1 browser."
    assert signout_effect([bob.pk], "c") == NONE


def test_the_own_session_is_named_by_its_stored_key(carol: User, client: Any) -> None:
    client.force_login(carol)
    request = request_of(carol)
    request.session = client.session
    assert own_session(request) == stored_key(client.session.session_key)


def helpdesk() -> User:
    judy: User = User.objects.create(username="judy", is_staff=True)
    judy.user_permissions.set(Permission.objects.filter(codename="change_issuedtoken"))
    return judy


def test_a_superuser_revokes_all_tokens(carol: User, alice: User) -> None:
    issue_tokens(carol, issued_via="command")
    told = Told()
    found = revocable_tokens(told, request_of(carol), IssuedToken.objects.all())
    assert found.count() == 2 and told.messages == []


def test_others_leave_the_tokens_of_administrators(carol: User, alice: User) -> None:
    judy = helpdesk()
    issue_tokens(carol, issued_via="command"), issue_tokens(alice, issued_via="command")
    told = Told()
    tokens = IssuedToken.objects.all()
    found = revocable_tokens(told, request_of(judy), tokens)
    assert {row.user for row in found} == {alice} and found.count() == 2
    text = "2 tokens belong to users with more permissions than you. Ask a superuser."
    assert told.messages == [(text, messages.WARNING)]
    told = Told()
    revocable_tokens(told, request_of(judy), tokens.exclude(kind="refresh"))
    assert told.messages[0][0].startswith("1 token belongs to a user with more")


def test_expired_tokens_of_administrators_need_no_message(
    carol: User, alice: User
) -> None:
    judy, told = helpdesk(), Told()
    issue_tokens(carol, issued_via="command")
    IssuedToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    found = revocable_tokens(told, request_of(judy), IssuedToken.objects.all())
    assert not found.exists() and told.messages == []


def confirmed(**context: Any) -> str:
    shown = {"here": "/x/?q=1", "effect": "<Much>.", "title": "Sure?", **context}
    return admin_page("admin/confirm.html", **shown).partition("<form")[2]


@pytest.mark.parametrize("longest", [0, 200])
def test_a_reason_is_asked_for_where_it_is_recorded(
    uncollected: None, longest: int
) -> None:
    page = confirmed(longest_reason=longest)
    assert ('name="reason"' in page) == bool(longest)
    assert ("Shown in the audit." in page) == bool(longest)
    assert not longest or f'maxlength="{longest}"' in page


@pytest.mark.parametrize(
    ("more", "text"), [(0, "a, &lt;b&gt;"), (1, "and 1 more"), (3, "and 3 more")]
)
def test_the_page_shows_what_happens_to_which_rows(
    uncollected: None, more: int, text: str
) -> None:
    page = confirmed(about=["a", "<b>"], more=more, chosen=["1", "2"], action="end")
    assert text in page and "&lt;Much&gt;." in page and ("more" in page) == bool(more)
    reader = FormReader()
    reader.feed("<form" + page)
    (form, *_others) = reader.forms
    assert (form.method, form.action) == ("post", "/x/?q=1")
    assert form.fields["action"] == "end" and form.fields["confirmed"] == "yes"
    assert page.count('name="_selected_action"') == 2
    assert '<input type="submit" class="danger" value="Sure?">' in page
    assert '<a class="closelink" href="/x/?q=1">Cancel</a>' in page


@pytest.fixture
def uncollected(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
