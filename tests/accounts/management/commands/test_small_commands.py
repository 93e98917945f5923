"""`manage.py doctor`, `unlock`, `rotate_signing_key` and `reset_second_factor`."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from axes.models import AccessAttempt
from django.core import checks

from accounts.admin_site import system_status
from accounts.models import SigningKey, User
from tests.support.commands import new_events, refusal, run_command

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("level", "code"), [(checks.ERROR, 1), (checks.CRITICAL, 1), (checks.WARNING, None)]
)
def test_doctor_fails_on_errors_only(
    monkeypatch: Any, settings: Any, level: int, code: int | None
) -> None:
    settings.FETCH_CLIENT_DOCUMENTS = False
    message = checks.CheckMessage(level, "what", hint="fix it", id="portico.X")
    monkeypatch.setattr(system_status, "findings", lambda: [message])
    if code is None:
        assert "No errors found." in run_command("doctor")
        return
    with pytest.raises(SystemExit) as stopped:
        run_command("doctor")
    assert stopped.value.code == code


def failed(name: str, address: str) -> AccessAttempt:
    attempt: AccessAttempt = AccessAttempt.objects.create(
        username=name, ip_address=address, failures_since_start=9, user_agent="x"
    )
    return attempt


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["alice"], {("bob", "192.0.2.1"), ("bob", "192.0.2.2")}),
        (["--address", "192.0.2.1"], {("alice", "192.0.2.2"), ("bob", "192.0.2.2")}),
        (
            ["--address", "::ffff:192.0.2.1"],
            {("alice", "192.0.2.2"), ("bob", "192.0.2.2")},
        ),
    ],
)
def test_unlock_resets_the_named_counters(
    alice: User, bob: User, arguments: list[str], left: set[tuple[str, str]]
) -> None:
    for name in ("alice", "bob"):
        failed(name, "192.0.2.1"), failed(name, "192.0.2.2")
    told: list[str] = []
    found = new_events(lambda: told.append(run_command("unlock", *arguments)))
    rows = AccessAttempt.objects.values_list("username", "ip_address")
    assert set(rows) == left and told == ["Unlocked; 2 counters reset.\n"]
    assert [event[:2] for event in found] == [("command line", "user.unlocked")]
    assert found[0][2] == arguments[-1].removeprefix("::ffff:"), (
        "one form of an address"
    )


def test_unlock_needs_a_name_or_an_address() -> None:
    assert refusal("unlock").startswith("Give a user name, or an address")
    assert refusal("unlock", "--address", "x") == "x is not an IP address."


def test_unlock_knows_whether_there_is_anything_to_unlock(alice: User) -> None:
    """An unknown name is a mistake, unless failures are counted for it."""
    told = refusal("unlock", "nobody")
    assert told == "There is no user nobody, and no failed sign-ins of that name."
    assert refusal("unlock", "alicia", "--address", "192.0.2.1").startswith("There is")
    assert run_command("unlock", "alice") == "Unlocked; 0 counters reset.\n"
    assert run_command("unlock", "ａlice") == "Unlocked; 0 counters reset.\n"


@pytest.mark.parametrize("written", ["nobody", "NoBody", "ｎobody"])
def test_unlock_finds_the_failures_of_a_name_in_any_spelling(written: str) -> None:
    failed("nobody", "192.0.2.1")
    assert run_command("unlock", written) == "Unlocked; 1 counter reset.\n"


@pytest.mark.parametrize(
    ("option", "kept"), [([], "ES256"), (["--algorithm", "EdDSA"], "EdDSA")]
)
def test_a_rotation_is_printed_and_recorded(option: list[str], kept: str) -> None:
    before = SigningKey.objects.ensure_active()
    told: list[str] = []
    found = new_events(lambda: told.append(run_command("rotate_signing_key", *option)))
    key = SigningKey.objects.get(state="active")
    assert key.kid != before.kid and key.algorithm == kept
    assert told == [f"New tokens are signed with {key.kid} ({kept}).\n"]
    assert ("command line", "key.rotated") in {event[:2] for event in found}
    assert "invalid choice" in refusal("rotate_signing_key", "--algorithm", "none")


def test_factors_of_one_account_are_removed(alice: User, bob: User) -> None:
    for user in (alice, bob):
        Authenticator.objects.create(user=user, type="totp", data={})
    told: list[str] = []
    found = new_events(lambda: told.append(run_command("reset_second_factor", "alice")))
    assert told == ["1 second factor removed.\n"]
    assert [row.user for row in Authenticator.objects.all()] == [bob]
    assert ("command line", "second_factor.reset") in {event[:2] for event in found}
    assert "There is no user x" in refusal("reset_second_factor", "x")


@pytest.mark.parametrize(
    ("level", "fails"), [(checks.ERROR, True), (checks.INFO, False)]
)
def test_doctor_fails_on_errors_as_json_too(
    monkeypatch: Any, level: int, fails: bool
) -> None:
    message = checks.CheckMessage(level, "what", hint="fix it", id="portico.X")
    monkeypatch.setattr(system_status, "findings", lambda: [message])
    stopped: list[object] = []
    try:
        run_command("doctor", "--json")
    except SystemExit as end:
        stopped.append(end.code)
    assert stopped == ([1] if fails else [])
