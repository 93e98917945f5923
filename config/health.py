"""/healthz: the process answers."""

from django.http import HttpRequest, JsonResponse


def healthz(request: HttpRequest) -> JsonResponse:
    """200 as soon as requests are served; asks nothing of the database."""
    return JsonResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})
