"""The ASGI application: static files, then the router to /mcp and Django."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django_application = get_asgi_application()

from django.conf import settings  # noqa: E402
from servestatic import ServeStaticASGI  # noqa: E402

from mcp_bridge.router import Router  # noqa: E402

settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
static = ServeStaticASGI(
    django_application, root=settings.STATIC_ROOT, prefix=settings.STATIC_URL
)
application = Router(static)
