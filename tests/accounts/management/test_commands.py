"""Management commands: audited, with errors that name the fix."""

from __future__ import annotations

import io
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.management.commands.up import uncollected
from accounts.models import (
    AuditEvent,
    AuditSeal,
    IssuedToken,
    RevokedToken,
    Role,
    RoleAssignment,
    SigningKey,
    User,
)
from accounts.tokens import jwts
from accounts.tokens.issue import issue_tokens
from accounts.tokens.refresh import rotate_refresh_token
from mcp_bridge.models import Offer, Primitive
from tests.support.database_prompt import empty_audit
from tests.support.users import make_user, public_client, unguarded_users

pytestmark = pytest.mark.django_db


def run(*arguments: str, stdin: str = "", monkeypatch: Any = None) -> str:
    out = io.StringIO()
    if monkeypatch is not None:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    call_command(*arguments, stdout=out)
    return out.getvalue()


def events(action: str) -> list[tuple[str, str]]:
    """(actor, object) of the events of one kind, newest first."""
    found = AuditEvent.objects.filter(action=action)
    return [(event.actor, event.object) for event in found]


def test_add_user_with_roles(monkeypatch: Any) -> None:
    output = run(
        *("add_user", "zoe", "--role", "User", "--role", "Guest", "--password-stdin"),
        stdin="correct-horse-7\n",
        monkeypatch=monkeypatch,
    )
    zoe = User.objects.get(username="zoe")
    assert zoe.check_password("correct-horse-7") and "User, Guest" in output
    assert set(zoe.role_assignments.values_list("role__name", flat=True)) == {
        "User",
        "Guest",
    }
    assert events("user.added")[0] == ("command line", "zoe")
    assert events("role.granted")[0][0] == "command line"


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (["zed", "--role", "Nope"], "", "there are: Admin, Guest, User"),
        (["zed", "--password-stdin"], "", "No password"),
        (["zed", "--password-stdin"], "short\n", "too short"),
        (["alice"], "", "exists already"),
        (["bad name!"], "", "valid username"),
    ],
)
def test_add_user_explains_what_is_wrong(
    alice: User, monkeypatch: Any, arguments: list[str], stdin: str, told: str
) -> None:
    before = User.objects.count()
    with pytest.raises(CommandError, match=told):
        run("add_user", *arguments, stdin=stdin, monkeypatch=monkeypatch)
    assert User.objects.count() == before


def test_grant_with_an_end_and_ungrant(alice: User) -> None:
    output = run(
        "grant_role", "alice", "Admin", "--until", "30d", "--reason", "stand-in"
    )
    assignment = RoleAssignment.objects.get(user=alice, role__name="Admin")
    assert assignment.expires_at is not None and "until" in output
    assert assignment.expires_at - timezone.now() > timedelta(days=29)
    run("grant_role", "alice", "Admin")
    assert events("role.extended")
    assert "0 tokens" in run("revoke_role", "alice", "Admin")
    issue_tokens(alice, issued_via="command")
    assert "2 tokens" in run("revoke_role", "alice", "User")
    with pytest.raises(CommandError, match="does not hold"):
        run("revoke_role", "alice", "User")


@pytest.mark.parametrize("until", ["yesterday", "2001-01-01", "2026-99-99", "-3d"])
def test_grant_refuses_an_invalid_date(alice: User, until: str) -> None:
    with pytest.raises(CommandError):
        run("grant_role", "alice", "Admin", f"--until={until}")
    assert not RoleAssignment.objects.filter(user=alice, role__name="Admin").exists()


def test_grant_takes_dates_and_hours(alice: User) -> None:
    for until in ("2999-12-31", "2999-12-31T10:00:00+00:00", "8h", "90m"):
        run("grant_role", "alice", "Admin", "--until", until)


def test_issue_token(alice: User) -> None:
    raw = run("issue_token", "alice").strip()
    assert jwts.verify(raw)["scope"] == "mcp"
    answer = json.loads(
        run("issue_token", "alice", "--json", "--refresh", "--minutes", "5")
    )
    assert answer["expires_in"] == 300 and rotate_refresh_token(answer["refresh"])
    with pytest.raises(CommandError, match="do not give: Admin.Write"):
        run("issue_token", "alice", "--scope", "Admin.Write")
    with pytest.raises(CommandError, match="no user nobody"):
        run("issue_token", "nobody")
    with pytest.raises(CommandError, match="--minutes"):
        run("issue_token", "alice", "--minutes", "0")
    User.objects.filter(pk=alice.pk).update(is_active=False)
    with pytest.raises(CommandError, match="closed"):
        run("issue_token", "alice")


def test_revoke_by_each_argument(alice: User, monkeypatch: Any) -> None:
    """The command revokes by user, client, family, id and token."""
    ways: list[Any] = [
        lambda pair: (["--user", "alice"], ""),
        lambda pair: (["--client", pair.row.client_id], ""),
        lambda pair: (["--family", str(pair.row.family)], ""),
        lambda pair: (["--jti", pair.row.jti], ""),
        lambda pair: (["--token-stdin"], pair.access),
    ]
    for way in ways:
        alice.refresh_from_db()
        pair = issue_tokens(
            alice, issued_via="command", client_id=public_client("some-client")
        )
        arguments, stdin = way(pair)
        run("revoke_tokens", *arguments, stdin=stdin, monkeypatch=monkeypatch)
        assert RevokedToken.objects.filter(jti=pair.row.jti).exists()
        assert events("token.revoked")[0][0] == "command line"


@pytest.mark.parametrize(
    "arguments", [["--jti", "x"], ["--family", "x"], ["--user", "x"], ["--token-stdin"]]
)
def test_revoke_explains_unknown_names(monkeypatch: Any, arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        run("revoke_tokens", *arguments, stdin="x", monkeypatch=monkeypatch)


def test_purge_deletes_what_has_expired(alice: User) -> None:
    """Deletes expired tokens, old revocations and events, and unused keys."""
    pair = issue_tokens(alice, issued_via="command")
    IssuedToken.objects.filter(user=alice).revoke(actor=None, reason="test")
    past = timezone.now() - timedelta(days=400)
    IssuedToken.objects.filter(user=alice).update(expires_at=past)
    RevokedToken.objects.filter(jti=pair.row.jti).update(until=past)
    empty_audit()
    AuditEvent(action="test.old", at=past).save()
    AuditSeal.objects.all().seal()
    SigningKey.objects.rotate(actor="test")
    SigningKey.objects.filter(state="retiring").update(retiring_at=past)
    output = run("purge")
    assert not IssuedToken.objects.filter(user=alice).exists()
    assert not RevokedToken.objects.filter(jti=pair.row.jti).exists()
    assert not AuditEvent.objects.filter(action="test.old").exists()
    assert not SigningKey.objects.filter(state="retiring").exists()
    assert "2 tokens" in output and events("purge.done")


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_rotation_to_each_algorithm(alice: User, algorithm: str) -> None:
    """RFC 7518, RFC 8037: old tokens stay valid, new ones use the new key."""
    before = issue_tokens(alice, issued_via="command").access
    run("rotate_signing_key", "--algorithm", algorithm)
    after = issue_tokens(alice, issued_via="command").access
    for raw in (before, after):
        assert jwts.verify(raw)["sub"] == str(alice.pk)
    key = SigningKey.objects.get(state="active")
    assert key.algorithm == algorithm
    jwks = {jwk["kid"]: jwk for jwk in jwts.public_jwks()["keys"]}
    assert jwks[key.kid]["alg"] == algorithm and "d" not in jwks[key.kid]
    assert SigningKey.objects.filter(state="next").count() == 1


@pytest.fixture(autouse=True)
def no_internet(settings: Any) -> None:
    """`doctor` fetches no documents."""
    settings.FETCH_CLIENT_DOCUMENTS = False


def test_doctor_names_each_problem_and_its_fix(alice: User, settings: Any) -> None:
    """The exit code is 1 if a check fails."""
    with pytest.raises(SystemExit):
        output = io.StringIO()
        unguarded_users().update(is_superuser=False)
        SigningKey.objects.update(state="retired")
        call_command("doctor", stdout=output)
    assert "portico.E003" in output.getvalue() and "portico.E005" in output.getvalue()
    assert "fix: Run: manage.py rotate_signing_key" in output.getvalue()


def test_doctor_reports_a_lost_key_encryption_key(carol: User, settings: Any) -> None:
    """The error appears before a user requests a token."""
    SigningKey.objects.rotate(actor="test")
    settings.KEY_ENCRYPTION_KEY = "another"
    out = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("doctor", stdout=out)
    assert "portico.E004" in out.getvalue()


def test_doctor_reports_on_the_catalogue(carol: User) -> None:
    """It lists changed definitions and tools that no role covers."""
    SigningKey.objects.ensure_active()
    offer = Offer("tool", "odd", "", "", (), False, "0" * 64)
    Primitive.objects.sync([offer])
    changed = Offer("tool", "odd", "", "", (), False, "1" * 64)
    Primitive.objects.sync([changed])
    out = io.StringIO()
    call_command("doctor", stdout=out)
    assert "portico.W101" in out.getvalue() and "portico.W102" in out.getvalue()
    assert (
        "note: Claude Code: This server fetches no client documents" in out.getvalue()
    )


def test_demo_adds_its_users_once() -> None:
    unguarded_users().filter(username__in=["alice", "bob", "carol"]).delete()
    assert "alice" in run("demo")
    assert "exist already" in run("demo")
    assert User.objects.get(username="carol").is_superuser


def test_the_first_migration_adds_roles() -> None:
    names = {"Admin": 4, "User": 3, "Guest": 1}
    for name, count in names.items():
        assert Role.objects.get(name=name).scopes.count() >= count


def test_the_last_assignment_counts_only_unexpired(alice: User) -> None:
    """Removing the last role ends the tokens."""
    make_user("alice", "User", "Guest")
    past = timezone.now() - timedelta(hours=1)
    RoleAssignment.objects.filter(user=alice, role__name="Guest").update(
        expires_at=past
    )
    issue_tokens(alice, issued_via="command")
    assignment = RoleAssignment.objects.get(user=alice, role__name="User")
    assert assignment.withdraw(actor="test") == 2


def test_static_files_are_collected_again_when_one_is_newer(
    settings: Any, tmp_path: Path
) -> None:
    """After an upgrade the pages use the new style sheets."""
    settings.STATIC_ROOT = tmp_path
    assert uncollected()
    manifest = tmp_path / "staticfiles.json"
    manifest.touch()
    assert not uncollected()
    os.utime(manifest, (0, 0))
    assert uncollected()
