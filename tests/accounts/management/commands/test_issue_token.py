"""`manage.py issue_token`: what is printed, and the row it stands for."""

from __future__ import annotations

import json

import pytest
from django.conf import settings

from accounts.models import IssuedToken, SigningKey, User
from accounts.tokens import jwts
from tests.support.commands import new_events, refusal, run_command
from tests.support.users import make_user

pytestmark = pytest.mark.django_db
YEAR = 365 * 24 * 60


def test_only_the_token_is_printed(alice: User) -> None:
    printed = run_command("issue_token", "alice")
    row = IssuedToken.objects.get(user=alice)
    claims = jwts.verify(printed.strip())
    assert claims["jti"] == row.jti and printed == f"{printed.strip()}\n"
    assert row.issued_via == "command" and row.networks == ""
    life = row.expires_at - row.issued_at
    assert abs(life - settings.ACCESS_TOKEN_LIFETIME).total_seconds() < 2


def test_the_issue_is_recorded(alice: User) -> None:
    SigningKey.objects.ensure_active()
    found = new_events(lambda: run_command("issue_token", "alice"))
    assert [event[:2] for event in found] == [("command line", "token.issued")]


def test_json_names_scope_and_lifetime(alice: User) -> None:
    printed = json.loads(
        run_command("issue_token", "alice", "--json", "--minutes", "5")
    )
    assert set(printed) == {"access", "expires_in", "scope"}
    assert (printed["expires_in"], printed["scope"]) == (300, "mcp")


def test_a_refresh_token_is_issued_on_request_only(alice: User) -> None:
    printed = json.loads(run_command("issue_token", "alice", "--json", "--refresh"))
    assert (
        printed["refresh"] and IssuedToken.objects.filter(kind="refresh").count() == 1
    )


def test_a_scope_narrows_the_token() -> None:
    make_user("alice", "Admin")
    printed = json.loads(
        run_command("issue_token", "alice", "--json", "--scope", "Admin.Write")
    )
    assert printed["scope"] == "Admin.Write"


@pytest.mark.parametrize(
    ("minutes", "valid"), [(1, True), (YEAR, True), (0, False), (YEAR + 1, False)]
)
def test_a_lifetime_is_up_to_a_year(alice: User, minutes: int, valid: bool) -> None:
    if not valid:
        told = refusal("issue_token", "alice", f"--minutes={minutes}")
        assert told == f"--minutes must be from 1 to {YEAR}."
        return
    run_command("issue_token", "alice", f"--minutes={minutes}")
    row = IssuedToken.objects.get(user=alice)
    assert round((row.expires_at - row.issued_at).total_seconds() / 60) == minutes


def test_networks_bind_the_token(alice: User) -> None:
    run_command(
        "issue_token", "alice", "--network", "10.0.0.0/8", "--network", "192.0.2.1"
    )
    assert IssuedToken.objects.get(user=alice).networks == "10.0.0.0/8 192.0.2.1"


def test_a_wrong_network_issues_nothing(alice: User) -> None:
    assert "10.0.0.0/99" in refusal("issue_token", "alice", "--network", "10.0.0.0/99")
    assert not IssuedToken.objects.exists()


@pytest.mark.parametrize("scope", ["No.Such", "Admin.Write"])
def test_a_scope_that_is_not_granted_issues_nothing(alice: User, scope: str) -> None:
    assert refusal("issue_token", "alice", "--scope", scope)
    assert not IssuedToken.objects.exists()
