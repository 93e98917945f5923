"""Each kind of event is notified from its real cause, in the same transaction."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from django.test import Client
from django.utils import timezone

from accounts.authentication import lockout
from accounts.errors import InvalidGrant
from accounts.models import (
    AccessRequest,
    AuditEvent,
    Delivery,
    IssuedToken,
    Role,
    User,
)
from accounts.models.notifications import outbox
from accounts.tokens.issue import issue_tokens
from accounts.tokens.refresh import rotate_refresh_token
from tests.support.notification_rows import channel_row
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
JSON = "application/json"


class Interrupted(Exception):
    """What a kill at this point would leave."""


@pytest.fixture(autouse=True)
def channel() -> Any:
    return channel_row(name="Team")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The write of the notification fails."""

    def fails(*args: Any) -> bool:
        raise Interrupted

    monkeypatch.setattr(outbox, "has_room", fails)


def told() -> dict[str, Any]:
    row = Delivery.objects.get()
    return {"kind": row.kind, **row.payload}


def ask(user: User) -> None:
    role = Role.objects.get(name="Admin")
    browser_of(user).post("/portal/access/", {"role": role.pk, "reason": "a report"})


def test_an_access_request(alice: User) -> None:
    ask(alice)
    data, row = told(), AccessRequest.objects.get()
    assert data["kind"] == "access.requested"
    assert (data["actor"], data["object"]) == ("alice", "alice requests Admin")
    assert (data["reason"], data["subject"]) == ("a report", f"accessrequest:{row.pk}")
    assert data["event_id"] == AuditEvent.objects.get(action="access.requested").pk


def test_an_access_request_without_its_notification_is_not_made(
    alice: User, interrupted: None
) -> None:
    with pytest.raises(Interrupted):
        ask(alice)
    assert not AccessRequest.objects.exists()


def fail_to_sign_in(name: str) -> None:
    body = {"username": name, "password": "wrong"}
    Client().post("/api/token/", body, JSON)


def test_a_lock_out(settings: Any) -> None:
    """Once, not for each attempt while it lasts."""
    settings.LOCKOUT_AFTER = settings.AXES_FAILURE_LIMIT = 2
    account("ann")
    for _ in range(4):
        fail_to_sign_in("ann")
    data = told()
    assert (data["kind"], data["object"]) == ("user.locked_out", "ann")
    assert (data["reason"], data["address"]) == ("attempts", "127.0.0.1")
    assert "wrong" not in str(data)


def test_a_lock_out_of_another_secret(settings: Any) -> None:
    """Clients and registrations are counted in a transaction of their caller."""
    settings.LOCKOUT_AFTER = settings.AXES_FAILURE_LIMIT = 1
    request: Any = Client().get("/healthz").wsgi_request
    prefix = lockout.CLIENT_PREFIX
    lockout.limit_attempts(request, f"{prefix}app", lambda: False)
    assert told()["client_id"] == "app"


def test_a_count_without_its_notification_is_not_kept(
    settings: Any, interrupted: None
) -> None:
    settings.LOCKOUT_AFTER = settings.AXES_FAILURE_LIMIT = 1
    request: Any = Client().get("/healthz").wsgi_request
    AxesProxyHandler.update_request(request)
    counter = AxesProxyHandler.get_implementation()
    with pytest.raises(Interrupted):
        counter.user_login_failed("test", {"username": "ann"}, request)
    assert not AccessAttempt.objects.exists()


def test_a_replayed_refresh_token(settings: Any, alice: User) -> None:
    settings.REFRESH_TOKEN_GRACE = timedelta(0)
    pair = issue_tokens(alice, issued_via="password")
    rotate_refresh_token(pair.refresh)
    hour_ago = timezone.now() - timedelta(hours=1)
    IssuedToken.objects.exclude(redeemed_at=None).update(redeemed_at=hour_ago)
    with pytest.raises(InvalidGrant):
        rotate_refresh_token(pair.refresh, address="192.0.2.9")
    data = told()
    assert data["kind"] == "token.replayed"
    assert data["object"] == "refresh token of alice"
    assert data["address"] == "192.0.2.9"
    assert pair.refresh not in str(data)
