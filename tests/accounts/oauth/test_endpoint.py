"""What the endpoints that clients post forms to have in common."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.urls import resolve

from accounts.models import OAuthClient
from accounts.oauth.clients.assertions import ASSERTION
from accounts.oauth.endpoint import Endpoint
from tests.support.model_rows import events_of, open_transactions
from tests.support.oauth_requests import (
    FORM,
    SECRET,
    basic,
    confidential_client,
    error_of,
    oauth_client,
    post_form,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
PATHS = ["/oauth/token", "/oauth/revoke", "/oauth/introspect", "/oauth/device"]
REVOKE = "/oauth/revoke"
REFRESH = {"grant_type": "refresh_token"}

each_path = pytest.mark.parametrize("path", PATHS)


@each_path
@pytest.mark.parametrize("method", ["get", "head", "put", "delete", "patch"])
def test_only_post_is_served(path: str, method: str) -> None:
    response = getattr(Client(), method)(path)
    assert (response.status_code, response["Allow"]) == (405, "POST, OPTIONS")


@each_path
def test_a_program_needs_no_csrf_token_and_no_cache_keeps_its_error(path: str) -> None:
    form = "grant_type=refresh_token"
    strict = Client(enforce_csrf_checks=True)
    response = strict.post(path, form, content_type=FORM)
    assert error_of(response) == (401, "invalid_client")


@each_path
def test_secrets_are_hidden_from_error_reports(path: str) -> None:
    response = post_form(path, REFRESH)
    hidden = response.wsgi_request.sensitive_post_parameters
    proofs = {"client_assertion", "client_secret", "code_verifier"}
    assert set(hidden) == proofs | {"code", "device_code", "refresh_token", "token"}


@each_path
def test_no_transaction_is_open_while_a_client_is_authenticated_or_served(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite it would block all writers; each grant opens a short one."""
    confidential_client()
    opened: list[int] = []

    def note(endpoint: Any, request: Any, *args: Any) -> Any:
        opened.append(open_transactions())
        if args:
            return HttpResponse()
        return OAuthClient.objects.get()

    monkeypatch.setattr(Endpoint, "client", note)
    view = resolve(path).func.view_class  # type: ignore[attr-defined]
    monkeypatch.setattr(view, "serve", note)
    assert post_form(path, REFRESH).status_code == 200
    assert opened == [0, 0]


@each_path
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", ""])
def test_the_body_is_a_form(path: str, kind: str) -> None:
    response = Client().post(path, b"{}", content_type=kind)
    assert error_of(response) == (400, "invalid_request")
    assert FORM in response.json()["error_description"]


@each_path
def test_parameters_in_the_url_are_refused(path: str) -> None:
    """OAuth 2.1 2.4.1: a URL is logged."""
    response = post_form(f"{path}?client_id=app", REFRESH)
    assert error_of(response) == (400, "invalid_request")
    assert "not in the URL" in response.json()["error_description"]


@each_path
@pytest.mark.parametrize(
    ("wrong", "reason"), [(["a", "b"], "more than once"), ("\x00", "NUL")], ids=str
)
def test_a_malformed_form_is_refused(path: str, wrong: Any, reason: str) -> None:
    response = post_form(path, {**REFRESH, "state": wrong})
    assert error_of(response) == (400, "invalid_request")
    assert reason in response.json()["error_description"]


TWO_METHODS: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"client_secret": SECRET}, basic("app")),
    ({"client_assertion": "a"}, basic("app")),
    ({"client_assertion": "a", "client_secret": SECRET}, {}),
    ({"client_assertion": "a", "client_secret": SECRET}, basic("app")),
]


@each_path
@pytest.mark.spec("OAuth 2.1 2.4: one way to authenticate, in the body or Basic")
@pytest.mark.parametrize(("form", "headers"), TWO_METHODS, ids=str)
def test_a_client_authenticates_in_one_way(
    path: str, form: dict[str, str], headers: dict[str, str]
) -> None:
    confidential_client()
    response = post_form(path, {**REFRESH, "client_id": "app", **form}, **headers)
    assert error_of(response) == (400, "invalid_request")
    assert "one method only" in response.json()["error_description"]
    assert not response.has_header("WWW-Authenticate")


@each_path
@pytest.mark.parametrize("header", ["Bearer x", "bearer", "Digest x", "Basicx y", ""])
def test_another_header_does_not_authenticate_a_client(path: str, header: str) -> None:
    """Some SDKs send the headers of /mcp to every endpoint."""
    confidential_client(token_endpoint_auth_method="client_secret_post")
    form = {**REFRESH, "client_id": "app", "client_secret": SECRET}
    response = post_form(path, form, HTTP_AUTHORIZATION=header)
    assert "one method" not in response.content.decode()
    assert response.status_code == post_form(path, form).status_code != 401
    form.pop("client_secret")
    alone = post_form(path, form, HTTP_AUTHORIZATION=header)
    assert error_of(alone) == (401, "invalid_client")


def revoke(form: dict[str, Any], **headers: Any) -> Any:
    return post_form(REVOKE, {"token": "unknown", **form}, **headers)


def test_an_answer_is_not_cached() -> None:
    oauth_client()
    response = revoke({"client_id": "app"})
    assert response.status_code == 200
    assert (response["Cache-Control"], response["Pragma"]) == ("no-store", "no-cache")


@pytest.mark.spec("OAuth 2.1 2.4.1: wrong secrets are invalid_client")
@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({}, {}),
        ({"client_id": "unknown"}, {}),
        ({"client_id": "app"}, {}),
        ({"client_id": "app", "client_secret": "wrong"}, {}),
        ({"client_id": "app", "client_secret": ""}, {}),
        ({"client_id": "unknown", "client_secret": SECRET}, {}),
        ({"client_id": "open", "client_secret": SECRET}, {}),
        ({}, basic("app", "wrong")),
        ({}, basic("app", "")),
        ({}, basic("unknown")),
        ({"client_id": "open"}, basic("app")),
        ({"client_id": "signer"}, {}),
        ({"client_id": "signer", "client_secret": SECRET}, {}),
        ({}, basic("signer")),
        ({"client_id": "blocked"}, {}),
        ({}, basic("blocked")),
    ],
    ids=str,
)
def test_a_client_that_does_not_authenticate_is_refused(
    form: dict[str, str], headers: dict[str, str]
) -> None:
    confidential_client()
    confidential_client("signer", token_endpoint_auth_method="private_key_jwt")
    confidential_client("blocked", blocked=True)
    oauth_client("open")
    response = revoke(form, **headers)
    assert error_of(response) == (401, "invalid_client")
    challenge = response.get("WWW-Authenticate")
    assert challenge == ('Basic realm="oauth"' if headers else None)


@pytest.mark.spec("MCP AUTH Overview 1: confidential and public clients")
@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({"client_id": "app", "client_secret": SECRET}, {}),
        ({}, basic("app")),
        ({"client_id": "app"}, basic("app")),
        ({"client_id": "open"}, {}),
        ({}, basic("open", "")),
    ],
    ids=str,
)
def test_a_client_that_authenticates_is_served(
    form: dict[str, str], headers: dict[str, str]
) -> None:
    confidential_client()
    oauth_client("open")
    assert revoke(form, **headers).status_code == 200


def test_a_public_client_that_signs_cannot_use_its_empty_secret() -> None:
    oauth_client("signer", token_endpoint_auth_method="private_key_jwt")
    assert error_of(revoke({}, **basic("signer", ""))) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("networks", "address", "served"),
    [
        ("", "192.0.2.1", True),
        ("10.0.0.0/8 192.0.2.0/24", "192.0.2.1", True),
        ("10.0.0.0/8", "192.0.2.1", False),
    ],
)
def test_a_client_is_bound_to_its_networks(
    networks: str, address: str, served: bool
) -> None:
    oauth_client(networks=networks)
    response = revoke({"client_id": "app"}, REMOTE_ADDR=address)
    assert response.status_code == (200 if served else 400)
    if not served:
        assert error_of(response) == (400, "unauthorized_client")
        assert "IP address" in response.json()["error_description"]


def test_wrong_secrets_lock_the_client_at_this_address_only(settings: Any) -> None:
    settings.LOCKOUT_AFTER = 2
    confidential_client()
    confidential_client("other")
    here = {"REMOTE_ADDR": "192.0.2.1"}
    for status in (401, 429):
        wrong = revoke({}, **basic("app", "wrong"), **here)
        assert wrong.status_code == status
    locked = revoke({}, **basic("app"), **here)
    assert (locked.status_code, locked.json()["error"]) == (429, "too_many_requests")
    assert revoke({}, **basic("other"), **here).status_code == 200
    assert revoke({}, **basic("app"), REMOTE_ADDR="192.0.2.2").status_code == 200
    assert [e.object for e in events_of("secret.refused")] == ["client App"] * 2


def test_an_empty_secret_is_no_guess() -> None:
    confidential_client()
    assert revoke({}, **basic("app", "")).status_code == 401
    assert not events_of("secret.refused")


def test_an_error_from_a_deeper_layer_is_the_endpoints_own() -> None:
    """accounts/errors.py: raised deep, turned into HTTP in one place."""
    robot = account("robot", "Guest")
    confidential_client(service_account=robot, grant_types=["client_credentials"])
    form = {"grant_type": "client_credentials", "scope": "User.Read"}
    response = post_form("/oauth/token", form, **basic("app"))
    assert error_of(response) == (400, "invalid_scope")
    assert not response.has_header("WWW-Authenticate")


@pytest.mark.spec("RFC 8707 2.2: resource within the grant")
@pytest.mark.parametrize("path", ["/oauth/device", "/oauth/token"])
def test_another_resource_is_refused(path: str) -> None:
    oauth_client()
    form = {"client_id": "app", "resource": "https://elsewhere.example/mcp"}
    form |= {"grant_type": "refresh_token", "refresh_token": "x"}
    response = post_form(path, form)
    assert error_of(response) == (400, "invalid_target")
    assert settings.RESOURCE_URL in response.json()["error_description"]


def test_another_kind_of_application_is_no_client(monkeypatch: Any) -> None:
    """The toolkit's own model could be configured."""
    from accounts.oauth.toolkit.validator import PorticoValidator

    def authenticated(self: Any, client_id: str, request: Any) -> bool:
        request.client = object()
        return True

    monkeypatch.setattr(
        PorticoValidator, "client_authentication_required", lambda *a: False
    )
    monkeypatch.setattr(PorticoValidator, "authenticate_client_id", authenticated)
    assert error_of(revoke({"client_id": "app"})) == (401, "invalid_client")


def test_assertions_are_the_type_of_rfc_7523() -> None:
    assert ASSERTION == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert OAuthClient.CLIENT_PUBLIC == "public"
