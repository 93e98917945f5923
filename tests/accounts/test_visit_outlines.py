"""What people see who sign in, allow an app or a device, and use the portal.

After an intended change, write the files again and read the difference:
`NEW_OUTLINES=1 .venv/bin/python -m pytest tests/accounts/test_visit_outlines.py`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from django.core import mail
from django.test import Client
from django.utils import timezone

from accounts.authorization.invitations import invite
from accounts.models import (
    AccessRequest,
    AuditEvent,
    IssuedToken,
    Role,
    RoleAssignment,
    SignInProvider,
    User,
)
from mcp_bridge.models import ArgumentRule, Offer, Primitive
from tests.support.answer_outline import answer_outline, newest_event
from tests.support.model_rows import consent_row, past, soon, token_row
from tests.support.oauth_requests import APP_BACK, device_grant, oauth_client
from tests.support.outlines import compare
from tests.support.server import LIMITS
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = [pytest.mark.django_db, pytest.mark.once]
OUTLINES = Path(__file__).parent / "outlines"
GOOD = "a long enough phrase 7"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
Visit = Iterator[tuple[str, Any]]
"""(what is done, the answer)."""


@pytest.fixture(autouse=True)
def cheap(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    settings.EMAIL_HOST = "mail.example"
    for limit in LIMITS:
        setattr(settings, limit, "off")


@pytest.fixture
def alice() -> User:
    user = account("alice", "User", email="alice@example.com")
    user.set_password(GOOD)
    user.save()
    return user


STRANGE = (
    "/nothing/",
    "/accounts/inactive/",
    "/accounts/invitation/",
    "/accounts/social/login/cancelled/",
    "/accounts/social/login/error/",
    "/accounts/password/reset/",
    "/accounts/password/reset/done/",
    "/accounts/password/reset/key/1-x/",
    "/accounts/password/reset/key/done/",
    "/oauth/authorize",
    "/device",
)


def stranger() -> Visit:
    browser = Client()
    SignInProvider.objects.create(slug="corp", name="Corp", issuer="https://c.example")
    yield "the form", browser.get("/accounts/login/?next=/portal/apps/")
    wrong = {"login": "alice", "password": "wrong", "next": "/portal/apps/"}
    yield "a wrong password", browser.post("/accounts/login/", wrong)
    for path in STRANGE:
        yield path, browser.get(path)
    yield (
        "another host",
        browser.get("/accounts/login/", headers={"host": "evil.example"}),
    )
    strict = Client(enforce_csrf_checks=True)
    yield "no token", strict.post("/accounts/login/", wrong)
    yield "a wrong method", browser.put("/portal/")


def password_reset() -> Visit:
    browser = Client()
    sent = {"email": "alice@example.com"}
    yield "asked", browser.post("/accounts/password/reset/", sent)
    browser.post("/accounts/password/reset/", sent)
    (message,) = mail.outbox
    found = re.search(r"/accounts/password/reset/key/\S+", str(message.body))
    assert found
    page = browser.get(found[0], follow=True)
    yield "the link", page
    path = page.request["PATH_INFO"]
    yield "bad", browser.post(path, {"password1": "short", "password2": "other"})
    yield "good", browser.post(path, {"password1": GOOD, "password2": GOOD})
    yield "used", Client().get(found[0], follow=True)


def second_step() -> Visit:
    TOTP.activate(
        User.objects.get(username="alice"), "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    )
    browser = Client()
    sent = {"login": "alice", "password": GOOD}
    yield "the password", browser.post("/accounts/login/", sent)
    yield "the form", browser.get("/accounts/2fa/authenticate/")
    yield "wrong", browser.post("/accounts/2fa/authenticate/", {"code": "1"})


def invitation() -> Visit:
    root = account("root", is_superuser=True, is_staff=True)
    raw = invite(User(username="dana", email="d@example.com"), [], None, actor=root)[1]
    path, browser = "/accounts/invitation/", Client()
    other = browser_of(User.objects.get(username="alice"))
    for name, client in (("new", browser), ("somebody else", other)):
        yield f"{name}: the link", client.get(f"{path}{raw}/")
        yield f"{name}: the page", client.get(path)
    yield "bad", browser.post(path, {"password1": "short", "password2": "other"})
    yield "good", browser.post(path, {"password1": GOOD, "password2": GOOD})
    yield "used", Client().get(f"{path}{raw}/")


def authorize(client_id: str, **changed: str) -> str:
    known = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": APP_BACK,
        "state": "xyz",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "scope": "mcp User.Read",
    }
    return f"/oauth/authorize?{urlencode({**known, **changed})}"


def consent() -> Visit:
    local = "http://127.0.0.1:43117/callback"
    oauth_client("known", approved=True)
    oauth_client("new", registration_source="dcr", name="", redirect_uris=local)
    oauth_client("out", blocked=True)
    browser = browser_of(User.objects.get(username="alice"))
    for name, path in {
        "verified": authorize("known"),
        "local": authorize("new", redirect_uri=local),
        "blocked": authorize("out"),
        "unknown": authorize("nobody"),
        "another address": authorize("known", redirect_uri="https://e.example/"),
        "no such scope": authorize("known", scope="Nothing"),
        "no challenge": authorize("known", code_challenge=""),
        "another resource": authorize("known", resource="https://e.example/mcp"),
    }.items():
        yield name, browser.get(path)
    for decision in ("deny", "allow", "allow"):
        yield decision, browser.post(authorize("known"), {"decision": decision})
    yield "again", browser.get(authorize("known"))


def device() -> Visit:
    browser = browser_of(User.objects.get(username="alice"))
    client = oauth_client("box", registration_source="dcr")
    known = oauth_client("known", approved=True)
    yield "the form", browser.get("/device")
    yield "wrong", browser.get("/device?user_code=BBBB-BBBB")
    for one, code, decision in (
        (client, "BCDF-GHJK", "deny"),
        (known, "BCDF-GHJL", "allow"),
        (client, "BCDF-GHJM", ""),
    ):
        device_grant(one, user_code=code)
        sent = {"user_code": code, "decision": decision}
        yield f"{one.name}: page", browser.get(f"/device?user_code={code}")
        yield f"{one.name}: {decision}", browser.post("/device", sent)
        yield f"{one.name}: again", browser.post("/device", sent)


def rows_of_alice() -> None:
    """In each state that a page of the portal tells apart."""
    alice = User.objects.get(username="alice")
    given: dict[str, dict[str, Any]] = {
        "Guest": {"expires_at": soon(), "reason": "on call"},
        "Admin": {"expires_at": past(), "granted_by": alice},
    }
    for name, columns in given.items():
        RoleAssignment.objects.create(
            user=alice, role=Role.objects.get(name=name), **columns
        )
    requests_of(alice)
    tokens_of(alice)
    RecoveryCodes.activate(alice)
    for kind in ("totp", "webauthn"):
        Authenticator.objects.create(user=alice, type=kind, data={"name": "my key"})
    browser_of(alice)


def requests_of(alice: User) -> None:
    asked: dict[str, dict[str, Any]] = {
        "open": {"until": soon()},
        "approved": {"given_until": soon(), "answer": "for a week"},
        "declined": {"answer": "not you"},
    }
    for state, columns in asked.items():
        AccessRequest.objects.create(
            user=alice,
            role=Role.objects.get(name="Admin"),
            reason="work",
            state=state,
            **columns,
        )
    AccessRequest.objects.create(
        user=alice, role=Role.objects.get(name="Guest"), reason="x", state="approved"
    )


def tokens_of(alice: User) -> None:
    known = oauth_client("known", approved=True)
    own = oauth_client("new", registration_source="dcr", name="<b>New</b>")
    for client in (known, own):
        consent_row(alice, client, scope="mcp User.Read")
    token_row(
        alice, client_id="known", issued_via="authorization_code", last_used_at=past()
    )
    used = {"last_used_at": past(), "last_used_from": "192.0.2.9"}
    given: dict[str, dict[str, Any]] = {
        "used": {"networks": "192.0.2.0/24", **used},
        "new": {"scope": "User.Read"},
        "old": {"expires_at": past()},
        "lost": {},
    }
    for name, columns in given.items():
        token_row(alice, kind="personal", issued_via="portal", name=name, **columns)
    IssuedToken.objects.filter(name="lost").revoke(actor="alice", reason="lost")


MEMBERS = {
    "amount": {"type": "integer", "description": "In <euros>.", "default": 5},
    "fast": {"type": "boolean", "default": False},
    "slow": {"type": "boolean", "default": True},
    "kind": {"enum": ["a", "b"], "default": "b"},
    "more": {"type": "object"},
    "note": {"type": "string", "default": "x"},
}
SCHEMA = {"type": "object", "properties": MEMBERS, "required": ["amount", "more"]}
TEXT = "Give <b>back</b>."
REFUND = {"name": "refund", "description": TEXT, "inputSchema": SCHEMA}
OWN = ("User.Read",)
OFFERS = [
    Offer("tool", "refund", "Refund", TEXT, OWN, True, "1", REFUND),
    Offer("tool", "plain", "", "", OWN, False, "2", {"name": "plain"}),
    Offer("prompt", "greet", "", "Greets.", OWN, False, "3", {"name": "greet"}),
]


def tools_of_alice() -> None:
    """Two tools, one of them sensitive and with limits, a prompt and denials."""
    Primitive.objects.all().delete()
    Primitive.objects.sync(OFFERS)
    Primitive.objects.filter(name="plain").update(calls_refused=True)
    refund = Primitive.objects.get(name="refund")
    ArgumentRule.objects.create(
        primitive=refund, pointer="/note", operator="one_of", value=["x", "y"]
    )
    alice = User.objects.get(username="alice")
    for reason in ("missing_scope", "argument", "expired"):
        denied = {"decision": "denied", "reason": reason, "object": "tool pay"}
        AuditEvent(action="tool.called", **denied).acted_by(alice).save()


PATHS = (
    "/portal/",
    "/portal/connect/",
    "/portal/connect/?client=cursor",
    "/portal/access/",
    "/portal/apps/",
    "/portal/tokens/",
    "/portal/security/",
    "/portal/tools/?name=refund",
    "/portal/tools/?name=plain",
    "/accounts/logout/",
    "/accounts/password/change/",
    "/accounts/social/",
    "/accounts/2fa/recovery-codes/",
    "/accounts/2fa/recovery-codes/generate/",
    "/accounts/2fa/totp/deactivate/",
    "/accounts/reauthenticate/",
    "/api/docs/",
)


def portal() -> Visit:
    nobody = browser_of(account("newcomer"))
    for path in PATHS:
        yield f"{path} without rows", nobody.get(path)
    rows_of_alice()
    tools_of_alice()
    browser = browser_of(User.objects.get(username="alice"))
    for path in PATHS:
        yield path, browser.get(path)
    key = Authenticator.objects.get(type="webauthn").pk
    for verb in ("edit", "remove"):
        yield verb, browser.get(f"/accounts/2fa/webauthn/keys/{key}/{verb}/")


def portal_forms() -> Visit:
    rows_of_alice()
    alice = User.objects.get(username="alice")
    browser = browser_of(alice)
    role, asked = (
        Role.objects.create(name="X").pk,
        AccessRequest.objects.get(state="open"),
    )
    token = IssuedToken.objects.get(name="used")
    until = (timezone.localdate() + timedelta(days=9)).isoformat()
    for path, sent in (
        ("tokens", {"name": "", "days": "0"}),
        ("tokens", {"name": "laptop", "days": "30", "scopes": ["mcp"]}),
        ("tokens", {"revoke": token.jti}),
        ("access", {"role": role, "reason": ""}),
        ("access", {"role": role, "reason": "work", "until": until}),
        ("access", {"role": role, "reason": "work"}),
        ("access", {"withdraw": asked.pk}),
        ("apps", {"revoke": alice.consents.all()[0].pk}),
        ("security", {"end": alice.usersession_set.order_by("pk")[0].pk}),
        ("security", {"everywhere": "1"}),
    ):
        yield f"{path}: {' '.join(sent)}", browser.post(f"/portal/{path}/", sent)


VISITS: tuple[Callable[[], Visit], ...] = (
    stranger,
    password_reset,
    second_step,
    invitation,
    consent,
    device,
    portal,
    portal_forms,
)


@pytest.mark.parametrize("visit", VISITS, ids=lambda one: one.__name__)
def test_people_see_what_they_saw(alice: User, visit: Callable[[], Visit]) -> None:
    parts, last = list[str](), newest_event()
    for name, answer in visit():
        parts.append(f"# {name}\n{answer_outline(answer, last)}")
        last = newest_event()
    compare({f"{visit.__name__}.txt": "\n".join(parts)}, OUTLINES / visit.__name__)
