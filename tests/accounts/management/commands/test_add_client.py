"""`manage.py add_client`: what the client may do, and its secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth.hashers import check_password
from jwt.algorithms import ECAlgorithm

from accounts.models import AuditEvent, OAuthClient, User
from accounts.models.oauth import DEVICE_GRANT, PRIVATE_KEY_JWT
from tests.support.commands import new_events, refusal, run_command

pytestmark = pytest.mark.django_db
BACK = ("--redirect-uri", "https://a.example/cb")
CODE = ["authorization_code", "refresh_token"]
JWK = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())


def added(*arguments: str) -> tuple[OAuthClient, dict[str, Any]]:
    """The client, and the printed JSON."""
    printed = json.loads(run_command("add_client", "Robot", *arguments))
    return OAuthClient.objects.get(client_id=printed["client_id"]), printed


@pytest.mark.parametrize(
    ("arguments", "grants"),
    [
        (BACK, CODE),
        (["--device"], [DEVICE_GRANT, "refresh_token"]),
        (["--service-account", "alice"], ["client_credentials"]),
        (
            [*BACK, "--device", "--service-account", "alice"],
            [*CODE, DEVICE_GRANT, "refresh_token", "client_credentials"],
        ),
    ],
)
def test_a_client_gets_only_the_grants_it_was_given(
    alice: User, arguments: list[str], grants: list[str]
) -> None:
    User.objects.filter(pk=alice.pk).update(is_service_account=True)
    client, _printed = added(*arguments)
    assert client.grant_types == grants
    expected = alice if "client_credentials" in grants else None
    assert client.service_account == expected


def test_a_confidential_client_has_a_secret_that_is_printed_once() -> None:
    client, printed = added(*BACK)
    assert set(printed) == {"client_id", "client_secret"}
    assert len(printed["client_secret"]) == 64 and len(client.client_id) == 32
    assert check_password(printed["client_secret"], client.client_secret)
    assert printed["client_secret"] not in client.client_secret
    assert client.client_type == "confidential"
    assert client.token_endpoint_auth_method == "client_secret_basic"
    assert client.name == "Robot" and client.redirect_uris == BACK[1]
    assert client.authorization_grant_type == "authorization-code"


def test_a_public_client_has_no_secret() -> None:
    client, printed = added(*BACK, "--public", "--client-id", "mine")
    assert printed == {"client_id": "mine"}
    assert client.client_type == "public" and client.client_jwks == {}
    assert client.token_endpoint_auth_method == "none"


def test_a_client_with_keys_has_no_secret(tmp_path: Path) -> None:
    """RFC 7523."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [json.loads(str(JWK))]}))
    client, printed = added(*BACK, "--jwks", str(path))
    assert set(printed) == {"client_id"} and client.client_type == "confidential"
    assert client.token_endpoint_auth_method == PRIVATE_KEY_JWT
    assert [key["kty"] for key in client.client_jwks["keys"]] == ["EC"]


def test_several_redirect_uris_are_kept() -> None:
    client, _printed = added(*BACK, "--redirect-uri", "http://127.0.0.1/cb")
    assert client.redirect_uris == "https://a.example/cb http://127.0.0.1/cb"


def test_the_registration_is_recorded() -> None:
    found = new_events(lambda: added(*BACK))
    client = OAuthClient.objects.get()
    assert found == [("command line", "client.registered", f"client {client}", "")]
    event = AuditEvent.objects.get(action="client.registered")
    assert event.client_id == client.client_id
    assert event.subject == f"oauthclient:{client.pk}"


@pytest.mark.parametrize("name", ["!", "~" * 255, "a/b:c"])
def test_printable_ids_are_taken(name: str) -> None:
    """RFC 6749 A.1."""
    assert added(*BACK, "--client-id", name)[0].client_id == name


@pytest.mark.parametrize("name", ["a" * 256, "a b", "é", "a\x7f", "https://a.example"])
def test_other_ids_are_refused(name: str) -> None:
    assert "printable ASCII" in refusal("add_client", "x", *BACK, "--client-id", name)
    assert not OAuthClient.objects.exists()


def test_an_id_is_used_once() -> None:
    added(*BACK, "--client-id", "mine")
    told = refusal("add_client", "x", *BACK, "--client-id", "mine")
    assert told == "A client mine exists already."
    assert OAuthClient.objects.get().name == "Robot"


def test_grants_that_the_token_endpoint_would_refuse_are_not_registered(
    alice: User,
) -> None:
    User.objects.filter(pk=alice.pk).update(is_service_account=True)
    told = refusal("add_client", "x", "--public", "--service-account", "alice")
    assert "cannot use client_credentials" in told
    assert not OAuthClient.objects.exists()


def test_a_name_is_needed_for_a_service_account() -> None:
    """An unknown one creates nothing."""
    assert "no user x" in refusal("add_client", "x", "--service-account", "x")
    assert not OAuthClient.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([" ", *BACK], "Give the client a name; users see it."),
        (["x"], "Give a --redirect-uri, --device or --service-account."),
        (["x", *BACK, "--public", "--jwks", "f"], "A public client has no key"),
        (["x", "--redirect-uri", "http://a.example/cb"], "http://a.example/cb"),
        (["x", *BACK, "--jwks", "/no/such/file"], "/no/such/file is not a JWK Set"),
        (["x", *BACK, "--jwks", __file__], "is not a JWK Set"),
        (["x", "--service-account", "alice"], "alice is a person."),
    ],
)
def test_a_mistake_is_explained_and_adds_nothing(
    alice: User, arguments: list[str], told: str
) -> None:
    assert told in refusal("add_client", *arguments)
    assert not OAuthClient.objects.exists()
