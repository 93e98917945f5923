"""The Django app that plants them."""

from django.apps import AppConfig


class FaultsConfig(AppConfig):
    """Installed beside the shop in servers that are to be faulty."""

    name = "tests.faults"

    def ready(self) -> None:
        """Plant all; each sleeps until FAULT_FILE names it."""
        from tests.faults import plants

        plants.plant()
