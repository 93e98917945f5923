"""`manage.py revoke_tokens`: what each option ends, and what it leaves."""

from __future__ import annotations

import io
from typing import Any
from uuid import uuid4

import pytest
from allauth.usersessions.models import UserSession
from django.test import Client

from accounts.http.session_store import stored_key
from accounts.models import IssuedToken, OAuthClient, OAuthDeviceGrant, OAuthGrant, User
from accounts.models.browser_sessions import sessions_of
from accounts.tokens.issue import TokenPair, issue_tokens
from tests.support.commands import new_events, refusal, run_command
from tests.support.users import public_client

pytestmark = pytest.mark.django_db


def pair_of(user: User, client: str) -> TokenPair:
    return issue_tokens(user, issued_via="command", client_id=public_client(client))


@pytest.fixture
def pairs(alice: User, bob: User) -> dict[str, TokenPair]:
    """Four tokens each: alice with two clients, bob with one."""
    return {
        "alice one": pair_of(alice, "one"),
        "alice two": pair_of(alice, "two"),
        "bob one": pair_of(bob, "one"),
    }


def live(pairs: dict[str, TokenPair]) -> dict[str, int]:
    return {
        name: IssuedToken.objects.live().filter(family=pair.row.family).count()
        for name, pair in pairs.items()
    }


ALL = {"alice one": 2, "alice two": 2, "bob one": 2}


@pytest.mark.parametrize(
    ("arguments", "ended", "count"),
    [
        (["--user", "alice"], {"alice one": 0, "alice two": 0}, 4),
        (["--client", "one"], {"alice one": 0, "bob one": 0}, 4),
        (["--family", "{family}"], {"alice one": 0}, 2),
        (["--jti", "{jti}"], {"alice one": 1}, 1),
        (["--everything"], dict.fromkeys(ALL, 0), 6),
    ],
)
def test_an_option_ends_its_tokens_only(
    pairs: dict[str, TokenPair], arguments: list[str], ended: dict[str, int], count: int
) -> None:
    row = pairs["alice one"].row
    filled = [part.format(family=row.family, jti=row.jti) for part in arguments]
    told: list[str] = []
    found = new_events(
        lambda: told.append(run_command("revoke_tokens", *filled, "--reason", "why"))
    )
    assert live(pairs) == {**ALL, **ended}
    tokens = "1 token" if count == 1 else f"{count} tokens"
    assert told == [f"{tokens} revoked, 0 browsers signed out.\n"]
    revoked = [event for event in found if event[1] == "token.revoked"]
    assert len(revoked) == count
    assert {(actor, reason) for actor, _a, _o, reason in revoked} == {
        ("command line", "why")
    }


@pytest.mark.parametrize("option", ["--jti", "--client"])
def test_an_id_is_compared_as_a_whole(pairs: dict[str, TokenPair], option: str) -> None:
    """One that begins alike is another."""
    for name, suffix in (("alice one", "x"), ("bob one", "xy")):
        rows = IssuedToken.objects.filter(jti=pairs[name].row.jti)
        rows.update(jti=suffix, client_id=suffix)
    run_command("revoke_tokens", option, "x")
    assert live(pairs) == {**ALL, "alice one": 1}
    assert "issued no such" in refusal("revoke_tokens", option, "X")
    assert live(pairs)["bob one"] == 2


def test_the_default_reason_names_the_command_line(pairs: dict[str, TokenPair]) -> None:
    found = new_events(lambda: run_command("revoke_tokens", "--user", "bob"))
    reasons = {reason for _a, action, _o, reason in found if action == "token.revoked"}
    assert reasons == {"revoked on the command line"}


def test_a_pasted_token_ends_itself_only(
    pairs: dict[str, TokenPair], monkeypatch: Any
) -> None:
    pasted = f"  {pairs['alice one'].access}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(pasted))
    assert run_command("revoke_tokens", "--token-stdin").startswith("1 token revoked")
    assert live(pairs) == {**ALL, "alice one": 1}


def browser_of(user: User) -> None:
    """A browser in which `user` is signed in."""
    browser = Client()
    browser.force_login(user)
    key = stored_key(browser.session.session_key or "")
    fields = {"session_key": key, "ip": "192.0.2.1", "user_agent": "x"}
    UserSession.objects.create(user=user, **fields)


@pytest.mark.parametrize(
    ("arguments", "left", "end"),
    [
        (["--user", "alice"], [0, 1], "1 browser signed out.\n"),
        (["--everything"], [0, 0], "2 browsers signed out.\n"),
    ],
)
def test_browsers_are_signed_out(
    alice: User, bob: User, arguments: list[str], left: list[int], end: str
) -> None:
    browser_of(alice)
    browser_of(bob)
    before = [sessions_of([user.pk]).count() for user in (alice, bob)]
    assert before == [1, 1]
    told = run_command("revoke_tokens", *arguments)
    assert told.endswith(end)
    assert [sessions_of([user.pk]).count() for user in (alice, bob)] == left


def test_codes_of_a_client_are_ended_too(alice: User) -> None:
    """A code would otherwise become a new token."""
    codes = {}
    for name in ("one", "two"):
        owner = OAuthClient.objects.get(client_id=public_client(name))
        codes[name] = OAuthGrant.objects.create(
            user=alice, code=name, application=owner, expires="2999-01-01T00:00Z"
        )
    run_command("revoke_tokens", "--client", "one")
    assert [grant.code for grant in OAuthGrant.objects.all()] == ["two"]
    run_command("revoke_tokens", "--everything")
    assert not OAuthGrant.objects.exists()


def test_a_device_code_that_nobody_has_entered_is_ended(alice: User) -> None:
    """Only `--everything` ends it: it has no user yet."""
    public_client("one")
    OAuthDeviceGrant.objects.create(
        device_code="d", user_code="U", client_id="one", expires="2999-01-01T00:00Z"
    )
    run_command("revoke_tokens", "--user", "alice")
    assert OAuthDeviceGrant.objects.exists()
    found = new_events(lambda: run_command("revoke_tokens", "--everything"))
    assert not OAuthDeviceGrant.objects.exists()
    assert ("command line", "code.revoked") in {event[:2] for event in found}


def test_a_client_without_tokens_is_no_error() -> None:
    public_client("one")
    told = run_command("revoke_tokens", "--client", "one")
    assert told == "0 tokens revoked, 0 browsers signed out.\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--jti", "x"], "Portico issued no such token."),
        (["--client", "x"], "Portico issued no such token."),
        (["--family", str(uuid4())], "Portico issued no such token."),
        (["--user", "x"], "There is no user x"),
        (["--token-stdin"], "Portico did not issue this token."),
    ],
)
def test_unknown_names_end_nothing(
    pairs: dict[str, TokenPair], monkeypatch: Any, arguments: list[str], told: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("x"))
    assert told in refusal("revoke_tokens", *arguments)
    assert live(pairs) == ALL


def test_exactly_one_option_is_needed() -> None:
    assert "required" in refusal("revoke_tokens")
    assert "not allowed" in refusal("revoke_tokens", "--user=a", "--everything")


def test_tokens_of_deleted_accounts_are_ended_and_counted(
    pairs: dict[str, TokenPair],
) -> None:
    IssuedToken.objects.filter(family=pairs["bob one"].row.family).update(user=None)
    told = run_command("revoke_tokens", "--everything")
    assert told == "6 tokens revoked, 0 browsers signed out.\n"
    assert live(pairs) == dict.fromkeys(ALL, 0)
