"""The guard as a Django app, for servers under test (EXTRA_APPS)."""

from django.apps import AppConfig


class GuardConfig(AppConfig):
    name = "tests.apps.wait_guard"

    def ready(self) -> None:
        """Patch after all guarded modules are imported."""
        from tests.apps.wait_guard import waits
        from tests.support import quick_hashing

        waits.plant()
        quick_hashing.plant()
