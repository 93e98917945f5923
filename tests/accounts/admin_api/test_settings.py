"""Channels, deliveries, providers, scopes and hosts at /api/v1/."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accounts.models import (
    AuditEvent,
    ClaimRule,
    Delivery,
    DocumentHost,
    NotificationChannel,
    Role,
)
from tests.support.admin_api import Caller, member_of

HOOK = "https://hooks.example.com/services/T/secret-path"
CHANNEL = {"name": "siem", "kind": "webhook", "url": HOOK, "events": ["role.ending"]}
PROVIDER = {
    "name": "Acme",
    "slug": "acme",
    "issuer": "https://id.example.com",
    "client_id": "portico",
    "client_secret": "a-client-secret",
}


@pytest.fixture
def caller(db: None) -> Caller:
    return Caller(member_of("superuser"))


def test_a_channel_shows_its_secret_once_and_never_its_url(caller: Caller) -> None:
    added = caller.post("channels/", CHANNEL)
    assert added.status_code == 201, added.content
    secret, path = added.json()["secret"], f"channels/{added.json()['id']}/"
    assert secret.startswith("whsec_") and added.json()["host"] == "hooks.example.com"
    changed = caller.patch(path, {"events": ["role.ending", "check.failed"]})
    assert changed.status_code == 200, changed.content
    renewed = caller.post(f"{path}renew-secret/").json()["secret"]
    channel = NotificationChannel.objects.get()
    assert renewed != secret and channel.secret == renewed and channel.url == HOOK
    shown = json.dumps([changed.json(), caller.get(path).json()])
    shown += str(list(AuditEvent.objects.values("changes", "object")))
    for hidden in (secret, renewed, "secret-path"):
        assert hidden not in shown


def test_what_a_channel_lacks_is_named(caller: Caller) -> None:
    mail = {"name": "m", "kind": "mail", "events": ["role.ending"]}
    for wrong, field in (
        ({**mail}, "mail_to"),
        ({**mail, "mail_to": ["nobody"]}, "mail_to"),
        ({**CHANNEL, "url": "http://8.8.8.8/x"}, "url"),
        ({**CHANNEL, "events": ["no.such"]}, "events"),
        ({**CHANNEL, "mail_to": ["a@example.com"]}, "mail_to"),
    ):
        answer = caller.post("channels/", wrong)
        assert answer.status_code == 400, wrong
        assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert not NotificationChannel.objects.exists()


def test_a_mail_channel_has_no_secret(caller: Caller) -> None:
    body = {"name": "m", "kind": "mail", "events": ["role.ending"]}
    added = caller.post("channels/", {**body, "mail_to": ["a@example.com"]}).json()
    assert added["mail_to"] == ["a@example.com"] and "secret" not in added
    assert caller.post(f"channels/{added['id']}/renew-secret/").status_code == 403


def test_a_delivery_is_sent_again(caller: Caller) -> None:
    channel = NotificationChannel.objects.create(name="c", kind="webhook")
    row = Delivery.objects.create(channel=channel, kind="role.ending", state="failed")
    shown = caller.get("deliveries/?channel=c&state=failed").json()["results"]
    assert [one["id"] for one in shown] == [row.pk]
    again = caller.post(f"deliveries/{row.pk}/send-again/")
    assert again.json()["state"] == "waiting"
    assert AuditEvent.objects.filter(action="notification.resent").exists()


def test_claim_rules_are_one_list(caller: Caller) -> None:
    rules = [{"claim": "groups", "value": "eng", "role": "User"}]
    added = caller.post("providers/", {**PROVIDER, "claim_rules": rules})
    assert added.status_code == 201, added.content
    assert "client_secret" not in added.json()
    path, first = f"providers/{added.json()['id']}/", added.json()["claim_rules"][0]
    rules += [{"claim": "groups", "value": "ops", "role": "Guest"}]
    both = caller.patch(path, {"claim_rules": rules}).json()["claim_rules"]
    assert first in both and len(both) == 2
    renamed = [{**first, "value": "engineering"}]
    one = caller.patch(path, {"claim_rules": renamed})
    assert one.json()["claim_rules"] == renamed
    assert ClaimRule.objects.get().pk == first["id"]
    wrong = caller.patch(path, {"claim_rules": [{**rules[0], "role": "No such"}]})
    assert wrong.status_code == 400
    assert wrong.json()["errors"][0]["field"] == "claim_rules.0.role"
    assert ClaimRule.objects.get().role.name == "User"
    names = AuditEvent.objects.filter(action__startswith="provider.rule")
    assert names.count() >= 3


def test_scopes_and_hosts_are_changed(caller: Caller) -> None:
    scope = caller.post("scopes/", {"name": "Billing.Read"})
    assert scope.status_code == 201, scope.content
    path = f"scopes/{scope.json()['id']}/"
    assert caller.patch(path, {"description": "d"}).json()["description"] == "d"
    assert caller.delete(path).status_code == 204
    host = caller.post("document-hosts/", {"host": "claude.ai", "trusted": False})
    assert host.status_code == 201 and not DocumentHost.objects.get().trusted
    wrong: Any = caller.post("document-hosts/", {"host": "https://claude.ai/x"})
    assert wrong.status_code == 400
    assert Role.objects.filter(scopes__name="Billing.Read").count() == 0
