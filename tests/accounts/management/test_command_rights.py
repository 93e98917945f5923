"""Every command that changes rights or tokens writes audit events."""

from __future__ import annotations

import getpass
import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command, get_commands, load_command_class
from django.utils import timezone

from accounts.authorization.delegation import NotAllowed
from accounts.http.ip_networks import covers
from accounts.imports.user_csv_apply import apply_users
from accounts.imports.user_csv_plan import plan_users
from accounts.management.arguments import ACTOR
from accounts.models import AuditEvent, IssuedToken, RoleAssignment, User
from mcp_bridge.access import policy_file
from tests.support.users import make_user, unguarded_users

CHANGING: dict[str, tuple[list[str], str]] = {
    "add_client": (
        ["Robot", "--redirect-uri", "https://a.example/cb"],
        "client.registered",
    ),
    "add_user": (["zoe", "--role", "User"], "role.granted"),
    "grant_role": (["alice", "Guest", "--until", "8h"], "role.granted"),
    "import_policy": (["{policy}"], "policy.imported"),
    "import_users": (["{users}"], "role.granted"),
    "invite": (["zoe", "--role", "User"], "invitation.created"),
    "issue_token": (["alice"], "token.issued"),
    "purge": ([], "purge.done"),
    "reset_second_factor": (["alice"], "second_factor.reset"),
    "revoke_tokens": (["--user", "alice"], "token.revoked"),
    "rotate_signing_key": ([], "key.rotated"),
    "revoke_role": (["alice", "User"], "role.withdrawn"),
    "unlock": (["alice"], "user.unlocked"),
}
"""Command -> its arguments, and the event that it records."""
READING = {
    "backup",
    "check_access",
    "copy_database",
    "doctor",
    "export_audit",
    "export_policy",
    "list_tools",
    "list_users",
    "rotate_secrets",
    "seal_audit",
    "send_notifications",
    "verify_audit",
}
UPSTREAM = {
    "accept_definitions",
    "add_upstream",
    "discover",
    "import_mcp_servers",
    "list_upstreams",
    "remove_upstream",
}
"""They contact a server: tests/flows/upstreams/test_commands.py tries them."""
STARTING = {"demo", "migrate", "restore", "up"}
"""They fill or prepare an installation; `demo` and `restore` record what they do."""
POLICY = '{"format": "portico-policy-1", "roles": [{"name": "New", "scopes": []}]}'


def test_every_command_says_whether_it_changes_rights() -> None:
    """A new command is added to one of the lists above."""
    apps = ("accounts", "mcp_bridge")
    ours = {name for name, app in get_commands().items() if app in apps}
    assert ours == CHANGING.keys() | READING | STARTING | UPSTREAM


@pytest.mark.parametrize("name", sorted(CHANGING.keys() | READING | STARTING))
def test_the_help_explains_every_argument(name: str) -> None:
    """`manage.py NAME --help`, with Django's own arguments."""
    command = load_command_class(get_commands()[name], name)
    arguments = command.create_parser("manage.py", name)._actions
    assert command.help and not [a.dest for a in arguments if not a.help]


@pytest.mark.parametrize("name", CHANGING)
def test_changes_by_commands_are_audited(
    alice: User, tmp_path: Path, name: str
) -> None:
    """Commands call the admin's methods, with the actor `command line`."""
    call_command("issue_token", "alice", stdout=io.StringIO())
    files = {"policy": tmp_path / "p.json", "users": tmp_path / "u.csv"}
    files["policy"].write_text(POLICY)
    files["users"].write_text("username,roles\nalice,Guest\n")
    last = AuditEvent.objects.order_by("-id").values_list("id", flat=True).first() or 0
    arguments, action = CHANGING[name]
    call_command(name, *[a.format(**files) for a in arguments], stdout=io.StringIO())
    found = AuditEvent.objects.filter(id__gt=last, action=action)
    assert ACTOR in found.values_list("actor", flat=True)


NEW = "another longer passphrase 9"


def new_events(run: Callable[[], Any]) -> list[tuple[str, str, str]]:
    """(actor, action, object) of the events that `run` records, oldest first."""
    last = AuditEvent.objects.order_by("-id").values_list("id", flat=True).first() or 0
    run()
    found = AuditEvent.objects.filter(id__gt=last).order_by("id")
    return list(found.values_list("actor", "action", "object"))


def test_createsuperuser_is_audited(
    carol: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`createsuperuser` may create the first administrator."""
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", NEW)
    options = {"username": "root", "email": "root@example.com", "verbosity": 0}
    found = new_events(
        lambda: call_command("createsuperuser", interactive=False, **options)
    )
    assert found == [(ACTOR, "user.added", "root")]
    assert User.objects.get(username="root").check_password(NEW)


def test_the_first_start_records_the_administrator_it_creates(alice: User) -> None:
    """`up` records the account and its role."""
    unguarded_users().filter(is_superuser=True).delete()
    found = new_events(
        lambda: call_command("up", "--prepare-only", stdout=io.StringIO())
    )
    assert (ACTOR, "user.added", "admin") in found
    assert (ACTOR, "role.granted", "admin has Admin") in found


def test_changepassword_ends_access_and_records_the_actor(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`changepassword` ends what the admin's form ends, with the same event."""
    call_command("issue_token", "alice", stdout=io.StringIO())
    epoch = alice.session_epoch
    monkeypatch.setattr(getpass, "getpass", lambda prompt="": NEW)
    found = new_events(
        lambda: call_command("changepassword", "alice", stdout=io.StringIO())
    )
    assert (ACTOR, "user.password_changed", "alice") in found
    assert ACTOR in {actor for actor, action, _ in found if action == "token.revoked"}
    assert not IssuedToken.objects.filter(user=alice).live().exists()
    alice.refresh_from_db()
    assert alice.session_epoch > epoch


@pytest.mark.django_db
def test_an_import_checks_again_who_applies_it() -> None:
    """The user may have lost superuser rights since the upload."""
    somebody = make_user("somebody", "Guest")
    somebody.is_superuser = True  # The request began while the user was a superuser.
    raw = b"username,roles\nsomebody,Admin\n"
    with pytest.raises(NotAllowed):
        list(apply_users(raw, plan_users(raw, somebody).mark, somebody))
    text = POLICY.encode()
    with pytest.raises(NotAllowed):
        policy_file.apply_policy(text, policy_file.policy_diff(text).mark, somebody)
    assert not RoleAssignment.objects.filter(role__name="Admin", user=somebody)


@pytest.mark.parametrize(
    ("outer", "inner", "wide"),
    [
        ("", "", True),
        ("", "10.0.0.0/8", True),
        ("10.0.0.0/8", "", False),
        ("10.0.0.0/8", "10.99.0.0/16", True),
        ("10.0.0.0/8", "10.99.0.0/16 10.1.2.3", True),
        ("10.99.0.0/16", "10.0.0.0/8", False),
        ("10.0.0.0/8", "10.1.0.0/16, 192.0.2.1", False),
        ("0.0.0.0/0", "2001:db8::/32", False),
        ("0.0.0.0/0 ::/0", "2001:db8::/32", True),
    ],
)
def test_networks_contain_other_networks(outer: str, inner: str, wide: bool) -> None:
    """An address inside `inner` is always inside `outer`."""
    assert covers(outer, inner) is wide


@pytest.mark.django_db
def test_a_request_for_less_keeps_a_longer_role() -> None:
    """`lasts_until`: past, without an end, later, earlier."""
    now = timezone.now()
    day = timedelta(days=1)
    cases = [
        (None, None, True),
        (None, now + day, True),
        (now + day, None, False),
        (now + day, now + day / 2, True),
        (now + day, now + 2 * day, False),
        (now - day, now - 2 * day, False),
    ]
    for ends, moment, lasts in cases:
        assert RoleAssignment(expires_at=ends).lasts_until(moment) is lasts
