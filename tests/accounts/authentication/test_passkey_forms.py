"""Passkeys: pages of our origin only, and a sign-in proves the person."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from allauth.core import context
from allauth.mfa.adapter import get_adapter
from allauth.mfa.webauthn.internal import auth
from cryptography.exceptions import UnsupportedAlgorithm
from django.http import HttpRequest
from django.test import RequestFactory, override_settings

from accounts.authentication import passkey_forms
from accounts.models import User
from tests.support.passkey import Passkey

# mypy sees Django's form only: allauth has no types.
FORMS: Any = passkey_forms
HOST = "portico.example"
OURS = f"https://{HOST}"
ELSEWHERE = [
    f"https://pages.{HOST}",
    f"https://{HOST}:8443",
    f"https://{HOST}.evil.example",
    f"http://{HOST}",
    "https://evil.example",
    "null",
]
"""fido2 alone takes the first two."""
SERVED = {
    "ISSUER_URL": OURS,
    "ALLOWED_HOSTS": [HOST],
    "MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN": False,
}


@pytest.fixture
def request_(db: None) -> Iterator[HttpRequest]:
    """allauth's current request, with a session, at a server behind https."""
    request = RequestFactory().get("/", secure=True, headers={"host": HOST})
    request.session = {}  # type: ignore[assignment]
    with override_settings(**SERVED), context.request_context(request):
        yield request


def challenge_of(begin: Callable[[], Any]) -> str:
    """Let allauth begin a ceremony; its challenge is in the session."""
    begin()
    return str(auth.get_state()["challenge"])


def asked(user: User | None) -> str:
    return challenge_of(lambda: auth.begin_authentication(user))


def asked_to_register(user: User) -> str:
    return challenge_of(lambda: auth.begin_registration(user, False))


@pytest.fixture
def key(alice: User, request_: HttpRequest) -> Passkey:
    """A passkey of alice's."""
    made = Passkey(HOST, OURS)
    response = made.register(asked_to_register(alice))
    auth.WebAuthn.add(alice, "key", response)
    return made


def data(response: dict[str, Any]) -> dict[str, str]:
    return {"credential": json.dumps(response), "name": "key"}


@pytest.mark.parametrize("origin", [OURS, *ELSEWHERE])
def test_a_passkey_counts_on_pages_of_our_origin_only(
    alice: User, key: Passkey, origin: str
) -> None:
    """At every form that takes one."""
    ours = origin == OURS
    for form in (FORMS.SecondStepForm, FORMS.ReauthenticateForm):
        response = key.sign(asked(alice), alice, origin=origin)
        assert form(user=alice, data=data(response)).is_valid() == ours
    response = key.sign(asked(None), alice, verified=True, origin=origin)
    assert FORMS.SignInForm(data=data(response)).is_valid() == ours
    response = Passkey(HOST, OURS).register(asked_to_register(alice), origin)
    assert FORMS.AddForm(user=alice, data=data(response)).is_valid() == ours


BEGUN: dict[str, Callable[[User, User], str]] = {
    "sign-in": lambda alice, bob: asked(None),
    "second step": lambda alice, bob: asked(alice),
    "second step of somebody else": lambda alice, bob: asked(bob),
    "registration": lambda alice, bob: asked_to_register(bob),
}
"""Which ceremony left its challenge in the session."""


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("begun", BEGUN)
def test_a_sign_in_by_passkey_proves_the_person(
    alice: User, bob: User, key: Passkey, begun: str, verified: bool
) -> None:
    """Whatever the challenge in the session asked for."""
    response = key.sign(BEGUN[begun](alice, bob), alice, verified)
    assert FORMS.SignInForm(data=data(response)).is_valid() == verified


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("x"),
        IndexError("x"),
        KeyError("x"),
        RecursionError("x"),
        TypeError("x"),
        UnsupportedAlgorithm("x"),
        ValueError("x"),
        struct.error("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_no_parser_can_read_is_a_wrong_passkey(
    alice: User, request_: HttpRequest, monkeypatch: Any, error: Exception
) -> None:
    """Anybody can post such a response; it is no error of the server."""

    def fails(*args: Any) -> Any:
        raise error

    for name in ("parse_authentication_response", "parse_registration_response"):
        monkeypatch.setattr(auth, name, fails)
    wrong = get_adapter().validation_error("incorrect_code").messages
    posted = data({"id": "x"})
    for kind in (FORMS.SecondStepForm, FORMS.ReauthenticateForm, FORMS.AddForm):
        assert list(kind(user=alice, data=posted).errors.values()) == [wrong]
    assert list(FORMS.SignInForm(data=posted).errors.values()) == [wrong]


def test_a_second_step_needs_a_touch_only(alice: User, key: Passkey) -> None:
    """The password was given before."""
    response = key.sign(asked(alice), alice)
    assert FORMS.SecondStepForm(user=alice, data=data(response)).is_valid()


def test_a_response_counts_once(alice: User, key: Passkey) -> None:
    response = key.sign(asked(None), alice, verified=True)
    assert FORMS.SignInForm(data=data(response)).is_valid()
    assert not FORMS.SignInForm(data=data(response)).is_valid()
    asked(None)
    assert not FORMS.SignInForm(data=data(response)).is_valid()


def test_a_response_is_parsed_once_here(
    alice: User, key: Passkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """allauth parses it a second time."""
    parsed: list[Any] = []
    parse = auth.parse_authentication_response

    def note(response: Any) -> Any:
        parsed.append(response)
        return parse(response)

    monkeypatch.setattr(auth, "parse_authentication_response", note)
    response = key.sign(asked(None), alice, verified=True)
    assert FORMS.SignInForm(data=data(response)).is_valid()
    assert len(parsed) == 2


def test_a_passkey_opens_the_account_it_belongs_to(
    alice: User, bob: User, key: Passkey
) -> None:
    """Neither another user's id in the response nor another key."""
    response = key.sign(asked(None), bob, verified=True)
    assert not FORMS.SignInForm(data=data(response)).is_valid()
    response = Passkey(HOST, OURS).sign(asked(None), alice, verified=True)
    assert not FORMS.SignInForm(data=data(response)).is_valid()
    response = key.sign(asked(bob), bob)
    assert not FORMS.SecondStepForm(user=bob, data=data(response)).is_valid()
