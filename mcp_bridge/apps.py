"""The app that serves /mcp."""

from django.apps import AppConfig


class McpBridgeConfig(AppConfig):
    """The door, the decision and the catalogue."""

    name = "mcp_bridge"
    verbose_name = "MCP"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, once models exist."""
        from mcp_bridge import checks  # noqa: F401
