"""A small shop: what an app with MCP tools looks like."""

from django.apps import AppConfig


class ProductsConfig(AppConfig):
    """EXTRA_APPS=examples.products switches it on."""

    name = "examples.products"
    label = "products"
    default_auto_field = "django.db.models.BigAutoField"
