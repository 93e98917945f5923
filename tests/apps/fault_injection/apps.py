"""The Django app that injects them."""

from django.apps import AppConfig


class FaultsConfig(AppConfig):
    """Installed beside the shop in servers with faults."""

    name = "tests.apps.fault_injection"

    def ready(self) -> None:
        """Patch all of them; each is inactive until FAULT_FILE names it."""
        from tests.apps.fault_injection import plants

        plants.plant()
