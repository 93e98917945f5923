"""Notification channels in the admin: forms, secrets, tests and rights."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.admin.notifications.channels import MOST_ADDRESSES
from accounts.models import AuditEvent, Delivery, NotificationChannel
from tests.support.admin_browser import (
    AdminBrowser,
    events_by,
    newest_event,
    row_url,
    staff_member,
)
from tests.support.notification_rows import channel_row
from tests.support.webhook_receiver import receiving

pytestmark = pytest.mark.django_db
ADD = "/admin/accounts/notificationchannel/add/"
URL = "https://hooks.slack.com/services/T0/B0/of-the-team"
FIELDS: dict[str, Any] = {
    "name": "Team",
    "kind": "slack",
    "secret_url": URL,
    "events": ["access.requested"],
}


def only() -> NotificationChannel:
    row: NotificationChannel = NotificationChannel.objects.get()
    return row


def path_of(row: Any) -> str:
    return row_url(NotificationChannel, row)


def test_a_url_is_set_and_never_shown(root: AdminBrowser) -> None:
    root.save(f"{ADD}?kind=slack", **FIELDS)
    row = only()
    assert (row.url, row.host, row.events) == (
        URL,
        "hooks.slack.com",
        ["access.requested"],
    )
    event = newest_event("notification_channel.added")
    assert (event.actor, event.object) == ("root", "Team")
    assert event.changes["secret_url"] == ["(hidden)", "(hidden)"]
    assert "of-the-team" not in str(AuditEvent.objects.values_list())
    page = root.open(path_of(row)).page.text
    assert "of-the-team" not in page and "hooks.slack.com" in page
    assert 'name="mail_to"' not in page and 'name="secret_url"' in page


def test_the_secret_of_signatures_is_shown_once(root: AdminBrowser) -> None:
    page = root.save(f"{ADD}?kind=webhook", **{**FIELDS, "kind": "webhook"}).page.text
    secret = only().secret
    assert secret in page
    assert secret not in root.open(path_of(only())).page.text
    text = root.run(NotificationChannel, "renew_secret", only())
    assert only().secret in text and only().secret != secret
    assert newest_event("notification_channel.secret_rotated").actor == "root"
    assert secret not in str(AuditEvent.objects.values_list())


def test_an_empty_url_keeps_the_current_one(root: AdminBrowser) -> None:
    row = channel_row("slack", URL)
    root.save(path_of(row), name="Renamed")
    assert (only().name, only().url) == ("Renamed", URL)
    root.save(path_of(row), secret_url="https://other.example/x")
    assert (only().host, only().url) == ("other.example", "https://other.example/x")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"kind": "mail"}, "This kind of channel needs it."),
        ({"secret_url": ""}, "This kind of channel needs it."),
        ({"mail_to": "a@example.com"}, "This kind of channel does not use it."),
        ({"kind": "mail", "mail_to": "a@example.com"}, "does not use it"),
        ({"kind": "mail", "secret_url": "", "mail_to": "a@b@c"}, "not a mail address"),
        ({"secret_url": "hooks.slack.com"}, "Enter a URL such as"),
        ({"secret_url": "ftp://a.example/"}, "Enter a URL such as"),
        ({"secret_url": "https://u:p@a.example/"}, "Leave user name"),
        ({"secret_url": "http://siem.example.com/x"}, "Use https."),
        ({"secret_url": "https://169.254.169.254/x"}, "UPSTREAM_PRIVATE_NETWORKS"),
        ({"secret_url": "https://[fd00::1]/x"}, "UPSTREAM_PRIVATE_NETWORKS"),
        ({"events": []}, "This field is required."),
        ({"events": ["every.thing"]}, "Select a valid choice"),
        ({"events": ["audit.events"]}, "Only signed webhooks"),
    ],
)
def test_a_wrong_value_is_named(
    root: AdminBrowser, changed: dict[str, Any], text: str
) -> None:
    page = root.post(ADD, **{**FIELDS, **changed, "_save": "1"}).text
    assert text in page and not NotificationChannel.objects.exists()


def test_mail_addresses_are_cleaned(root: AdminBrowser) -> None:
    to = "a@example.com, b@example.com a@example.com"
    body = {**FIELDS, "kind": "mail", "mail_to": to}
    del body["secret_url"]
    root.save(f"{ADD}?kind=mail", **body)
    assert only().mail_to == "a@example.com\nb@example.com"
    page = root.open(path_of(only())).page.text
    assert 'name="mail_to"' in page and 'name="secret_url"' not in page


@pytest.mark.parametrize("many", [50, 51])
def test_a_channel_has_at_most_fifty_addresses(root: AdminBrowser, many: int) -> None:
    to = "\n".join(f"a{number}@example.com" for number in range(many))
    body = {**FIELDS, "kind": "mail", "mail_to": to, "_save": "1"}
    del body["secret_url"]
    page = root.post(f"{ADD}?kind=mail", **body).text
    assert ("Enter at most 50 addresses." in page) is (many > MOST_ADDRESSES)
    assert NotificationChannel.objects.exists() is (many <= MOST_ADDRESSES)


def test_a_test_shows_what_came_of_it(root: AdminBrowser) -> None:
    with receiving(200, 500) as receiver:
        row = channel_row(url=receiver.url, name="Siem")
        path = path_of(row).replace("change/", "test/")
        good, bad = root.post(path).text, root.post(path).text
    assert "The test has arrived: HTTP 200." in good
    assert "Not delivered: HTTP 500" in bad
    assert [r["type"] for r in receiver.bodies] == ["test", "test"]
    events = events_by(root.user)
    assert ("notification_channel.tested", "Siem", "HTTP 500") in events
    listing = root.open("/admin/accounts/notificationchannel/").page.text
    assert "HTTP 500" in listing and "127.0.0.1" in listing


def test_only_superusers_add_change_and_test() -> None:
    row = channel_row("slack", URL)
    rights = ("add", "change", "delete", "view")
    staff = staff_member("olga", *(f"{r}_notificationchannel" for r in rights))
    browser, before = AdminBrowser(staff), NotificationChannel.objects.values().get()
    assert browser.post(ADD, **FIELDS, _save="1").status_code == 403
    assert browser.post(path_of(row), name="x", _save="1").status_code == 403
    test = path_of(row).replace("change/", "test/")
    assert browser.post(test).status_code == 403
    assert browser.delete(NotificationChannel, row).status_code == 403
    assert browser.send(NotificationChannel, "renew_secret", row) != 500
    page = browser.open(path_of(row)).page
    assert page.status_code == 200 and "of-the-team" not in page.text
    assert "Send a test" not in page.text
    assert NotificationChannel.objects.values().get() == before
    assert not Delivery.objects.exists()


def test_a_test_is_not_sent_by_a_link(root: AdminBrowser) -> None:
    path = path_of(channel_row("slack", URL)).replace("change/", "test/")
    assert root.open(path).page.status_code == 405


def test_a_deletion_takes_the_deliveries(root: AdminBrowser) -> None:
    row = channel_row("slack", URL, name="Team")
    Delivery.objects.create(channel=row, kind="test")
    assert root.delete(NotificationChannel, row).status_code == 200
    assert not NotificationChannel.objects.exists() and not Delivery.objects.exists()
    assert newest_event("notification_channel.deleted").object == "Team"


def test_an_unknown_kind_is_chosen_again(root: AdminBrowser) -> None:
    for kind in ("", "fax", "MAIL"):
        page = root.open(f"{ADD}?kind={kind}").page.text
        assert 'href="?kind=mail"' in page and 'name="name"' not in page


def test_the_kind_is_chosen_first(root: AdminBrowser) -> None:
    page = root.open(ADD).page.text
    for kind in ("mail", "slack", "webhook"):
        assert f'href="?kind={kind}"' in page
    assert 'name="secret_url"' not in page
    for kind, field, other in (
        ("mail", "mail_to", "secret_url"),
        ("slack", "secret_url", "mail_to"),
        ("webhook", "secret_url", "mail_to"),
    ):
        page = root.open(f"{ADD}?kind={kind}").page.text
        assert f'name="{field}"' in page and f'name="{other}"' not in page
        assert ("audit.events" in page) is (kind == "webhook")


def test_another_kind_than_the_chosen_one_is_refused(root: AdminBrowser) -> None:
    """The form of mail has no URL, so a webhook without one would be saved."""
    body = {**FIELDS, "kind": "webhook", "mail_to": "a@example.com", "_save": "1"}
    page = root.post(f"{ADD}?kind=mail", **body).text
    assert "Select a valid choice" in page
    assert not NotificationChannel.objects.exists()
