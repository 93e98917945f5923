"""Authorization Server Metadata (RFC 8414)."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from accounts.models.oauth import DEVICE_GRANT
from accounts.models.roles import ACT_WITHIN_ROLES
from accounts.tokens.assertions import ASSERTION_ALGORITHMS

AUTH_METHODS = [
    "none",
    "client_secret_post",
    "client_secret_basic",
    "private_key_jwt",
]


def document() -> dict[str, Any]:
    """The metadata; all URLs begin with ISSUER_URL."""
    issuer = settings.ISSUER_URL
    members: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth/authorize",
        "token_endpoint": f"{issuer}/oauth/token",
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "introspection_endpoint": f"{issuer}/oauth/introspect",
        "device_authorization_endpoint": f"{issuer}/oauth/device",
        "token_endpoint_auth_signing_alg_values_supported": ASSERTION_ALGORITHMS,
        "jwks_uri": f"{issuer}/oauth/jwks.json",
        "scopes_supported": [ACT_WITHIN_ROLES],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            "client_credentials",
            DEVICE_GRANT,
        ],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": AUTH_METHODS,
        "revocation_endpoint_auth_methods_supported": AUTH_METHODS,
        "introspection_endpoint_auth_methods_supported": AUTH_METHODS[1:],
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": settings.OAUTH2_PROVIDER[
            "CIMD_ENABLED"
        ],
    }
    if settings.CLIENT_REGISTRATION != "off":
        members["registration_endpoint"] = f"{issuer}/oauth/register"
    return members


@csrf_exempt
@require_safe
def metadata(request: HttpRequest) -> JsonResponse:
    """GET /.well-known/oauth-authorization-server."""
    return JsonResponse(document(), headers={"Cache-Control": "public, max-age=60"})
