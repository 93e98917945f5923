"""Static files without collectstatic."""

UNCOLLECTED = {
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
}
"""STORAGES for tests that render pages without a server."""
