"""The ASGI application: `Application` routes to /mcp, static files and Django."""

import os
import sys
from traceback import format_exception

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from accounts.management.errors import BrokenApp, app_remedy
from config.server.workers import bound_statements, refuse_uncounted_workers
from mcp_bridge.metrics.multiprocess import prepare_folder

prepare_folder()
bound_statements()
try:
    django.setup(set_prefix=False)
    # These need the apps.
    from config.server.django_handler import ThreadHandler

    django_application = ThreadHandler()
except Exception as error:
    # An app of EXTRA_APPS; three lines instead of a long traceback.
    sys.exit(app_remedy(error) or "".join(format_exception(error)))

from django.conf import settings  # noqa: E402

from config.server.static_files import RollingStaticFiles  # noqa: E402
from config.server.tracing import traced  # noqa: E402
from mcp_bridge.application import Application  # noqa: E402
from mcp_bridge.metrics.prometheus import ENABLED, MetricsMiddleware  # noqa: E402

refuse_uncounted_workers()
settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
static = RollingStaticFiles(
    django_application, root=settings.STATIC_ROOT, prefix=settings.STATIC_URL
)
try:
    application = traced(Application(static))
except BrokenApp as error:
    sys.exit(str(error))
if ENABLED:
    application = MetricsMiddleware(application, settings.METRICS_TOKEN)
