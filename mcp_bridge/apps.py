"""App configuration of the MCP server."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate


class McpBridgeConfig(AppConfig):
    """Decisions, the catalogue and the /mcp endpoint."""

    name = "mcp_bridge"
    verbose_name = "MCP"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register checks and connect the triggers to migrate; models must exist."""
        from mcp_bridge import checks  # noqa: F401
        from mcp_bridge.cache.triggers.install import install_triggers, suspend_tracking
        from mcp_bridge.upstreams.registration import checks as upstream  # noqa: F401

        pre_migrate.connect(suspend_tracking, sender=self)
        post_migrate.connect(install_triggers, sender=self)
