"""The page behind an invitation link."""

from __future__ import annotations

import json
from typing import Any

import pytest
from allauth.mfa.webauthn.internal import flows
from django.core import mail
from django.db import OperationalError
from django.test import Client

from accounts.authentication import invitations
from accounts.authentication.invitations import (
    SESSION_KEY,
    mail_configured,
    mail_invitation,
)
from accounts.authentication.passwords.validation import RevokeOnPasswordChange
from accounts.authorization.invitations import InvitationOver, invite
from accounts.models import AuditEvent, Invitation, User
from tests.support.admin_browser import signed_in
from tests.support.model_rows import past
from tests.support.passkey import Passkey
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
GOOD = "a long enough phrase 7"
PAGE = "/accounts/invitation/"


@pytest.fixture(autouse=True)
def uncollected(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


@pytest.fixture
def raw() -> str:
    """The token of dana's link."""
    user = User(username="dana", email="dana@example.org")
    return invite(user, [], None, actor="command line")[1]


@pytest.fixture
def visitor(raw: str) -> Client:
    """A browser that has opened the link."""
    client = Client(REMOTE_ADDR="192.0.2.7")
    assert client.get(f"{PAGE}{raw}/").headers["location"] == PAGE
    return client


def password(visitor: Client, one: str = GOOD, two: str = GOOD) -> Any:
    return visitor.post(PAGE, {"password1": one, "password2": two})


def test_a_password_signs_in_and_leads_to_the_connect_page(visitor: Client) -> None:
    page = visitor.get(PAGE).content.decode()
    assert "<strong>dana</strong>" in page and 'value="dana"' in page
    assert "creation_options" in page
    assert RevokeOnPasswordChange().get_help_text() not in page, "it has none yet"
    answer = password(visitor)
    assert answer.headers["location"] == "/portal/connect/" and signed_in(visitor)
    assert SESSION_KEY not in visitor.session
    assert User.objects.get(username="dana").check_password(GOOD)
    row = Invitation.objects.get()
    assert (row.state, row.accepted_from) == ("accepted", "192.0.2.7")
    event = AuditEvent.objects.get(action="invitation.accepted")
    assert (event.actor, event.address) == ("dana", "192.0.2.7")


def test_secrets_are_hidden_from_error_reports(visitor: Client) -> None:
    answer: Any = visitor.get(PAGE)
    hidden = answer.wsgi_request.sensitive_post_parameters
    assert set(hidden) == {"password1", "password2", "credential"}


def test_opening_the_link_uses_nothing_up(raw: str, visitor: Client) -> None:
    """Mail scanners open links, too."""
    visitor.get(PAGE)
    assert Client().head(f"{PAGE}{raw}/").status_code == 302
    assert Invitation.objects.get().state == "pending"
    assert password(visitor).status_code == 302


def test_neither_caches_nor_other_sites_see_the_token(raw: str) -> None:
    client = Client()
    answer = client.get(f"{PAGE}{raw}/")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "no-store" in answer.headers["Cache-Control"]
    page = client.get(PAGE)
    assert raw not in page.content.decode() and raw not in str(dict(client.session))
    assert "no-store" in page.headers["Cache-Control"]


@pytest.mark.parametrize(("one", "two"), [("short", "short"), (GOOD, "x"), ("", "")])
def test_a_bad_password_keeps_the_link(visitor: Client, one: str, two: str) -> None:
    answer = password(visitor, one, two)
    assert answer.status_code == 400 and b"errorlist" in answer.content
    assert password(visitor).status_code == 302


def refused_page(answer: Any) -> str:
    """The page without its CSRF token."""
    assert answer.status_code == 404
    return str(answer.content.decode().split("<main>")[1])


def test_all_links_that_do_not_work_look_alike(raw: str, visitor: Client) -> None:
    """Unknown, without a link, used, expired, withdrawn."""
    pages = {refused_page(Client().get(f"{PAGE}{'x' * 43}/"))}
    pages.add(refused_page(Client().get(PAGE)))
    for columns in ({"expires_at": past()}, {"withdrawn_at": past()}):
        Invitation.objects.update(**columns)
        pages.add(refused_page(Client().get(f"{PAGE}{raw}/")))
        pages.add(refused_page(password(visitor)))
    assert len(pages) == 1 and "dana" not in pages.pop()


@pytest.mark.parametrize("by_person", [True, False])
def test_the_page_names_the_person_who_invites(by_person: bool) -> None:
    """A command is nobody."""
    root = account("root", is_superuser=True, is_staff=True)
    actor = root if by_person else "command line"
    raw, client = invite(User(username="erin"), [], None, actor=actor)[1], Client()
    client.get(f"{PAGE}{raw}/")
    page = client.get(PAGE).content.decode()
    assert ("root has invited you." in page) is by_person
    assert ("has invited you" in page) is by_person


def test_the_link_works_once(raw: str, visitor: Client) -> None:
    """Also in a browser that opened it before."""
    other = Client()
    other.get(f"{PAGE}{raw}/")
    password(visitor)
    refused_page(password(other, "another long phrase 8", "another long phrase 8"))
    refused_page(Client().get(f"{PAGE}{raw}/"))
    assert User.objects.get(username="dana").check_password(GOOD)


def test_an_administrator_who_opens_it_stays_signed_in(raw: str) -> None:
    root = browser_of(account("root", is_superuser=True))
    root.get(f"{PAGE}{raw}/")
    assert b"sign out and open the link again" in password(root).content
    assert signed_in(root) and Invitation.objects.get().state == "pending"
    assert not User.objects.get(username="dana").has_usable_password()


def passkey(visitor: Client, verified: bool) -> Any:
    visitor.get(PAGE)
    challenge = visitor.session["mfa.webauthn.state"]["challenge"]
    key = Passkey("testserver", "http://testserver")
    credential = key.register(challenge, verified=verified)
    return visitor.post(PAGE, {"credential": json.dumps(credential)})


def test_a_passkey_signs_in_without_a_password(visitor: Client, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]
    answer = passkey(visitor, verified=True)
    assert answer.headers["location"] == "/portal/connect/" and signed_in(visitor)
    dana = User.objects.get(username="dana")
    assert dana.authenticator_set.get().type == "webauthn"
    assert not dana.has_usable_password()


def test_a_passkey_must_verify_the_person(visitor: Client) -> None:
    """It replaces the password."""
    answer = passkey(visitor, verified=False)
    assert answer.status_code == 400 and b'role="alert"' in answer.content
    assert Invitation.objects.get().state == "pending"


@pytest.mark.parametrize("text", ["", "{}", "[1]", "no json"])
def test_a_malformed_passkey_is_refused(visitor: Client, text: str) -> None:
    visitor.get(PAGE)
    assert visitor.post(PAGE, {"credential": text}).status_code == 400
    assert password(visitor).status_code == 302


@pytest.mark.parametrize(
    ("backend", "expected"), [("smtp", True), ("console", False), ("dummy", False)]
)
def test_mail_needs_a_server(settings: Any, backend: str, expected: bool) -> None:
    """In development the console is no way to reach a person."""
    settings.EMAIL_BACKEND = f"django.core.mail.backends.{backend}.EmailBackend"
    assert mail_configured() == expected


def test_a_mail_has_the_link_and_the_name() -> None:
    user = User(username="dana", email="dana@example.org")
    row, raw = invite(user, [], None, actor="command line")
    assert mail_invitation((row, raw))
    (sent,) = mail.outbox
    assert sent.to == ["dana@example.org"] and sent.subject.startswith("[Portico] ")
    assert f"{PAGE}{raw}/" in sent.body and "dana" in sent.body
    assert "You are invited to Portico." in sent.body
    assert f"until {row.expires_at:%Y-%m-%d}" in sent.body
    row.refresh_from_db()
    assert row.mailed_to == "dana@example.org"


def test_nothing_is_mailed_without_a_server(settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    user = User(username="dana", email="dana@example.org")
    row, raw = invite(user, [], None, actor="command line")
    assert not mail_invitation((row, raw))
    row.refresh_from_db()
    assert row.mailed_to == ""


def test_a_link_that_is_over_is_forgotten(visitor: Client) -> None:
    """Another one with the same session is no part of it."""
    Invitation.objects.update(withdrawn_at=past())
    assert visitor.session[SESSION_KEY]
    refused_page(visitor.get(PAGE))
    assert SESSION_KEY not in visitor.session


def test_a_new_password_counts_as_an_answer_of_the_person(visitor: Client) -> None:
    """Who has just chosen it need not type it again to add a second factor."""
    password(visitor)
    (method,) = visitor.session["account_authentication_methods"]
    assert method["method"] == "password"


def test_nothing_is_mailed_without_an_address() -> None:
    assert not mail_invitation(invite(account("dana"), [], None, actor="command line"))
    assert mail.outbox == []


def test_a_link_that_is_used_meanwhile_changes_nothing(
    visitor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page was open in two windows."""

    def used(*_link: Any) -> User:
        raise InvitationOver

    monkeypatch.setattr(invitations, "accept_invitation", used)
    refused_page(password(visitor))
    assert not User.objects.get(username="dana").has_usable_password()
    assert not signed_in(visitor)


WAYS = {"password": password, "passkey": lambda visitor: passkey(visitor, True)}


@pytest.mark.parametrize("way", WAYS)
def test_a_link_works_still_if_nothing_could_be_stored(
    visitor: Client, settings: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Its end and the password or passkey are stored together."""
    settings.ALLOWED_HOSTS = ["testserver"]

    def fails(*args: Any) -> Any:
        raise OperationalError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(OperationalError):
        patch.setattr(User, "set_password", fails)
        patch.setattr(flows, "signup_authenticator", fails)
        WAYS[way](visitor)
    assert Invitation.objects.get().state == "pending"
    assert not AuditEvent.objects.filter(action="invitation.accepted").exists()
    assert WAYS[way](visitor).status_code == 302 and signed_in(visitor)
