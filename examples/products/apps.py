"""A small shop: what an app with MCP tools looks like."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ProductsConfig(AppConfig):
    """EXTRA_APPS=examples.products switches it on."""

    name = "examples.products"
    label = "products"
    verbose_name = _("Products")
    default_auto_field = "django.db.models.BigAutoField"
