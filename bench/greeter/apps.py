from django.apps import AppConfig


class GreeterConfig(AppConfig):
    """No models; `mcp_tools.py` is found by autodiscovery."""

    name = "bench.greeter"
