"""Protected Resource Metadata (RFC 9728): the authorization server of this resource."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from accounts.models.roles import ACT_WITHIN_ROLES


@csrf_exempt
@require_safe
def protected_resource(request: HttpRequest) -> JsonResponse:
    """The metadata document, the same at both well-known paths."""
    return JsonResponse(
        {
            "resource": settings.RESOURCE_URL,
            "authorization_servers": [settings.ISSUER_URL],
            "scopes_supported": [ACT_WITHIN_ROLES],
            "bearer_methods_supported": ["header"],
            "resource_name": "Portico",
        },
        headers={"Cache-Control": "public, max-age=60"},
    )
