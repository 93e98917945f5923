"""The device authorization grant (RFC 8628): /oauth/device, polling and /device."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from accounts.crypto.secrets import secret_hash
from accounts.models import IssuedToken, OAuthClient, OAuthDeviceGrant, User
from accounts.models.oauth import DEVICE_GRANT
from accounts.oauth import device
from accounts.tokens.issue import lock
from tests.support.model_rows import events_of, record_locks
from tests.support.oauth_requests import (
    device_grant,
    error_of,
    oauth_client,
    post_form,
)
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
CODE = "BCDF-GHJK"
PENDING, ALLOWED, DENIED = "authorization-pending", "authorized", "denied"
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


@pytest.fixture
def user() -> User:
    return account("alice", "User")


@pytest.fixture
def client() -> OAuthClient:
    return oauth_client()


def allowed_grant(
    client: OAuthClient, user: User, /, **columns: Any
) -> tuple[OAuthDeviceGrant, str]:
    decision = {"status": ALLOWED, "user": user, "auth_digest": user.auth_digest}
    return device_grant(client, **{**decision, **columns})


def freeze(monkeypatch: Any, at: datetime) -> None:
    monkeypatch.setattr(timezone, "now", lambda: at)


# Codes


@pytest.mark.spec("RFC 8628 6.1: a user code is short, without vowels and digits")
def test_a_user_code_has_eight_of_twenty_letters() -> None:
    codes = {device.new_user_code() for _ in range(200)}
    assert len(codes) == 200
    assert all(re.fullmatch(f"[{LETTERS}]{{4}}-[{LETTERS}]{{4}}", c) for c in codes)
    assert set("".join(codes)) - {"-"} == set(LETTERS)


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("BCDF-GHJK", CODE),
        ("bcdfghjk", CODE),
        (" b c d f - g h j k ", CODE),
        ("BCDF-GHJK-LMNP", CODE),
        ("B0C1D2F-GAHEJIK", CODE),
        ("\u212aBCD", "BCD-"),
        ("", "-"),
        ("\x00\u00e9", "-"),
    ],
)
def test_a_typed_code_is_read_leniently(typed: str, code: str) -> None:
    assert device.normalize_user_code(typed) == code


# POST /oauth/device


def start(**form: Any) -> Any:
    return post_form("/oauth/device", {"client_id": "app", **form})


@pytest.mark.spec("RFC 8628 3.2")
def test_a_device_gets_two_codes(client: OAuthClient, monkeypatch: Any) -> None:
    now = timezone.now()
    freeze(monkeypatch, now)
    monkeypatch.setattr(device, "INTERVAL", 7)
    response = start(scope="User.Read mcp")
    body = response.json()
    [grant] = OAuthDeviceGrant.objects.all()
    page = f"{settings.ISSUER_URL}/device"
    raw = body.pop("device_code")
    assert response.status_code == 200 and response["Cache-Control"] == "no-store"
    assert body == {
        "user_code": grant.user_code,
        "verification_uri": page,
        "verification_uri_complete": f"{page}?user_code={grant.user_code}",
        "expires_in": 600,
        "interval": 7,
    }
    assert len(raw) == 43 and grant.device_code == secret_hash(raw)
    assert (grant.client_id, grant.scope) == ("app", "User.Read mcp")
    assert (grant.status, grant.user, grant.interval) == (PENDING, None, 7)
    assert grant.expires == now + timedelta(minutes=10)
    assert (grant.polled_at, grant.auth_digest) == (None, "")


def test_a_device_does_not_ask_for_more_than_a_token_holds(
    client: OAuthClient,
) -> None:
    response = start(scope="x" * 9_000)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_scope"
    assert "longer than" in response.json()["error_description"]


@pytest.mark.parametrize("scope", ["openid profile email", "openid mcp phone"])
def test_a_device_may_ask_for_scopes_of_openid_connect(
    client: OAuthClient, scope: str
) -> None:
    assert start(scope=scope).status_code == 200
    assert OAuthDeviceGrant.objects.get().scope == "mcp"


def test_the_default_scope_of_a_device_is_mcp(client: OAuthClient) -> None:
    assert start().status_code == 200
    assert OAuthDeviceGrant.objects.get().scope == "mcp"


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"client_id": "unknown"}, 401, "invalid_client"),
        ({"scope": "No.Such"}, 400, "invalid_scope"),
        ({"scope": "openid No.Such"}, 400, "invalid_scope"),
        ({"scope": "mcp No.Such"}, 400, "invalid_scope"),
        ({"resource": "https://elsewhere.example"}, 400, "invalid_target"),
    ],
    ids=str,
)
def test_a_wrong_device_request_stores_nothing(
    client: OAuthClient, form: dict[str, str], status: int, error: str
) -> None:
    assert error_of(start(**form)) == (status, error)
    assert not OAuthDeviceGrant.objects.exists()


def test_a_client_without_the_grant_gets_no_codes() -> None:
    oauth_client(grant_types=["authorization_code", "refresh_token"])
    assert error_of(start()) == (400, "unauthorized_client")
    assert not OAuthDeviceGrant.objects.exists()


# Polling the token endpoint


def poll(client: OAuthClient, raw: str, **headers: Any) -> Any:
    form = {"grant_type": DEVICE_GRANT, "client_id": client.client_id}
    return post_form("/oauth/token", {**form, "device_code": raw}, **headers)


@pytest.mark.spec("RFC 8628 3.5")
def test_an_allowed_device_gets_its_tokens_once(
    client: OAuthClient, user: User
) -> None:
    grant, raw = allowed_grant(client, user, scope="mcp User.Read")
    other, _ = allowed_grant(client, user, user_code="XXXX-XXXX")
    body = poll(client, raw, REMOTE_ADDR="192.0.2.7").json()
    assert body["scope"] == "mcp User.Read" and body["token_type"] == "Bearer"
    refresh = IssuedToken.objects.get(secret_hash=secret_hash(body["refresh_token"]))
    rows = IssuedToken.objects.all()
    assert {row.kind for row in rows} == {"access", "refresh"}
    assert {(row.username, row.client_id, row.issued_via) for row in rows} == {
        ("alice", "app", "device")
    }
    assert refresh.issued_to == "192.0.2.7" and refresh.scope == "mcp User.Read"
    assert OAuthClient.objects.get(pk=client.pk).last_used_at is not None
    assert [g.pk for g in OAuthDeviceGrant.objects.all()] == [other.pk]
    assert error_of(poll(client, raw)) == (400, "invalid_grant")
    assert [(e.actor, e.client_id) for e in events_of("token.issued")] == [
        ("alice", "app")
    ]


def test_another_client_cannot_redeem_a_device_code(
    client: OAuthClient, user: User
) -> None:
    other = oauth_client("other")
    grant, raw = allowed_grant(client, user)
    assert error_of(poll(other, raw)) == (400, "invalid_grant")
    grant.refresh_from_db()
    assert grant.polled_at is None and not IssuedToken.objects.exists()
    assert poll(client, raw).status_code == 200


def test_the_stored_hash_is_no_device_code(client: OAuthClient, user: User) -> None:
    grant, _raw = allowed_grant(client, user)
    assert error_of(poll(client, grant.device_code)) == (400, "invalid_grant")


@pytest.mark.spec("RFC 8628 3.5: expired_token")
@pytest.mark.parametrize("status", [PENDING, ALLOWED, DENIED])
@pytest.mark.parametrize(("seconds", "expired"), [(0, True), (1, False)])
def test_a_device_code_expires(
    client: OAuthClient,
    user: User,
    monkeypatch: Any,
    status: str,
    seconds: int,
    expired: bool,
) -> None:
    now = timezone.now().replace(microsecond=0)
    until = now + timedelta(seconds=seconds)
    _grant, raw = allowed_grant(client, user, expires=until, status=status)
    freeze(monkeypatch, now)
    response = poll(client, raw)
    assert (response.json().get("error") == "expired_token") is expired
    assert not expired or error_of(response) == (400, "expired_token")


@pytest.mark.spec("RFC 8628 3.5: access_denied")
def test_a_denied_device_code_is_refused(client: OAuthClient, user: User) -> None:
    _grant, raw = allowed_grant(client, user, status=DENIED)
    assert error_of(poll(client, raw)) == (400, "access_denied")
    assert not IssuedToken.objects.exists()


@pytest.mark.parametrize(
    "columns",
    [{"auth_digest": ""}, {"auth_digest": "0" * 64}, {"user": None}],
    ids=str,
)
def test_a_decision_without_its_account_is_refused(
    client: OAuthClient, user: User, columns: dict[str, Any]
) -> None:
    _grant, raw = allowed_grant(client, user, **columns)
    assert error_of(poll(client, raw)) == (400, "invalid_grant")
    assert not IssuedToken.objects.exists()


@pytest.mark.parametrize(
    "ended", [{"is_active": False}, {"session_epoch": 7}, {"password": "other"}]
)
def test_a_decision_of_an_account_whose_access_ended_is_refused(
    client: OAuthClient, user: User, ended: dict[str, Any]
) -> None:
    grant, raw = allowed_grant(client, user)
    User.objects.filter(pk=user.pk).update(**ended)
    assert error_of(poll(client, raw)) == (400, "invalid_grant")
    assert not IssuedToken.objects.exists()
    assert OAuthDeviceGrant.objects.filter(pk=grant.pk).exists()


def test_a_grant_that_is_revoked_while_the_account_is_locked_is_gone(
    client: OAuthClient, user: User, monkeypatch: Any
) -> None:
    _grant, raw = allowed_grant(client, user)

    def revoked_meanwhile(user_id: int, client_id: str) -> User:
        OAuthDeviceGrant.objects.all().delete()
        return lock(user_id, client_id)

    monkeypatch.setattr(device, "lock", revoked_meanwhile)
    assert error_of(poll(client, raw)) == (400, "invalid_grant")
    assert not IssuedToken.objects.exists()


def test_client_account_and_grant_are_locked(
    client: OAuthClient, user: User, monkeypatch: Any
) -> None:
    """SQLite ignores row locks, so no other test notices one that is missing."""
    _grant, raw = allowed_grant(client, user)
    locked = record_locks(monkeypatch)
    assert poll(client, raw).status_code == 200
    assert locked[:3] == ["OAuthClient", "User", "OAuthDeviceGrant"]


def test_an_approval_between_the_reads_waits_for_the_next_poll(
    client: OAuthClient, user: User, monkeypatch: Any
) -> None:
    """The account is not locked, so nothing may be issued."""
    grant, raw = device_grant(client)
    refuse = device.refuse_unapproved
    decision = {"status": ALLOWED, "user": user, "auth_digest": user.auth_digest}

    def approved_meanwhile(found: OAuthDeviceGrant) -> None:
        for name, value in decision.items():
            setattr(found, name, value)
        refuse(found)

    monkeypatch.setattr(device, "refuse_unapproved", approved_meanwhile)
    assert error_of(poll(client, raw)) == (400, "invalid_grant")
    assert not IssuedToken.objects.exists()


@pytest.mark.spec("RFC 8628 3.5: slow_down adds five seconds")
def test_polls_that_come_too_fast_wait_longer(
    client: OAuthClient, monkeypatch: Any
) -> None:
    grant, raw = device_grant(client)
    now = timezone.now().replace(microsecond=0)
    steps = [
        (0, "authorization_pending", 5),
        (5, "authorization_pending", 5),
        (4, "slow_down", 10),
        (9, "slow_down", 15),
        (15, "authorization_pending", 15),
    ]
    for seconds, error, interval in steps:
        now += timedelta(seconds=seconds)
        freeze(monkeypatch, now)
        response = poll(client, raw)
        assert error_of(response) == (400, error)
        if error == "slow_down":
            text = f"Wait {interval} seconds between polls."
            assert response.json()["error_description"] == text
        grant.refresh_from_db()
        assert (grant.interval, grant.polled_at) == (interval, now)
        assert grant.status == PENDING


# The page


def test_the_page_asks_for_the_code(user: User) -> None:
    response = browser_of(user).get("/device")
    page = response.content.decode()
    assert response.status_code == 200 and 'name="user_code"' in page
    assert 'role="alert"' not in page and "asks for access" not in page
    assert "no-store" in response["Cache-Control"]


@pytest.mark.parametrize("verified", [True, False])
def test_the_page_shows_client_scopes_and_code(user: User, verified: bool) -> None:
    source = "manual" if verified else "dcr"
    oauth_client("another", name="Another")
    client = oauth_client(name="Notes <b>", registration_source=source)
    device_grant(client, scope="mcp User.Write")
    response = browser_of(user).get("/device?user_code=bcdfghjk")
    page = response.content.decode()
    assert response.status_code == 200 and "no-store" in response["Cache-Control"]
    assert "Notes &lt;b&gt;" in page and f"<strong>{CODE}</strong>" in page
    assert "alice" in page and "(mcp)" in page and "(User.Write)" in page
    assert "Use the tools that your roles allow." in page
    assert f'name="user_code" value="{CODE}"' in page
    assert ("could not verify" not in page) is verified


def decided(client: OAuthClient, user: User) -> None:
    device_grant(client, status=ALLOWED, user=user)


def denied(client: OAuthClient, user: User) -> None:
    device_grant(client, status=DENIED)


def expired(client: OAuthClient, user: User) -> None:
    device_grant(client, expires=timezone.now())


def of_a_deleted_client(client: OAuthClient, user: User) -> None:
    device_grant(client)
    client.delete()


def without_a_client(client: OAuthClient, user: User) -> None:
    device_grant(OAuthClient(client_id="gone"))


def another(client: OAuthClient, user: User) -> None:
    device_grant(client, user_code="BCDF-GHJL")


@pytest.mark.parametrize(
    "made",
    [decided, denied, expired, of_a_deleted_client, without_a_client, another],
)
def test_a_code_that_is_not_pending_is_unknown(
    client: OAuthClient, user: User, made: Any
) -> None:
    made(client, user)
    response = browser_of(user).get(f"/device?user_code={CODE}")
    page = response.content.decode()
    assert response.status_code == 400 and "No device uses this code" in page
    assert f'value="{CODE}"' in page, "to be corrected, not typed again"


@pytest.mark.parametrize("made", [decided, denied, expired, another])
def test_a_code_that_is_not_pending_cannot_be_decided(
    client: OAuthClient, user: User, made: Any
) -> None:
    made(client, user)
    before = OAuthDeviceGrant.objects.values().get()
    response = decide(browser_of(user), "allow")
    assert response.status_code == 400
    assert f'value="{CODE}"' in response.content.decode()
    assert OAuthDeviceGrant.objects.values().get() == before
    assert not events_of("consent.given") and not events_of("consent.denied")


def test_a_code_is_unknown_when_its_time_ends(
    client: OAuthClient, user: User, monkeypatch: Any
) -> None:
    now, browser = timezone.now(), browser_of(user)
    device_grant(client, expires=now)
    for seconds, status in ((1, 200), (0, 400)):
        freeze(monkeypatch, now - timedelta(seconds=seconds))
        assert browser.get(f"/device?user_code={CODE}").status_code == status


def decide(browser: Client, decision: str, code: str = CODE) -> Any:
    return browser.post("/device", {"user_code": code, "decision": decision})


@pytest.mark.spec("RFC 8628 3.3")
def test_a_user_allows_a_device(client: OAuthClient, user: User) -> None:
    grant, _raw = device_grant(client, scope="mcp Admin.Write User.Read")
    other, _ = device_grant(client, user_code="XXXX-XXXX")
    response = decide(browser_of(user), "allow", "bcdf ghjk")
    assert response.status_code == 200
    assert "continues by itself" in response.content.decode()
    grant.refresh_from_db()
    assert (grant.status, grant.user) == (ALLOWED, user)
    assert grant.auth_digest == user.auth_digest
    assert grant.scope == "mcp User.Read", "no more than the roles give"
    other.refresh_from_db()
    assert (other.status, other.user) == (PENDING, None)
    [event] = events_of("consent.given")
    assert (event.actor, event.actor_id) == ("alice", user.pk)
    assert (event.object, event.client_id) == ("device of client App", "app")
    assert (event.via, event.address) == ("mcp User.Read", "127.0.0.1")
    assert event.subject == f"user:{user.pk}", "the history of the user shows it"
    assert not events_of("consent.denied")


@pytest.mark.spec("RFC 8628 3.3")
@pytest.mark.parametrize("decision", ["deny", "", "ALLOW", "allowed"])
def test_any_other_decision_denies(
    client: OAuthClient, user: User, decision: str
) -> None:
    grant, _raw = device_grant(client)
    response = decide(browser_of(user), decision)
    assert response.status_code == 200
    assert "gets no access" in response.content.decode()
    grant.refresh_from_db()
    assert (grant.status, grant.user) == (DENIED, user)
    [event] = events_of("consent.denied")
    assert (event.actor, event.object) == ("alice", "device of client App")
    assert (event.client_id, event.via) == ("app", "mcp")
    assert not events_of("consent.given")


def test_a_device_whose_scopes_no_role_gives_is_denied(
    client: OAuthClient, user: User
) -> None:
    grant, _raw = device_grant(client, scope="Admin.Write")
    response = decide(browser_of(user), "allow")
    assert "gets no access" in response.content.decode()
    grant.refresh_from_db()
    assert (grant.status, grant.scope) == (DENIED, "")
    assert len(events_of("consent.denied")) == 1 and not events_of("consent.given")


def test_a_code_decided_twice_at_once_is_decided_once(
    client: OAuthClient, user: User, monkeypatch: Any
) -> None:
    """The second decision read the grant before the first was stored."""
    grant, _raw = device_grant(client)
    stale = OAuthDeviceGrant.objects.get(pk=grant.pk)
    monkeypatch.setattr(device.DevicePage, "find_grant", lambda self, code: stale)
    bob = account("bob", "Guest")
    assert decide(browser_of(bob), "deny").status_code == 200
    late = decide(browser_of(user), "allow")
    assert late.status_code == 400
    assert "No device uses this code" in late.content.decode()
    grant.refresh_from_db()
    assert (grant.status, grant.user) == (DENIED, bob)
    assert len(events_of("consent.denied")) == 1 and not events_of("consent.given")


def test_long_names_fit_into_the_record(user: User) -> None:
    client = oauth_client("c" * 255)
    names = [f"Scope.{n}{'x' * 60}" for n in range(6)]
    from accounts.models import Role, Scope

    role = Role.objects.get(name="User")
    role.scopes.set([Scope.objects.create(name=name) for name in names])
    device_grant(client, scope=" ".join(names))
    assert decide(browser_of(user), "allow").status_code == 200
    [event] = events_of("consent.given")
    assert event.object == f"device of client {client.name}"[:255]
    assert event.via == " ".join(names)[:255]


def test_wrong_codes_lock_this_user_out_of_the_page_only(
    client: OAuthClient, settings: Any
) -> None:
    settings.LOCKOUT_AFTER = 2
    users = [account(name, "User") for name in ("alice", "bob")]
    device_grant(client)
    alice, bob = (browser_of(one) for one in users)
    statuses = [alice.get("/device?user_code=ZZZZ-ZZZZ").status_code for _ in "123"]
    assert statuses == [400, 429, 429]
    assert decide(alice, "allow").status_code == 429
    assert alice.get("/device").status_code == 200
    assert bob.get(f"/device?user_code={CODE}").status_code == 200
    assert OAuthDeviceGrant.objects.get().status == PENDING
    assert {e.object for e in events_of("secret.refused")} == {"device codes of alice"}


def test_wrong_codes_of_a_decision_count_too(
    client: OAuthClient, user: User, settings: Any
) -> None:
    settings.LOCKOUT_AFTER = 2
    browser = browser_of(user)
    statuses = [decide(browser, "allow", "ZZZZ-ZZZZ").status_code for _ in "123"]
    assert statuses == [400, 429, 429]


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_page_requires_sign_in(client: OAuthClient, method: str) -> None:
    grant, _raw = device_grant(client)
    data = {"user_code": CODE, "decision": "allow"}
    response = getattr(Client(), method)("/device", data)
    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/?next=/device")
    grant.refresh_from_db()
    assert grant.status == PENDING


def test_a_decision_needs_the_forms_csrf_token(client: OAuthClient, user: User) -> None:
    grant, _raw = device_grant(client)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(user)
    assert decide(strict, "allow").status_code == 403
    grant.refresh_from_db()
    assert grant.status == PENDING


@pytest.mark.parametrize("method", ["head", "put", "delete"])
def test_other_methods_do_not_test_codes(user: User, method: str) -> None:
    """Django answers HEAD with `get`."""
    response = getattr(browser_of(user), method)(f"/device?user_code={CODE}")
    assert (response.status_code, response["Allow"]) == (405, "GET, POST, OPTIONS")
