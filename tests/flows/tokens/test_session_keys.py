"""A stored session key opens no session, and the list follows key changes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from asgiref.sync import async_to_sync
from django.apps import apps
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from accounts.http.session_store import SessionStore, stored_key
from accounts.models import User
from tests.support.html_browser import Browser
from tests.support.server import Portico
from tests.support.users import PASSWORD, make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
COOKIE = settings.SESSION_COOKIE_NAME


@pytest.fixture
def rita(server: Portico, default_users: None) -> Iterator[Browser]:
    """rita, signed in at the portal and nowhere else."""
    UserSession.objects.filter(user=make_user("rita", "User")).delete()
    with Browser(server.url) as browser:
        browser.open("/accounts/login/?next=/portal/security/")
        browser.submit(browser.form("password"), login="rita", password=PASSWORD)
        yield browser


def rita_account() -> Any:
    return UserSession.objects.filter(user__username="rita")


def is_signed_in(server: Portico, key: str) -> bool:
    """Whether a cookie signs a user in."""
    with Browser(server.url) as browser:
        browser.http.cookies.set(COOKIE, key)
        return "/accounts/login/" not in str(browser.open("/portal/").page.url)


def everything_stored() -> Iterator[tuple[str, str]]:
    """(column, value) of every row of every table, as in a dump."""
    for model in apps.get_models(include_auto_created=True):
        names = [field.attname for field in model._meta.concrete_fields]
        for row in model._default_manager.values(*names).iterator():
            for name, value in row.items():
                yield f"{model._meta.label}.{name}", str(value)


def test_no_table_stores_the_key_of_a_session(rita: Browser, server: Portico) -> None:
    """A list, a query, a dump or a backup gives no session away."""
    cookie = rita.http.cookies[COOKIE]
    assert is_signed_in(server, cookie)
    assert [place for place, value in everything_stored() if cookie in value] == []
    listed = set(rita_account().values_list("session_key", flat=True))
    assert listed == {stored_key(cookie)}
    keys = {*listed, *Session.objects.values_list("pk", flat=True)}
    assert not [key for key in keys if is_signed_in(server, key)]
    assert not Session.objects.filter(pk=cookie).exists()


def test_a_session_with_a_new_key_stays_in_the_list(
    rita: Browser, server: Portico
) -> None:
    """Django changes the key in many places; the list must still end the session."""
    before = rita.http.cookies[COOKIE]
    store = SessionStore(before)
    store.cycle_key()
    after = str(store.session_key)
    assert is_signed_in(server, after) and not is_signed_in(server, before)
    assert rita_account().get().session_key == stored_key(after)
    rita.http.cookies.set(COOKIE, after, domain="127.0.0.1")
    assert "this browser" in rita.open("/portal/security/").page.text
    with Browser(server.url) as carol:
        path = "/admin/usersessions/usersession/"
        carol.sign_in("carol").act(path, "end", rita_account().get().pk)
    assert not is_signed_in(server, after)


def test_the_list_drops_ended_sessions(rita: Browser, server: Portico) -> None:
    assert rita_account().count() == 1
    rita.open("/portal/security/")
    rita.submit(next(f for f in rita.forms if "logout" in f.action))
    assert rita_account().count() == 0
    rita.open("/accounts/login/?next=/portal/security/")
    rita.submit(rita.form("password"), login="rita", password=PASSWORD)
    past = timezone.now() - timedelta(minutes=1)
    Session.objects.filter(pk=rita_account().get().session_key).update(expire_date=past)
    call_command("purge", verbosity=0)
    assert rita_account().count() == 0


def test_djangos_test_client_signs_in(rows: None) -> None:
    """Authors of tools use it in their own tests."""
    user = User.objects.get(username="alice")
    client = Client()
    client.force_login(user)
    other = Client()
    async_to_sync(other.aforce_login)(user)
    for signed_in in (client, other):
        assert signed_in.get("/accounts/login/").status_code == 302
        raw = signed_in.cookies[COOKIE].value
        assert Session.objects.filter(pk=stored_key(raw)).exists()
        signed_in.logout()
        assert not Session.objects.filter(pk=stored_key(raw)).exists()
