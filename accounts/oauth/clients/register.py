"""Dynamic client registration (RFC 7591).

A client can register for the code, refresh and device grants only. Other requested
metadata is omitted or refused.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from accounts.audit.record import record
from accounts.authentication.lockout import REGISTRATION_PREFIX, limit_attempts
from accounts.errors import InvalidClientMetadata, InvalidRedirectURI
from accounts.http.responses import error_body
from accounts.models import OAuthClient, Scope
from accounts.models.oauth import DEVICE_GRANT
from accounts.oauth.redirect_uris import validate_redirect_uri
from accounts.parsing.text import one_line

MAX_BODY = 16_384
MAX_URIS = 10
REGISTRABLE_AUTH_METHODS = ("none", "client_secret_basic", "client_secret_post")
REGISTRABLE_GRANTS = ("authorization_code", "refresh_token", DEVICE_GRANT)
ECHOED_MEMBERS = (
    "application_type",
    "client_uri",
    "logo_uri",
    "policy_uri",
    "software_id",
    "software_version",
    "tos_uri",
)


def client_columns(
    data: dict[str, Any],
    methods: Sequence[str] = REGISTRABLE_AUTH_METHODS,
    jwks: dict[str, Any] | None = None,
    jwks_uri: str = "",
) -> dict[str, Any]:
    """Columns of the client that `data` describes. Raises InvalidClientMetadata.

    `jwks` are its public keys and `jwks_uri` is their URL, checked before.
    """
    method = data.get("token_endpoint_auth_method") or "client_secret_basic"
    if method not in methods:
        known = ", ".join(methods)
        raise InvalidClientMetadata(f"token_endpoint_auth_method is one of {known}.")
    name = data.get("client_name") or ""
    if not isinstance(name, str) or len(name) > 255:
        raise InvalidClientMetadata("client_name is a text of at most 255 characters.")
    public = method == "none"
    columns: dict[str, Any] = {
        "name": one_line(name),
        "redirect_uris": " ".join(validated_redirect_uris(data.get("redirect_uris"))),
        "token_endpoint_auth_method": method,
        "client_type": "public" if public else "confidential",
        "authorization_grant_type": OAuthClient.GRANT_AUTHORIZATION_CODE,
        "grant_types": grant_types(data),
    }
    if jwks is not None:
        columns["client_jwks"] = jwks
        columns["registered"] = {"jwks_uri": jwks_uri} if jwks_uri else {}
    problems = OAuthClient(**columns).problems()
    if problems:
        raise InvalidClientMetadata(" ".join(map(str, problems.values())))
    return columns


def validated_redirect_uris(uris: Any) -> list[str]:
    """The redirect URIs without duplicates. Raises InvalidClientMetadata."""
    if not isinstance(uris, list) or not 0 < len(uris) <= MAX_URIS:
        text = f"redirect_uris is a list of 1 to {MAX_URIS} URIs."
        raise InvalidClientMetadata(text, "invalid_redirect_uri")
    try:
        return list(dict.fromkeys(validate_redirect_uri(uri) for uri in uris))
    except InvalidRedirectURI as error:
        raise InvalidClientMetadata(str(error), "invalid_redirect_uri") from error


def grant_types(data: dict[str, Any]) -> list[str]:
    """The requested grant types that are registrable. Raises InvalidClientMetadata."""
    requested = data.get("grant_types") or ["authorization_code"]
    response_types = data.get("response_types") or ["code"]
    if not isinstance(requested, list) or not isinstance(response_types, list):
        raise InvalidClientMetadata("grant_types and response_types are lists.")
    if "authorization_code" not in requested or "code" not in response_types:
        raise InvalidClientMetadata("Clients register for authorization_code and code.")
    return [grant for grant in REGISTRABLE_GRANTS if grant in requested]


def registration_response(client: OAuthClient, secret: str) -> dict[str, Any]:
    """All registered metadata, without null members (RFC 7591 3.2.1)."""
    response: dict[str, Any] = {
        "client_id": client.client_id,
        "client_id_issued_at": int(time.time()),
        "redirect_uris": client.redirect_uris.split(),
        "grant_types": client.grant_types,
        "response_types": ["code"],
        "token_endpoint_auth_method": client.token_endpoint_auth_method,
        **client.registered,
    }
    if client.name:
        response["client_name"] = client.name
    if secret:
        response |= {"client_secret": secret, "client_secret_expires_at": 0}
    return response


def echoed_metadata(data: dict[str, Any]) -> dict[str, Any]:
    """Metadata to store and return unchanged; Portico does not use it."""
    texts = {
        n: data[n] for n in ECHOED_MEMBERS if isinstance(data.get(n), str) and data[n]
    }
    texts |= registered_scope(data.get("scope"))
    contacts = data.get("contacts")
    if isinstance(contacts, list) and all(isinstance(c, str) for c in contacts):
        return {**texts, "contacts": contacts}
    return texts


def registered_scope(requested: Any) -> dict[str, str]:
    """`scope` with those of the requested names that exist; empty if none does.

    It limits nothing: the user's roles and consent do.
    """
    names = requested.split() if isinstance(requested, str) else []
    known = set(Scope.objects.filter(name__in=names).values_list("name", flat=True))
    scope = " ".join(name for name in dict.fromkeys(names) if name in known)
    return {"scope": scope} if scope else {}


def register(data: dict[str, Any]) -> tuple[OAuthClient, str]:
    """Create a client; returns it with its secret, which is empty if it is public.

    Raises InvalidClientMetadata.
    """
    columns = client_columns(data)
    secret = "" if columns["client_type"] == "public" else secrets.token_urlsafe(48)
    client = OAuthClient(
        client_id=secrets.token_hex(16),
        client_secret=secret,
        registration_source=OAuthClient.RegistrationSource.DCR,
        registered=echoed_metadata(data),
        **columns,
    )
    client.save()
    return client, secret


def is_registration_token(request: HttpRequest, raw: str) -> bool:
    """Whether `raw` is REGISTRATION_TOKEN; counts wrong ones. Raises RateLimited."""
    expected = settings.REGISTRATION_TOKEN.encode()
    sent = raw.encode(errors="replace")
    return limit_attempts(
        request, REGISTRATION_PREFIX, lambda: hmac.compare_digest(sent, expected)
    )


def check_registration_allowed(request: HttpRequest) -> JsonResponse | None:
    """The error response if registration is off or needs a token, else None."""
    if settings.CLIENT_REGISTRATION == "open":
        return None
    if settings.CLIENT_REGISTRATION == "off":
        text = "Registration is off; ask the administrator."
        return JsonResponse(error_body("access_denied", text), status=403)
    scheme, _, raw = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and is_registration_token(request, raw):
        return None
    text = "Registration needs an initial access token."
    response = JsonResponse(error_body("invalid_token", text), status=401)
    response["WWW-Authenticate"] = "Bearer"
    return response


@method_decorator(csrf_exempt, name="dispatch")
class RegisterView(View):
    """POST /oauth/register."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> JsonResponse:
        """201 with the client's metadata, or an error of RFC 7591 3.2.2."""
        refused = check_registration_allowed(request)
        if refused is not None:
            return refused
        try:
            client, secret = register(self.document(request))
        except InvalidClientMetadata as error:
            body = {"error": error.error, "error_description": str(error)}
            return JsonResponse(body, status=400, headers={"Cache-Control": "no-store"})
        record(
            "client.registered",
            request=request,
            object=f"client {client}",
            subject=client,
            client_id=client.client_id,
        )
        headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
        return JsonResponse(
            registration_response(client, secret), status=201, headers=headers
        )

    def document(self, request: HttpRequest) -> dict[str, Any]:
        """The JSON body. Raises InvalidClientMetadata."""
        if len(request.body) > MAX_BODY:
            raise InvalidClientMetadata(
                f"The document is larger than {MAX_BODY} bytes."
            )
        try:
            data = json.loads(request.body)
        except (ValueError, RecursionError) as error:
            raise InvalidClientMetadata("The body is not JSON.") from error
        if not isinstance(data, dict) or not is_storable(data):
            raise InvalidClientMetadata("The body is a JSON object of plain text.")
        return data


def is_storable(data: dict[str, Any]) -> bool:
    """Whether a database can store it: it has no NUL and no lone surrogate."""
    try:
        return b"\\u0000" not in json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
