"""Static files as they are before anybody collected them."""

UNCOLLECTED = {
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
}
"""STORAGES for tests that render pages without a server."""
