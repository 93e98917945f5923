"""`manage.py invite`: the link, roles and their end."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.core import mail

from accounts.models import Invitation, RoleAssignment, User
from tests.support.commands import refusal, run_command
from tests.support.users import account

pytestmark = pytest.mark.django_db


def test_the_link_is_printed_and_the_roles_end() -> None:
    told = run_command("invite", "dana", "--role", "User", "--for", "2d")
    assert re.search(r"http\S+/accounts/invitation/[\w-]{43}/\n", told)
    held = RoleAssignment.objects.get(user__username="dana")
    assert held.role.name == "User" and held.expires_at is not None


def test_json_for_scripts() -> None:
    told = json.loads(
        run_command("invite", "dana", "--email", "dana@example.org", "--json")
    )
    assert set(told) == {"username", "url", "expires_at", "mailed_to"}
    assert told["username"] == "dana" and told["mailed_to"] == "", "not mailed"
    mailed = json.loads(run_command("invite", "dana", "--mail", "--json"))
    assert mailed["mailed_to"] == "dana@example.org"


def test_the_link_is_mailed_if_asked() -> None:
    run_command("invite", "dana", "--email", "dana@example.org", "--mail")
    assert [message.to for message in mail.outbox] == [["dana@example.org"]]
    run_command("invite", "dana")
    assert len(mail.outbox) == 1 and Invitation.objects.count() == 1


def test_without_a_mail_server_nobody_is_invited_by_mail(settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
    told = refusal("invite", "dana", "--email", "dana@example.org", "--mail")
    assert told == "--mail needs --email and EMAIL_HOST."
    assert not Invitation.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["a b"], "valid username"),
        (["robot"], "service account"),
        (["known"], "can sign in already"),
        (["dana", "--role", "None"], "There is no role None"),
        (["dana", "--until", "x"], "no moment"),
        (["dana", "--mail"], "--mail needs --email"),
        (["old", "--email", "a@example.org"], "another address"),
    ],
)
def test_a_mistake_is_explained(arguments: list[str], text: str) -> None:
    account("robot", is_service_account=True)
    account("old", email="old@example.org")
    User.objects.filter(pk=account("known").pk).update(password="x$y")
    assert text in refusal("invite", *arguments)
    assert not User.objects.filter(username="dana").exists()


@pytest.mark.parametrize("email", ["old@example.org", "Old@Example.org", ""])
def test_the_address_of_a_known_account_is_not_another(email: str) -> None:
    account("old", email="old@example.org")
    run_command("invite", "old", "--email", email)
    assert Invitation.objects.get().user.email == "old@example.org"


def test_each_named_role_is_granted_once() -> None:
    names = ("--role", "User", "--role", "Guest", "--role", "User")
    run_command("invite", "dana", *names)
    held = RoleAssignment.objects.filter(user__username="dana")
    assert sorted(held.values_list("role__name", flat=True)) == ["Guest", "User"]
