"""Channels: encrypted URLs and secrets, and what each of them wants."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from accounts.crypto.encryption import KeyUnreadable
from accounts.models import NotificationChannel
from accounts.models.notifications.channels import split_addresses
from tests.support.notification_rows import channel_row

pytestmark = pytest.mark.django_db
URL = "https://hooks.slack.com/services/T0/B0/of-the-team"


def test_a_url_and_a_secret_are_stored_encrypted() -> None:
    row = channel_row("webhook", URL)
    secret = row.renew_secret()
    row.save()
    kept = NotificationChannel.objects.get()
    assert (kept.url, kept.secret, kept.host) == (URL, secret, "hooks.slack.com")
    columns = str(NotificationChannel.objects.values_list())
    assert "of-the-team" not in columns and secret[6:] not in columns
    assert secret.startswith("whsec_") and len(base64.b64decode(secret[6:])) == 32


def test_a_value_copied_from_another_row_cannot_be_read() -> None:
    first, second = channel_row(url=URL), channel_row()
    second.secrets_encrypted = first.secrets_encrypted
    for name in ("url", "secret"):
        with pytest.raises(KeyUnreadable):
            getattr(second, name)


def test_a_new_secret_replaces_the_old_one() -> None:
    row = channel_row()
    assert row.secret != row.renew_secret() == row.secret


def test_only_enabled_channels_get_what_they_want() -> None:
    wanted: dict[str, Any] = {"events": ["user.locked_out"]}
    mine = channel_row("mail", mail_to="a@example.com", **wanted)
    channel_row("mail", mail_to="a@example.com", enabled=False, **wanted)
    rows = NotificationChannel.objects.all()
    assert rows.interested_in("user.locked_out") == [mine]
    assert rows.interested_in("role.ending") == []


def test_addresses_are_separated_by_commas_or_blanks() -> None:
    text = "a@example.com, b@example.com\nc@example.com  a@example.com"
    assert split_addresses(text) == [f"{n}@example.com" for n in "abc"]


def test_a_channel_is_set_up_again_after_its_key_was_lost(settings: Any) -> None:
    row = channel_row("webhook", URL)
    settings.KEY_ENCRYPTION_KEY = "another key of at least 32 characters"
    settings.KEY_ENCRYPTION_KEY_FALLBACKS = []
    with pytest.raises(KeyUnreadable):
        row.url  # noqa: B018
    row.set_url("https://b.example/new")
    assert (row.url, row.secret, row.host) == ("https://b.example/new", "", "b.example")
    assert row.renew_secret() == row.secret and row.url == "https://b.example/new"


def test_a_channel_is_named_by_people() -> None:
    assert str(channel_row(name="Team")) == "Team"
