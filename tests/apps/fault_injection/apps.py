"""The Django app that plants them."""

from django.apps import AppConfig


class FaultsConfig(AppConfig):
    """Installed beside the shop in servers that are to be faulty."""

    name = "tests.apps.fault_injection"

    def ready(self) -> None:
        """Plant all; each sleeps until FAULT_FILE names it."""
        from tests.apps.fault_injection import plants

        plants.plant()
