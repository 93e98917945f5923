"""Wrong command-line arguments: one sentence, an exit code, no partial change."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.core.management import CommandError, call_command
from jwt.algorithms import ECAlgorithm

from accounts.models import (
    AuditEvent,
    IssuedToken,
    OAuthClient,
    RoleAssignment,
    User,
)
from accounts.tokens.issue import issue_personal_token, issue_tokens
from tests.accounts.management.test_commands import run
from tests.support.users import make_user, public_client

pytestmark = pytest.mark.django_db
BACK = ("--redirect-uri", "https://a.example/cb")


@pytest.mark.parametrize(
    "until",
    ["0h", "-1h", "99999999999d", "1000000d", "8", "h", "٣d", "2999-12-31T99:00", ""],
)
def test_invalid_ends_grant_nothing(alice: User, until: str) -> None:
    """Neither an overflow nor a role that ends at once."""
    if not until:
        call_command(
            "grant_role", "alice", "Guest", "--until", "", stdout=io.StringIO()
        )
        assert RoleAssignment.objects.get(role__name="Guest").expires_at is None
        return
    with pytest.raises(CommandError, match=r"moment|date"):
        run("grant_role", "alice", "Admin", f"--until={until}")
    assert not RoleAssignment.objects.filter(role__name="Admin", user=alice).exists()


@pytest.mark.parametrize("reason", ["x" * 256, "a\x00b"])
@pytest.mark.parametrize(
    "command",
    [
        ["grant_role", "alice", "Admin"],
        ["revoke_role", "alice", "User"],
        ["revoke_tokens", "--user=x"],
    ],
    ids=lambda c: str(c[0]),
)
def test_a_reason_that_is_too_long_is_refused(
    alice: User, command: list[str], reason: str
) -> None:
    """PostgreSQL refuses a reason that is too long; SQLite would store it."""
    before = AuditEvent.objects.count()
    with pytest.raises(CommandError, match="at most 255"):
        run(*command, "--reason", reason)
    assert AuditEvent.objects.count() == before
    assert [a.role.name for a in alice.role_assignments.all()] == ["User"]


def test_a_role_named_twice_is_granted_once() -> None:
    assert "with User." in run("add_user", "zoe", "--role", "User", "--role", "User")


@pytest.mark.parametrize("option", ["--user", "--client", "--jti", "--family"])
def test_an_empty_name_revokes_nothing_and_does_not_wait(
    alice: User, option: str
) -> None:
    """Standard input is read only if the argument asks for it."""
    issue_tokens(alice, issued_via="command")
    with pytest.raises(CommandError):
        run("revoke_tokens", f"{option}=")
    assert IssuedToken.objects.live().filter(user=alice).count() == 2


def test_every_kind_of_token_is_revoked_by_pasting_it(
    alice: User, monkeypatch: Any
) -> None:
    pair = issue_tokens(
        alice, issued_via="command", opaque=True, client_id=public_client("c")
    )
    row, raw = issue_personal_token(
        alice, name="script", scope="mcp", lifetime=timedelta(hours=1)
    )
    for pasted in (pair.access, pair.refresh, raw):
        output = run(
            "revoke_tokens", "--token-stdin", stdin=pasted, monkeypatch=monkeypatch
        )
        assert "1 token" in output
    assert not IssuedToken.objects.live().filter(user=alice).exists()


JWK = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())
KEYS = [
    "",
    "[]",
    "{}",
    '{"keys": []}',
    '{"keys": {}}',
    '{"keys": ["d"]}',
    '{"keys": [{"d": "secret"}]}',
    '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
    '{"keys": [{"kty": "EC", "crv": "P-256", "x": 7}]}',
    '{"keys": [' * 5_000,
]


@pytest.mark.parametrize("text", KEYS, ids=lambda t: t[:30])
def test_add_client_takes_public_keys_only(text: str, tmp_path: Path) -> None:
    """RFC 7517: a shared secret in a file of public keys is an error."""
    path = tmp_path / "jwks.json"
    path.write_text(text)
    with pytest.raises(CommandError, match="JWK Set"):
        run("add_client", "bad", *BACK, "--jwks", str(path))
    assert not OAuthClient.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["x"], "--redirect-uri, --device or --service-account"),
        (["x", "--redirect-uri", "http://evil.example"], "use https"),
        (["x", *BACK, "--client-id", "a b"], "printable"),
        (["x", *BACK, "--client-id", "a\x7f"], "printable"),
        (["x", *BACK, "--client-id", "~" * 256], "printable"),
        (["x", *BACK, "--client-id", "https://a.example/doc"], "no URL"),
        (["x", *BACK, "--client-id", ""], "printable"),
        (["x" * 256, *BACK], "at most 255"),
        (["x", "--public", "--service-account", "robot"], "no secret"),
        (["x", "--service-account", "nobody"], "no user nobody"),
        (["x", "--service-account", "bob"], "bob is a person"),
        ([" ", *BACK], "Give the client a name"),
        (["x", *BACK, "--jwks", "no-such-file"], "No such file"),
    ],
    ids=str,
)
def test_add_client_explains_what_is_wrong(arguments: list[str], told: str) -> None:
    User.objects.filter(pk=make_user("robot", "User").pk).update(
        is_service_account=True
    )
    make_user("bob", "User")
    with pytest.raises(CommandError, match=told):
        run("add_client", *arguments)
    assert not OAuthClient.objects.exists()


def test_a_client_cannot_be_public_and_sign(tmp_path: Path) -> None:
    """A client id can also be used only once."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [json.loads(str(JWK))]}))
    with pytest.raises(CommandError, match="--public"):
        run("add_client", "x", *BACK, "--public", "--jwks", str(path))
    run("add_client", "x", *BACK, "--client-id", "mine", "--jwks", str(path))
    with pytest.raises(CommandError, match="already"):
        run("add_client", "y", *BACK, "--client-id", "mine")
